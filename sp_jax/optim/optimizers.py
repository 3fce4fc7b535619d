"""Optimisers by name, with the parameter rules of the papers."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import optax

from sp_jax.optim.rules import Rule, assign
from sp_jax.optim.transforms import (
    clip_each,
    scale_by_larc,
    scale_by_trust_ratio,
    start_after,
)

NAMES = ("lars", "lars_inside", "larc", "sgd", "adamw")


def get(
    name: str,
    schedule: optax.Schedule,
    *,
    peak: float,
    rules: Sequence[Rule],
    weight_decay: float | optax.Schedule,
    momentum: float = 0.9,
    clip: float = 0.0,
    steps_per_epoch: int = 1,
) -> optax.GradientTransformation:
    """Make an optimiser.

    The official implementations use LARS (https://arxiv.org/abs/1708.03888) in three
    dialects. With the trust ratio q and a rate r that changes they differ:

    | name | who | momentum buffer | update |
    |---|---|---|---|
    | lars | BYOL, VICReg, Barlow Twins, MoCo v3 | v = m v + q (g + d w) | -r v |
    | lars_inside | SimCLR | v = m v + r q (g + d w) | -v |
    | larc | SwAV, DeepCluster-v2 | v = m v + q (g + d w) | -r v |

        lars, lars_inside:  q = 0.001 |w| / |g + d w|
        larc:               q = 0.001 |w| / (|g| + d |w|)

    q is 1 where a norm, |w| or the one below it, is 0. For larc that is |w| or |g|, and
    then nothing decays either. Rules with `adapt=False` have q = 1 in the first two; LARC
    adapts every parameter, as its official code does. So a normalisation whose scale begins
    at 0 (`zero_init_residual`) does not go with LARC: its scale hardly moves.

    Args:
        name: one of the above; "sgd" (heavy-ball momentum); or "adamw"
            (https://arxiv.org/abs/1711.05101).
        schedule: step to learning rate.
        peak: the rate of the rules that keep it constant.
        rules: what happens to which parameter; the first match counts.
        weight_decay: d, a number or, for "adamw", also a schedule. `d w` is added to the
            gradient, or for "adamw" to the update before the learning rate.
        momentum: share of the buffer that is kept; for "adamw" its beta 1.
        clip: largest norm of each parameter's gradient; 0 for none.
        steps_per_epoch: the unit of the rules' `frozen_epochs`.

    Returns:
        An optax transformation. Its `update` needs the parameters, too.

    Raises:
        ValueError: the name is unknown, or the weight decay is a schedule and the name
            is not "adamw". The optimiser's `init` raises ValueError for a parameter
            without a rule.

    Example:
        >>> from sp_jax.optim import KERNELS
        >>> params = {"dense": {"kernel": jnp.ones(()), "bias": jnp.ones(())}}
        >>> gradient = params
        >>> tx = get("sgd", lambda _: 1.0, peak=1.0, rules=KERNELS, weight_decay=0.1)
        >>> updates, _ = tx.update(gradient, tx.init(params), params)
        >>> {name: round(float(u), 4) for name, u in updates["dense"].items()}
        {'bias': -1.0, 'kernel': -1.1}
    """
    if name not in NAMES:
        raise ValueError(
            f"There is no optimiser {name!r}; choose one of: {', '.join(NAMES)}."
        )
    if callable(weight_decay) and name != "adamw":
        raise ValueError(f"A schedule of the weight decay is for adamw, not {name!r}.")
    transforms = {}
    for number, rule in enumerate(rules):
        if math.isinf(rule.frozen_epochs):
            transforms[number] = optax.set_to_zero()
            continue
        steps = _steps(
            name,
            rule,
            schedule if not rule.constant else optax.constant_schedule(peak),
            weight_decay if rule.decay else 0.0,
            momentum,
            round(rule.frozen_epochs * steps_per_epoch),
        )
        transforms[number] = optax.chain(*([clip_each(clip)] if clip else []), *steps)
    return optax.partition(transforms, lambda params: assign(rules, params))


def _steps(
    name: str,
    rule: Rule,
    schedule: optax.Schedule,
    weight_decay: float | optax.Schedule,
    momentum: float,
    frozen: int,
) -> Sequence[optax.GradientTransformation]:
    def rate(step):
        return jnp.where(step < frozen, 0.0, rule.rate * schedule(step))

    descend = optax.scale_by_learning_rate(rate)
    decayed = optax.add_decayed_weights(weight_decay)
    if name == "adamw":
        return start_after(optax.scale_by_adam(b1=momentum), frozen), decayed, descend
    buffer = start_after(optax.trace(momentum), frozen)
    if name == "larc":
        return scale_by_larc(weight_decay), buffer, descend
    gradient = [decayed]
    if name.startswith("lars") and rule.adapt:
        gradient.append(scale_by_trust_ratio())
    if name == "lars_inside":
        return *gradient, descend, buffer
    return *gradient, buffer, descend
