"""The devices, and the part of a state that each of them holds.

Every array of a run is global: `jax.jit` moves what has to move between devices and hosts.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PyTree = Any

# Smaller arrays are copied to all devices: to gather one would take longer than it saves.
MIN_SIZE = 2**16


def make_mesh(devices: Sequence[jax.Device] | None = None, fsdp: int = 1) -> Mesh:
    """All devices of all processes, or those given, in rows that each hold a copy of the state.

    Returns:
        Axes "data" [n / fsdp], and "fsdp" [fsdp], the devices that share a copy. The devices
        of a process are adjacent, so its part of a batch is one block, and a row stays within
        a host if possible.

    Raises:
        ValueError: the devices do not make whole rows.
    """
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(f"{len(devices)} devices cannot be split into rows of {fsdp}.")
    ordered = sorted(devices, key=lambda d: (d.process_index, d.id))
    return Mesh(np.array(ordered).reshape(-1, fsdp), ("data", "fsdp"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Each device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
    """Each device holds its share of the first axis."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def by_size(tree: PyTree, mesh: Mesh) -> PyTree:
    """The sharding of each array, or shape, of a state: one rule for parameters and buffers.

    An array of at least `MIN_SIZE` numbers is split over a row of the mesh, along its
    longest axis that can be (the last of equal ones); all else is whole on each device.
    This is ZeRO's third stage, or "fully sharded data parallel"
    (https://arxiv.org/abs/1910.02054).
    """
    fsdp = mesh.shape["fsdp"]

    def rule(x) -> NamedSharding:
        axes = [i for i, n in enumerate(x.shape) if n % fsdp == 0]
        if fsdp == 1 or x.size < MIN_SIZE or not axes:
            return replicated(mesh)
        axis = max(axes, key=lambda i: (x.shape[i], i))
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree.map(rule, tree)


def shard(tree: PyTree, mesh: Mesh) -> PyTree:
    """Split a state as `by_size` says, inside a compiled function."""
    return jax.lax.with_sharding_constraint(tree, by_size(tree, mesh))


def unshard(tree: PyTree, mesh: Mesh) -> PyTree:
    """Make split arrays whole on every device, inside a compiled function.

    The gradient is split again, so that it is summed and scattered in one operation. Left
    alone the compiler may move activations instead, and sums gradients on every device.
    """
    if mesh.shape["fsdp"] == 1:
        return tree

    @jax.custom_vjp
    def whole(tree):
        return jax.lax.with_sharding_constraint(tree, replicated(mesh))

    whole.defvjp(lambda x: (whole(x), None), lambda _, dx: (shard(dx, mesh),))
    return whole(tree)


def local_copy(tree: PyTree) -> PyTree:
    """Global arrays as whole arrays on one device of this process.

    All processes have to call it for arrays that are split.
    """

    def one(x):
        if not isinstance(x, jax.Array):
            return x
        if not x.is_fully_replicated:
            x = jax.device_put(x, replicated(x.sharding.mesh))
        return x.addressable_data(0)

    return jax.tree.map(one, tree)
