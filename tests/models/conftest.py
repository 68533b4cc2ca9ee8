"""Variables for tests that do not care about initialisation, whose random draws take longer to compile than a model."""

import zlib
from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax import traverse_util

from ssljax.weights import ARCHITECTURES
from ssljax.weights.files import renamed
from ssljax.weights.rows import read


@pytest.fixture(scope="session")
def from_huggingface() -> Callable:
    """`from_huggingface(architecture, module, arrays, *inputs)`: what `module` is initialised with on `inputs`, out of
    Hugging Face's parameters by their names, or out of gradients by them; `arrays` may hold heads, too."""

    def run(architecture, module, arrays, *inputs):
        known = ARCHITECTURES[architecture]
        tensors = {renamed(name, known): x for name, x in arrays.items()}
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
        return read(tensors, known.rows(module), shapes, known.left_out)["params"]

    return run


@pytest.fixture(scope="session")
def draw() -> Callable:
    """`draw(module, *inputs, **options)`: of the shapes that `module.init` makes, but drawn by NumPy."""

    def fill(path: tuple[str, ...], leaf) -> np.ndarray:
        random = np.random.RandomState(zlib.crc32("/".join(path).encode()))
        if path[-1] in ("scale", "var"):
            value = random.uniform(0.5, 1.5, leaf.shape)
        elif leaf.ndim > 1:
            value = random.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        else:
            value = 0.1 * random.standard_normal(leaf.shape)
        return value.astype(leaf.dtype)

    def run(module, *inputs, **options):
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **options))
        return traverse_util.path_aware_map(fill, shapes)

    return run
