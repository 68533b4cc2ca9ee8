"""The worked example of docs/adding_a_method.md does what the page says."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from ssljax.build import build_run
from ssljax.config import demo_config
from ssljax.engine.mesh import make_mesh, to_devices
from ssljax.methods import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_method.md"


@pytest.fixture
def rotnet():
    """Its code blocks, executed one after the other, and a small config for what they make."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks[0].splitlines()) < 60
    scope: dict = {"__name__": "adding_a_method"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), scope)
    config = demo_config("rotnet", epochs=1.0)
    config.encoder.channels = 8
    config.views.update(name="mae", size=16)
    config.batch_size, config.steps = 16, 30
    config.optimizer.warmup_epochs = 0.0
    yield config
    del METHODS["rotnet"]


def test_it_learns_and_is_the_same_on_a_mesh(rotnet, batches):
    example = jax.tree.map(lambda x: x[:2], batches[0])
    losses = {}
    for shape in ((1, 1), (2, 2)):
        mesh = make_mesh(*shape, devices=jax.devices()[: shape[0] * shape[1]])
        run = build_run(rotnet, examples=80, example=example, mesh=mesh)
        state, losses[shape] = run.init(), []
        for i in range(30 if shape == (1, 1) else 3):
            state, metrics = run.step(state, to_devices(batches[i % 5], mesh))
            losses[shape].append(float(metrics["loss"]))
    assert losses[1, 1][0] == pytest.approx(np.log(4), rel=0.5)
    assert np.mean(losses[1, 1][-5:]) < losses[1, 1][0] - 0.2
    np.testing.assert_allclose(losses[2, 2], losses[1, 1][:3], rtol=1e-3)
