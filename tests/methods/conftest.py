"""A small version of every method's `:demo`, so that whatever all methods must hold is one parametrised test."""

import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.build import build_method
from ssljax.methods import METHODS

CONFIGS = Path(__file__).parents[2] / "configs"
SMALLER = {
    "simclr": {"method": {"projector": (16, 16), "temperature": 0.5}, "encoder": {"channels": 4}},
    "moco_v2": {"method": {"projector": (16, 8), "queue": 64}, "encoder": {"channels": 4}},
    "mae": {"method": {"decoder_width": 16, "decoder_heads": 2}, "encoder": {"width": 16, "depth": 2, "heads": 2}},
}


def load_config(path: Path, variant: str):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


@pytest.fixture(params=list(METHODS))
def config(request):
    """The method's demo with few channels, on views of 16 pixels and batches of 16."""
    (path,) = CONFIGS.glob(f"*/{request.param}.py")
    config = load_config(path, "demo")
    for section, fields in SMALLER[request.param].items():
        config[section].update(fields)
    config.views.size = 16
    config.batch_size = 16
    config.optimizer.update(name="sgd", learning_rate=0.05, warmup_epochs=0.0)
    return config


@pytest.fixture
def method(config):
    return build_method(config)


@pytest.fixture(scope="session")
def batches():
    """Five batches of sixteen smooth random images of 20 x 20."""
    rng = np.random.RandomState(0)
    coarse = rng.rand(5, 16, 5, 5, 3)
    return [{"image": jnp.asarray(np.kron(images, np.ones((1, 4, 4, 1))) * 255, jnp.uint8)} for images in coarse]
