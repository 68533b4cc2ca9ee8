"""LARS over five steps with a changing rate, in both conventions, against timm and a loop of SimCLR's optimiser."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssljax.engine.optim import make_optimizer

NAMES = ("dense/kernel", "conv/kernel", "zeros/kernel", "dense/bias", "norm/scale")


def tree(arrays):
    """{"dense/kernel": x, …} as a pytree of modules."""
    nested = {}
    for name, value in arrays.items():
        module, part = name.split("/")
        nested.setdefault(module, {})[part] = jnp.asarray(value)
    return nested


def trajectory(name, numbers):
    """Parameters after each of the steps."""
    rates = jnp.asarray(numbers["rates"])
    optimiser = make_optimizer(
        name,
        lambda step: rates[step],
        momentum=float(numbers["momentum"]),
        weight_decay=float(numbers["decay"]),
        trust=float(numbers["trust"]),
    )
    params = tree({n: numbers[f"{n}:start"] for n in NAMES})
    state = optimiser.init(params)
    for step in range(len(rates)):
        gradients = tree({n: numbers[f"{n}:gradients"][step] for n in NAMES})
        updates, state = optimiser.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        yield params


@pytest.mark.parametrize("name, convention", [("lars", "last"), ("lars_simclr", "first")])
def test_trajectory_equals_the_reference(golden, name, convention):
    numbers = golden("lars")
    for step, params in enumerate(trajectory(name, numbers)):
        expected = tree({n: numbers[f"{n}:{convention}"][step] for n in NAMES})
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6, err_msg=f"step {step}"), params, expected
        )


def test_the_conventions_differ_in_these_numbers(golden):
    """Otherwise the test above could not tell them apart."""
    numbers = golden("lars")
    for parameter in NAMES:
        assert np.abs(numbers[f"{parameter}:last"] - numbers[f"{parameter}:first"])[-1].max() > 1e-3
