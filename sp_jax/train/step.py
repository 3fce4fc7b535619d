"""The train state and the one compiled step that turns it into the next."""

from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from sp_jax.augment import finish_views, make_views
from sp_jax.errors import UserError
from sp_jax.methods import Batch
from sp_jax.optim.transforms import leaf_norms
from sp_jax.recipe import Recipe
from sp_jax.sharding import by_batch, by_size, replicated, shard, unshard

PyTree = Any


@flax.struct.dataclass
class TrainState:
    """All that changes in a run, as one pytree.

    Attributes:
        step: number of finished steps, int32 scalar.
        key: raw data of the run's random key, uint32 [2]. It never changes: the key of
            a step is `fold_in(key, step)`.
    """

    step: jax.Array
    params: PyTree
    method_state: PyTree
    opt_state: PyTree
    key: jax.Array

    def random_key(self, number: jax.Array) -> jax.Array:
        """The key of a step, by its number; `banks` take numbers that no step reaches."""
        return jax.random.fold_in(jax.random.wrap_key_data(self.key), number)


Step = Callable[
    [TrainState, PyTree], tuple[TrainState, dict[str, jax.Array], jax.Array | None]
]


def init_state(
    recipe: Recipe, seed: int, mesh: Mesh, network: PyTree | None = None
) -> TrainState:
    """Make the state of step 0, split over the devices as `sharding.by_size` says.

    A function of the seed, on one kind of device: `rbg` may give other bits on another. Where
    there is a trained network, see `Method.start_from`, its variables replace random ones.
    """

    def begin(key):
        params, method_state = recipe.init(key)
        return params, method_state, recipe.tx.init(params)

    # The hardware generator: threefry makes the compilation of a ResNet's init five
    # times slower.
    key = jax.random.key(seed, impl="rbg")
    whole = replicated(mesh)
    params, method_state, opt_state = jax.jit(begin, out_shardings=whole)(key)
    if network:

        def start(params, method_state, network):
            own = recipe.method.start_from(params, method_state, network)
            # Copies, because a step takes the place of what was there before.
            return jax.tree.map(jnp.copy, (*own, recipe.tx.init(own[0])))

        drawn = params, method_state, jax.device_put(network, whole)
        params, method_state, opt_state = jax.jit(start, out_shardings=whole)(*drawn)
    key = jax.random.key_data(jax.random.key(seed))
    state = TrainState(np.int32(0), params, method_state, opt_state, key)
    # Made whole first: bits of `rbg` may depend on how an array is split.
    return jax.device_put(state, by_size(state, mesh))


def make_step(recipe: Recipe, mesh: Mesh) -> Step:
    """Put augmentation, loss, gradient and update into one pure function.

    Without views the method gets the batches as they come.

    Returns:
        `step(state, batch) -> (state, metrics, features)`, to be compiled: see `feed`.
        The batch has "image" uint8 [B, 1|2, S, S, 3], "index" int32 [B, 1|2] and "label"
        int32 [B]; or, of JPEG-coded images, "crops" as in `augment.finish_views` and "index"
        int32 [B, views], the image of each view. Metrics are float32 scalars; features
        float32 [B, 2, D] are those of two views of each pair.
    """
    method = recipe.method

    def step(state: TrainState, batch: PyTree):
        augment_key, loss_key = jax.random.split(state.random_key(state.step))
        if recipe.views:
            with jax.named_scope("augment"):
                batch = augment_batch(augment_key, batch, recipe, state.step)
        method_state = unshard(state.method_state, mesh)

        @jax.named_scope("loss")
        def loss(params):
            value, out = method.loss(
                unshard(params, mesh), method_state, batch, loss_key
            )
            if jnp.shape(value):
                raise UserError(
                    "The loss of the method must return one number, not an array of shape "
                    f"{list(jnp.shape(value))}: take its mean."
                )
            check_metrics(out.metrics)
            return value, out

        (value, out), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        with jax.named_scope("optimizer"):
            updates, opt_state = recipe.tx.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        method_state = out.state
        if method.update:
            with jax.named_scope("update"):
                params, method_state = method.update(params, method_state, state.step)
        with jax.named_scope("metrics"):
            learning_rate = jnp.asarray(recipe.schedule(state.step), jnp.float32)
            norms = jnp.stack(jax.tree.leaves(leaf_norms(grads)))
            metrics = {"loss": value, **out.metrics, "learning_rate": learning_rate}
            metrics["grad_norm"] = jnp.linalg.norm(norms)
        state = TrainState(state.step + 1, params, method_state, opt_state, state.key)
        return shard(state, mesh), metrics, jax.lax.stop_gradient(out.features)

    return step


def check_metrics(metrics: Mapping[str, jax.Array]) -> None:
    """Raise UserError unless they are single numbers with names that the step does not use."""
    for name, value in metrics.items():
        if name in ("loss", "learning_rate", "grad_norm"):
            raise UserError(f"The method's metric {name!r} needs another name.")
        if jnp.shape(value):
            raise UserError(
                f"The method's metric {name!r} must be one number, not an array of shape "
                f"{list(jnp.shape(value))}: take its mean."
            )


def augment_batch(
    key: jax.Array, batch: dict[str, jax.Array], recipe: Recipe, step: jax.Array
) -> Batch:
    """The views of a batch of pairs, and which image each of them shows."""
    if "crops" in batch:  # The host took them, and knows which image each shows.
        views = finish_views(key, batch["crops"], recipe.views)
        return Batch(views, batch["index"], batch["label"], step)
    views, source = make_views(key, batch["image"], recipe.views)
    index = jnp.take_along_axis(batch["index"], source, axis=1)
    return Batch(views, index, batch["label"], step)


def jit_step(step: Step, mesh: Mesh) -> Step:
    """Jit a step for batches that are split over the devices of a mesh.

    The old state is donated: it must not be used again.
    """
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(None, by_batch(mesh)),
        out_shardings=(None, replicated(mesh), by_batch(mesh)),
    )
