"""A method is a handful of pure functions, like optax's `(init, update)`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from sp_jax.losses import l2_normalize
from sp_jax.methods.probe import ProbeRecipe as ProbeRecipe
from sp_jax.models import layers

PyTree = Any


class RunSize(NamedTuple):
    """Facts about the run that a method may use.

    Attributes:
        total_steps: length of the run.
        steps_per_epoch: steps that show each pair once.
        batch_size: pairs in the global batch.
        num_images: images that are shown, for banks with a row for each image.
    """

    total_steps: int
    steps_per_epoch: int
    batch_size: int
    num_images: int


@flax.struct.dataclass
class Batch:
    """The training data of one step: N pairs.

    Attributes:
        views: augmented images, float32 [N, s, s, 3] each; a jigsaw [N, cells, s, s, 3].
        index: int32 [N, len(views)], the number, in its store, of the image that each view
            shows. Equal numbers in a row are an augmentation pair.
        label: int32 [N], the class of each pair; -1 where it has none.
        step: int32 scalar, the number of finished steps.
    """

    views: list[jax.Array]
    index: jax.Array
    label: jax.Array
    step: jax.Array


class Output(NamedTuple):
    """What `Method.loss` returns besides the loss.

    Attributes:
        state: the method's new buffers, such as the statistics of batch normalisation.
        metrics: float32 scalars to log.
        features: backbone features of two views of each pair, float32 [N, 2, D], for the
            health of the representation. No gradient is taken through them. None where
            there are no pairs, as in detection.
    """

    state: PyTree
    metrics: dict[str, jax.Array]
    features: jax.Array | None


def online_backbone(params: PyTree, state: PyTree) -> PyTree:
    """The variables of the backbone in a network that is trained by gradients."""
    stats = state["batch_stats"].get("backbone", {})
    return {"params": params["backbone"], "batch_stats": stats}


class Method(NamedTuple):
    """A self-supervised method. It does not know how its pairs were made.

    Attributes:
        init: `init(key, views) -> (params, state)`; of the views only the shapes matter.
        loss: `loss(params, state, batch, key) -> (loss, Output)`: the float32 loss of the
            global batch. All randomness comes from key.
        update: `update(params, state, step) -> (params, state)`, called after the
            optimiser with the new parameters: where a moving average follows them, or
            where they are brought back onto a sphere. None: nothing.
        backbone_variables: `backbone_variables(params, state) -> variables`: the "params"
            and "batch_stats" of the backbone that is evaluated, such as the teacher's.
        fill_banks: `fill_banks(params, state, batch) -> state`, called with each batch of
            the first epoch before the first step. None: nothing.
        needs_labels: without labels it would be another method, and is refused.
        copies: names in the state of networks that follow the trained one, such as "target".
            Each has parts of its parameters, and its statistics are in NAME_stats.
    """

    init: Callable[[jax.Array, list[jax.Array]], tuple[PyTree, PyTree]]
    loss: Callable[[PyTree, PyTree, Batch, jax.Array], tuple[jax.Array, Output]]
    update: Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, PyTree]] | None = None
    backbone_variables: Callable[[PyTree, PyTree], PyTree] = online_backbone
    fill_banks: Callable[[PyTree, PyTree, Batch], PyTree] | None = None
    needs_labels: bool = False
    copies: tuple[str, ...] = ()

    def heads(self, params: PyTree, state: PyTree) -> PyTree:
        """Variables of all parts but the backbone, of the network that is evaluated."""
        stats = state.get("batch_stats", {})
        evaluated = self.backbone_variables(params, state)["params"]
        for name in self.copies:
            if state[name]["backbone"] is evaluated:
                params, stats = state[name], state[f"{name}_stats"]
        return {
            kind: {part: x for part, x in tree.items() if part != "backbone"}
            for kind, tree in (("params", params), ("batch_stats", stats))
        }

    def start_from(
        self, params: PyTree, state: PyTree, network: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Replace the drawn network, or its backbone alone, by a trained one.

        The copies start equal to it. Queues, banks and the like stay as they were drawn.

        Args:
            params: what `init` gave.
            state: likewise.
            network: "params" and, if it has any, "batch_stats" by the names of its parts.

        Raises:
            ValueError: a variable is missing, unknown or has another shape; or the method does
                not say which of its networks are copies.
        """

        def shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
            parts = network["params"]
            return shapes_by_path(
                {
                    kind: {x: tree.get(kind, {}).get(x, {}) for x in parts}
                    for kind in own
                }
            )

        own = {"params": params, "batch_stats": state["batch_stats"]}
        wanted, given = shapes(own), shapes(network)
        for name in sorted(wanted.keys() | given.keys()):
            if wanted.get(name) != given.get(name):
                raise ValueError(
                    f"{name} is {given.get(name, 'missing')} in the weights and "
                    f"{wanted.get(name, 'missing')} in the network"
                )

        def put(kind: str, tree: PyTree) -> PyTree:
            new = network.get(kind, {})
            return {part: new.get(part, x) for part, x in tree.items()}

        new = {"batch_stats": put("batch_stats", state["batch_stats"])}
        for name in self.copies:
            new[name] = put("params", state[name])
            new[f"{name}_stats"] = put("batch_stats", state[f"{name}_stats"])
        params, state = put("params", params), {**state, **new}
        evaluated = self.backbone_variables(params, state)["params"]
        if evaluated is not network["params"]["backbone"]:
            raise ValueError(
                "the method evaluates a network that it does not name in Method.copies"
            )
        return params, state


def shapes_by_path(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """The shape of each array of a tree, by its path, as "params/backbone/conv1/kernel"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(value.shape)
        for path, value in jax.tree.leaves_with_path(tree)
    }


Images = jax.Array | Sequence[jax.Array]


def features_by_size(backbone: nn.Module, images: Images, train: bool) -> jax.Array:
    """Features [N, D] of images [N, s, s, 3], or of several such arrays, one for each size.

    Each size has a forward of its own; the features are put behind each other, so that a
    head sees all crops together, as in the multi-crop code of SwAV and DINO.
    """
    if isinstance(images, jax.Array):
        return backbone(images, train)
    return jnp.concatenate([backbone(x, train) for x in images])


class Network(nn.Module):
    """Backbone, projector and, where there is one, predictor."""

    backbone: nn.Module
    projector: nn.Module
    predictor: nn.Module | None = None

    def __call__(self, x: Images, train: bool) -> tuple[jax.Array, ...]:
        """Map images (see `features_by_size`) to features, projections, predictions."""
        h = features_by_size(self.backbone, x, train)
        z = self.projector(h, train)
        return (h, z, self.predictor(z, train)) if self.predictor else (h, z)


def without_predictor(tree: PyTree) -> PyTree:
    """The variables of a network without its predictor."""
    return {name: tree[name] for name in ("backbone", "projector") if name in tree}


def init_network(
    network: nn.Module, key: jax.Array, *args: jax.Array
) -> tuple[PyTree, PyTree]:
    """Parameters and batch statistics of a network ({} if it has none)."""
    variables = network.init(key, *args, train=False)
    return variables["params"], variables.get("batch_stats", {})


def apply(
    network: nn.Module,
    params: PyTree,
    stats: PyTree,
    images: Images,
    drop_path: jax.Array | None = None,
    method: Callable[..., Any] | None = None,
) -> tuple[PyTree, PyTree]:
    """Call a network, or a method of it, in train mode; see `forward`."""
    outputs, new = network.apply(
        {"params": params, "batch_stats": stats},
        images,
        train=True,
        mutable=["batch_stats"],
        rngs=None if drop_path is None else {"drop_path": drop_path},
        method=method,
    )
    return outputs, new.get("batch_stats", {})


def forward(
    network: nn.Module,
    params: PyTree,
    stats: PyTree,
    views: list[jax.Array],
    drop_path: jax.Array | None = None,
    *,
    joint: bool,
) -> tuple[list[PyTree], PyTree]:
    """Run every view through a network in train mode.

    Args:
        network: called as `network(images, train=True)`.
        params: its parameters.
        stats: its running statistics of batch normalisation.
        views: images, each [N, s, s, 3].
        drop_path: key of stochastic depth; None switches it off.
        joint: the views of one size are normalised together, and what follows the backbone
            sees all views (SimCLR, SwAV). Otherwise each view has batch statistics of its
            own (the two forwards of BYOL, VICReg, ...), and all have one size.

    Returns:
        The outputs, one a view, and the new statistics.
    """
    sizes = dict.fromkeys(x.shape[1] for x in views)
    groups = [[i for i, x in enumerate(views) if x.shape[1] == size] for size in sizes]
    # Views interleaved, [N, V] -> [N * V]: each device keeps its own rows.
    stacks = [jnp.stack([views[i] for i in group], axis=1) for group in groups]
    images = [x.reshape(-1, *x.shape[2:]) for x in stacks]
    x = images[0] if len(images) == 1 else images
    # Folded as for the first of several forwards, so that a seed keeps its numbers.
    key = None if drop_path is None else jax.random.fold_in(drop_path, 0)
    outputs: list[PyTree] = [None] * len(views)
    with layers.normalize_apart(1 if joint else len(views)) as normalised:
        out, new = apply(network, params, stats, x, key)
    if not joint and 2 * len(normalised) != len(jax.tree.leaves(stats)):
        # Normalisations of other libraries have no groups: one forward for each view.
        for i, view in enumerate(views):
            key = None if drop_path is None else jax.random.fold_in(drop_path, i)
            (outputs[i],), stats = forward(
                network, params, stats, [view], key, joint=True
            )
        return outputs, stats
    n, end = len(views[0]), 0
    for group in groups:
        start, end = end, end + n * len(group)
        own = jax.tree.map(
            lambda y, a=start, b=end: y[a:b].reshape(n, -1, *y.shape[1:]), out
        )
        for place, i in enumerate(group):
            outputs[i] = jax.tree.map(lambda y, place=place: y[:, place], own)
    return outputs, new


def siamese(
    network: Network,
    loss: Callable[[Batch, PyTree, PyTree], tuple[jax.Array, dict[str, jax.Array]]],
    *,
    joint: bool,
    needs_labels: bool = False,
) -> Method:
    """A method of one network and two views, with no state but `{"batch_stats"}`.

    Args:
        network: what both views go through.
        loss: `loss(batch, one, two) -> (loss, metrics)`, of its outputs for each view.
        joint: as in `forward`.
        needs_labels: as in `Method`.
    """

    def init(key, views):
        params, stats = init_network(network, key, views[0])
        return params, {"batch_stats": stats}

    def method_loss(params, state, batch, key):
        (one, two), stats = forward(
            network, params, state["batch_stats"], batch.views, key, joint=joint
        )
        value, metrics = loss(batch, one, two)
        metrics = {"pair_cosine": pair_cosine(one[1], two[1]), **metrics}
        features = jnp.stack([one[0], two[0]], axis=1)
        return value, Output({"batch_stats": stats}, metrics, features)

    return Method(init, method_loss, needs_labels=needs_labels)


def check_queue(size: int, batch_size: int) -> None:
    """Raise ValueError unless whole batches fill a queue."""
    if size < 1 or size % batch_size:
        raise ValueError(
            f"queue_size {size} must be a multiple of the batch size {batch_size}."
        )


def pair_cosine(z1: jax.Array, z2: jax.Array) -> jax.Array:
    """Mean cosine of the rows of z1 and z2 [N, D], to log."""
    return jnp.mean(jnp.sum(l2_normalize(z1) * l2_normalize(z2), axis=-1))


def write_rows(bank: jax.Array, index: jax.Array, rows: jax.Array) -> jax.Array:
    """Write rows [N, D] into a bank [I, D] at index [N]; the last of equal numbers wins.

    A scatter with equal numbers has no fixed result on a GPU.
    """
    same = index[:, None] == index[None, :]
    later = jnp.triu(jnp.ones_like(same), k=1)
    superseded = jnp.any(same & later, axis=1)
    # A number beyond the bank is dropped.
    index = jnp.where(superseded, bank.shape[0], index)
    return bank.at[index].set(rows, mode="drop")
