"""The loss of DINO, and the centre of its teacher."""

import jax
import jax.numpy as jnp


def dino(
    student: jax.Array,
    teacher: jax.Array,
    center: jax.Array,
    student_temperature: float = 0.1,
    teacher_temperature: jax.Array | float = 0.04,
) -> jax.Array:
    r"""Cross entropy of the student with the teacher, over all pairs of different views.

    With q_g = softmax((t_g - center) / T_t) and p_v = softmax(s_v / T_s),

        loss = mean over (g, v), v != g, of  -mean_i sum_k q_gik log p_vik

    About ln K at the start.

    Args:
        student: logits of V views, [V, N, K], any float dtype; the global views first.
        teacher: logits of the G <= V global views, [G, N, K]. No gradient flows into it.
        center: running mean of the teacher's logits, [K]. No gradient flows into it.
        student_temperature: T_s > 0.
        teacher_temperature: T_t > 0; may change with the step.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes do not fit.

    Source: https://arxiv.org/abs/2104.14294, equations 1 to 4.

    Example:
        >>> z = jnp.zeros((2, 4, 8))
        >>> round(float(dino(z, z, jnp.zeros(8))), 4)  # ln 8
        2.0794
    """
    views, globals_ = student.shape[0], teacher.shape[0]
    if (
        student.ndim != 3
        or student.shape[1:] != teacher.shape[1:]
        or center.shape != student.shape[2:]
        or not 1 <= globals_ <= views
        or views < 2
    ):
        raise ValueError(
            "dino needs logits [V, N, K] of the student, [G, N, K] of the teacher with "
            f"1 <= G <= V and V >= 2, and a centre [K], not {student.shape}, "
            f"{teacher.shape} and {center.shape}."
        )
    teacher, center = jax.lax.stop_gradient((teacher, center))
    log_p = jax.nn.log_softmax(student.astype(jnp.float32) / student_temperature)
    centered = teacher.astype(jnp.float32) - center
    q = jax.nn.softmax(centered / jax.lax.stop_gradient(teacher_temperature))
    total = jnp.float32(0.0)
    for g in range(globals_):
        for v in range(views):
            if v != g:
                total = total - jnp.mean(jnp.sum(q[g] * log_p[v], axis=-1))
    return total / (globals_ * (views - 1))


def dino_center(
    center: jax.Array, teacher: jax.Array, momentum: float = 0.9
) -> jax.Array:
    """Move the centre towards the mean of the teacher's raw logits.

        center <- m center + (1 - m) mean over g and i of t_gi

    The official code does it after the loss, so that the centre of a batch does not
    enter its own targets.

    Args:
        center: float32 [K].
        teacher: logits, [G, N, K], before centring and temperature.
        momentum: m, the share of the old centre that is kept.

    Returns:
        float32 [K], without gradient.

    Raises:
        ValueError: the shapes do not fit together.

    Source: https://arxiv.org/abs/2104.14294, equation 4.

    Example:
        >>> dino_center(jnp.zeros(2), jnp.ones((2, 3, 2)))
        Array([0.1, 0.1], dtype=float32)
    """
    if teacher.ndim != 3 or center.shape != teacher.shape[2:]:
        raise ValueError(
            "dino_center needs a centre [K] and logits [G, N, K] of the teacher, not "
            f"{center.shape} and {teacher.shape}."
        )
    batch = jnp.mean(teacher.astype(jnp.float32), axis=(0, 1))
    return jax.lax.stop_gradient(momentum * center + (1 - momentum) * batch)
