"""What tests of whole runs share."""

from collections.abc import Callable

import jax
import numpy as np
import pytest

from ssljax.build import build_run, build_source, example_batch
from ssljax.config import recall
from ssljax.engine.checkpoint import Checkpoints


@pytest.fixture(scope="session")
def final_state() -> Callable:
    """`final_state(workdir)` is the newest checkpoint, in host memory."""

    def read(workdir):
        config = recall(workdir)
        source = build_source(config, "train")
        run = build_run(config, examples=len(source), example=example_batch(config, source))
        checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
        state = jax.device_get(checkpoints.restore(run.abstract))
        checkpoints.close()
        return state

    return read


@pytest.fixture(scope="session")
def assert_equal_to_the_bit() -> Callable:
    def check(a, b):
        for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))

    return check
