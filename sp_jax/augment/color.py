"""Colour operations on planar images, float32 with values in [0, 1].

Planar as PyTorch's layout is: what mixes the channels is then plain arithmetic between
contiguous planes. Factors have one value an image. All agree with
torchvision's functions on float tensors.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32

Images = Float32[Array, "n 3 height width"]
PerImage = Float32[Array, " n"]

OPERATIONS = ("brightness", "contrast", "saturation", "hue")

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_LUMA = (0.2989, 0.587, 0.114)


def luma(x: Float32[Array, "n 3 *side"]) -> Float32[Array, " n *side"]:
    """Gray value, with torchvision's weights."""
    red, green, blue = _LUMA
    return red * x[:, 0] + green * x[:, 1] + blue * x[:, 2]


def adjust_brightness(x: Images, factor: PerImage) -> Images:
    """Scales the values: factor 0 is black, 1 changes nothing."""
    return _scale_add(x, factor)


def adjust_contrast(x: Images, factor: PerImage) -> Images:
    """Blends with the image's mean luma: factor 0 is uniform gray."""
    return _scale_add(x, factor, offset=(1.0 - factor) * _mean_luma(x))


def adjust_saturation(x: Images, factor: PerImage) -> Images:
    """Blends with the luma: factor 0 is a gray image."""
    return _scale_add(x, factor, gray=1.0 - factor)


def adjust_hue(x: Images, shift: PerImage) -> Images:
    """Turns the hue of HSV by `shift` turns, in closed form.

    A channel of an HSV colour is V - V.S.clip(min(k, 4 - k), 0, 1) with k = (n + 6 H)
    mod 6 and n = 5, 3, 1 for red, green, blue. V.S is the range of the three channels,
    so neither the saturation nor its division is needed.
    """
    r, g, b = x[:, 0], x[:, 1], x[:, 2]
    high = jnp.maximum(jnp.maximum(r, g), b)
    spread = high - jnp.minimum(jnp.minimum(r, g), b)
    inverse = 1.0 / jnp.where(spread == 0.0, 1.0, spread)
    sextant = jnp.where(
        high == r,
        (g - b) * inverse,
        jnp.where(high == g, 2.0 + (b - r) * inverse, 4.0 + (r - g) * inverse),
    )
    sextant = sextant + 6.0 * shift[:, None, None]
    sextant = sextant - 6.0 * jnp.floor(sextant / 6.0)

    def channel(n: float) -> Float32[Array, "n height width"]:
        k = sextant + n
        k = jnp.where(k >= 6.0, k - 6.0, k)
        return high - spread * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=1)


def color_jitter(
    x: Images,
    order: Int32[Array, "n 4"],
    factors: Float32[Array, "n 4"],
    apply: Bool[Array, " n"],
    operations: tuple[str, ...] = OPERATIONS,
) -> Images:
    """Brightness, contrast, saturation and hue, in a random order for each image.

    Three blends, the hue, and the three blends again, where each image skips the blends
    that its order has on the other side: all 24 orders, and the costly hue only once.

    Args:
        x: images in [0, 1].
        order: a permutation of 0 .. 3 = `OPERATIONS`, first one first.
        factors: of brightness, contrast, saturation; the hue's shift in turns.
        apply: where false the image stays as it is.
        operations: those that are done at all.

    Returns:
        Images in [0, 1].
    """
    place = jnp.argsort(order, axis=1)  # place[:, k]: when operation k is done
    blends = [k for k in range(_HUE) if OPERATIONS[k] in operations]
    if blends:
        in_order = jnp.argsort(place[:, jnp.array(blends)], axis=1)
        operation = jnp.array(blends)[in_order]
        factor = jnp.take_along_axis(factors, operation, axis=1)

    def blend(x, use):
        for i in range(len(blends)):
            apply = use(i)
            x = _any_blend(x, operation[:, i], factor[:, i], apply, operations)
        return x

    if "hue" not in operations:
        return blend(x, lambda i: apply)
    if blends:
        early = jnp.take_along_axis(place, operation, axis=1) < place[:, _HUE, None]
    x = blend(x, lambda i: apply & early[:, i])
    x = jnp.where(_per_image(apply), adjust_hue(x, factors[:, _HUE]), x)
    x = lax.optimization_barrier(x)
    return blend(x, lambda i: apply & ~early[:, i])


def to_grayscale(x: Images, apply: Bool[Array, " n"]) -> Images:
    """Puts the luma into all three planes where `apply`."""
    return jnp.where(_per_image(apply), luma(x)[:, None], x)


def solarize(x: Images, apply: Bool[Array, " n"], threshold: float = 0.5) -> Images:
    """Inverts values of at least `threshold`, where `apply`."""
    return jnp.where(_per_image(apply) & (x >= threshold), 1.0 - x, x)


def normalize(
    x: Images, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Images:
    """(x - mean) / std for each plane."""
    shift, scale = (jnp.array(v, x.dtype)[:, None, None] for v in (mean, std))
    return (x - shift) / scale


def _any_blend(
    x: Images,
    operation: Int32[Array, " n"],
    factor: PerImage,
    apply: Bool[Array, " n"],
    operations: tuple[str, ...],
) -> Images:
    """Brightness, contrast or saturation, as `operation` says."""
    factor = jnp.where(apply, factor, 1.0)
    rest = 1.0 - factor
    offset = gray = None
    if "contrast" in operations:
        offset = jnp.where(operation == _CONTRAST, rest, 0.0) * _mean_luma(x)
    if "saturation" in operations:
        gray = jnp.where(operation == _SATURATION, rest, 0.0)
    # Without the barrier XLA fuses the steps, and as every plane needs all three planes
    # of the step before, each further step triples the arithmetic (and compile time).
    return lax.optimization_barrier(_scale_add(x, factor, gray=gray, offset=offset))


def _scale_add(
    x: Images,
    factor: PerImage,
    *,
    gray: PerImage | None = None,
    offset: PerImage | None = None,
) -> Images:
    """clip(factor x + gray luma(x) + offset)."""
    added = 0.0 if gray is None else gray[:, None, None] * luma(x)
    added = added if offset is None else added + offset[:, None, None]
    factor = factor[:, None, None]
    # Plane by plane: XLA on a CPU is half as fast when it has to broadcast `added`.
    planes = [jnp.clip(factor * x[:, c] + added, 0.0, 1.0) for c in range(3)]
    return jnp.stack(planes, axis=1)


def _mean_luma(x: Images) -> PerImage:
    # The mean of each plane first: XLA sums arrays that are in memory ten times faster.
    return luma(jnp.mean(x, axis=(2, 3)))


def _per_image(value: Bool[Array, " n"]) -> Bool[Array, "n 1 1 1"]:
    return value[:, None, None, None]
