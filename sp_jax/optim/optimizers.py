"""The optimisers of the papers, each a function that returns an optax transformation.

All take a learning rate, which is a function of the step, and the same options:

    weight_decay: d; a number, or but for LARC a function of the step.
    momentum: share of the buffer that is kept; AdamW's beta 1.
    clip: largest norm of each parameter's gradient; 0 for none.
    adapt: of lars and lars_inside only; without it q, below, is 1.
    start: the first step with an update. Before it nothing changes, the optimiser's buffers
        included, as if there were no gradient.

The official implementations use LARS (https://arxiv.org/abs/1708.03888) in three dialects. With
the trust ratio q and a learning rate r that changes they differ:

| function | who | momentum buffer | update |
|---|---|---|---|
| lars | BYOL, VICReg, Barlow Twins, MoCo v3 | v = m v + q (g + d w) | -r v |
| lars_inside | SimCLR | v = m v + r q (g + d w) | -v |
| larc | SwAV, DeepCluster-v2 | v = m v + q (g + d w) | -r v |

    lars, lars_inside:  q = 0.001 |w| / |g + d w|
    larc:               q = 0.001 |w| / (|g| + d |w|)

q is 1 where a norm, |w| or the one below it, is 0. For larc that is |w| or |g|, and then
nothing decays either.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import optax

from sp_jax.optim import transforms
from sp_jax.optim.rules import Rule, assign

Optimizer = Callable[..., optax.GradientTransformation]


def lars(
    learning_rate: optax.Schedule,
    *,
    weight_decay: float | optax.Schedule = 0.0,
    momentum: float = 0.9,
    clip: float = 0.0,
    start: int = 0,
    adapt: bool = True,
) -> optax.GradientTransformation:
    """LARS with the learning rate outside the momentum buffer; see above."""
    return _chain(
        clip,
        *_decayed(weight_decay, adapt),
        transforms.start_after(optax.trace(momentum), start),
        _descend(learning_rate, start),
    )


def lars_inside(
    learning_rate: optax.Schedule,
    *,
    weight_decay: float | optax.Schedule = 0.0,
    momentum: float = 0.9,
    clip: float = 0.0,
    start: int = 0,
    adapt: bool = True,
) -> optax.GradientTransformation:
    """LARS with the learning rate inside the momentum buffer; see above."""
    return _chain(
        clip,
        *_decayed(weight_decay, adapt),
        _descend(learning_rate, start),
        transforms.start_after(optax.trace(momentum), start),
    )


def larc(
    learning_rate: optax.Schedule,
    *,
    weight_decay: float | optax.Schedule = 0.0,
    momentum: float = 0.9,
    clip: float = 0.0,
    start: int = 0,
) -> optax.GradientTransformation:
    """LARC without clipping; see above.

    It adapts every parameter, as its official code does. So a normalisation whose scale begins
    at 0 (`zero_init_residual`) does not go with it: its scale hardly moves.

    Raises:
        ValueError: the weight decay is a schedule.
    """
    if callable(weight_decay):
        raise ValueError("LARC takes no schedule of the weight decay.")
    return _chain(
        clip,
        transforms.scale_by_larc(weight_decay),
        transforms.start_after(optax.trace(momentum), start),
        _descend(learning_rate, start),
    )


def adamw(
    learning_rate: optax.Schedule,
    *,
    weight_decay: float | optax.Schedule = 0.0,
    momentum: float = 0.9,
    clip: float = 0.0,
    start: int = 0,
) -> optax.GradientTransformation:
    """AdamW (https://arxiv.org/abs/1711.05101): `d w` is added after the adaptation."""
    return _chain(
        clip,
        transforms.start_after(optax.scale_by_adam(b1=momentum), start),
        optax.add_decayed_weights(weight_decay),
        _descend(learning_rate, start),
    )


def _decayed(
    weight_decay: float | optax.Schedule, adapt: bool
) -> list[optax.GradientTransformation]:
    """q (g + d w) of LARS."""
    decayed = optax.add_decayed_weights(weight_decay)
    return [decayed, transforms.scale_by_trust_ratio()] if adapt else [decayed]


def _chain(
    clip: float, *parts: optax.GradientTransformation
) -> optax.GradientTransformation:
    return optax.chain(*([transforms.clip_each(clip)] if clip else []), *parts)


def _descend(learning_rate: optax.Schedule, start: int) -> optax.GradientTransformation:
    return optax.scale_by_learning_rate(
        lambda step: jnp.where(step < start, 0.0, learning_rate(step))
    )


# Heavy-ball momentum, as PyTorch's SGD.
sgd: Optimizer = functools.partial(lars, adapt=False)

OPTIMIZERS: dict[str, Optimizer] = dict(
    lars=lars, lars_inside=lars_inside, larc=larc, sgd=sgd, adamw=adamw
)


def get(name: str) -> Optimizer:
    """Return an optimiser of this file.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in OPTIMIZERS:
        known = ", ".join(OPTIMIZERS)
        raise ValueError(f"There is no optimiser {name!r}; choose one of: {known}.")
    return OPTIMIZERS[name]


def by_rules(
    optimizer: Optimizer,
    rules: Sequence[Rule],
    learning_rate: optax.Schedule,
    *,
    weight_decay: float | optax.Schedule,
    momentum: float = 0.9,
    clip: float = 0.0,
    peak: float = 0.0,
    steps_per_epoch: int = 1,
) -> optax.GradientTransformation:
    """Give the parameters of each rule their own optimiser.

    Args:
        optimizer: a function of this file, or any that takes the same options.
        rules: what happens to which parameter; the first match counts.
        learning_rate: a function of the step.
        weight_decay: of the rules that decay.
        momentum: an option of the optimiser, as is `clip`.
        clip: largest norm of each parameter's gradient; 0 for none.
        peak: the learning rate of the rules that keep it constant.
        steps_per_epoch: the unit of the rules' `frozen_epochs`.

    Returns:
        An optax transformation. Its `update` needs the parameters, too. Its `init` raises
        ValueError for a parameter without a rule.

    Example:
        >>> from sp_jax.optim import DECAY_KERNELS
        >>> params = {"dense": {"kernel": jnp.ones(()), "bias": jnp.ones(())}}
        >>> gradient = params
        >>> tx = by_rules(sgd, DECAY_KERNELS, lambda step: 1.0, weight_decay=0.1)
        >>> updates, _ = tx.update(gradient, tx.init(params), params)
        >>> {name: round(float(u), 4) for name, u in updates["dense"].items()}
        {'bias': -1.0, 'kernel': -1.1}
    """

    def of_rule(rule: Rule) -> optax.GradientTransformation:
        if math.isinf(rule.frozen_epochs):
            return optax.set_to_zero()
        constant = optax.constant_schedule(peak)
        schedule = constant if rule.constant else learning_rate
        make = optimizer
        if not rule.adapt and optimizer in (lars, lars_inside):
            make = functools.partial(optimizer, adapt=False)
        return make(
            lambda step: rule.factor * schedule(step),
            weight_decay=weight_decay if rule.decay else 0.0,
            momentum=momentum,
            clip=clip,
            start=round(rule.frozen_epochs * steps_per_epoch),
        )

    by_number = {number: of_rule(rule) for number, rule in enumerate(rules)}
    return optax.partition(by_number, lambda params: assign(rules, params))
