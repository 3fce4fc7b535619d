"""DINO: self-distillation with no labels.

A student sees all views, a teacher only the global ones; the student predicts the teacher's
distribution of every other view. The teacher is a moving average of the student, made after
each step; its logits are centred and sharpened, which together prevent a collapse.

As in the official code: the last layer does not move in the first epoch; the gradient of each
parameter is clipped by itself; weight decay rises along half a cosine; the temperature of the
teacher changes once an epoch; the centre moves after the loss, by raw logits; features are
the teacher's.
With semantic pairs the local crops come from both images of a pair in turn, and `make_views`
draws which image gets which of the two different global pipelines. The teacher's view is
predicted from every other view: half of the local crops that do it are of its own image.

Differences: the local crops have half the size of the global ones (96 of 224 there); the blur
is SimCLR's, the official one PIL's; and activations are bfloat16 on a GPU where the official
code has float16.

Source: https://arxiv.org/abs/2104.14294; facebookresearch/dino for sizes and constants.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from sp_jax import losses, optim
from sp_jax.augment import Augment
from sp_jax.methods import base, byol
from sp_jax.models import DINOHead

OPTIMIZER = {
    "name": "adamw",
    "learning_rate": 5e-4,
    "weight_decay": 0.04,
    "final_weight_decay": 0.4,
    "momentum": 0.9,
    "warmup_epochs": 10.0,
    "final_factor": 0.002,  # 1e-6 at a batch of 256; officially at every batch
    "clip": 3.0,
}
RULES = (optim.Rule("/last_layer/", frozen_epochs=1.0), *optim.DECAY_KERNELS)
PROBE = base.ProbeRecipe(0.001, 1024, 100, scaled=True)
PROBE_RESNET = base.ProbeRecipe(0.3, 256, 100)


def views(size: int, local_crops: int = 8) -> tuple[Augment, ...]:
    """BYOL's two pipelines on large crops, and small crops of half the size."""
    first, second = (
        dataclasses.replace(view, crop_scale=(0.4, 1.0)) for view in byol.views(size)
    )
    local = dataclasses.replace(first, size=size // 2, crop_scale=(0.05, 0.4), blur=0.5)
    return (first, second) + (local,) * local_crops


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    warmup_teacher_temperature: float = 0.04,
    warmup_teacher_temperature_epochs: int = 0,
    momentum: float = 0.996,
    center_momentum: float = 0.9,
    out_dim: int = 65536,
    hidden_dim: int = 2048,
    bottleneck_dim: int = 256,
    norm_last_layer: bool = True,
    head_norm: bool = False,
) -> base.Method:
    """Make DINO around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's lengths.
        student_temperature: of the student's softmax.
        teacher_temperature: of the teacher's, after the warm-up.
        warmup_teacher_temperature: of the teacher's, in the first epoch.
        warmup_teacher_temperature_epochs: epochs in which it rises in equal steps.
        momentum: of the teacher at the start; 1 at the end. The authors advise 0.9995
            for batches of 256.
        center_momentum: of the centre.
        out_dim: number of output dimensions K.
        hidden_dim: width of the head's hidden layers.
        bottleneck_dim: width before the last layer.
        norm_last_layer: keep the rows of the last layer at length 1. Without, their
            lengths are trained: better for a ViT-S, less stable.
        head_norm: batch normalisation in the head (officially `use_bn_in_head`).

    Returns:
        The method; its state is `{"batch_stats", "teacher", "teacher_stats", "center"}`.
        Its metric `teacher_entropy` lies between 0 (all mass on one dimension) and
        ln(out_dim) (uniform); staying at either end is a collapse.
    """
    head = DINOHead(
        out_dim, hidden_dim, bottleneck_dim, norm_last_layer, head_norm, backbone.dtype
    )
    network = base.Network(backbone, head)
    schedule = optim.cosine(momentum, 1.0, run.total_steps)

    def teacher_temperature_at(step):
        epoch = step // run.steps_per_epoch
        steps = max(warmup_teacher_temperature_epochs - 1, 1)
        warms_up = warmup_teacher_temperature_epochs > 0
        share = jnp.minimum(epoch / steps, 1.0) if warms_up else 1
        change = teacher_temperature - warmup_teacher_temperature
        return warmup_teacher_temperature + share * change

    def init(key, views):
        params, stats = base.init_network(network, key, views[0])
        return params, {
            "batch_stats": stats,
            "teacher": params,
            "teacher_stats": stats,
            "center": jnp.zeros(out_dim),
        }

    def loss(params, state, batch, key):
        outputs, stats = base.forward(
            network, params, state["batch_stats"], batch.views, key, joint=True
        )
        large = batch.views[:2]
        targets, teacher_stats = base.forward(
            network, state["teacher"], state["teacher_stats"], large, joint=True
        )
        teacher = jnp.stack([logits for _, logits in targets])
        temperature = teacher_temperature_at(batch.step)
        student, center = jnp.stack([logits for _, logits in outputs]), state["center"]
        value = losses.dino(student, teacher, center, student_temperature, temperature)
        log_q = jax.nn.log_softmax((teacher - center) / temperature)
        metrics = {
            "teacher_entropy": -jnp.mean(jnp.sum(jnp.exp(log_q) * log_q, axis=-1)),
            "teacher_temperature": jnp.asarray(temperature, jnp.float32),
            "teacher_momentum": schedule(batch.step),
        }
        state = {
            **state,
            "batch_stats": stats,
            "teacher_stats": teacher_stats,
            "center": losses.dino_center(center, teacher, center_momentum),
        }
        features = jnp.stack([h for h, _ in outputs[:2]], axis=1)
        return value, base.Output(state, metrics, features)

    def update(params, state, step):
        teacher = optax.incremental_update(params, state["teacher"], 1 - schedule(step))
        return params, {**state, "teacher": teacher}

    def teacher_backbone(params, state):
        return base.online_backbone(
            state["teacher"], {"batch_stats": state["teacher_stats"]}
        )

    return base.Method(init, loss, update, teacher_backbone, copies=("teacher",))
