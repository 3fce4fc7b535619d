r"""What the features of a run look like: pictures in the folder `figures` of the run.

* `map.png`: the images of a set as points, coloured by class (t-SNE of the features,
  https://www.jmlr.org/papers/v9/vandermaaten08a.html).
* `neighbours.png`: the two images of some training pairs, each with those nearest to it.
* `filters.png`: the kernels of the first layer.
* `attention.png`, of vision transformers: where the class token of each head looks
  (https://arxiv.org/abs/2104.14294).

  python -m eval.figures --checkpoint=RUN --dataset=emoji --split=probe_test

`eval.report` shows them beside the runs' numbers.
"""

import json
import pathlib

import numpy as np
from absl import flags

import sp_jax
from eval import pictures, sheets
from eval.features import Extractor
from eval.results import run_folder
from input_pipeline import cli, pairs
from input_pipeline.errors import UserError
from input_pipeline.store import ImageStore, open_data, open_store
from sp_jax import xla_flags
from sp_jax.backbone import Backbone

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Run folder or checkpoint.", required=True
)
_DATASET = flags.DEFINE_string("dataset", "emoji", "Image store of map and attention.")
_SPLIT = flags.DEFINE_string("split", "probe_test", "Its split.")
_TARGET = flags.DEFINE_string(
    "target", "category", 'What colours the points: "label" or an attribute.'
)
_POINTS = flags.DEFINE_integer("points", 2000, "Images of the map, at most.")


def draw(
    backbone: Backbone,
    store: ImageStore,
    target: str,
    out: pathlib.Path,
    *,
    run: pathlib.Path | None = None,
    points: int = 2000,
) -> list[pathlib.Path]:
    """Draw what can be drawn of a backbone.

    Args:
      backbone: the network.
      store: images of the map and of the attention.
      target: what colours the points, "label" or an attribute.
      out: folder of the pictures.
      run: folder with `config.json` and `pairs.csv`, for the neighbours of pairs; None
        leaves these out.
      points: images of the map, at most.

    Returns:
      The pictures that were written.
    """
    values, names = store.target(target)
    extractor = Extractor(backbone)
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(store))[:points]
    title = f"{store.name} {store.split}, {len(rows):,} images by {target}"
    places = sheets.map_points(extractor.extract(store)[rows], seed=0)
    figures = {
        "map": sheets.draw_map(places, values[rows], names, title),
        "filters": sheets.draw_filters(sheets.first_kernels(backbone)),
    }
    if hasattr(backbone.module, "heads"):
        images = store.read(np.sort(rows[:10]))
        maps = sheets.attention(backbone, images)
        figures["attention"] = sheets.draw_attention(images, maps)
    if run is not None:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        shown = open_data(config["data"])
        table = pairs.load_table(run / "pairs.csv", shown)
        features = extractor.extract(shown)
        figures["neighbours"] = sheets.draw_neighbours(features, shown, table)
    paths = [out / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        pictures.save_figure(figure, path)
    return paths


def main() -> None:
    """Draw the pictures of the flags."""
    if _POINTS.value < 10:
        raise UserError(f"A map needs at least 10 points, not {_POINTS.value}.")
    backbone = sp_jax.load(_CHECKPOINT.value)
    data = backbone.info.get("config", {}).get("data", {})
    prepared = {name: data[name] for name in ("image_size", "resize") if name in data}
    store = open_store(_DATASET.value, _SPLIT.value, **prepared)
    run = run_folder(_CHECKPOINT.value)
    has_pairs = (run / "pairs.csv").is_file() and (run / "config.json").is_file()
    for path in draw(
        backbone,
        store,
        _TARGET.value,
        run / "figures",
        run=run if has_pairs else None,
        points=_POINTS.value,
    ):
        print(path)


if __name__ == "__main__":
    xla_flags.set_cpu_flags()
    cli.run(main)
