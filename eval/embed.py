r"""Export embeddings: the features of every image of a store, in one file.

  python -m eval.embed --checkpoint=RUN --dataset=folder:PHOTOS --out=photos.parquet \
    --map --nearest=PHOTOS/a.jpg

A row of the file is an image: `id`, `path` (absolute; "" if images are not files), `label`
(-1 without one), `class` and its features, float32. In .parquet they are one column of lists,
`features`, in .npz the array `features` [N, D], in .csv the columns f0, f1 and so on. OUT.json
records the weights and the images.

Features are written in parts, in the folder OUT.parts, until all are there: after a kill the
same command continues where it was, and the file is the same. `--map` writes OUT.map.html
(t-SNE of the features; a point shows its image), `--nearest` OUT.nearest.png, and prints the
list.
"""

import base64
import dataclasses
import io
import json
import os
import pathlib
import shutil
import time

import numpy as np
from absl import flags
from PIL import Image

import sp_jax
from eval import cli, embedding_files
from eval.options import Count, read_options
from eval.pages import write_page
from eval.plots import backbone as plots
from eval.plots.figure import image_grid, save_figure
from eval.task import StoreOptions
from input_pipeline.stores import ImageStore, decode
from sp_jax import cli as programs
from sp_jax import neighbours, progress, xla_flags
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from sp_jax.files import write_bytes, write_text
from sp_jax.json_file import read_json
from sp_jax.train.starts import now
from sp_jax.versions import versions

PART = 2048  # Images per part; a kill loses the features of at most one part.
THUMBNAIL = 64  # Largest side in pixels on the map.
SHEET = 32  # Thumbnails per row, and rows per picture: phones cannot show larger ones.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(StoreOptions):
    """The images, and how they are shown.

    Attributes:
      split: of the images; all by default.
      target: what colours the map, "label" or an attribute of the store.
      points: largest number of images on the map.
      neighbours: number of images that are shown beside that of --nearest.
    """

    split: str = "all"
    target: str = "label"
    points: Count = 10_000
    neighbours: Count = 12


def embed(
    extractor: Extractor, store: ImageStore, out: pathlib.Path, checkpoint: str
) -> None:
    """Write the features of every image of a store, unless they are there already.

    Raises:
      UserError: the file is of other weights or images, or a part is damaged.
    """
    record, parts = (out.with_name(out.name + end) for end in (".json", ".parts"))
    about = {
        "checkpoint": checkpoint,
        "step": extractor.backbone.info.get("step"),
        "weights": extractor.fingerprint,
        "dataset": store.name,
        "split": store.split,
        "images": store.fingerprint,
        "count": len(store),
        "versions": versions(),
        "date": now(),
    }
    if record.exists():
        there = read_json(record)
        differ = [key for key in ("weights", "images") if there.get(key) != about[key]]
        if differ:
            keys = ("checkpoint", "step", "dataset", "split")
            raise UserError(
                "{} is of other {}: {}, step {}, on {}, split {}. Choose another --out, or "
                "remove it with {} and {}.".format(
                    out,
                    " and ".join(differ),
                    *(there.get(key) for key in keys),
                    record.name,
                    parts.name,
                )
            )
    elif out.exists():
        raise UserError(
            f"{out} exists, but {record.name}, which says what it holds, is missing: choose "
            "another --out, or remove it."
        )
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(record, json.dumps(about, indent=2) + "\n")
    if out.exists():
        print(f"{out} exists already: nothing is embedded again.")
        return
    parts.mkdir(exist_ok=True)
    ranges = [(i, min(i + PART, len(store))) for i in range(0, len(store), PART)]
    paths = [parts / f"{start:09}-{end:09}.npy" for start, end in ranges]
    missing = [pair for pair in zip(ranges, paths, strict=True) if not pair[1].exists()]
    left, began = sum(end - start for (start, end), _ in missing), time.monotonic()
    words = f"embedding {store.name} {store.split}", len(store), "images"
    with progress.show(*words, done=len(store) - left) as work:
        for (start, end), path in missing:
            rows = store.take(np.arange(start, end))
            # An extractor remembers what it has seen; this one is forgotten with its part.
            part = Extractor(extractor.backbone, extractor.batch_size).extract(rows)
            content = io.BytesIO()
            np.save(content, part)
            write_bytes(path, content.getvalue())
            work.update(end - start)
    speed = left / max(time.monotonic() - began, 1e-9)
    shape = len(store), _load(paths[0]).shape[1]
    joined = parts / f"joined{out.suffix}"
    with progress.show(f"writing {out.name}"):
        embedding_files.write(joined, _columns(store), map(_load, paths), shape)
        os.replace(joined, out)
    shutil.rmtree(parts)
    print(
        f"{out}: {shape[0]:,} images, {shape[1]:,} features each; embedded {left:,} now, "
        f"{speed:,.1f} images/s."
    )


def _load(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path)
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path} is damaged: remove it, and start the command again."
        ) from error


def _columns(store: ImageStore) -> dict[str, np.ndarray]:
    """The columns beside the features."""
    folder = store.root if store.root is not None and store.root.is_dir() else None
    paths = [folder.absolute() / i if folder else "" for i in store.ids]
    return {
        "id": np.array([_plain(i) for i in store.ids]),
        "path": np.array([_plain(str(path)) for path in paths]),
        "label": np.asarray(store.labels, np.int32),
        "class": np.array([_plain(store.class_name(n)) for n in store.labels]),
    }


def _plain(name: str) -> str:
    r"""A name as all programs can read it: what is not UTF-8 is written as \udcHH."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def write_map(
    path: pathlib.Path, features: np.ndarray, store: ImageStore, settings: Options
) -> None:
    """Write a page with the images as points; images with similar features are near."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(store))[: settings.points])
    values, names = store.target(settings.target)
    places = plots.map_points(features[rows], seed=0)
    low, high = places.min(axis=0), places.max(axis=0)
    places = 0.5 + (places - (low + high) / 2) / max(float(np.max(high - low)), 1e-9)
    shown = plots.frequent_classes(values[rows])
    group = {int(number): i for i, number in enumerate(shown)}
    some = f"{len(rows):,}" + (f" of {len(store):,}" if len(rows) < len(store) else "")
    write_page(
        path,
        "map.html",
        title=_plain(f"{store.name} {store.split}: {some} images as a map"),
        target=settings.target,
        sheets=[_sheet(store, part) for part in _split(rows, SHEET**2)],
        data={
            "x": places[:, 0].round(4).tolist(),
            "y": places[:, 1].round(4).tolist(),
            "group": [group.get(int(value), -1) for value in values[rows]],
            "names": [_plain(names[number]) for number in shown],
            "colours": plots.class_colours(len(shown)),
            "id": [_plain(store.ids[row]) for row in rows],
            "class": [int(value) for value in values[rows]],
            "classes": [_plain(name) for name in names],
            "side": min(THUMBNAIL, store.images.shape[1]),
            "columns": SHEET,
        },
    )


def _split(rows: np.ndarray, length: int) -> list[np.ndarray]:
    return [rows[i : i + length] for i in range(0, len(rows), length)]


def _sheet(store: ImageStore, rows: np.ndarray) -> str:
    """Thumbnails of some images in one picture, row by row, as a data URL."""
    side = min(THUMBNAIL, store.images.shape[1])
    sheet = Image.new("RGB", (SHEET * side, -(-len(rows) // SHEET) * side), "white")
    for i, pixels in enumerate(store.read(rows)):
        image = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(image, (i % SHEET * side, i // SHEET * side))
    content = io.BytesIO()
    sheet.save(content, "WEBP", quality=60)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def find_image(
    store: ImageStore, given: str, settings: Options
) -> tuple[int, np.ndarray]:
    """An image by its id or its path: its row in the store, or -1, and its pixels.

    Raises:
      UserError: there is no such image, or it cannot be used.
    """
    names, path = [given], pathlib.Path(given)
    if store.root is not None and path.is_file():
        for full in (
            os.path.abspath,
            os.path.realpath,
        ):  # Links in it may lead elsewhere.
            name = os.path.relpath(full(path), full(store.root))
            names.append(name.replace(os.sep, "/"))
    for name in names:
        if name in store.ids:
            row = store.ids.index(name)
            return row, store.read(np.array([row]))[0]
    if not path.is_file():
        raise UserError(
            f"{store.name}, split {store.split}, has no image {given!r}, and there is no "
            f"such file: give --nearest an id, such as {store.ids[0]}, or a path."
        )
    try:
        content = path.read_bytes()
        return -1, decode.decode(content, settings.image_size, settings.resize)
    except decode.BadImage as error:
        raise UserError(f"{given} cannot be used: {error}.") from error


def show_nearest(
    path: pathlib.Path,
    query: tuple[int, np.ndarray],
    feature: np.ndarray,
    features: np.ndarray,
    store: ImageStore,
    count: int,
) -> None:
    """Print and draw the images of a store that are nearest to a feature [D].

    The query is its row in the store, which is left out, or -1, and its pixels.
    """
    row, image = query
    k = min(count + (row >= 0), len(store))
    found, cosines = (x[0] for x in neighbours.nearest(feature[None], features, k))
    keep = np.flatnonzero(found != row)[:count]
    for near, cosine in zip(found[keep], cosines[keep], strict=True):
        name = store.class_name(store.labels[near])
        print(_plain(f"  {cosine:.4f}  {store.ids[near]}  {name}".rstrip()))
    lines = _split(found[keep], 6)
    sheet = [
        [image if i == 0 else None, None, *store.read(x)] for i, x in enumerate(lines)
    ]
    titles = ["image", None, *["near"] * len(lines[0])]
    text = (
        f"the nearest of {len(store):,} images of {store.name} {store.split}, by cosine"
    )
    save_figure(image_grid(sheet, titles, caption=text), path)


def main() -> None:
    """Embed the images of the flags."""
    values = flags.FLAGS
    out = pathlib.Path(values.out)
    embedding_files.check_path(out)
    settings = read_options(Options, cli.read_flags(Options, values.checkpoint))
    extractor = Extractor(sp_jax.load(values.checkpoint))
    store = settings.open(settings.split)
    store.target(settings.target)
    if values.map and min(len(store), settings.points) < 10:
        raise UserError(
            f"A map needs at least 10 images: {store.name} {store.split} has "
            f"{len(store)}, and --points is {settings.points}."
        )
    query = find_image(store, values.nearest, settings) if values.nearest else None
    if query and query[0] >= 0 and len(store) == 1:
        raise UserError(
            f"{store.name}, split {store.split}, has no other image than {values.nearest}: "
            "leave --nearest out."
        )
    embed(extractor, store, out, values.checkpoint)
    if not values.map and query is None:
        return
    features = embedding_files.read_features(out, len(store))
    if query is not None:
        row, image = query
        feature = features[row] if row >= 0 else extractor.map(image[None])[0]
        path = out.with_suffix(".nearest.png")
        show_nearest(path, query, feature, features, store, settings.neighbours)
        print(path)
    if values.map:
        path = out.with_suffix(".map.html")
        write_map(path, features, store, settings)
        print(path)


if __name__ == "__main__":
    text = "Run folder, checkpoint or file of weights."
    flags.DEFINE_string("checkpoint", None, text, required=True)
    text = "File to write: .parquet, .npz or .csv."
    flags.DEFINE_string("out", None, text, required=True)
    flags.DEFINE_bool("map", False, "Draw the images as a map, OUT.map.html.")
    text = "Show the images nearest to this one, an id or a path: OUT.nearest.png."
    flags.DEFINE_string("nearest", None, text)
    cli.define_flags(Options)
    xla_flags.set_cpu_flags()
    programs.run(main)
