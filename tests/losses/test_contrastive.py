"""NT-Xent and InfoNCE against lightly, PyTorch and loops that spell out the formulas, on one device and on four."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses import barlow_twins, info_nce, nt_xent, vicreg

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("contrastive")


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def nt_xent_loop(z1, z2, temperature):
    """Both directions' means, summed as Google's code does: every anchor against all embeddings but itself."""
    views = unit(z1), unit(z2)
    total = 0.0
    for own, other in ((0, 1), (1, 0)):
        for i, anchor in enumerate(views[own]):
            positive = np.exp(anchor @ views[other][i] / temperature)
            negatives = 0.0
            for view in (0, 1):
                for j, z in enumerate(views[view]):
                    if j != i:
                        negatives += np.exp(anchor @ z / temperature)
            total += -np.log(positive / (positive + negatives)) / len(z1)
    return total


def info_nce_loop(query, key, queue, temperature):
    """Every query against its own key and the queue, or the other keys where there is none."""
    query, key = unit(query), unit(key)
    total = 0.0
    for i, q in enumerate(query):
        negatives = np.delete(key, i, axis=0) if queue is None else np.asarray(queue, np.float64)
        positive = np.exp(q @ key[i] / temperature)
        total += -np.log(positive / (positive + sum(np.exp(q @ k / temperature) for k in negatives)))
    return total / len(query)


@pytest.mark.parametrize("block", [None, 3])
@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_and_its_gradient_equal_lightly(numbers, value_and_gradients, temperature, shards, block):
    loss = partial(nt_xent, temperature=temperature, axis="data", block=block)
    value, (dz1, dz2) = value_and_gradients(loss, shards, numbers["z1"], numbers["z2"])
    close(value, numbers[f"nt_xent_{temperature}"])
    close(dz1, numbers[f"nt_xent_{temperature}_dz1"])
    close(dz2, numbers[f"nt_xent_{temperature}_dz2"])


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_sum_is_googles_and_twice_the_mean(numbers, temperature):
    z1, z2 = numbers["z1"], numbers["z2"]
    total = nt_xent(z1, z2, temperature, convention="sum")
    close(total, nt_xent_loop(z1, z2, temperature))
    close(total, 2 * nt_xent(z1, z2, temperature))


def test_nt_xent_needs_no_mesh_and_treats_both_views_alike(numbers):
    z1, z2 = numbers["z1"], numbers["z2"]
    close(nt_xent(z1, z2, 0.5), numbers["nt_xent_0.5"])
    close(nt_xent(z2, z1, 0.5), numbers["nt_xent_0.5"])


@pytest.mark.parametrize("block", [None, 3])
@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("temperature", [0.07, 0.2])
@pytest.mark.parametrize("negatives", ["queue", "batch"])
def test_info_nce_and_its_gradient_equal_torch(numbers, value_and_gradients, negatives, temperature, shards, block):
    queue = numbers["queue"] if negatives == "queue" else None
    loss = partial(info_nce, queue=queue, temperature=temperature, axis="data", block=block)
    value, (dquery, dkey) = value_and_gradients(loss, shards, numbers["z1"], numbers["z2"])
    close(value, numbers[f"info_nce_{negatives}_{temperature}"])
    close(dquery, numbers[f"info_nce_{negatives}_{temperature}_dquery"])
    np.testing.assert_array_equal(dkey, 0.0)  # the target gets no gradient


@pytest.mark.parametrize("negatives", ["queue", "batch"])
def test_info_nce_equals_the_loop(numbers, negatives):
    queue = numbers["queue"] if negatives == "queue" else None
    z1, z2 = numbers["z1"], numbers["z2"]
    close(info_nce(z1, z2, queue, 0.2), info_nce_loop(z1, z2, queue, 0.2))


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_info_nce_in_the_batch_gives_moco_v3(golden, value_and_gradients, shards):
    """Times 2 T and summed over both directions, with the keys of all shards and no gradient into them."""
    numbers = golden("nce")
    temperature = float(numbers["temperature"])

    def moco_v3(q1, q2, k1, k2):
        directions = (info_nce(q, k, temperature=temperature, axis="data") for q, k in ((q1, k2), (q2, k1)))
        return 2 * temperature * sum(directions)

    value, gradients = value_and_gradients(moco_v3, shards, *(numbers[name] for name in ("q1", "q2", "k1", "k2")))
    dq1, dq2, *dkeys = gradients
    close(value, numbers["moco_v3"])
    close(dq1, numbers["moco_v3_dq1"])
    close(dq2, numbers["moco_v3_dq2"])
    for dkey in dkeys:
        np.testing.assert_array_equal(dkey, 0.0)


def test_info_nce_gives_the_queue_no_gradient_and_uses_it_as_it_is(numbers):
    z1, z2, queue = numbers["z1"], numbers["z2"], 3.0 * numbers["queue"]
    value, gradient = jax.value_and_grad(lambda q: info_nce(z1, z2, q, 0.2))(queue)
    close(value, info_nce_loop(z1, z2, queue, 0.2))
    np.testing.assert_array_equal(gradient, 0.0)


LOSSES = {
    "nt_xent": nt_xent,
    "info_nce": info_nce,
    "info_nce with a queue": lambda a, b: info_nce(a, b, unit(np.eye(5, 16) + 0.1).astype(np.float32)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_falls_as_positives_are_pulled_together(numbers, name):
    z1, z2 = numbers["z1"], numbers["z2"]
    values = [float(LOSSES[name](z1, (1 - pull) * z2 + pull * z1)) for pull in (0.0, 0.3, 0.6, 1.0)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4


@pytest.mark.parametrize("name", ["nt_xent", "info_nce"])
def test_rises_as_a_negative_comes_nearer(numbers, name):
    """One example's both views move towards another's: their own similarity stays, the negatives' grows."""
    z = unit(numbers["z1"]).astype(np.float32)
    nearer = z.copy()
    nearer[0] = unit(z[0] + z[1])
    assert LOSSES[name](nearer, nearer) > LOSSES[name](z, z)


def test_info_nce_rises_as_an_entry_of_the_queue_comes_nearer(numbers):
    z1, z2, queue = numbers["z1"], numbers["z2"], numbers["queue"].copy()
    before = info_nce(z1, z2, queue)
    queue[0] = unit(z1[0])
    assert info_nce(z1, z2, queue) > before


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_inputs_are_computed_in_float32(numbers, name):
    z1, z2 = (jnp.asarray(numbers[z], jnp.bfloat16) for z in ("z1", "z2"))
    value = LOSSES[name](z1, z2)
    assert value.dtype == jnp.float32
    assert value == LOSSES[name](z1.astype(jnp.float32), z2.astype(jnp.float32))


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_finite_where_an_embedding_is_zero(numbers, name):
    z1, z2 = numbers["z1"].copy(), numbers["z2"].copy()
    z1[0] = z2[1] = 0.0
    for gradient in jax.grad(LOSSES[name], argnums=(0, 1))(z1, z2):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", [nt_xent, info_nce, barlow_twins, vicreg])
@pytest.mark.parametrize(
    "a, b", [((8, 16), (8, 4)), ((8, 16), (4, 16)), ((8, 16), (1, 16)), ((8,), (8,)), ((2, 8, 4), (2, 8, 4))]
)
def test_shapes_that_do_not_fit_are_both_named(loss, a, b):
    with pytest.raises(ValueError) as error:
        jax.eval_shape(loss, jnp.zeros(a), jnp.zeros(b))
    assert str(a) in str(error.value) and str(b) in str(error.value)


@pytest.mark.parametrize("queue", [(24, 8), (16,), (1, 24, 16)])
def test_a_queue_that_does_not_fit_is_named_beside_the_query(queue):
    with pytest.raises(ValueError) as error:
        info_nce(jnp.zeros((8, 16)), jnp.zeros((8, 16)), jnp.zeros(queue))
    assert str(queue) in str(error.value) and "(8, 16)" in str(error.value)


def test_other_arguments_that_make_no_sense_are_refused():
    z = jnp.ones((4, 2))
    for loss in (nt_xent, info_nce):
        with pytest.raises(ValueError, match="temperature must be positive, but is 0"):
            loss(z, z, temperature=0)
    with pytest.raises(ValueError, match="'median' is unknown; use 'mean' or 'sum'"):
        nt_xent(z, z, convention="median")
    with pytest.raises(ValueError, match="at least 2 examples"):
        nt_xent(z[:1], z[:1])


def test_lists_are_arrays_and_what_cannot_be_is_said():
    z = np.random.RandomState(0).randn(4, 3).astype(np.float32)
    np.testing.assert_allclose(nt_xent(z.tolist(), z.tolist()), nt_xent(z, z), rtol=1e-6)
    np.testing.assert_allclose(info_nce(z, z, z.tolist()), info_nce(z, z, z), rtol=1e-6)
    for temperature in (0.0, np.float32(-1), jnp.float32(0), float("nan")):
        with pytest.raises(ValueError, match="temperature must be positive"):
            nt_xent(z, z, temperature)
    for call in (lambda: nt_xent(z[:1], z[:1]), lambda: info_nce(z[:1], z[:1])):
        with pytest.raises(ValueError, match="at least 2 examples"):
            call()
    with pytest.raises(ValueError, match=r"queue \(0, 3\) must be"):
        info_nce(z, z, z[:0])


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_the_batchs_keys_and_remembered_ones_are_negatives_together(shards, value_and_gradients):
    random = np.random.RandomState(0)
    q, k, queue = (random.standard_normal((n, 6)).astype(np.float32) for n in (8, 8, 5))

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def loop(q):
        total = 0.0
        for i, a in enumerate(unit(q.astype(np.float64))):
            logits = [a @ b / 0.3 for b in (*unit(k), *unit(queue))]
            total += np.log(np.exp(logits).sum()) - logits[i]
        return total / len(q)

    def loss(q, k):
        return info_nce(q, k, unit(queue), 0.3, in_batch=True, axis="data")

    value, (gradient, of_keys) = value_and_gradients(loss, shards, q, k)
    np.testing.assert_allclose(value, loop(q), rtol=1e-5)
    np.testing.assert_array_equal(of_keys, 0)
    step = 1e-4 * random.standard_normal(q.shape)
    slope = (loop(q + step) - loop(q - step)) / 2
    np.testing.assert_allclose(np.sum(gradient * step), slope, rtol=1e-4)
