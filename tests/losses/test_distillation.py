"""DINO, iBOT's patches, their centres and KoLeo against lightly, iBOT's own form and loops, on one to four devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ssljax.losses import (
    center_and_sharpen,
    dino,
    ema_center,
    ibot_patches,
    koleo,
    patch_weights,
    soft_cross_entropy,
)

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
TEMPERATURES = 0.04, 0.07  # the teacher's, in the two steps of the golden numbers


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("distillation")


def softmax(x):
    x = np.exp(np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def dino_loop(student, teacher, temperature=0.1):
    """Pair by pair, as in DINO's code."""
    terms = []
    for i, p in enumerate(teacher):
        for v, logits in enumerate(student):
            if v != i:
                q = softmax(logits / temperature)
                terms.append(np.mean([-np.sum(p[b] * np.log(q[b])) for b in range(len(p))]))
    return np.mean(terms)


def koleo_loop(features, normalize_epsilon=1e-8):
    x = np.asarray(features, np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), normalize_epsilon)
    total = 0.0
    for i, a in enumerate(x):
        nearest = max((j for j in range(len(x)) if j != i), key=lambda j: a @ x[j])
        total -= np.log(np.sqrt(sum((a - x[nearest] + 1e-8) ** 2)) + 1e-8)
    return total / len(x)


# DINO


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("step", [0, 1])
def test_dino_its_gradient_and_then_its_centre_equal_lightly(numbers, value_and_gradients, spread, step, shards):
    """The centre of one step is used in the next one."""
    student, teacher = (numbers[name][step].transpose(1, 0, 2) for name in ("dino_student", "dino_teacher"))
    center = np.zeros(6, np.float32) if step == 0 else numbers["dino_0_center"]

    def loss(student, teacher):
        probabilities = center_and_sharpen(teacher.transpose(1, 0, 2), center, TEMPERATURES[step])
        return dino(list(student.transpose(1, 0, 2)), list(probabilities))

    value, (gradient, of_teacher) = value_and_gradients(loss, shards, student, teacher)
    close(value, numbers[f"dino_{step}"])
    close(gradient.transpose(1, 0, 2), numbers[f"dino_{step}_gradient"])
    np.testing.assert_array_equal(of_teacher, 0.0)
    moved = spread(lambda t: ema_center(jnp.asarray(center), t, 0.9, axis="data"), shards, P())(teacher)
    close(moved, numbers[f"dino_{step}_center"])


@pytest.mark.parametrize("seen", [1, 2, 4])
def test_dino_equals_the_loop(numbers, seen):
    student, p = numbers["dino_student"][0], softmax(numbers["dino_student"][1][:seen])
    close(dino(student, p, temperature=0.2), dino_loop(student, p, temperature=0.2))


def test_dino_is_dinov2s_sum_over_local_and_swapped_global_crops(numbers):
    """(local + 2 global) / (2 + 2 L), where the global crops are compared at once with the teacher's in reverse."""
    student, p = numbers["dino_student"][0].astype(np.float64), softmax(numbers["dino_teacher"][0])
    log_q = np.log(softmax(student / 0.1))
    local = sum(-(t * s).sum(-1).mean() for t in p for s in log_q[2:])
    swapped = -(np.concatenate(p[::-1]) * np.concatenate(log_q[:2])).sum(-1).mean()
    close(dino(list(student), list(p)), (local + 2 * swapped) / (2 + 2 * 2))


def test_the_same_view_is_not_compared(numbers):
    """With one view of the teacher's, the student's own logits of that view do not matter."""
    student, p = numbers["dino_student"][0], softmax(numbers["dino_teacher"][0][:1])
    gradient = jax.grad(lambda s: dino(s, p))(student)
    np.testing.assert_array_equal(gradient[0], 0.0)
    assert np.abs(gradient[1:]).min(axis=(1, 2)).all()


def test_equal_logits_cost_ln_k(numbers):
    p = softmax(np.random.RandomState(0).randn(2, 4, 4096))
    close(dino(jnp.full((3, 4, 4096), 0.2), p), np.log(4096))
    close(ibot_patches(jnp.full((4, 4096), 0.2), p[0], patch_weights(np.ones((2, 2))).reshape(-1)), np.log(4096))


@pytest.mark.parametrize("views", [0, 1])
def test_dino_refuses_a_single_view(numbers, views):
    student, p = numbers["dino_student"][0][:views], softmax(numbers["dino_teacher"][0][:1])
    with pytest.raises(ValueError, match=f"student_logits must have at least 2 views, but has {views}"):
        dino(list(student), list(p))


def test_falls_as_the_students_views_are_pulled_towards_the_teachers(numbers):
    teacher = numbers["dino_teacher"][0][:1]
    p = center_and_sharpen(teacher, np.zeros(6), 0.1)
    for loss in (
        lambda z: dino([z, z], p),
        lambda z: ibot_patches(z, p[0], patch_weights(np.ones((1, 8))).reshape(-1)),
    ):
        student = numbers["dino_student"][0][1]
        values = [float(loss((1 - pull) * student + pull * teacher[0])) for pull in (0.0, 0.3, 0.6, 1.0)]
        assert values == sorted(values, reverse=True) and len(set(values)) == 4


def test_sharpened_probabilities_of_large_logits_are_finite_and_sum_to_one():
    t = np.array([[50.0, -50.0, 49.0], [-50.0, -50.0, -50.0]], np.float32)
    p = center_and_sharpen(t, np.zeros(3), 0.01)
    close(p.sum(axis=1), np.ones(2))
    close(p, softmax(t / 0.01))


# Centres


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("oracle", ["lightly", "official"])
def test_ibots_centre_is_of_masked_patches_or_of_all(numbers, spread, oracle, step, shards):
    center = np.zeros(6, np.float32) if step == 0 else numbers[f"{oracle}_ibot_0_center"]

    def update(teacher, mask):
        weights = mask if oracle == "lightly" else None
        return ema_center(jnp.asarray(center), teacher, 0.9, weights=weights, axis="data")

    moved = spread(update, shards, P())(numbers["ibot_teacher"][step], numbers["ibot_mask"][step])
    close(moved, numbers[f"{oracle}_ibot_{step}_center"])


@pytest.mark.parametrize("shards", [1, 4])
def test_padded_slots_do_not_enter_the_centre(numbers, spread, shards):
    """However many slots are filled on each shard, each masked patch weighs the same."""
    filled = np.zeros(48, np.float32)
    slots = np.full((48, 6), 1e3, np.float32)
    masked = numbers["ibot_teacher"][0][numbers["ibot_mask"][0]]
    filled[: len(masked)], slots[: len(masked)] = 1.0, masked
    update = spread(lambda t, w: ema_center(jnp.zeros(6), t, 0.9, weights=w, axis="data"), shards, P())
    close(update(slots, filled), numbers["lightly_ibot_0_center"])


@pytest.mark.parametrize("shards", [1, 4])
def test_without_a_masked_patch_the_centre_stays(spread, shards):
    center = jnp.arange(3.0)
    update = spread(lambda t, w: ema_center(center, t, 0.9, weights=w, axis="data"), shards, P())
    np.testing.assert_array_equal(update(jnp.ones((8, 3)), jnp.zeros(8)), center)


def test_the_teacher_gets_no_gradient(numbers):
    teacher, center = numbers["dino_teacher"][0], jnp.zeros(6)
    for f in (lambda t: ema_center(center, t), lambda t: center_and_sharpen(t, center, 0.1) ** 2):
        np.testing.assert_array_equal(jax.grad(lambda t, f=f: f(t).sum())(teacher), 0.0)
    for loss in (lambda p: dino(teacher, p), lambda p: ibot_patches(teacher, p, patch_weights(np.ones((2, 8))))):
        np.testing.assert_array_equal(jax.grad(loss)(teacher), 0.0)


# iBOT


def gathered(student, probabilities, mask, slots):
    """Masked patches in the first slots, the others filled with another patch's numbers."""
    flat = mask.reshape(-1)
    places = np.concatenate([np.flatnonzero(flat), np.zeros(slots - flat.sum(), int)])
    filled = np.arange(slots) < flat.sum()
    weights = patch_weights(mask).reshape(-1)[places] * filled
    return student.reshape(-1, 6)[places], probabilities.reshape(-1, 6)[places], weights


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("oracle", ["lightly", "official"])
def test_ibot_and_its_gradient_equal_lightly_and_ibots_own(numbers, value_and_gradients, oracle, step, shards):
    """Some images have no masked patch, and on one of four shards there are few."""
    center = np.zeros(6, np.float32) if step == 0 else numbers[f"{oracle}_ibot_0_center"]

    def loss(student, teacher, mask):
        return ibot_patches(student, center_and_sharpen(teacher, center, TEMPERATURES[step]), patch_weights(mask))

    arrays = (numbers[f"ibot_{name}"][step] for name in ("student", "teacher"))
    mask = numbers["ibot_mask"][step].astype(np.float32)
    value, (gradient, of_teacher, _) = value_and_gradients(loss, shards, *arrays, mask)
    close(value, numbers[f"{oracle}_ibot_{step}"])
    close(gradient, numbers[f"{oracle}_ibot_{step}_gradient"])
    np.testing.assert_array_equal(of_teacher, 0.0)


def test_masked_patches_gathered_into_padded_slots_cost_the_same(numbers):
    """As in DINOv2: some slots are empty."""
    student, mask = numbers["ibot_student"][0], numbers["ibot_mask"][0]
    p = np.asarray(center_and_sharpen(numbers["ibot_teacher"][0], np.zeros(6), TEMPERATURES[0]))
    close(ibot_patches(*gathered(student, p, mask, slots=mask.sum() + 7)), numbers["lightly_ibot_0"])


def test_patches_weigh_by_what_is_masked_in_their_image():
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    expected = np.array([[1 / 2, 1 / 2, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]) / 3
    close(patch_weights(mask), expected)
    close(patch_weights(mask.reshape(3, 2, 2)), expected.reshape(3, 2, 2))


def test_a_batch_without_masked_patches_costs_nothing(numbers):
    student, p = numbers["ibot_student"][0], softmax(numbers["ibot_teacher"][0])
    value, gradient = jax.value_and_grad(ibot_patches)(student, p, patch_weights(np.zeros((8, 3, 4))))
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


# KoLeo


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_koleo_and_its_gradient_equal_lightly(numbers, value_and_gradients, shards):
    """Nearest neighbours are on other shards, too."""
    value, (gradient,) = value_and_gradients(partial(koleo, axis="data"), shards, numbers["koleo_features"])
    close(value, numbers["koleo"])
    close(gradient, numbers["koleo_gradient"])


def test_koleo_equals_the_loop_and_without_an_axis_each_shard_is_its_own_batch(numbers, value_and_gradients):
    x = numbers["koleo_features"]
    close(koleo(x), koleo_loop(x))
    close(koleo(x[:2]), koleo_loop(x[:2]))
    value, _ = value_and_gradients(koleo, 4, x)
    close(value, np.mean([koleo_loop(x[i : i + 2]) for i in range(0, 8, 2)]))


@pytest.mark.parametrize("shards", [1, 4])
def test_duplicates_have_finite_value_and_gradient(numbers, value_and_gradients, shards):
    value, (gradient,) = value_and_gradients(partial(koleo, axis="data"), shards, numbers["koleo_duplicated_features"])
    close(value, numbers["koleo_duplicated"])
    assert np.isfinite(gradient).all()
    same = jax.value_and_grad(koleo)(jnp.ones((4, 3)))
    assert all(np.isfinite(x).all() for x in same)


def test_features_of_zeros_have_finite_value_and_gradient(numbers):
    x = numbers["koleo_features"].copy()
    x[:2] = 0.0
    value, gradient = jax.value_and_grad(koleo)(x)
    close(value, koleo_loop(x))
    assert np.isfinite(gradient).all()


def test_examples_that_are_opposite_are_each_others_neighbours():
    """A diagonal of -1, as in DINOv2's code, would take the first one as its own neighbour."""
    x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    close(koleo(x), -np.log(2))


def test_koleo_falls_as_neighbours_part(numbers):
    x = numbers["koleo_features"]
    values = [float(koleo(x + away)) for away in (30.0, 10.0, 3.0, 0.0)]  # all in one direction, then in all
    assert values == sorted(values, reverse=True) and len(set(values)) == 4


def test_koleo_does_not_depend_on_the_features_scale(numbers):
    close(koleo(1e3 * numbers["koleo_features"]), numbers["koleo"])


def test_koleo_refuses_a_global_batch_of_one_but_takes_one_example_on_each_shard(numbers, value_and_gradients):
    x = numbers["koleo_features"][:4]
    with pytest.raises(ValueError, match="at least 2 examples in the global batch"):
        koleo(x[:1])
    value, _ = value_and_gradients(partial(koleo, axis="data"), 4, x)
    close(value, koleo_loop(x))


# All of them


def test_half_precision_inputs_are_computed_in_float32(numbers):
    student, teacher = (jnp.asarray(numbers[f"dino_{x}"][0], jnp.bfloat16) for x in ("student", "teacher"))
    weights, center = patch_weights(np.ones((2, 8))), jnp.zeros(6)
    calls = (
        lambda s, t: dino(s, t),
        lambda s, t: ibot_patches(s[:2], t, weights),
        lambda s, t: center_and_sharpen(t, center, 0.04),
        lambda s, t: ema_center(center, t),
        lambda s, t: koleo(s[0]),
    )
    for call in calls:
        value = call(student, teacher)
        assert value.dtype == jnp.float32
        np.testing.assert_array_equal(value, call(student.astype(jnp.float32), teacher.astype(jnp.float32)))


def test_a_temperature_and_a_momentum_may_follow_a_schedule(numbers):
    teacher = numbers["dino_teacher"][0]
    p = jax.jit(center_and_sharpen)(teacher, np.zeros(6), 0.04)
    close(p, center_and_sharpen(teacher, np.zeros(6), 0.04))
    close(jax.jit(ema_center)(jnp.zeros(6), teacher, 0.9), numbers["dino_0_center"])


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_temperatures_that_make_no_sense_are_refused(temperature):
    z = jnp.ones((4, 3))
    for call in (
        lambda: dino([z, z], [z], temperature=temperature),
        lambda: ibot_patches(z, z, jnp.ones(4), temperature=temperature),
        lambda: center_and_sharpen(z, jnp.zeros(3), temperature),
    ):
        with pytest.raises(ValueError, match="temperature must be positive"):
            call()


@pytest.mark.parametrize("momentum", [-0.1, 1.5, float("nan")])
def test_a_centres_momentum_outside_of_its_range_is_refused(momentum):
    with pytest.raises(ValueError, match=f"momentum must be from 0 to 1, but is {momentum}"):
        ema_center(jnp.zeros(3), jnp.ones((4, 3)), momentum)


def test_shapes_that_do_not_fit_are_named():
    z = jnp.ones((4, 3))
    with pytest.raises(ValueError, match=r"teacher_probabilities .* but has 3"):
        dino([z, z], [z] * 3)
    with pytest.raises(ValueError, match=r"student_logits and teacher_probabilities must be .*\(4, 2\)"):
        dino([z, z], [z[:, :2]])
    for call in (lambda: center_and_sharpen(z, jnp.zeros((1, 3)), 0.1), lambda: ema_center(jnp.zeros(2), z)):
        with pytest.raises(ValueError, match=r"teacher_logits \(4, 3\) must be \(…, K\) and center"):
            call()
    with pytest.raises(ValueError, match=r"teacher_logits \(4, 3\) must be .* weights \(1, 4\)"):
        ema_center(jnp.zeros(3), z, weights=jnp.ones((1, 4)))
    with pytest.raises(ValueError, match=r"student_logits \(4, 3\) must be .* weights \(4, 1\)"):
        ibot_patches(z, z, jnp.ones((4, 1)))
    with pytest.raises(ValueError, match=r"student_logits \(4, 3\) and teacher_probabilities \(2, 3\)"):
        ibot_patches(z, z[:2], jnp.ones(4))
    with pytest.raises(ValueError, match=r"mask \(4,\) must be"):
        patch_weights(jnp.ones(4))
    with pytest.raises(ValueError, match=r"features \(2, 4, 3\) must be \(batch, dim\)"):
        koleo(jnp.ones((2, 4, 3)))


# Soft cross-entropy


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_soft_cross_entropy_and_its_gradient_equal_pytorchs(numbers, value_and_gradients, temperature, shards):
    student, teacher = numbers["soft_student"], numbers["soft_teacher"]
    loss = partial(soft_cross_entropy, temperature=temperature)
    value, (gradient, of_teacher) = value_and_gradients(loss, shards, student, teacher)
    close(value, numbers[f"soft_{temperature}"])
    close(gradient, numbers[f"soft_{temperature}_gradient"])
    np.testing.assert_array_equal(of_teacher, 0.0)


def test_soft_cross_entropy_falls_to_the_teachers_entropy(numbers):
    student, teacher = numbers["soft_student"], numbers["soft_teacher"]
    values = [float(soft_cross_entropy((1 - a) * student + a * teacher, teacher)) for a in (0.0, 0.5, 1.0)]
    p = softmax(teacher)
    close(values[2], -np.sum(p * np.log(p), axis=1).mean())
    assert values[0] > values[1] > values[2]


def test_soft_cross_entropy_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"student_logits \(4, 3\) and teacher_logits \(4, 2\) must both be"):
        soft_cross_entropy(jnp.zeros((4, 3)), jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match="temperature must be positive, but is 0"):
        soft_cross_entropy(jnp.zeros((4, 3)), jnp.zeros((4, 3)), temperature=0)
