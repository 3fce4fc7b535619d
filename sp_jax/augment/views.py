"""The augmentation of a batch, and the views of a batch of pairs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, PRNGKeyArray, UInt8

from sp_jax import crops
from sp_jax.augment import blur, color, geometry
from sp_jax.augment.config import IMAGENET_MEAN, IMAGENET_STD, Augment, Jigsaw
from sp_jax.augment.geometry import Images
from sp_jax.augment.params import Params, sample_params


def augment(
    key: PRNGKeyArray, images: Images, config: Augment, cropped: bool = False
) -> Float32[Array, "n {config.size} {config.size} 3"]:
    """Augments each image of a batch by its own random numbers.

    Call it inside `jax.jit`, with `config` static. The result depends on the key and
    on an image's place in the batch only, not on the number of devices.

    Args:
        key: a jax random key.
        images: of any height and width, values from 0 to 255.
        config: what to do.
        cropped: the images are the crops already, of the size of the view.

    Returns:
        Normalised views.

    Raises:
        ValueError: the images are of another type or shape.

    Example:
        >>> images = jnp.zeros((2, 96, 80, 3), jnp.uint8)
        >>> augment(jax.random.key(0), images, Augment(size=32)).shape
        (2, 32, 32, 3)
    """
    _check(images, "[N, H, W, 3]")
    n, height, width, _ = images.shape
    params = sample_params(key, n, height, width, config)
    return apply_params(images, params, config, cropped)


def apply_params(
    images: Images, params: Params, config: Augment, cropped: bool = False
) -> Float32[Array, "n {config.size} {config.size} 3"]:
    """The deterministic half of `augment`, which takes the drawn numbers."""
    return recolour(_crop(images, params, config, cropped), params, config)


def _crop(
    images: Images, params: Params, config: Augment, cropped: bool
) -> Float32[Array, "n 3 {config.size} {config.size}"]:
    flip = params.flip if config.flip > 0 else None
    if cropped:
        x = jnp.moveaxis(images, -1, 1).astype(jnp.float32) / 255.0
        return (
            x if flip is None else jnp.where(flip[:, None, None, None], x[..., ::-1], x)
        )
    size, kernel = config.size, config.interpolation
    return geometry.crop_resize(
        images, params.box, size, flip=flip, interpolation=kernel
    )


def recolour(
    x: Float32[Array, "n 3 height width"], params: Params, config: Augment
) -> Float32[Array, "n height width 3"]:
    """All operations after the crop: planar values in [0, 1] to normalised ones."""
    if config.jitters:
        x = color.color_jitter(
            x, params.order, params.factors, params.jitter, config.jitters
        )
    if config.grayscale > 0:
        x = color.to_grayscale(x, params.grayscale)
    if config.kernel_size:
        x = blur.gaussian_blur(x, params.sigma, params.blur, config.kernel_size)
    if config.solarize > 0:
        x = color.solarize(x, params.solarize, config.solarize_threshold)
    return jnp.moveaxis(color.normalize(x, config.mean, config.std), 1, -1)


def jigsaw(
    key: PRNGKeyArray, images: Images, config: Jigsaw, cropped: bool = False
) -> Float32[Array, "n {config.grid**2} {config.patch} {config.patch} 3"]:
    """Cuts a crop of each image into a grid of patches in random order.

    From each cell of the grid a patch is cut at a random place, so that edges do not
    tell which patches are neighbours; colours are drawn for each patch.

    Args:
        key: a jax random key.
        images: of any height and width, values from 0 to 255.
        config: what to do.
        cropped: as in `augment`, of the puzzle's size.

    Returns:
        The normalised patches of each image.

    Raises:
        ValueError: the images are of another type or shape.
    """
    _check(images, "[N, H, W, 3]")
    view, grid, patch = config.view, config.grid, config.patch
    n, height, width, _ = images.shape
    crop_key, place_key, order_key, colour_key = jax.random.split(key, 4)
    params = sample_params(crop_key, n, height, width, view)
    x = _crop(images, params, view, cropped)
    cells, cell = grid * grid, view.size // grid
    corner = cell * jnp.stack(jnp.divmod(jnp.arange(cells), grid), axis=-1)
    free = jax.random.randint(place_key, (n, cells, 2), 0, cell - patch + 1)
    order = jax.random.uniform(order_key, (n, cells)).argsort(axis=1)
    start = jnp.take_along_axis(corner + free, order[..., None], axis=1)

    def cut(image, start):
        return jax.lax.dynamic_slice(image, (0, start[0], start[1]), (3, patch, patch))

    patches = jax.vmap(jax.vmap(cut, (None, 0)))(x, start)
    patches = patches.reshape(n * cells, 3, patch, patch)
    params = sample_params(colour_key, n * cells, patch, patch, view)
    patches = recolour(patches, params, view)
    return patches.reshape(n, cells, patch, patch, 3)


def make_views(
    key: PRNGKeyArray,
    images: UInt8[Array | np.ndarray, "batch images height width 3"],
    configs: Sequence[Augment | Jigsaw],
) -> tuple[list[Float32[Array, "batch ..."]], Int32[Array, "batch {len(configs)}"]]:
    """Makes one view of a pair for each config.

    View i is of image i mod V of the pair's V images. Which of two images comes first is
    drawn: neither is bound to one pipeline, or to one role in a loss whose views have
    different roles. Views with equal configs are made together.

    Args:
        key: a jax random key.
        images: values from 0 to 255; one an augmentation pair, two a semantic pair.
        configs: one for each view.

    Returns:
        For each config what `augment` or `jigsaw` returns; and the place in its pair of
        the image that each view shows.

    Raises:
        ValueError: the images are of another type or shape.
    """
    _check(images, "[B, V, H, W, 3]")
    batch, per_pair = images.shape[:2]
    swap_key, *keys = jax.random.split(key, 1 + len(configs))
    swap = jax.random.bernoulli(swap_key, 0.5, (batch, 1, 1, 1, 1))
    source = crops.sources(swap.reshape(-1), len(configs), per_pair, jnp)
    if per_pair == 2:
        images = jnp.where(swap, images[:, ::-1], images)
    shown = [images[:, i % per_pair] for i in range(len(configs))]
    return _augment_each(keys, shown, configs), source


def finish_views(
    key: PRNGKeyArray,
    cropped: Sequence[UInt8[Array | np.ndarray, "batch _ _ _ 3"]],
    configs: Sequence[Augment | Jigsaw],
) -> list[Float32[Array, "batch ..."]]:
    """Like `make_views`, for images that the host has already cropped.

    Args:
        key: a jax random key.
        cropped: values from 0 to 255, [B, n, s, s, 3] for each size s of the views, in the
            order in which the sizes come first: the n views of this size.
        configs: one for each view.

    Returns:
        For each config what `augment` or `jigsaw` returns.
    """
    _, *keys = jax.random.split(key, 1 + len(configs))
    sizes = dict.fromkeys(config.size for config in configs)
    by_size = {
        size: iter(jnp.moveaxis(images, 1, 0))
        for size, images in zip(sizes, cropped, strict=True)
    }
    shown = [next(by_size[config.size]) for config in configs]
    return _augment_each(keys, shown, configs, cropped=True)


def _augment_each(
    keys: Sequence[PRNGKeyArray],
    shown: Sequence[Array | np.ndarray],
    configs: Sequence[Augment | Jigsaw],
    **options: bool,
) -> list[Array]:
    """One view of each array of images; those with equal configs are made together.

    The options are those of `augment` and `jigsaw`.
    """
    views = {}
    for config, key in zip(dict.fromkeys(configs), keys, strict=False):
        members = [i for i, other in enumerate(configs) if other == config]
        # Stacked behind the batch axis, so that a sharded batch stays where it is.
        stack = jnp.stack([shown[i] for i in members], axis=1)
        flat = stack.reshape(-1, *stack.shape[2:])
        if isinstance(config, Jigsaw):
            out = jigsaw(key, flat, config, **options)
        else:
            out = augment(key, flat, config, **options)
        out = out.reshape(-1, len(members), *out.shape[1:])
        for place, i in enumerate(members):
            views[i] = out[:, place]
    return [views[i] for i in range(len(configs))]


def preprocess(
    images: Images,
    size: int,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Float32[Array, "n {size} {size} 3"]:
    """Prepares images for evaluation, without randomness.

    Args:
        images: values from 0 to 255.
        size: side of the output in pixels; bilinear and antialiased from other sizes.
        mean: of each channel of values in [0, 1].
        std: of each channel.

    Returns:
        Normalised images.
    """
    _check(images, "[N, H, W, 3]")
    x = geometry.resize(images, size)
    return jnp.moveaxis(color.normalize(x, mean, std), 1, -1)


def _check(images: Array | np.ndarray, shape: str) -> None:
    axes = shape.count(",") + 1
    if images.ndim != axes or images.shape[-1] != 3 or images.dtype != jnp.uint8:
        raise ValueError(
            f"images are {images.dtype} {list(images.shape)}: give uint8 {shape}, "
            "with values from 0 to 255."
        )
