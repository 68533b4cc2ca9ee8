"""The encoder of tables: a multilayer perceptron on numbers and one-hot categories."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models.vit import TORCH_LINEAR
from ssljax.typing import Array


def expand(values: Array, cardinalities: tuple[int, ...]) -> Array:
    """Rows of values (batch, columns) -> (batch, dim): a number as it is, a category as so many zeros and a one.

    cardinalities: of each column, 0 for numbers. Raises ValueError if there is not one for each.
    """
    if values.ndim != 2 or values.shape[1] != len(cardinalities):
        raise ValueError(f"values {values.shape} must be (batch, {len(cardinalities)}), a column for each cardinality.")
    columns = [
        jax.nn.one_hot(values[:, i].astype(int), n) if n else values[:, i : i + 1] for i, n in enumerate(cardinalities)
    ]
    return jnp.concatenate(columns, axis=1)


class TableMLP(nn.Module):
    """`depth` dense layers of `width` with ReLU after each: values (batch, columns) -> (batch, width), float32.

    cardinalities: how many categories each column has, 0 for numbers; the data says so.
    """

    width: int = 256
    depth: int = 4
    cardinalities: tuple[int, ...] = ()
    chunks: int = 1
    dtype: DTypeLike = jnp.float32

    modality = "tables"

    @property
    def num_features(self) -> int:
        return self.width

    @nn.compact
    def __call__(self, values, *, train: bool = False, axis: str | None = None, keys=None):
        """`axis` and `keys` are accepted, as for every encoder, and not used: no statistic and nothing random here."""
        x = expand(values, self.cardinalities)
        for i in range(1, self.depth + 1):
            x = nn.relu(nn.Dense(self.width, kernel_init=TORCH_LINEAR, dtype=self.dtype, name=f"dense{i}")(x))
        return x.astype(jnp.float32)
