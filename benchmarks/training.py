"""The trainer's own step and feed, made ready to be timed. Other benchmarks import it."""

import collections
import contextlib
import dataclasses
import importlib.util
import inspect
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from input_pipeline.pairs import pairing, resident, stream
from input_pipeline.pairs.sampling import Sampler
from input_pipeline.stores import ImageStore, open_data
from sp_jax import methods, xla_flags
from sp_jax.methods import Batch, RunSize
from sp_jax.recipe import Recipe, make_recipe
from sp_jax.sharding import by_batch, by_size, make_mesh, replicated
from sp_jax.train import feed as feeds
from sp_jax.train.log import MAX_CALLS_AHEAD
from sp_jax.train.step import TrainState, init_state, jit_step, make_step

xla_flags.set_cpu_flags()  # before a program that imports this asks for a device


@dataclasses.dataclass
class Training:
    """A run without its log, checkpoints and evaluators.

    Attributes:
        recipe: method and views.
        feed: the compiled step and its data, opened.
        state: the newest state.
        calls: steps a dispatch, if the images are on the device.
        waited: seconds in which the host waited for a batch of the stream.
    """

    recipe: Recipe
    feed: feeds.StreamedFeed | feeds.ResidentFeed
    state: TrainState
    calls: int = 1
    waited: float = 0.0

    def run(self, steps: int) -> float:
        """Make at least `steps` steps as the trainer does; returns seconds per step."""
        self.waited, done = 0.0, 0
        running = collections.deque()
        jax.block_until_ready(self.state)
        started = time.perf_counter()
        while done < steps:
            out = self.feed.advance(self.state, max(steps, self.calls))
            self.state, done = out.state, done + out.count
            running.append(out.metrics)
            if len(running) > MAX_CALLS_AHEAD:
                jax.block_until_ready(running.popleft())
        jax.block_until_ready(self.state)
        return (time.perf_counter() - started) / done


def make_config(
    method: str, model: str, batch_size: int | None, local_crops: int = 0
) -> ConfigDict:
    """The recipe of a method in configs/ on some backbone.

    Args:
        method: one with a file in configs/.
        model: resnet18 | resnet50 | resnet50:small (the stem) | vit_small |
            vit_small:cudnn (the attention) | ...; a ViT has patches of 8 pixels. "quick"
            is the variant for a CPU with its network, views and drawings; that of SimCLR
            is configs/quickstart.py.
        batch_size: pairs; None is the recipe's.
        local_crops: of the methods that have them.
    """
    name, _, kind = model.partition(":")
    vit = name.startswith("vit")
    recipe = f"configs.{method}_{'vit' if vit else 'resnet50'}"
    if importlib.util.find_spec(recipe) is None:
        recipe = f"configs.{method}_resnet50"
    quick = model == "quick"
    config = importlib.import_module(recipe).get_config("quick" if quick else "")
    if not quick:
        options = {"patch_size": 8} if vit else {"stem": kind or "imagenet"}
        if vit and kind:
            options["attention"] = kind
        config.model = ConfigDict({"name": name, **options})
    if "local_crops" in inspect.signature(methods.get(method).views).parameters:
        config.augment.local_crops = local_crops
    config.batch_size = batch_size or config.batch_size
    return config


def model_name(config: ConfigDict) -> str:
    """The model as `make_config` takes it: with its stem or attention, if one was asked for."""
    if config.model.get("width", 64) != 64:
        return "quick"
    kind = config.model.get("stem") or config.model.get("attention", "auto")
    return config.model.name + ("" if kind in ("imagenet", "auto") else f":{kind}")


def open_images(config: ConfigDict, count: int = 0) -> ImageStore:
    """The images of a config; `count` repeats or cuts them to that number."""
    images = open_data(config.data)
    return images.take(np.arange(count) % len(images)) if count else images


@contextlib.contextmanager
def prepare(
    config: ConfigDict,
    images: ImageStore,
    mesh: Mesh,
    placement: str,
    steps_per_call: int,
) -> Iterator[Training]:
    """Make the step and the feed of a config on semantic pairs of the images.

    Args:
        config: a complete config; its pairing and pair table are not read.
        images: from `open_images`.
        mesh: the devices.
        placement: "device" or "stream".
        steps_per_call: steps a dispatch, if the images are on the device.
    """
    table = pairing.semantic_pairs(images, rounds=config.data.rounds, seed=0)
    sampler = Sampler(table, config.batch_size, config.seed)
    lengths = RunSize(100_000, sampler.steps_per_epoch, config.batch_size, len(images))
    recipe = make_recipe(config.to_dict(), lengths)
    step = make_step(recipe, mesh)
    if placement == "device":
        pixels = resident.DevicePixels(images, sampler, replicated(mesh))
        feed = feeds.ResidentFeed(step, pixels, mesh, steps_per_call)
    else:
        dataset = stream.make_dataset(images, sampler, crops=recipe.crops)

        def batches(first: int):
            data = config.data
            reader = stream.iterate(
                dataset, first, 100_000, data.prefetch, data.workers
            )
            try:
                while True:
                    started = time.perf_counter()
                    batch = next(reader)
                    training.waited += time.perf_counter() - started
                    yield batch
            finally:
                reader.close()

        feed = feeds.StreamedFeed(step, batches, mesh)
    state = init_state(recipe, config.seed, mesh)
    training = Training(recipe, feed, state, steps_per_call)
    with contextlib.closing(feed):
        feed.open(0)
        yield training


def batch_shapes(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of pairs as the step takes it, without pixels."""
    side = config.data.image_size
    return {
        "image": jax.ShapeDtypeStruct((config.batch_size, 2, side, side, 3), "uint8"),
        "index": jax.ShapeDtypeStruct((config.batch_size, 2), "int32"),
        "label": jax.ShapeDtypeStruct((config.batch_size,), "int32"),
    }


def noise_batch(config: ConfigDict, mesh: Mesh) -> dict[str, jax.Array]:
    """A batch of pairs of noise on the devices; it shows images 0 to 9,999."""
    shapes, rng = batch_shapes(config), np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, shapes["image"].shape, np.uint8),
        "index": rng.integers(0, 10_000, shapes["index"].shape, np.int32),
        "label": np.full(shapes["label"].shape, -1, np.int32),
    }
    return jax.device_put(batch, by_batch(mesh))


def lower_step(
    config: ConfigDict, mesh: Mesh, num_images: int = 58_718
) -> jax.stages.Lowered:
    """The step of a config for the devices of a mesh, which need not exist.

    Args:
        config: a complete config; its data are not opened.
        mesh: from `make_mesh`.
        num_images: of the set; some methods keep a vector of each.
    """
    lengths = RunSize(100_000, 100, config.batch_size, num_images)
    here = make_mesh(jax.local_devices()[:1])
    recipe = make_recipe(config.to_dict(), lengths)
    state = jax.eval_shape(lambda: init_state(recipe, config.seed, here))
    state = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        state,
        by_size(state, mesh),
    )
    return jit_step(make_step(recipe, mesh), mesh).lower(state, batch_shapes(config))


def count_flops(config: ConfigDict, num_images: int) -> float | None:
    """FLOPs of one step before XLA optimises; None if there is no CPU to lower for.

    Lowered for a CPU, because not every backend counts, so with attention in plain operations.
    """
    try:
        mesh = make_mesh(jax.devices("cpu")[:1])
    except RuntimeError:
        return None
    config = config.copy_and_resolve_references()
    if "attention" in config.model:
        config.model.attention = "xla"
    return lower_step(config, mesh, num_images).cost_analysis()["flops"]


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def kept_bytes(config: ConfigDict, run: RunSize) -> int:
    """What waits between the two passes of a config's loss, less the parameters."""
    recipe = make_recipe(config.to_dict(), run, train=False)
    size = config.batch_size
    views = [
        jax.ShapeDtypeStruct((size, *view.shape), jnp.float32) for view in recipe.views
    ]
    index = jax.ShapeDtypeStruct((size, len(views)), jnp.int32)
    label = jax.ShapeDtypeStruct((size,), jnp.int32)
    batch = Batch(views, index, label, jax.ShapeDtypeStruct((), jnp.int32))
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(recipe.init, key)

    def forward(params, state, batch, key):
        def loss(params):
            return recipe.method.loss(params, state, batch, key)

        # The function that `vjp` returns is a tree of all that it has kept.
        return jax.vjp(loss, params, has_aux=True)[1]

    kept = jax.eval_shape(forward, params, state, batch, key)
    return _bytes(kept) - _bytes(params)
