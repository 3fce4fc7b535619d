r"""Pictures of the features of a run, in its folder `figures`.

* `map.png`: the images of a set as points, coloured by class (t-SNE of the features,
  https://www.jmlr.org/papers/v9/vandermaaten08a.html).
* `neighbours.png`: the two images of some training pairs, each with those nearest to it.
* `filters.png`: the kernels of the first layer.
* `attention.png`, of vision transformers: where the class token of each head looks
  (https://arxiv.org/abs/2104.14294).

  python -m eval.figures --checkpoint=RUN --dataset=emoji --split=probe_test

`eval.report` shows them beside the runs' numbers.
"""

import pathlib

import numpy as np
from absl import flags

import sp_jax
from eval import cli
from eval.compare.runs import read_config
from eval.plots import backbone as plots
from eval.plots.figure import save_figure
from eval.results import run_folder
from input_pipeline import pairs
from input_pipeline.stores import ImageStore, open_data, open_store
from sp_jax import cli as programs
from sp_jax import xla_flags
from sp_jax.errors import UserError
from sp_jax.features import Extractor

TITLES = {
    "map": "The features as a map",
    "neighbours": "Some pairs, and the nearest neighbours of their images",
    "attention": "Attention of the heads in the last block",
    "filters": "The first layer",
}


def draw(
    extractor: Extractor,
    store: ImageStore,
    target: str,
    out: pathlib.Path,
    *,
    run: pathlib.Path | None = None,
    points: int = 2000,
) -> list[pathlib.Path]:
    """Draw all possible pictures of a backbone into `out`; returns their paths.

    `points` images of the store are in the map, coloured by the target, and some in the
    attention. The neighbours of pairs need a run with `config.json` and `pairs.csv`.
    """
    values, names = store.target(target)
    backbone = extractor.backbone
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(store))[:points]
    title = f"{store.name} {store.split}, {len(rows):,} images by {target}"
    places = plots.map_points(extractor.extract(store)[rows], seed=0)
    figures = {"map": plots.draw_map(places, values[rows], names, title)}
    if backbone.module.first_kernel:
        figures["filters"] = plots.draw_filters(plots.first_kernels(backbone))
    if backbone.module.class_attention:
        images = store.read(np.sort(rows[:10]))
        maps = plots.attention(backbone, images)
        figures["attention"] = plots.draw_attention(images, maps)
    if run is not None:
        shown = open_data(read_config(run)["data"])
        table = pairs.load_table(run / "pairs.csv", shown)
        features = extractor.extract(shown)
        figures["neighbours"] = plots.draw_neighbours(features, shown, table)
    for name, figure in figures.items():
        save_figure(figure, out / f"{name}.png")
    return [out / f"{name}.png" for name in figures]


def main() -> None:
    """Draw the pictures of the flags."""
    values = flags.FLAGS
    if values.points < 10:
        raise UserError(f"A map needs at least 10 points, not {values.points}.")
    extractor = Extractor(sp_jax.load(values.checkpoint))
    prepared = cli.images_of(values.checkpoint)
    store = open_store(values.dataset, values.split, **prepared)
    run = run_folder(values.checkpoint)
    has_pairs = (run / "pairs.csv").is_file() and (run / "config.json").is_file()
    own = {"run": run if has_pairs else None, "points": values.points}
    print(*draw(extractor, store, values.target, run / "figures", **own), sep="\n")


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", None, "Run, checkpoint or file.", required=True)
    flags.DEFINE_string("dataset", "emoji", "Image store of map and attention.")
    flags.DEFINE_string("split", "probe_test", "Its split.")
    text = 'Label or attribute that colours the points: "label" or a name.'
    flags.DEFINE_string("target", "category", text)
    flags.DEFINE_integer("points", 2000, "Images of the map, at most.")
    xla_flags.set_cpu_flags()
    programs.run(main)
