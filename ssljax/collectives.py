"""The few collectives that methods use. With `axis=None` each of them is what it would be on one device."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from ssljax.typing import Array


def mean(x, axis: str | None):
    """Mean over the shards of `axis`; `x` may be any pytree."""
    return x if axis is None else jax.lax.pmean(x, axis)


def gather(x: Array, axis: str | None) -> Array:
    """All shards' rows, in order: (n, …) -> (shards * n, …). Gradients flow back to where each row came from."""
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def gather_replicated(x: Array, axis: str | None) -> Array:
    """As `gather`, for what is written into replicated state: the compiler knows then that all shards agree."""
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True, to="invarying")


def std(x: Array, axis: str | None, weights: Array | None = None) -> Array:
    """Standard deviation over the rows (all axes but the last) of all shards, the mean over the last axis' dimensions.

    weights (…,): 1 for rows that count and 0 for others; None: all count.
    """
    w = (jnp.ones(x.shape[:-1]) if weights is None else weights.astype(jnp.float32))[..., None]
    rows = tuple(range(x.ndim - 1))
    total = jnp.maximum(mean(w.sum(), axis), 1e-6)
    average = mean((x * w).sum(rows), axis) / total
    return jnp.sqrt(mean((jnp.square(x - average) * w).sum(rows), axis) / total).mean()


def shard_offset(n: int, axis: str | None) -> Array | int:
    """Place in the global batch of the first of this shard's `n` examples."""
    return 0 if axis is None else jax.lax.axis_index(axis) * n


def example_keys(key: Array, n: int, axis: str | None = None) -> Array:
    """One key for each of this shard's `n` examples, made from its place in the global batch: (n,) keys."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(shard_offset(n, axis) + jnp.arange(n))


def varying(tree, axis: str | tuple[str, ...] | None):
    """`tree`, of which each array counts as different on every shard of `axis`; the values are the same.

    A gradient by what is the same everywhere, and meets what is not, is summed over the shards where they meet: here.
    """
    axes = () if axis is None else (axis,) if isinstance(axis, str) else axis

    def cast(x: Array) -> Array:
        return jax.lax.pcast(x, tuple(a for a in axes if a not in jax.typeof(x).mat.varying), to="varying")

    return jax.tree.map(cast, tree)


def varying_like(tree, x: Array):
    """`tree`, of which each array counts as different on every shard if `x` does."""
    return varying(tree, tuple(jax.typeof(x).mat.varying))


def shards_of_the_compiler() -> int:
    """Over how many devices the compiler spreads examples by itself, in a train step; elsewhere 1."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return mesh.shape["fsdp"] if kinds.get("fsdp") is AxisType.Auto else 1


def whole(tree):
    """`tree`, of which the compiler has each of these devices hold all, from here on: in loops, it is sent once."""
    return jax.lax.with_sharding_constraint(tree, P()) if shards_of_the_compiler() > 1 else tree


def by_shard(x: Array) -> Array:
    """(n, …) -> (shards, n / shards, …): each of these devices' own part, which stays there; (1, n, …) if that cannot
    be. What is reckoned from it needs no sending until the shards are added up."""
    n = shards_of_the_compiler()
    if n == 1 or len(x) % n:
        return x[None]
    return jax.lax.with_sharding_constraint(x.reshape(n, -1, *x.shape[1:]), P("fsdp"))
