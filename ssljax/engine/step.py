"""One train step for every method on every mesh. The only file that spreads work over devices.

`data` is a manual axis: each collective that a method makes is written in its file. `fsdp` is left to the compiler,
which shards the parameters with no word of it in any method. With `data == 1` the same step runs under plain jit.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ssljax.collectives import example_keys
from ssljax.collectives import mean as mean_over
from ssljax.engine.mesh import data_axis, state_sharding
from ssljax.engine.monitors import collapse_statistics
from ssljax.typing import Batch, Method, PyTree, TrainState

StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_train(
    method: Method,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    example: PyTree,
    *,
    seed: int = 0,
    accumulate: int = 1,
    learning_rate: optax.Schedule | None = None,
) -> tuple[Callable[[], TrainState], StepFunction, PyTree]:
    """`init() -> state`, `step(state, batch) -> (state, metrics)`, and the abstract state with its shardings.

    example: a batch (arrays or shapes) whose leading dimension is small; only its other dimensions matter.
    accumulate: number of microbatches whose gradients are averaged before the optimiser's step.
    learning_rate: logged if given.

    `step` donates the state. Randomness is a function of (seed, state.step, place in the global batch) alone.
    Raises ValueError if gradients cannot be accumulated for this method.
    """
    if accumulate > 1 and not method.mean_over_examples:
        raise ValueError(
            f"gradients of {type(method).__name__} cannot be accumulated: its loss is no mean over independent "
            "examples (negatives, batch statistics or a queue tie them together), so that microbatches would make it "
            "another loss; set --config.accumulate=1."
        )
    axis = data_axis(mesh)

    def init() -> TrainState:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)
        v = method.init(jax.random.key(seed), zeros)
        return TrainState(v.params, v.model_state, v.target, v.extra, jnp.int32(0), optimizer.init(v.params))

    def gradients(state: TrainState, views: PyTree, key: jax.Array) -> tuple[Any, Any]:
        def objective(params):
            loss, aux = method.loss(params, state, views, key, axis)
            # Differentiating the mean over shards is what makes gradients arrive averaged: never touch them afterwards.
            return mean_over(loss, axis), aux

        return jax.value_and_grad(objective, has_aux=True)(state.params)

    def accumulated(state: TrainState, views: PyTree, key: jax.Array) -> tuple[Any, Any]:
        if accumulate == 1:
            return gradients(state, views, key)
        # Every so many-th example, so that each device's share of a microbatch lies on that device.
        parts = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, accumulate, *x.shape[1:]), 0, 1), views)

        def one(total, part):
            (loss, aux), grads = gradients(state, part, key)
            return jax.tree.map(lambda t, g: t + g / accumulate, total, grads), (loss, aux["metrics"], aux["features"])

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        grads, (losses, metrics, features) = jax.lax.scan(one, zeros, parts)
        # All that such a method has to say of a batch: it has no statistics and no queue.
        metrics = jax.tree.map(lambda m: m.mean(0), metrics)
        aux = {"metrics": metrics, "features": features.reshape(-1, features.shape[-1]), "embeddings": ()}
        return (losses.mean(), aux), grads

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        views_key, loss_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step))
        views = method.views(example_keys(views_key, len(jax.tree.leaves(batch)[0]), axis), batch)
        (loss, aux), grads = accumulated(state, views, loss_key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            "loss": loss,
            **mean_over(aux["metrics"], axis),
            **collapse_statistics(aux, axis),
            "gradient_norm": optax.tree.norm(grads),
        }
        if learning_rate is not None:
            metrics["learning_rate"] = jnp.asarray(learning_rate(state.step), jnp.float32)
        # `update` sees the new parameters (BYOL's target follows them); what follows the old ones (MoCo's keys) is in
        # aux.
        state = state.replace(
            step=state.step + 1, params=optax.apply_updates(state.params, updates), opt_state=opt_state
        )
        return method.update(state, aux, axis), metrics

    abstract = jax.eval_shape(init)
    shardings = state_sharding(mesh, abstract)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
    spread = step
    if axis is not None:
        spread = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(axis)), out_specs=(P(), P()), axis_names={axis})
    return (
        jax.jit(init, out_shardings=shardings),
        jax.jit(spread, donate_argnums=0, out_shardings=(shardings, None)),
        abstract,
    )
