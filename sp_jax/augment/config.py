"""The augmentation of one view as one value: sizes, probabilities and strengths."""

import dataclasses

from sp_jax.crops import Crop

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_RANGES = ("crop_scale", "crop_ratio", "blur_sigma")
_PROBABILITIES = ("flip", "jitter", "grayscale", "blur", "solarize")
_STRENGTHS = ("brightness", "contrast", "saturation", "hue")


@dataclasses.dataclass(frozen=True)
class Augment:
    """The augmentation of one view; hashable, so that it can be a static jit argument.

    The operations run in this order: random resized crop, horizontal flip, colour
    jitter (its four parts in an order of their own for each image), grayscale, blur,
    solarise, normalise. The defaults are SimCLR's with strength 1 (Chen et al. 2020,
    https://arxiv.org/abs/2002.05709, appendix A), with torchvision's bilinear crop. An
    operation whose probability or strength is 0 is absent from the compiled program.

    Attributes:
        size: side of the square output, in pixels.
        crop_scale: range of the crop's area, as a share of the image's area.
        crop_ratio: range of the crop's width / height; drawn uniformly in the log.
        interpolation: "bilinear" or "bicubic", both antialiased.
        flip: probability of a horizontal flip.
        jitter: probability of colour jitter.
        brightness: the factor is drawn from [max(0, 1 - b), 1 + b].
        contrast: as brightness.
        saturation: as brightness.
        hue: the shift is drawn from [-hue, hue], in turns; at most 0.5.
        grayscale: probability of losing the colour.
        blur: probability of a Gaussian blur.
        blur_sigma: range of its standard deviation, in output pixels.
        blur_kernel: its number of taps, odd, in output pixels. None: SimCLR's rule,
            a tenth of the size made odd (7 at 64 px, 3 at 32 px, none below 20 px).
        solarize: probability of solarisation.
        solarize_threshold: values in [0, 1] that are at least this are inverted.
        mean: of each channel of values in [0, 1], subtracted last.
        std: of each channel, divided by last.

    Raises:
        ValueError: a value is out of its range.

    Example:
        >>> crop_only = Augment(size=64, jitter=0, grayscale=0, blur=0)
        >>> crop_only.kernel_size
        0
    """

    size: int = 64
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    grayscale: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: int | None = None
    solarize: float = 0.0
    solarize_threshold: float = 0.5
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one view."""
        return (self.size, self.size, 3)

    @property
    def crop(self) -> Crop:
        """The crop alone, for a host that crops JPEG images."""
        return Crop(self.size, self.crop_scale, self.crop_ratio, self.interpolation)

    def __post_init__(self) -> None:
        """Checks the values."""
        # Configuration files hand over lists, which are not hashable.
        for name in (*_RANGES, "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.size < 1:
            raise ValueError(f"size is {self.size}: give at least 1 pixel.")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(
                f"interpolation is {self.interpolation!r}: use 'bilinear' or 'bicubic'."
            )
        for name, value in dataclasses.asdict(self).items():
            words = f"{name} is {value}:"
            if name in _RANGES and (len(value) != 2 or not 0 < value[0] <= value[1]):
                raise ValueError(f"{words} give (low, high), 0 < low <= high.")
            if name in _PROBABILITIES and not 0 <= value <= 1:
                raise ValueError(f"{words} give a probability in [0, 1].")
            if name in _STRENGTHS and value < 0:
                raise ValueError(f"{words} give 0 or more.")
        if self.crop_scale[1] > 1:
            raise ValueError(
                f"crop_scale is {self.crop_scale}: its end must be at most 1."
            )
        if self.hue > 0.5:
            raise ValueError(f"hue is {self.hue}: give turns, at most 0.5.")
        kernel = self.blur_kernel
        if kernel is not None and not (kernel % 2 == 1 and 1 <= kernel < 2 * self.size):
            raise ValueError(
                f"blur_kernel is {kernel}: give an odd number below twice the size "
                f"({self.size})."
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                f"mean is {self.mean} and std {self.std}: give three numbers each, "
                "std above 0."
            )

    @property
    def kernel_size(self) -> int:
        """Number of blur taps; 0 when nothing is blurred."""
        kernel = self.blur_kernel
        if kernel is None:
            kernel = 2 * (self.size // 10 // 2) + 1
        return kernel if self.blur > 0 and kernel > 1 else 0

    @property
    def jitters(self) -> tuple[str, ...]:
        """The parts of the colour jitter that are switched on."""
        if self.jitter == 0:
            return ()
        return tuple(name for name in _STRENGTHS if getattr(self, name) > 0)


@dataclasses.dataclass(frozen=True)
class Jigsaw:
    """A view of shuffled patches, for PIRL; hashable as `Augment`.

    Attributes:
        view: crop of the image, `view.size` pixels wide, and colours of each patch. Its
            blur is for patches of this size.
        grid: patches along a side.
        patch: side of a patch in pixels, at most `view.size // grid`.

    Raises:
        ValueError: the patches do not fit into the grid, or the blur not into a patch.

    Source: https://arxiv.org/abs/1912.01991
    """

    view: Augment
    grid: int = 3
    patch: int = 18

    def __post_init__(self) -> None:
        """Checks the values."""
        if not 0 < self.patch <= self.view.size // self.grid:
            raise ValueError(
                f"Patches of {self.patch} px do not fit {self.grid} times into "
                f"{self.view.size} px: use at most {self.view.size // self.grid} px."
            )
        if self.view.kernel_size >= 2 * self.patch:
            raise ValueError(
                f"blur_kernel is {self.view.kernel_size}: give an odd number below twice the "
                f"{self.patch} px of a patch."
            )

    @property
    def size(self) -> int:
        """Side of the crop in pixels, as `Augment.size`."""
        return self.view.size

    @property
    def crop(self) -> Crop:
        """As `Augment.crop`, of the whole puzzle."""
        return self.view.crop

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one view."""
        return (self.grid**2, self.patch, self.patch, 3)
