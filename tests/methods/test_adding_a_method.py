"""The worked example of docs/adding_a_method.md does what the page says."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from ssljax.build import build_run, build_source, example_batch
from ssljax.data.pipeline import train_batches
from ssljax.engine.mesh import make_mesh, to_devices
from ssljax.methods import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_method.md"


@pytest.fixture
def rotnet():
    """Its code blocks, executed one after the other, and its config made small."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert sum(len(block.splitlines()) for block in blocks) < 60
    scope: dict = {"__name__": "adding_a_method"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), scope)
    config = scope["get_config"]()
    config.encoder.channels = 8
    config.views.size = 16
    config.batch_size, config.steps = 32, 80
    config.optimizer.warmup_epochs = 0.0
    yield config
    del METHODS["rotnet"]


def test_it_learns_and_is_the_same_on_a_mesh(rotnet):
    """From ln 4, by the images that come with ssljax."""
    source = build_source(rotnet, "train")
    losses = {}
    for shape, steps in (((1, 1), 80), ((2, 2), 3)):
        mesh = make_mesh(*shape, devices=jax.devices()[: shape[0] * shape[1]])
        run = build_run(rotnet, examples=len(source), example=example_batch(rotnet, source), mesh=mesh)
        batches = train_batches(source, batch_size=rotnet.batch_size, seed=0)
        state, losses[shape] = run.init(), []
        for _ in range(steps):
            state, metrics = run.step(state, to_devices(next(batches), mesh))
            losses[shape].append(float(metrics["loss"]))
        batches.close()
    assert losses[1, 1][0] == pytest.approx(np.log(4), rel=0.5)
    assert np.mean(losses[1, 1][-10:]) < np.log(4) - 0.05
    np.testing.assert_allclose(losses[2, 2], losses[1, 1][:3], rtol=1e-3)
