"""Linear classifiers on features: many are fitted at once by SGD, the best one is scored.

    loss = mean cross-entropy(x W + b) + weight_decay / 2 |W|^2

SGD with Nesterov momentum 0.9 and a cosine schedule to zero starts from W = b = 0, as is
usual since SimCLR (https://arxiv.org/abs/2002.05709). x is standardised with the mean and
standard deviation of the rows fitted on, or taken as it is.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sp_jax import progress
from sp_jax.errors import UserError
from sp_jax.features import map_rows

SCALINGS = ("standardized", "raw")
# Largest array of logits of one scoring call, in elements (64 MiB of float32).
_BUDGET = 2**24


class Probes(NamedTuple):
    """G linear classifiers, and the scaling of their features."""

    mean: np.ndarray  # float32 [D], subtracted from a feature
    scale: np.ndarray  # float32 [D], divides it then
    kernel: jax.Array  # float32 [G, D, C]
    bias: jax.Array  # float32 [G, C]


class Choice(NamedTuple):
    """The outcome of a sweep."""

    scaling: str  # of `SCALINGS`
    learning_rate: float  # peak of the schedule
    weight_decay: float  # L2 penalty on the kernel
    val_accuracy: float  # of this combination, in [0, 1]
    # float [scalings, learning rates, weight decays], validation accuracy of every combination;
    # -1 where the fit diverged.
    grid: np.ndarray


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, float32 [D]; 1 for a constant."""
    # Sums in float64, block by block: float32 sums of 50,000 rows lose digits, and a
    # float64 copy of all rows may not fit.
    blocks = [features[start : start + 4096] for start in range(0, len(features), 4096)]
    mean = sum(b.sum(0, dtype=np.float64) for b in blocks) / len(features)
    scale = np.sqrt(sum(((b - mean) ** 2).sum(0) for b in blocks) / len(features))
    scale[scale <= 1e-6 * np.abs(mean)] = 1.0  # Rounding noise about a constant.
    return mean.astype(np.float32), scale.astype(np.float32)


def standardize(
    features: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """(features - mean) / scale as float32 [N, D]."""
    return ((features - mean) / scale).astype(np.float32)


def hold_out(groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose a fraction of the groups, int [n], at random for validation: bool [n].

    At least one of two or more is held out, and one is not.
    """
    units = np.unique(groups)
    count = min(max(round(fraction * len(units)), 1), len(units) - 1)
    chosen = np.random.default_rng(seed).permutation(units)[:count]
    return np.isin(groups, chosen)


def choose(
    features: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    learning_rates: tuple[float, ...],
    weight_decays: tuple[float, ...],
    scalings: tuple[str, ...] = ("standardized",),
    **fit: Any,
) -> Choice:
    """Fit every combination on some rows, and choose on the held-out rows, bool [n].

    Best is the highest accuracy, then the lowest cross-entropy. Features float32 [n, D] and
    labels int32 [n] are the training split's; **fit goes to `fit_probes`. UserError if every
    fit diverged.
    """
    pairs = list(itertools.product(learning_rates, weight_decays))
    rates, decays = zip(*pairs, strict=True)
    found = []
    fitted = features[~held_out], labels[~held_out]
    for scaling in scalings:
        probes = fit_probes(*fitted, rates, decays, scaling=scaling, **fit)
        found.append(score(probes, features[held_out], labels[held_out]))
    accuracy, loss = (np.concatenate(values) for values in zip(*found, strict=True))
    accuracy = np.where(np.isfinite(loss), accuracy, -1.0)
    if accuracy.max() < 0:
        raise UserError(
            "The linear probe diverged at every learning rate: "
            "give it lower learning_rates."
        )
    best = int(np.lexsort((loss, -accuracy))[0])
    scaling, pair = divmod(best, len(pairs))
    grid = accuracy.reshape(len(scalings), len(learning_rates), len(weight_decays))
    return Choice(scalings[scaling], *pairs[pair], float(accuracy[best]), grid)


def fit_chosen(
    features: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    *grid: Any,
    **fit: Any,
) -> tuple[Probes, Choice]:
    """Choose like `choose`, with the same arguments, and fit the choice on all rows."""
    choice = choose(features, labels, held_out, *grid, **fit)
    scaling, rate, decay = choice[:3]
    probe = fit_probes(features, labels, [rate], [decay], scaling=scaling, **fit)
    return probe, choice


def fit_probes(
    features: np.ndarray,
    labels: np.ndarray,
    learning_rates: Any,
    weight_decays: Any,
    *,
    num_classes: int,
    epochs: int = 100,
    batch_size: int = 256,
    seed: int = 0,
    scaling: str = "standardized",
) -> Probes:
    """Fit G probes at once, the g-th with learning_rates[g] and weight_decays[g].

    Features are float [n, D], labels int [n] in [0, num_classes). The learning rates are peaks
    of the cosine schedule; the L2 penalties are on the kernels, not on the biases. An epoch has
    a new order, drawn from the seed; its remainder, which fills no batch, is dropped. A batch
    has at most n rows. The scaling "standardized" is by the moments of these rows.
    """
    mean, scale = moments(features)
    if scaling == "raw":
        mean, scale = np.zeros_like(mean), np.ones_like(scale)
    what = "fitting a linear probe"
    if len(learning_rates) > 1:
        what = f"fitting {len(learning_rates)} linear probes"
    shape = len(learning_rates), features.shape[1], num_classes
    with jax.transfer_guard("allow"):
        weights = jnp.zeros(shape), jnp.zeros((shape[0], shape[2]))
        state = weights, jax.vmap(_optimizer(0.0, 1).init)(weights)
        data = (
            jax.device_put(standardize(features, mean, scale)),
            jax.device_put(np.asarray(labels, np.int32)),
            np.asarray(learning_rates, np.float32),
            np.asarray(weight_decays, np.float32),
            jax.random.key(seed),
        )
        size = min(batch_size, len(features))
        for epoch in progress.track(range(epochs), what, "epochs"):
            state = _fit_epoch(
                state, np.int32(epoch), *data, epochs=epochs, batch_size=size
            )
            # Else all are dispatched, and nothing is done.
            jax.block_until_ready(state)
    return Probes(mean, scale, *state[0])


def score(
    probes: Probes, features: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy in [0, 1] and mean cross-entropy of each of G probes: float64 [G] each.

    Features float [m, D] are not yet standardised. A label of -1, of int [m], counts as wrong
    (the cross-entropy is then meaningless).
    """
    labels = np.asarray(labels, np.int32)
    rows_a_call = min(1024, max(1, _BUDGET // probes.bias.size))

    def block(rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
        x = standardize(features[rows], probes.mean, probes.scale)
        return _score(probes.kernel, probes.bias, x, labels[rows])

    what = "linear probes on images"
    correct, loss = map_rows(block, len(features), rows_a_call, what)
    return correct.mean(0, dtype=np.float64), loss.mean(0, dtype=np.float64)


@functools.partial(
    jax.jit, static_argnames=("epochs", "batch_size"), donate_argnames="state"
)
def _fit_epoch(
    state: Any,
    number: jax.Array,
    x: jax.Array,
    labels: jax.Array,
    learning_rates: jax.Array,
    weight_decays: jax.Array,
    key: jax.Array,
    *,
    epochs: int,
    batch_size: int,
) -> Any:
    """An epoch of all probes, by its number of `epochs`; x [n, D] is standardised.

    The state is (kernels [G, D, C], biases [G, C]), and that of the optimiser.
    """
    steps = len(x) // batch_size
    # One order for all probes: a batch is gathered once, and the vmapped products become one
    # large matrix product.
    order = jax.random.permutation(jax.random.fold_in(key, number), len(x))
    batches = order[: steps * batch_size].reshape(steps, batch_size)

    def fit(state: Any, learning_rate: jax.Array, weight_decay: jax.Array) -> Any:
        optimizer = _optimizer(learning_rate, steps * epochs)

        def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
            weights, state = carry
            target = jax.nn.one_hot(labels[rows], weights[1].shape[-1])
            gradient = jax.grad(loss_fn)(weights, x[rows], target, weight_decay)
            updates, state = optimizer.update(gradient, state, weights)
            return (optax.apply_updates(weights, updates), state), None

        return jax.lax.scan(step, state, batches)[0]

    return jax.vmap(fit)(state, learning_rates, weight_decays)


def _optimizer(learning_rate: Any, steps: int) -> optax.GradientTransformation:
    """Nesterov momentum under half a cosine, by the number of all steps."""
    schedule = optax.cosine_decay_schedule(1.0, steps)
    return optax.sgd(
        lambda step: learning_rate * schedule(step), momentum=0.9, nesterov=True
    )


@jax.jit
def _score(
    kernel: jax.Array, bias: jax.Array, x: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Whether right [B, G] and cross-entropy [B, G] of rows x [B, D]."""
    logits = jax.vmap(_logits, in_axes=(0, 0, None), out_axes=1)(kernel, bias, x)
    correct = jnp.argmax(logits, axis=-1) == labels[:, None]
    target = jax.nn.one_hot(labels, bias.shape[1])[:, None]
    return correct, optax.softmax_cross_entropy(logits, target)


def loss_fn(weights: Any, x: Any, target: Any, weight_decay: Any) -> jax.Array:
    """The loss of the module's text, of one-hot targets [n, C]."""
    kernel, bias = weights
    # One-hot: the gradient of an indexed loss is a scatter, slow.
    loss = optax.softmax_cross_entropy(_logits(kernel, bias, x), target)
    return loss.mean() + 0.5 * weight_decay * jnp.sum(kernel**2)


def _logits(kernel: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    # Full precision, so that a GPU (TF32 by default) and a CPU agree; and the line search of
    # L-BFGS needs exact differences.
    return jnp.dot(x, kernel, precision=jax.lax.Precision.HIGHEST) + bias
