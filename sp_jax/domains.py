"""What each number of a config may be, in one table, checked before anything is made.

The options of a backbone are in its file. What depends on other values (a batch that devices
share, a queue that is a multiple of the batch) is checked where these are known.
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

# Of every program that trains in the loop.
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

# Of a pre-training: `sp_jax/config.py`, and the options of all methods, or of one of them.
TRAINING = LOOP | {
    "image_size": PIXELS,
    # All methods compare the pairs of a batch, or normalise over them.
    "batch_size": whole(2),
    "epochs": Domain(0, 1e6, above=True),
    "fsdp": COUNT,
    "steps_per_call": whole(0, 100_000),
    "data.image_size": PIXELS,
    "data.max_skipped": SHARE,
    "data.semantic_fraction": SHARE,
    "data.rounds": COUNT,
    "augment.crop_scale": POSITIVE_SHARE,
    "augment.crop_ratio": POSITIVE,
    "augment.flip": SHARE,
    "augment.jitter": SHARE,
    "augment.brightness": NOT_NEGATIVE,
    "augment.contrast": NOT_NEGATIVE,
    "augment.saturation": NOT_NEGATIVE,
    "augment.hue": Domain(0, 0.5),
    "augment.grayscale": SHARE,
    "augment.blur": SHARE,
    "augment.blur_sigma": POSITIVE,
    "augment.blur_kernel": COUNT,
    "augment.solarize": SHARE,
    "augment.solarize_threshold": SHARE,
    "augment.local_crops": whole(0, 64),
    "augment.local_crop_scale": POSITIVE_SHARE,
    "augment.mean": FINITE,
    "augment.std": POSITIVE,
    "optimizer.warmup_epochs": NOT_NEGATIVE,
    "optimizer.final_factor": NOT_NEGATIVE,
    "optimizer.final_weight_decay": NOT_NEGATIVE,
    "optimizer.clip": NOT_NEGATIVE,
    "evals.*.every_epochs": NOT_NEGATIVE,
    "method_options.temperature": POSITIVE,
    "method_options.student_temperature": POSITIVE,
    "method_options.teacher_temperature": POSITIVE,
    "method_options.warmup_teacher_temperature": POSITIVE,
    "method_options.warmup_teacher_temperature_epochs": COUNT_OR_NONE,
    "method_options.momentum": SHARE,
    "method_options.center_momentum": SHARE,
    "method_options.memory_momentum": SHARE,
    "method_options.epsilon": POSITIVE,
    "method_options.off_diagonal_weight": NOT_NEGATIVE,
    "method_options.invariance": NOT_NEGATIVE,
    "method_options.variance": NOT_NEGATIVE,
    "method_options.covariance": NOT_NEGATIVE,
    "method_options.projection_dim": COUNT,
    "method_options.projection_layers": whole(1, 64),
    "method_options.predictor_dim": COUNT,
    "method_options.hidden_dim": COUNT,
    "pirl.hidden_dim": COUNT_OR_NONE,
    "method_options.bottleneck_dim": COUNT,
    "method_options.out_dim": whole(2),
    "method_options.num_clusters": whole(2),
    "method_options.num_heads": whole(1, 64),
    "method_options.num_prototypes": whole(2),
    "method_options.num_negatives": COUNT,
    "method_options.kmeans_iterations": COUNT,
    "method_options.sinkhorn_iterations": COUNT,
    "method_options.queue_size": COUNT,
    "swav.queue_size": COUNT_OR_NONE,
    "method_options.queue_starts": NOT_NEGATIVE,
    "method_options.bn_groups": COUNT,
}

# Of `eval.detection`: `configs/eval/voc_faster_rcnn_c4.py`.
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
    """The domain of a key.

    Args:
        name: of the key, with dots.
        domains: by name, in which a star stands for the name of an evaluator.
        method: whose options the "method_options" are.
    """
    words = name.split(".")
    names = (name, f"{words[0]}.*.{words[-1]}")
    if words[0] == "method_options":
        names = (f"{method}.{words[-1]}", *names)
    return next((domains[one] for one in names if one in domains), None)


def check_domains(config: Mapping[str, Any], domains: Mapping[str, Domain]) -> None:
    """Check every number of a config; one without a domain has to be finite.

    Args:
        config: nested dicts. None stands for a default that is not known here.
        domains: as `find_domain` takes them.

    Raises:
        UserError: a number, or one in a list, is outside of its domain.
    """
    for name, value in flatten(config).items():
        domain = find_domain(name, domains, config.get("method", ""))
        values = [one for one in _elements(value) if one is not None]
        if domain is None:
            domain, values = FINITE, [v for v in values if isinstance(v, float)]
        if any(one not in domain for one in values):
            raise UserError(f"config.{name} is {value!r}: give {domain}.")


def _elements(value: Any) -> Iterator[Any]:
    """What is in a list, or in lists of a list; or the value, if it is no list."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from _elements(one)
    else:
        yield value
