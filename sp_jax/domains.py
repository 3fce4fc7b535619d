"""The allowed range of each number in a config, in one table, checked before work starts.

The ranges of a backbone's options are in its file. What depends on other values (the batch
and the number of devices, a queue and the batch) is checked where those are known.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sp_jax import models
from sp_jax.config import flatten
from sp_jax.domain import (
    BELOW_ONE,
    COUNT,
    COUNT_OR_NONE,
    FINITE,
    NOT_NEGATIVE,
    PIXELS,
    POSITIVE,
    POSITIVE_SHARE,
    SEED,
    SHARE,
    Domain,
    whole,
)
from sp_jax.errors import UserError

# For every program that trains in the loop.
LOOP = {
    "seed": SEED,
    "data.prefetch": COUNT_OR_NONE,
    "data.workers": whole(0, 1024),
    "log_every": COUNT,
    "checkpoint.every": COUNT,
    "checkpoint.keep_last": whole(2),  # one is left if the newest is damaged
    "checkpoint.keep_every": COUNT_OR_NONE,
    "profile.first_step": COUNT_OR_NONE,
    "profile.steps": COUNT_OR_NONE,
    "model.chunks": COUNT,
    "optimizer.learning_rate": NOT_NEGATIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": BELOW_ONE,
} | {f"model.{name}": domain for name, domain in models.DOMAINS.items()}

# For the options of all methods, or of one method.
_METHODS = {
    POSITIVE: "temperature student_temperature teacher_temperature "
    "warmup_teacher_temperature epsilon",
    NOT_NEGATIVE: "off_diagonal_weight invariance variance covariance queue_starts",
    SHARE: "momentum center_momentum memory_momentum",
    COUNT: "projection_dim predictor_dim hidden_dim bottleneck_dim num_negatives "
    "kmeans_iterations sinkhorn_iterations queue_size bn_groups",
    COUNT_OR_NONE: "warmup_teacher_temperature_epochs",
    whole(1, 64): "projection_layers num_heads",
    whole(2): "out_dim num_clusters num_prototypes",
}
_OF_A_METHOD = {"pirl.hidden_dim": COUNT_OR_NONE, "swav.queue_size": COUNT_OR_NONE}
_VIEW = {
    SHARE: "flip jitter grayscale blur solarize solarize_threshold",
    POSITIVE_SHARE: "crop_scale",
    POSITIVE: "crop_ratio blur_sigma",
    NOT_NEGATIVE: "brightness contrast saturation",
    Domain(0, 0.5): "hue",
    COUNT: "blur_kernel",
}
_VIEWS = {
    POSITIVE_SHARE: "local_crop_scale",
    POSITIVE: "std",
    whole(0, 64): "local_crops",
    FINITE: "mean",
}


def _section(section: str, domains: Mapping[Domain, str]) -> dict[str, Domain]:
    return {
        f"{section}.{name}": domain
        for domain, names in domains.items()
        for name in names.split()
    }


# For pre-training: `sp_jax/config.py`.
TRAINING = LOOP | _OF_A_METHOD
TRAINING |= _section("method_options", _METHODS) | _section("augment", _VIEWS)
TRAINING |= _section("augment", _VIEW) | _section("augment_second", _VIEW)
TRAINING |= {
    "image_size": PIXELS,
    # All methods compare the pairs of a batch, or normalise over them.
    "batch_size": whole(2),
    "epochs": Domain(0, 1e6, above=True),
    "fsdp": COUNT,
    "steps_per_call": whole(0, 100_000),
    "data.image_size": PIXELS,
    "data.max_skipped": SHARE,
    "data.semantic_fraction": SHARE,
    "data.semantic_schedule": NOT_NEGATIVE,  # epochs and fractions
    "data.rounds": COUNT,
    "optimizer.warmup_epochs": NOT_NEGATIVE,
    "optimizer.final_factor": NOT_NEGATIVE,
    "optimizer.final_weight_decay": NOT_NEGATIVE,
    "optimizer.clip": NOT_NEGATIVE,
    "evals.*.every_epochs": NOT_NEGATIVE,
}

# For `eval.detection`: `configs/eval/voc_faster_rcnn_c4.py`.
DETECTION = LOOP | {
    "batch_size": COUNT,
    "total_steps": COUNT,
    "test_batch_size": COUNT,
    "test_every": COUNT_OR_NONE,
    "data.sizes": PIXELS,
    "data.test_size": PIXELS,
    "data.max_boxes": whole(1, 10_000),
    "optimizer.warmup_steps": COUNT_OR_NONE,
    "optimizer.drops": COUNT_OR_NONE,
}


def find_domain(
    name: str, domains: Mapping[str, Domain], method: str = ""
) -> Domain | None:
    """The domain of a key, or None; keys of "method_options" are options of `method`.

    In the names of domains a star stands for the name of an evaluator.
    """
    words = name.split(".")
    names = (name, f"{words[0]}.*.{words[-1]}")
    if words[0] == "method_options":
        names = (f"{method}.{words[-1]}", *names)
    return next((domains[one] for one in names if one in domains), None)


def check_domains(config: Mapping[str, Any], domains: Mapping[str, Domain]) -> None:
    """Raise UserError if a number of a config, or one in a list, is outside its domain.

    A number without a domain must be finite. None is a default that is not known here.
    """
    for name, value in flatten(config).items():
        domain = find_domain(name, domains, config.get("method", ""))
        values = [one for one in _elements(value) if one is not None]
        if domain is None:
            domain, values = FINITE, [v for v in values if isinstance(v, float)]
        if any(one not in domain for one in values):
            raise UserError(f"config.{name} is {value!r}: give {domain}.")


def _elements(value: Any) -> Iterator[Any]:
    """The elements of a list, also of nested lists; or the value, if it is not a list."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from _elements(one)
    else:
        yield value
