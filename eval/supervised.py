"""Training on labelled images, for fine-tuning and the papers' linear probe."""

import collections
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eval.task import Task
from sp_jax import progress
from sp_jax.augment import Augment, augment
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.features import Extractor, map_rows
from sp_jax.sharding import by_batch, local_copy, make_mesh, replicated
from sp_jax.train.log import MAX_CALLS_AHEAD


def backbone_of(extractor: Extractor, what: str) -> Backbone:
    """The backbone of an extractor; UserError if it is a plain function of images."""
    if not isinstance(extractor.backbone, Backbone):
        raise UserError(f"{what} needs a backbone, not a function of images.")
    return extractor.backbone


def trainable(module: Any) -> Any:
    """The network of a backbone without what only its pre-training keeps fixed.

    That is the patch projection of MoCo v3's ViT.
    """
    if getattr(module, "freeze_patch_embedding", False):
        return module.clone(freeze_patch_embedding=False)
    return module


def whole_batch(count: int, batch_size: int) -> int:
    """Images per step: at most `count`, with the same number on each local device.

    UserError if there are fewer images than devices.
    """
    most, devices = min(count, batch_size), jax.local_device_count()
    if most < devices:
        raise UserError(
            f"A batch of {most} images cannot be split over {devices} devices: raise "
            "batch_size, or use fewer devices."
        )
    return most // devices * devices


def train_and_test(
    extractor: Extractor,
    task: Task,
    init: Callable[[Any, int], tuple[Any, Any]],
    apply: Callable[[Any, Any, Any, jax.Array, bool], tuple[jax.Array, Any]],
    tx: optax.GradientTransformation,
    *,
    smallest_crop: float,
    key: jax.Array,
    epochs: int,
    batch_size: int,
    seed: int,
    what: str,
    diverged: str,
) -> float:
    """Train a classifier on random crops and flips, on all local devices, and test it.

    The crops have the size and the colours of the pre-training, each epoch has a new order by
    the seed, and the remainder of one, which fills no batch, is dropped. `smallest_crop` is a
    share of the image's area.

    `init`: (the backbone's variables, its width) -> (what is trained, batch statistics).
    `apply`: (what is trained, statistics, the backbone's variables, views float32
    [n, s, s, 3], whether it is training) -> (logits [n, C], statistics).

    Returns:
      The accuracy on the whole test images, in [0, 1].

    While it trains, `what` is shown, with the number of steps.

    Raises:
      UserError: a loss is NaN or infinite: the sentence `diverged`, with {epoch}.
    """
    backbone, mesh = extractor.backbone, make_mesh(jax.local_devices())
    rows, whole = by_batch(mesh), replicated(mesh)
    view = Augment(
        size=backbone.size,
        crop_scale=(smallest_crop, 1.0),
        **{"jitter": 0, "grayscale": 0, "blur": 0},
        mean=backbone.mean,
        std=backbone.std,
    )

    @jax.jit
    def start(variables: Any) -> Any:
        one = jnp.zeros((1, backbone.size, backbone.size, 3), jnp.uint8)
        width = jax.eval_shape(backbone.apply, variables, one).shape[1]
        # Copies, because each step takes the place of what was there before.
        params, stats = jax.tree.map(jnp.copy, init(variables, width))
        return params, stats, tx.init(params)

    @functools.partial(
        jax.jit,
        donate_argnums=0,
        in_shardings=(whole, whole, whole, rows, rows),
        out_shardings=(whole, whole),
    )
    def step(state: Any, variables: Any, number: Any, images: Any, labels: Any) -> Any:
        params, stats, opt_state = state
        x = augment(jax.random.fold_in(key, number), images, view)

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            logits, new = apply(params, stats, variables, x, True)
            target = jax.nn.one_hot(labels, task.num_classes)
            return optax.softmax_cross_entropy(logits, target).mean(), new

        (loss, new), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), new, opt_state), loss

    order = np.random.default_rng(seed)
    steps = len(task.train_rows) // batch_size
    # A training loop may forbid implicit transfers; here they are meant.
    with (
        jax.transfer_guard("allow"),
        progress.show(what, epochs * steps, "steps") as work,
    ):
        variables = jax.device_put(local_copy(backbone.variables), whole)
        state = jax.device_put(start(variables), whole)
        waiting: collections.deque[jax.Array] = collections.deque()
        for epoch in range(epochs):
            batches = order.permutation(len(task.train_rows))[: steps * batch_size]
            for i, batch in enumerate(batches.reshape(steps, batch_size)):
                images = task.train.read(task.train_rows[batch])
                number = np.int32(epoch * steps + i)
                labels = task.train_labels[batch]
                state, loss = step(state, variables, number, images, labels)
                waiting.append(loss)
                if len(waiting) > MAX_CALLS_AHEAD:
                    jax.block_until_ready(waiting.popleft())
                    work.update()
            # Once an epoch: the device is not waited for in between.
            if not np.isfinite(loss):
                raise UserError(diverged.format(epoch=epoch + 1))
    params, stats, _ = state

    @jax.jit
    def predict(params: Any, stats: Any, variables: Any, images: Any) -> jax.Array:
        x = backbone.preprocess(images)
        return jnp.argmax(apply(params, stats, variables, x, False)[0], axis=1)

    def classify(rows: np.ndarray) -> jax.Array:
        images = jax.device_put(task.test.read(task.test_rows[rows]), whole)
        return predict(params, stats, variables, images)

    count, size = len(task.test_rows), extractor.batch_size
    predicted = map_rows(classify, count, size, "classifying the test images")
    return float(np.mean(predicted == task.test_labels))
