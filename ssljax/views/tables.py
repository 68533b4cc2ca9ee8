"""Corruption of rows of tables: some of their values are replaced by those of other rows.

values and donors are (batch, columns); donors hold, for each column by itself, the value of a row drawn uniformly from
the training rows, which so follows the column's empirical distribution (`ssljax.data.tables.TableSource`).
"""

import jax
import jax.numpy as jnp

from ssljax.typing import Array


def scarf_corrupt(keys: Array, values: Array, donors: Array, share: float = 0.6) -> Array:
    """SCARF: ⌊share · columns⌋ columns, chosen uniformly for each row, have the donors' values.

    One key for each row. Raises ValueError if that is no column or all of them.
    """
    columns = values.shape[1]
    replaced = int(share * columns)
    if not 0 < replaced < columns:
        raise ValueError(f"a share of {share} replaces {replaced} of {columns} columns: at least one, and not all.")
    noise = jax.vmap(lambda key: jax.random.uniform(key, (columns,)))(keys)
    return jnp.where(jnp.argsort(jnp.argsort(noise, axis=1), axis=1) < replaced, donors, values)


def vime_corrupt(keys: Array, values: Array, donors: Array, probability: float = 0.3) -> tuple[Array, Array]:
    """VIME: each value is the donor's with that probability. Returns the corrupted values, and where they are others:
    a value that is replaced by an equal one is not corrupted. One key for each row."""
    chosen = jax.vmap(lambda key: jax.random.bernoulli(key, probability, values.shape[1:]))(keys)
    corrupted = jnp.where(chosen, donors, values)
    return corrupted, (corrupted != values).astype(jnp.float32)
