"""Losses by which a student predicts what its teacher makes of the same image, and what keeps them from collapse.

Logits, softmax and statistics are float32; no gradient flows into anything of the teacher's.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.losses.checks import check_pair, check_positive, check_weights
from ssljax.numerics import normalize, product
from ssljax.typing import Array


def dino(student_logits: Sequence[Array], teacher_probabilities: Sequence[Array], *, temperature=0.1) -> Array:
    """Cross-entropy between views (DINO): each view must predict what the teacher sees in the other views.

        L = mean over pairs (t, s) of different views, and over the batch, of  -Σ_k p_t[k] · log softmax(z_s / T)[k]

    Args:
      student_logits: z, one array (batch, K) for each view, at least two: global crops first, then the local ones.
      teacher_probabilities: p, one array (batch, K) for each view that the teacher saw, which are the student's first
        ones, in the same order. Rows sum to one (`center_and_sharpen`, `ssljax.losses.sinkhorn`).
      temperature: T > 0, the student's.

    Returns: a float32 scalar, ln K where all logits are equal. With equal numbers of examples on all shards, the mean
    over shards is the loss of the whole batch. DINOv2's weights of local and global crops amount to the same mean.

    Raises: ValueError if there are no two different views to compare, shapes differ, or the temperature is not
    positive.

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021, equations 2 and 3.
    """
    return cross_entropy_between_views(
        student_logits, teacher_probabilities, temperature, names=("student_logits", "teacher_probabilities")
    )


def center_and_sharpen(teacher_logits: Array, center: Array, temperature) -> Array:
    """The teacher's probabilities: softmax((t - c) / T), float32, shaped as the logits, without gradient (DINO).

    Args:
      teacher_logits: t, (…, K).
      center: c, (K,), as it is before this batch enters it (`ema_center`).
      temperature: T > 0; small makes the distribution sharp.

    Raises: ValueError if the shapes do not fit or the temperature is not positive.

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021, section 3.1.
    """
    teacher_logits, center = jnp.asarray(teacher_logits), jnp.asarray(center)
    _check_center(teacher_logits, center)
    check_positive("temperature", temperature)
    centered = teacher_logits.astype(jnp.float32) - center.astype(jnp.float32)
    return jax.lax.stop_gradient(jax.nn.softmax(centered / temperature, axis=-1))


def ema_center(
    center: Array, teacher_logits: Array, momentum=0.9, *, weights: Array | None = None, axis: str | None = None
) -> Array:
    """The centre after a batch: c <- m c + (1 - m) mean(t), where the mean is over all rows t of all shards.

    It is used before it is updated: a batch's own mean is first subtracted from the next one's logits.

    Args:
      center: c, (K,); zeros at the start.
      teacher_logits: t, (…, K), all that the teacher made of this batch: for DINO the logits of all global crops
        together, for iBOT's patches (batch, patches, K), for DINOv2's the slots of masked patches (slots, K).
      momentum: m, from 0 to 1.
      weights: (…), 1 for rows that count and 0 for others. With iBOT's mask (batch, patches) this is DINOv2's centre
        and lightly's, of the masked patches alone; iBOT's own, without weights, is of all patches. DINOv2 averages
        the means of the devices; here every masked patch weighs the same, on any number of them.
      axis: mesh axis that the batch is split over.

    Returns: (K,) float32, the same on all shards; as it was, if all weights are zero.

    Raises: ValueError if the shapes do not fit or the momentum is a number outside of [0, 1].

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021, equation 4.
    """
    teacher_logits, center = jnp.asarray(teacher_logits), jnp.asarray(center)
    _check_center(teacher_logits, center)
    if isinstance(momentum, int | float) and not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be from 0 to 1, but is {momentum}.")
    weights = jnp.ones(teacher_logits.shape[:-1]) if weights is None else jnp.asarray(weights)
    check_weights("teacher_logits", teacher_logits, weights)
    rows = jax.lax.stop_gradient(teacher_logits).astype(jnp.float32).reshape(-1, len(center))
    weight = weights.astype(jnp.float32).reshape(-1, 1)
    summed, total = collectives.mean((jnp.sum(weight * rows, axis=0), jnp.sum(weight)), axis)
    moved = momentum * center + (1 - momentum) * summed / total
    return jnp.where(total > 0, moved, center).astype(jnp.float32)


def patch_weights(mask: Array) -> Array:
    """What each patch weighs in iBOT's loss: m_bp / (max(Σ_p m_bp, 1) · batch).

    Every image with masked patches weighs the same, however many they are, and images without any count in the batch.

    Args:
      mask: (batch, patches) or (batch, rows, columns), 1 or True for masked; all global crops of this shard together.

    Returns: float32, shaped as the mask. For masked patches that were gathered into slots, take the weights at the same
    places, and zero for slots that stay empty: `patch_weights(mask).reshape(-1)[places] * filled`.

    Raises: ValueError if the mask has no axis of patches.

    Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", 2022, section 3.
    """
    mask = jnp.asarray(mask)
    if mask.ndim < 2 or not mask.size:
        raise ValueError(f"mask {mask.shape} must be (batch, patches) or (batch, rows, columns), not empty.")
    mask = mask.astype(jnp.float32)
    masked = jnp.sum(mask, axis=tuple(range(1, mask.ndim)), keepdims=True)
    return mask / (jnp.maximum(masked, 1.0) * len(mask))


def ibot_patches(student_logits: Array, teacher_probabilities: Array, weights: Array, *, temperature=0.1) -> Array:
    """Masked patches must predict what the teacher, which sees the whole image, makes of them (iBOT).

        L = Σ_r w_r · -Σ_k p_r[k] · log softmax(z_r / T)[k]

    With weights from `patch_weights` that is, for each image, the mean over its masked patches, and then the mean over
    all images; an image without masked patches adds nothing, and a batch without any has loss zero.

    Args:
      student_logits: z, (…, K): (batch, patches, K), or gathered masked patches (slots, K) as in DINOv2.
      teacher_probabilities: p, of the same shape, of the same patches of the same crop.
      weights: w, (…): zero for patches that are visible and for slots that are empty.
      temperature: T > 0, the student's.

    Returns: a float32 scalar. Weights are made of each shard's own batch; the mean over shards is then the loss of the
    whole batch.

    Raises: ValueError if the shapes do not fit or the temperature is not positive.

    Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", 2022, section 3; gathered: Oquab et al.,
    "DINOv2: Learning Robust Visual Features without Supervision", 2024.
    """
    student_logits, teacher_probabilities = jnp.asarray(student_logits), jnp.asarray(teacher_probabilities)
    weights = jnp.asarray(weights)
    if student_logits.shape != teacher_probabilities.shape:
        raise ValueError(
            f"student_logits {student_logits.shape} and teacher_probabilities {teacher_probabilities.shape} must be "
            "(…, K) and equal."
        )
    check_weights("student_logits", student_logits, weights)
    check_positive("temperature", temperature)
    entropy = _cross_entropy(teacher_probabilities, _log_softmax(student_logits, temperature))
    return jnp.sum(weights.astype(jnp.float32) * entropy)


def soft_cross_entropy(student_logits: Array, teacher_logits: Array, *, temperature=1.0) -> Array:
    """Cross-entropy of the teacher's distribution over classes and the student's of the same view (distillation).

        L = mean over the batch of  -Σ_k softmax(t / T)[k] · log softmax(s / T)[k]

    Its gradient is that of the Kullback-Leibler divergence, without the factor T² that some multiply it by.

    Args:
      student_logits, teacher_logits: s and t, (batch, classes); no gradient flows into the teacher's.
      temperature: T > 0, of both.

    Returns: a float32 scalar, the mean over this shard's examples, at least the entropy of softmax(t / T).

    Raises: ValueError if the shapes differ or the temperature is not positive.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; Chen et al., "Big Self-Supervised Models are
    Strong Semi-Supervised Learners", 2020, equation 2.
    """
    student_logits, teacher_logits = jnp.asarray(student_logits), jnp.asarray(teacher_logits)
    check_pair("student_logits", student_logits, "teacher_logits", teacher_logits)
    check_positive("temperature", temperature)
    p = jax.nn.softmax(teacher_logits.astype(jnp.float32) / temperature, axis=-1)
    return _cross_entropy(p, _log_softmax(student_logits, temperature)).mean()


def koleo(features: Array, *, axis: str | None = None) -> Array:
    """Kozachenko-Leonenko regulariser (DINOv2): every example moves away from its nearest neighbour in the batch.

        L = -mean_i log( |x_i - x_n(i) + ε| + ε ),   x normalised, n(i) = argmax_{j≠i} x_i·x_j,   ε = 1e-8

    Args:
      features: (batch, dim), one crop's, normalised here with max(|x|, ε). DINOv2 adds the values of its two global
        crops, so that two crops of one image are never neighbours.
      axis: mesh axis that the batch is split over. The neighbours are then sought in the whole batch, and the gradient
        flows to both ends on whichever shard they are. DINOv2's code seeks among each device's own examples only:
        that is `axis=None` on every shard.

    Returns: a float32 scalar, the mean over this shard's examples, finite also where examples are equal.

    Raises: ValueError if the features are not (batch, dim), or if there is one example in the (global) batch.

    Sablayrolles et al., "Spreading Vectors for Similarity Search", 2019; Oquab et al., "DINOv2: Learning Robust Visual
    Features without Supervision", 2024.
    """
    features = jnp.asarray(features)
    if features.ndim != 2:
        raise ValueError(f"features {features.shape} must be (batch, dim).")
    n, epsilon = len(features), 1e-8
    if n * (1 if axis is None else jax.lax.axis_size(axis)) < 2:
        raise ValueError("koleo needs at least 2 examples in the global batch: one alone has no nearest neighbour.")
    x = normalize(features, epsilon=epsilon)
    everyone = collectives.gather(x, axis)
    similarity = jax.lax.stop_gradient(product(x, everyone.T))
    own = collectives.shard_offset(n, axis) + jnp.arange(n)
    similarity = jnp.where(own[:, None] == jnp.arange(len(everyone)), -jnp.inf, similarity)
    difference = x - everyone[jnp.argmax(similarity, axis=1)] + epsilon
    return -jnp.mean(jnp.log(jnp.sqrt(jnp.sum(difference**2, axis=-1)) + epsilon))


def cross_entropy_between_views(
    logits: Sequence[Array], targets: Sequence[Array], temperature, *, names: tuple[str, str]
) -> Array:
    """Mean over pairs of different views, and over the batch, of -Σ_k target[k] · log softmax(logits / T)[k].

    `targets` belong to the first views of `logits`; `names` are what the caller calls the two.
    """
    logits, targets = tuple(map(jnp.asarray, logits)), tuple(map(jnp.asarray, targets))
    if len(logits) < 2 or not 1 <= len(targets) <= len(logits):
        raise ValueError(
            f"different views are compared: {names[0]} must have at least 2 views, but has {len(logits)}, and "
            f"{names[1]} one for each of the first of them, but has {len(targets)}."
        )
    shapes = [x.shape for x in (*logits, *targets)]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1 or 0 in shapes[0]:
        raise ValueError(
            f"{names[0]} and {names[1]} must be (batch, K), equal in all views and not empty, but are {shapes}."
        )
    check_positive("temperature", temperature)
    total = jnp.float32(0.0)
    for view, z in enumerate(logits):
        log_p = _log_softmax(z, temperature)
        for target in targets[:view] + targets[view + 1 :]:
            total += _cross_entropy(target, log_p).mean()
    return total / (len(targets) * (len(logits) - 1))


def _log_softmax(logits: Array, temperature) -> Array:
    return jax.nn.log_softmax(logits.astype(jnp.float32) / temperature, axis=-1)


def _cross_entropy(probabilities: Array, log_p: Array) -> Array:
    return -jnp.sum(jax.lax.stop_gradient(probabilities).astype(jnp.float32) * log_p, axis=-1)


def _check_center(teacher_logits: Array, center: Array) -> None:
    if teacher_logits.ndim < 2 or center.shape != teacher_logits.shape[-1:]:
        raise ValueError(f"teacher_logits {teacher_logits.shape} must be (…, K) and center {center.shape} (K,).")
