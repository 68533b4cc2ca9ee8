"""Arrays that a script here and a test there can both make, so that large weights need not be stored."""

import zlib
from pathlib import Path

import numpy as np


def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers (float32), drawn with a seed made from `name`."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value (float32) of the parameter or buffer that PyTorch calls `name`, drawn with a seed made from that name.

    Kernels are normal with variance 1 / fan-in, scales and variances uniform in [0.5, 1.5], biases and means small.
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if len(shape) > 1:
        value = random.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    elif name.endswith(("weight", "running_var")):
        value = random.uniform(0.5, 1.5, shape)
    else:
        value = 0.1 * random.standard_normal(shape)
    return value.astype(np.float32)


def save(name: str, made_by: str, **arrays) -> None:
    """Write `<name>.npz` beside this file: the arrays, doubles as floats, and under `made_by` who computed them."""
    arrays = {k: np.asarray(v) for k, v in arrays.items()}
    arrays = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()}
    np.savez_compressed(Path(__file__).parent / f"{name}.npz", made_by=made_by, **arrays)
