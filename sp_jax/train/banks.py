"""Before the first step, the untrained network fills the banks of some methods."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sp_jax import progress
from sp_jax.methods import RunSize
from sp_jax.recipe import Recipe
from sp_jax.sharding import by_batch, replicated, shard
from sp_jax.train.feed import ResidentFeed, StreamedFeed
from sp_jax.train.log import RunLog
from sp_jax.train.step import TrainState, augment_batch

FillBanks = Callable[[TrainState, dict[str, jax.Array], jax.Array], TrainState]


def fill_banks(
    recipe: Recipe,
    state: TrainState,
    feed: StreamedFeed | ResidentFeed,
    mesh: Mesh,
    run_size: RunSize,
    log: RunLog,
) -> TrainState:
    """Show one epoch to a method that keeps banks; the state of others is unchanged."""
    fill = make_fill_banks(recipe, mesh)
    if fill is None:
        return state
    log.say("Filling the method's banks with one epoch before the first step.")
    count = run_size.steps_per_epoch
    batches = progress.track(feed.first_epoch(count), "first epoch", "batches", count)
    for step, batch in enumerate(batches):
        number = jax.device_put(np.int32(step), replicated(mesh))
        state = fill(state, batch, number)
        jax.block_until_ready(state.step)
    return state


def make_fill_banks(recipe: Recipe, mesh: Mesh) -> FillBanks | None:
    """Jit the filling of the method's banks before step 0; None if it has none.

    It takes the batches of the first epoch, numbered from 0. The old state is donated.
    """
    if recipe.method.fill_banks is None:
        return None

    def fill_banks(state: TrainState, batch: dict[str, jax.Array], number: jax.Array):
        # Counted down from the last step number, which no run reaches: other views than those
        # of the steps. (Of JPEG-coded images the host takes the crops: those of the first
        # epoch, with other colours and flips.)
        key = state.random_key(jnp.iinfo(jnp.int32).max - number)
        pairs = augment_batch(key, batch, recipe, state.step)
        method_state = recipe.method.fill_banks(state.params, state.method_state, pairs)
        return shard(state.replace(method_state=method_state), mesh)

    return jax.jit(
        fill_banks,
        donate_argnums=0,
        in_shardings=(None, by_batch(mesh), replicated(mesh)),
    )
