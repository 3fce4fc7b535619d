"""The training step of `benchmarks.peers` in stable-pretraining's JAX back end, without torch.

As its users write it: a module of its backbone, its projector and its loss, its views made on
the device inside the step, its `create_optimizer`, and its `Trainer.fit`, which takes a
batch from a loader, copies it to the device and waits for the loss of every step. The pixels
are in the host's memory, and XLA's flags are those that sp_jax sets. What it has not, it does
not do (version 0.1.8), so that its step is less work than the others':

* views: no saturation and no hue, no blur, no solarisation; crops have one aspect ratio and
  do not antialias. Brightness and contrast change every image;
* networks: no batch normalisation in the projectors; a ViT's GELU is the approximate one.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import stable_pretraining.jax as spt
from flax import nnx
from stable_pretraining.jax.backbone import resnet

from benchmarks.peers_work import Work

Turn = Callable[[int], float]  # makes some steps; returns seconds a step


# Network and loss


def make_backbone(model: dict[str, Any], dtype: Any, rngs: nnx.Rngs) -> nnx.Module:
    """Its ResNet or ViT; parameters are float32, `dtype` is that of the activations."""
    options = dict(model)
    name, size = options.pop("name"), options.pop("image_size", 64)
    make = getattr(spt.backbone, name)
    if name.startswith("vit"):
        patch = options["patch_size"]
        depth = {"depth": options["depth"]} if "depth" in options else {}
        return make(img_size=size, patch_size=patch, dtype=dtype, rngs=rngs, **depth)
    small, width = options["stem"] == "small", options.get("width", 64)
    if width == 64:
        return make(low_resolution=small, dtype=dtype, rngs=rngs)
    return narrow_resnet18(width, dtype, rngs)


def narrow_resnet18(width: int, dtype: Any, rngs: nnx.Rngs) -> nnx.Module:
    """Its ResNet-18, which has a width of 64, of its own blocks at another width."""

    class Block(resnet.BasicBlock):
        def __init__(self, before: int, after: int, *args: Any):
            super().__init__(before * width // 64, after * width // 64, *args)

    network = resnet.ResNet(Block, [2, 2, 2, 2], dtype=dtype, rngs=rngs)
    stem = dict(strides=2, padding=3, use_bias=False, dtype=dtype, rngs=rngs)
    network.stem_conv = nnx.Conv(3, width, (7, 7), **stem)
    network.stem_bn = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
    network.embed_dim = 8 * width
    return network


def make_module(work: Work) -> spt.Module:
    """Its module of a method: bfloat16 activations on a GPU, float32 on a CPU."""
    dtype = jnp.bfloat16 if jax.default_backend() == "gpu" else None
    rngs, o = nnx.Rngs(0), work.options
    backbone = make_backbone(work.model, dtype, rngs)
    width, dim = backbone.embed_dim, o["projection_dim"]
    if work.method == "simclr":
        hidden, loss = width, {"simclr_loss": spt.NTXEntLoss(o["temperature"])}
    else:
        hidden, loss = dim, {"vicreg_loss": spt.VICRegLoss()}
    widths = [hidden] * (o["projection_layers"] - 1) + [dim]
    return spt.Module(
        forward=getattr(spt.forward, work.method),
        optim=make_optimizer(work.optimizer),
        transform=make_transform(work.views),
        backbone=backbone,
        projector=spt.backbone.MLP(width, widths, rngs=rngs, dtype=dtype),
        **loss,
    )


# The step


def make_optimizer(recipe: dict[str, Any]) -> Callable:
    """The kind of optimiser of the recipe; only matrices decay and are adapted.

    One that is made once: with a new one in each fit, its step would be compiled anew.
    """
    options = {
        "learning_rate": recipe["learning_rate"],
        "weight_decay": recipe["weight_decay"],
    }
    if recipe["name"] == "adamw":
        options |= {"type": "adamw", "mask": are_matrices}
    else:
        masks = dict.fromkeys(("weight_decay_mask", "trust_ratio_mask"), are_matrices)
        options |= {"type": "lars", "momentum": recipe["momentum"], **masks}
    optimizer = spt.create_optimizer(options)
    return lambda: optimizer


def are_matrices(params: Any) -> Any:
    """The parameters that have more than one axis."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


def make_transform(views: list[dict[str, Any]]) -> Callable:
    """Its operations in the order of its `simclr_view`, with the numbers of the recipe.

    Takes a batch of uint8 [B, 2, S, S, 3].
    """
    a = spt.augment

    def make_view(key: jax.Array, x: jax.Array, view: dict[str, Any]) -> jax.Array:
        keys = jax.random.split(key, 4)
        x = a.random_resized_crop(keys[0], x, view["size"], view["crop_scale"])
        x = a.random_horizontal_flip(keys[1], x, view["flip"])
        if view["jitter"]:
            strength = view["brightness"], view["contrast"]
            x = a.random_brightness_contrast(keys[2], x, *strength)
        x = a.random_grayscale(keys[3], x, view["grayscale"])
        return a.normalize(x, view["mean"], view["std"])

    def transform(module: spt.Module, batch: dict[str, Any]) -> dict[str, Any]:
        keys = jax.random.split(module.aug_rngs())
        images = jnp.moveaxis(batch["image"].astype(jnp.float32) / 255, 1, 0)
        both = zip(keys, images, views, strict=True)
        return {"views": [{"image": make_view(*each)} for each in both]}

    return transform


class Clock(spt.Callback):
    """Measures an epoch of its trainer, without what `fit` does before."""

    def on_train_epoch_start(self, trainer: spt.Trainer, module: spt.Module) -> None:
        """Start when nothing is running."""
        jax.block_until_ready(nnx.state((module, trainer.optimizer)))
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: spt.Trainer, module: spt.Module) -> None:
        """Stop when everything is done."""
        jax.block_until_ready(nnx.state((module, trainer.optimizer)))
        self.seconds = time.perf_counter() - self.started


def batches(work: Work) -> Iterator[dict[str, np.ndarray]]:
    """Random pairs, without end."""
    rng = np.random.default_rng(0)
    while True:
        rows = work.pairs[rng.integers(len(work.pairs), size=work.batch_size)]
        yield {"image": work.images[rows]}


def make_turn(work: Work) -> Turn:
    """The turn of its trainer, compiled."""
    module, loader = make_module(work), batches(work)

    def turn(steps: int) -> float:
        clock = Clock()
        trainer = spt.Trainer(max_steps=steps, callbacks=[clock])
        trainer.fit(module, loader)
        return clock.seconds / steps

    turn(1)
    return turn
