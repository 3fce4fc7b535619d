"""Pictures of a backbone: a map of its features, neighbours, attention, filters.

The program that draws them is `eval.figures`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from eval.plots.figure import drawable, image_grid
from eval.retrieval import nearest
from input_pipeline.pairs.table import PairTable
from input_pipeline.stores import ImageStore
from sp_jax import extras, progress
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.features import normalize

extras.require("eval", "A figure of results")

# Colours that can still be told apart (matplotlib's tab20); all other classes are grey.
COLOURED = 20


def map_points(features: np.ndarray, seed: int) -> np.ndarray:
    """Places of images in the plane, float32 [N, 2], by t-SNE of cosines of features [N, D].

    All are 0 where there is a single image, or all features are equal.
    """
    from sklearn.decomposition import PCA  # these take a second
    from sklearn.manifold import TSNE

    unit = normalize(features)
    if len(unit) < 2 or not np.ptp(unit, axis=0).any():
        return np.zeros((len(unit), 2), np.float32)  # t-SNE would crash
    # As its authors do: noise goes, and most of the work.
    components = min(50, *unit.shape)
    with progress.show(f"t-SNE of {len(unit):,} images"):
        unit = PCA(components, random_state=seed).fit_transform(unit)
        perplexity = min(30, (len(unit) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
        return tsne.fit_transform(unit)


def frequent_classes(labels: np.ndarray) -> np.ndarray:
    """The classes that get a colour, at most `COLOURED`, the most frequent first."""
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    return classes[np.argsort(-counts, kind="stable")[:COLOURED]]


def class_colours(count: int) -> list[str]:
    """Colours of `count` classes, such as "#1f77b4"."""
    colours = plt.get_cmap("tab10" if count <= 10 else "tab20")
    return [to_hex(colours(i)) for i in range(count)]


def draw_map(
    points: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str
) -> plt.Figure:
    """Points [N, 2], coloured by class; the most frequent `COLOURED` classes have one."""
    figure, axis = plt.subplots(figsize=(7, 6))
    shown = frequent_classes(labels)
    rest = ~np.isin(labels, shown)
    size = float(np.clip(9000 / len(points), 3, 40))
    axis.scatter(*points[rest].T, s=size, color="#cccccc", linewidths=0)
    marks = []
    for number, color in zip(shown, class_colours(len(shown)), strict=True):
        own = points[labels == number]
        mark = axis.scatter(*own.T, s=size, color=color, linewidths=0)
        marks.append((mark, drawable(names[number])))
    if rest.any():
        marks.append((axis.scatter([], [], s=size, color="#cccccc"), "others"))
    longest = max((len(name) for _, name in marks), default=0)
    axis.set(xticks=[], yticks=[])
    axis.set_title(drawable(title), fontsize=11)
    axis.legend(
        # Named here: matplotlib leaves labels out that begin with an underscore.
        *zip(*marks, strict=True),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=max(1, min(3, 90 // (longest + 5))),  # As wide as the map.
        fontsize=10,
        frameon=False,
        markerscale=max(1.0, (30 / size) ** 0.5),
    )
    axis.spines[:].set_color("#dddddd")
    return figure


def attention(backbone: Backbone, images: np.ndarray) -> np.ndarray:
    """The attention of each head's class token to each patch, in the last block.

    Of images uint8 [n, S, S, 3] float32 [n, heads, rows, columns]; with the share of the class
    token itself, those of a head sum to 1. UserError if it is no vision transformer.
    """
    module = backbone.module
    if not module.class_attention:
        raise UserError("Only vision transformers have attention maps.")

    @jax.jit
    def maps(variables: Any, images: jax.Array) -> jax.Array:
        return module.class_attention(variables, backbone.preprocess(images))

    return np.asarray(maps(backbone.variables, images))


def draw_attention(images: np.ndarray, maps: np.ndarray) -> plt.Figure:
    """Images uint8 [n, S, S, 3] beside the maps [n, heads, rows, columns] of each head.

    Each map is scaled by its own largest value, so that a head is read for where it looks;
    but at least by four times an equal share, so that one that looks everywhere is dark.
    """
    heads, patches = maps.shape[1], maps.shape[2] * maps.shape[3]
    titles = ["image", *(f"head {i + 1}" for i in range(heads))]
    rows = []
    for image, own in zip(images, maps, strict=True):
        tops = np.maximum(own.max(axis=(1, 2), keepdims=True), 4 / patches)
        rows.append([image, *plt.get_cmap("inferno")(own / tops)[..., :3]])
    caption = f"{len(images)} images; bright: high attention of a head's class token"
    return image_grid(rows, titles, caption=caption)


def first_kernels(backbone: Backbone) -> np.ndarray:
    """The kernels of the first layer, float32 [features, k, k, 3]."""
    kernel = backbone.variables["params"]
    for name in backbone.module.first_kernel:
        kernel = kernel[name]
    return np.moveaxis(np.asarray(kernel, np.float32), -1, 0)


def draw_filters(kernels: np.ndarray, limit: int = 96) -> plt.Figure:
    """Kernels [features, k, k, 3] as small images, the strongest first.

    Zero is grey. Each kernel is scaled by its own largest value, so that all can be seen.
    """
    count = len(kernels)
    norms = np.sqrt((kernels**2).sum(axis=(1, 2, 3)))
    kernels = kernels[np.argsort(-norms, kind="stable")][:limit]
    largest = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    shown = 0.5 + 0.5 * kernels / np.maximum(largest, 1e-12)
    columns = min(12, len(shown))
    rows = [shown[i : i + columns] for i in range(0, len(shown), columns)]
    caption = f"the {len(shown)} strongest of {count} kernels, zero is grey"
    return image_grid(rows, [""] * columns, side=0.6, caption=caption)


def draw_neighbours(
    features: np.ndarray,
    store: ImageStore,
    table: PairTable,
    count: int = 8,
    n: int = 6,
    seed: int = 0,
) -> plt.Figure:
    """Some pairs: the first image with its n neighbours, then the second with its own.

    Features are float [len(store), D]; the seed chooses `count` pairs of the table.
    """
    rng, count = np.random.default_rng(seed), min(count, len(table))
    rows = rng.choice(len(table), count, replace=False)
    sheet = [[] for _ in rows]
    for side in (table.first[rows], table.second[rows]):
        near = nearest(features, store, side, n)
        for line, found in zip(sheet, np.column_stack([side, near]), strict=True):
            line += [None, *store.read(found)]
    sheet = [line[1:] for line in sheet]
    titles = ["first", *["near"] * n, None, "second", *["near"] * n]
    caption = (
        f"{count} of {len(table):,} pairs; near: among {len(store):,} images of "
        f"{store.name} {store.split}, the nearest first"
    )
    return image_grid(sheet, titles, side=0.75, caption=caption)
