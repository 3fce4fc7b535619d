"""The expected results of the operations, computed image by image with torchvision."""

import numpy as np

from tests.torchvision_ref import torch, torchvision

v1 = torchvision.transforms.functional
v2 = torchvision.transforms.v2.functional

MODES = {
    "bilinear": v1.InterpolationMode.BILINEAR,
    "bicubic": v1.InterpolationMode.BICUBIC,
}
JITTERS = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")


def to_torch(images):
    """Uint8 NHWC or float NCHW array to a float NCHW tensor in [0, 1]."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return torch.from_numpy(np.moveaxis(images, -1, 1).astype(np.float32) / 255)
    return torch.from_numpy(np.array(images))


def crop(images, box, size, flip, interpolation, functional=v1):
    """Resized crops: float32 [N, 3, size, size]. A bicubic overshoot is clipped."""
    out = []
    # In float32 torchvision itself is off by 7e-6: it subtracts rounded positions.
    images = to_torch(images).double()
    for image, (top, left, h, w), turn in zip(images, box, flip, strict=True):
        where = int(top), int(left), int(h), int(w)
        view = functional.resized_crop(
            image, *where, [size, size], MODES[interpolation], antialias=True
        ).clamp(0, 1)
        out.append(v1.hflip(view) if turn else view)
    return torch.stack(out).float().numpy()


def each(function, x, *values):
    """Applies function(image, value, ...) with each image's own values."""
    rows = zip(to_torch(x), *(np.asarray(v).tolist() for v in values), strict=True)
    return torch.stack([function(*row) for row in rows]).numpy()


def jitter(image, order, factors, functional=v1):
    """The four parts in the given order, on one float tensor."""
    for operation in order:
        image = getattr(functional, JITTERS[operation])(image, factors[operation])
    return image


def whole(images, params, config):
    """All of the augmentation: float32 [N, size, size, 3]."""
    p = {name: np.asarray(v).tolist() for name, v in params._asdict().items()}
    x = to_torch(crop(images, p["box"], config.size, p["flip"], config.interpolation))
    out = []
    for i, image in enumerate(x):
        if p["jitter"][i]:
            image = jitter(image, p["order"][i], p["factors"][i])
        if p["grayscale"][i]:
            image = v1.rgb_to_grayscale(image, 3)
        if p["blur"][i]:
            image = v1.gaussian_blur(image, [config.kernel_size] * 2, p["sigma"][i])
        if p["solarize"][i]:
            image = v1.solarize(image, config.solarize_threshold)
        out.append(v1.normalize(image, config.mean, config.std).permute(1, 2, 0))
    return torch.stack(out).numpy()
