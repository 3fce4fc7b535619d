"""The train state and the one compiled step that turns it into the next."""

from collections.abc import Callable, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from sp_jax import losses
from sp_jax.augment import Augment, Jigsaw, make_views
from sp_jax.methods import Method, Output
from sp_jax.optim.transforms import leaf_norms
from sp_jax.sharding import (
    by_batch,
    by_size,
    gather,
    lay_out,
    replicated,
)

PyTree = Any


@flax.struct.dataclass
class TrainState:
    """All that changes in a run, as one pytree.

    Attributes:
        step: number of finished steps, int32 scalar.
        params: float32 parameters.
        method_state: the method's buffers.
        opt_state: the optimiser's state.
        key: raw data of the run's random key, uint32 [2]. It never changes: the key of
            a step is `fold_in(key, step)`.
    """

    step: jax.Array
    params: PyTree
    method_state: PyTree
    opt_state: PyTree
    key: jax.Array


def init_state(
    method: Method,
    optimizer: optax.GradientTransformation,
    views: Sequence[Augment | Jigsaw],
    seed: int,
    mesh: Mesh,
) -> TrainState:
    """Make the state of step 0 of a method; see `state_of`."""
    images = [jnp.zeros((2, *view.shape)) for view in views]
    return state_of(lambda key: method.init(key, images), optimizer, seed, mesh)


def state_of(
    init: Callable[[jax.Array], tuple[PyTree, PyTree]],
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: Mesh,
) -> TrainState:
    """Make the state of step 0, laid out as `mesh.by_size` says.

    A function of the seed, on one kind of device: `rbg` may give other bits on another.

    Args:
        init: `init(key) -> (params, method_state)`.
        optimizer: whose state begins here, too.
        seed: of all randomness of the run.
        mesh: the devices.
    """

    def begin(key):
        params, method_state = init(key)
        return params, method_state, optimizer.init(params)

    # The hardware generator: threefry makes the compilation of a ResNet's init five
    # times slower.
    key = jax.random.key(seed, impl="rbg")
    whole = replicated(mesh)
    params, method_state, opt_state = jax.jit(begin, out_shardings=whole)(key)
    key = jax.random.key_data(jax.random.key(seed))
    state = TrainState(np.int32(0), params, method_state, opt_state, key)
    # Made whole first: bits of `rbg` may depend on how an array is split.
    return jax.device_put(state, by_size(state, mesh))


Step = Callable[
    [TrainState, PyTree], tuple[TrainState, dict[str, jax.Array], jax.Array | None]
]


def make_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    views: Sequence[Augment | Jigsaw],
    mesh: Mesh,
) -> Step:
    """Put augmentation, loss, gradient and update into one pure function.

    Args:
        method: what is trained.
        optimizer: updates the parameters.
        schedule: the learning rate, only to log it.
        views: the augmentation of each view.
        mesh: the devices, and how the state is split over them.

    Returns:
        `step(state, batch) -> (state, metrics, features)`, to be compiled: see `feed`.
        The batch has "image" uint8 [B, V, S, S, 3], "index" int32 [B, V] and "label"
        int32 [B]; metrics are float32 scalars; features float32 [B, 2, D] are those of two
        views of each pair.
    """

    def prepare(key, batch):
        with jax.named_scope("augment"):
            return *_views_of(key, batch, views), batch["label"]

    def loss(params, method_state, batch, step, key):
        return method.loss(params, method_state, *batch, step, key)

    return step_of(loss, optimizer, schedule, mesh, prepare, method.update)


def step_of(
    loss: Callable[..., tuple[jax.Array, Output]],
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
    prepare: Callable[[jax.Array, PyTree], PyTree] = lambda key, batch: batch,
    update: Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, PyTree]] | None = None,
) -> Step:
    """Put any loss, its gradient and the update into one pure function.

    Args:
        loss: `loss(params, method_state, batch, step, key) -> (loss, Output)`, of the
            global batch. Output.features may be None.
        optimizer: updates the parameters.
        schedule: the learning rate, only to log it.
        mesh: the devices, and how the state is split over them.
        prepare: `prepare(key, batch) -> batch`, what comes before and has no gradient.
        update: what comes after the optimiser; see `Method.update`.

    Returns:
        As `make_step`, for batches that `prepare` takes.
    """

    def step(state: TrainState, batch: PyTree):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        prepare_key, loss_key = jax.random.split(key)
        batch = prepare(prepare_key, batch)
        method_state = gather(state.method_state, mesh)

        @jax.named_scope("loss")
        def loss_fn(params):
            return loss(gather(params, mesh), method_state, batch, state.step, loss_key)

        (value, out), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        method_state = out.state
        if update:
            with jax.named_scope("update"):
                params, method_state = update(params, method_state, state.step)
        with jax.named_scope("metrics"):
            metrics = {
                "loss": value,
                **out.metrics,
                "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
                "grad_norm": jnp.linalg.norm(
                    jnp.stack(jax.tree.leaves(leaf_norms(grads)))
                ),
            }
        state = TrainState(state.step + 1, params, method_state, opt_state, state.key)
        return lay_out(state, mesh), metrics, jax.lax.stop_gradient(out.features)

    return step


def compile_step(step: Step, mesh: Mesh) -> Step:
    """Compile a step for batches that are split over the devices of a mesh.

    The old state is donated: it must not be used again.
    """
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(None, by_batch(mesh)),
        out_shardings=(None, replicated(mesh), by_batch(mesh)),
    )


def _views_of(key, batch, views):
    """The views, and the number of the image that each shows, int32 [B, views]."""
    images, source = make_views(key, batch["image"], views)
    return images, jnp.take_along_axis(batch["index"], source, axis=1)


def make_observe_step(
    method: Method, views: Sequence[Augment | Jigsaw], mesh: Mesh
) -> Callable[[TrainState, dict[str, jax.Array], jax.Array], TrainState] | None:
    """Compile the method's `observe`; None if it has none.

    Returns:
        `observe(state, batch, number) -> state`, for the batches of the first epoch,
        numbered from 0, before step 0. The old state is donated.
    """
    if method.observe is None:
        return None

    def observe(state: TrainState, batch: dict[str, jax.Array], number: jax.Array):
        # Counted down from the last step number, which no run reaches: other views
        # than those of the steps.
        number = jnp.iinfo(jnp.int32).max - number
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), number)
        images, index = _views_of(key, batch, views)
        method_state = method.observe(state.params, state.method_state, images, index)
        return lay_out(state.replace(method_state=method_state), mesh)

    return jax.jit(
        observe,
        donate_argnums=0,
        in_shardings=(None, by_batch(mesh), replicated(mesh)),
    )


def make_health_fn(mesh: Mesh) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """Compile the health of a representation, which is measured when a line is logged.

    Returns:
        `health(features float32 [B, 2, D]) -> float32 scalars`, by name.
    """

    def health(features):
        x, y = features[:, 0], features[:, 1]
        flat = features.reshape(-1, features.shape[-1])
        return {
            "feature_std": losses.feature_std(flat),
            "alignment": losses.alignment(x, y),
            "uniformity": losses.uniformity(x),
            "effective_rank": losses.effective_rank(flat),
        }

    def gathered(features):
        # eigvalsh has no sharded form: every device gets all features.
        whole = replicated(mesh)
        return health(jax.lax.with_sharding_constraint(features, whole))

    return jax.jit(
        gathered, in_shardings=by_batch(mesh), out_shardings=replicated(mesh)
    )
