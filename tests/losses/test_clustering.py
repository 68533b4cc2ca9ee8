"""Sinkhorn and SwAV against lightly, plain scaling to the marginals and loops, on one to four devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ssljax.losses import sinkhorn, swav

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("clustering")


def sinkhorn_loop(scores, epsilon=0.05, iterations=3):
    """Entry by entry in float64, on exponentials that were made as large as can be represented."""
    q = np.exp((np.asarray(scores, np.float64) - np.max(scores)) / epsilon)
    for _ in range(iterations):
        for k in range(q.shape[1]):
            q[:, k] /= sum(q[i, k] for i in range(len(q)))
        for i in range(len(q)):
            q[i] /= sum(q[i, k] for k in range(q.shape[1]))
    return q


def swav_loop(scores, assignments, temperature=0.1):
    """As in SwAV's code: for each crop that was assigned, the mean over the other crops."""
    scores, total = np.asarray(scores, np.float64), 0.0
    for i, q in enumerate(assignments):
        of_crop = 0.0
        for v, other in enumerate(scores):
            if v != i:
                p = np.exp(other / temperature)
                p /= p.sum(axis=1, keepdims=True)
                of_crop += np.mean([-np.sum(q[b] * np.log(p[b])) for b in range(len(q))])
        total += of_crop / (len(scores) - 1)
    return total / len(assignments)


def assignments_of(crops, queue=None, axis=None):
    """Those of the first two crops; a queue's rows take part, after the batch's."""
    assigned = []
    for i, scores in enumerate(crops[:2]):
        rows = scores if queue is None else jnp.concatenate([scores, queue[i]])
        assigned.append(sinkhorn(rows, axis=axis)[: len(scores)])
    return assigned


@pytest.mark.parametrize("oracle", ["sinkhorn", "to_marginals"])
@pytest.mark.parametrize("epsilon, iterations", [(0.05, 3), (0.05, 1), (0.03, 10)])
def test_sinkhorn_equals_lightly_and_the_scaling_to_marginals(numbers, oracle, epsilon, iterations):
    q = sinkhorn(numbers["scores"][0], epsilon=epsilon, iterations=iterations)
    close(q, numbers[f"{oracle}_{epsilon}_{iterations}"])


def test_epsilon_may_follow_a_schedule(numbers):
    q = jax.jit(lambda scores, epsilon: sinkhorn(scores, epsilon=epsilon))(numbers["scores"][0], 0.05)
    close(q, numbers["sinkhorn_0.05_3"])


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_sinkhorn_sums_over_all_shards(numbers, spread, shards):
    scores = numbers["scores"][0]
    close(spread(partial(sinkhorn, axis="data"), shards, P("data"))(scores), numbers["sinkhorn_0.05_3"])


def test_each_example_is_assigned_once_and_all_prototypes_alike():
    scores = np.random.RandomState(0).uniform(-1, 1, (12, 4)).astype(np.float32)
    q = sinkhorn(scores, epsilon=0.5, iterations=20)
    close(q.sum(axis=1), np.ones(12))
    close(q.sum(axis=0), np.full(4, 12 / 4))


@pytest.mark.parametrize("shards", [1, 4])
def test_sinkhorn_is_right_where_the_exponential_cannot_be_represented(spread, shards):
    """exp(50 / 0.05) overflows even in float64, and less the largest score, half of the rows would be zero."""
    random = np.random.RandomState(0)
    scores = random.uniform(-2, 2, (8, 4)).astype(np.float32)
    scores += np.where(np.arange(8) % 2, 48, -48).astype(np.float32)[:, None]
    q = spread(partial(sinkhorn, axis="data"), shards, P("data"))(scores)
    log_q = np.asarray(scores, np.float64) / 0.05
    for _ in range(3):
        log_q -= np.logaddexp.reduce(log_q, axis=0)
        log_q -= np.logaddexp.reduce(log_q, axis=1)[:, None]
    rounding = 2 * 3 * np.spacing(np.float32(np.abs(scores).max() / 0.05))
    np.testing.assert_allclose(q, np.exp(log_q), atol=rounding)
    close(q.sum(axis=1), np.ones(8))


@pytest.mark.parametrize("shards", [1, 4])
def test_rows_of_padding_do_not_enter(numbers, spread, shards):
    """Some shards have more of them than others, the last one nothing else."""
    real = np.array([1, 1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0], np.float32)
    padded = np.full((16, 6), 30.0, np.float32)
    padded[real == 1] = numbers["scores"][0]
    q = spread(lambda s, w: sinkhorn(s, weights=w, axis="data"), shards, P("data"))(padded, real)
    close(q[real == 1], numbers["sinkhorn_0.05_3"])
    np.testing.assert_array_equal(q[real == 0], 0.0)


@pytest.mark.parametrize("shards", [1, 4])
def test_nothing_but_padding_is_assigned_to_nothing(spread, shards):
    f = spread(lambda s, w: sinkhorn(s, weights=w, axis="data"), shards, P("data"))
    np.testing.assert_array_equal(f(np.ones((4, 3), np.float32), np.zeros(4, np.float32)), 0.0)


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("name, crops", [("two", 2), ("multi", 4), ("queue", 4)])
def test_swav_and_its_gradient_equal_lightly(numbers, value_and_gradients, name, crops, shards):
    """A queue is split over the shards as the batch is."""

    def loss(scores, queue):
        scores, queue = (x.transpose(1, 0, 2) for x in (scores, queue))
        return swav(list(scores), assignments_of(scores, queue if name == "queue" else None, "data"))

    arrays = (x.transpose(1, 0, 2) for x in (numbers["scores"][:crops], numbers["queue"]))
    value, (gradient, of_queue) = value_and_gradients(loss, shards, *arrays)
    close(value, numbers[f"swav_{name}"].item())
    close(gradient.transpose(1, 0, 2), numbers[f"swav_{name}_gradient"])
    np.testing.assert_array_equal(of_queue, 0.0)


def test_where_the_queues_rows_stand_does_not_matter(numbers):
    """SwAV's code puts them before the batch, lightly after."""
    scores, queue = numbers["scores"][0], numbers["queue"][0]
    close(sinkhorn(np.concatenate([queue, scores]))[len(queue) :], sinkhorn(np.concatenate([scores, queue]))[:8])


@pytest.mark.parametrize("assigned", [1, 2, 3])
def test_swav_equals_the_loop(numbers, assigned):
    scores = numbers["scores"]
    assignments = [sinkhorn_loop(s) for s in scores[:assigned]]
    for s, q in zip(scores, assignments, strict=False):
        close(sinkhorn(s), q)
    value = swav(scores, assignments, temperature=0.3)
    close(value, swav_loop(scores, assignments, temperature=0.3))


def test_swav_is_a_scalar_where_lightlys_has_an_axis(numbers):
    assert numbers["swav_two"].shape == (1,)
    assert swav(numbers["scores"][:2], assignments_of(numbers["scores"])).shape == ()


def test_equal_scores_cost_ln_prototypes():
    scores = jnp.full((8, 3000), 0.3)
    close(swav([scores] * 3, [sinkhorn(scores)] * 2), np.log(3000))


def test_assignments_get_no_gradient(numbers):
    scores = numbers["scores"][0]
    np.testing.assert_array_equal(jax.grad(lambda s: jnp.sum(sinkhorn(s) ** 2))(scores), 0.0)
    gradient = jax.grad(lambda q: swav([scores, scores], [q, q]))(sinkhorn(scores))
    np.testing.assert_array_equal(gradient, 0.0)


def test_falls_as_the_crops_are_pulled_together(numbers):
    goal, other = numbers["scores"][0], numbers["scores"][1]
    values = []
    for pull in (0.0, 0.3, 0.6, 1.0):
        crops = [goal, (1 - pull) * other + pull * goal]
        values.append(float(swav(crops, assignments_of(crops))))
    assert values == sorted(values, reverse=True) and len(set(values)) == 4


def test_half_precision_scores_are_computed_in_float32(numbers):
    halves = jnp.asarray(numbers["scores"], jnp.bfloat16)
    q = sinkhorn(halves[0])
    assert q.dtype == jnp.float32
    np.testing.assert_array_equal(q, sinkhorn(halves[0].astype(jnp.float32)))
    assert swav(halves, [q]).dtype == jnp.float32
    assert swav(halves, [q]) == swav(halves.astype(jnp.float32), [q])


def test_a_number_of_iterations_may_be_numpys(numbers):
    scores = numbers["scores"][0]
    np.testing.assert_array_equal(sinkhorn(scores, iterations=np.int64(3)), sinkhorn(scores, iterations=3))


def test_arguments_that_make_no_sense_are_refused():
    s = jnp.ones((4, 3))
    with pytest.raises(ValueError, match=r"scores \(4,\) must be \(batch, prototypes\)"):
        sinkhorn(s[:, 0])
    with pytest.raises(ValueError, match=r"scores \(4, 3\) must be .* weights \(3,\)"):
        sinkhorn(s, weights=jnp.ones(3))
    with pytest.raises(ValueError, match="epsilon must be positive, but is 0"):
        sinkhorn(s, epsilon=0.0)
    for iterations in (0, np.int64(0), 2.0, True):
        with pytest.raises(ValueError, match=f"iterations must be a whole number of at least 1, but is {iterations}"):
            sinkhorn(s, iterations=iterations)
    with pytest.raises(ValueError, match="temperature must be positive, but is -1"):
        swav([s, s], [s], temperature=-1)
    with pytest.raises(ValueError, match="scores_per_crop must have at least 2 views, but has 1"):
        swav([s], [s])
    for assignments in ([], [s] * 3):
        with pytest.raises(ValueError, match=f"assignments_per_crop .* but has {len(assignments)}"):
            swav([s, s], assignments)
    for crops in ([s, s[:2]], [s[None], s[None]]):
        with pytest.raises(ValueError, match=r"must be \(batch, K\), equal in all views"):
            swav(crops, crops)
