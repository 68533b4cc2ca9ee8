"""One train step for every method on every mesh. The only file that spreads work over devices.

`data` is a manual axis: each collective that a method makes is written in its file. `fsdp` is left to the compiler,
which shards the parameters with no word of it in any method; it is only told that what modules give stays split by
examples. With `data == 1` the same step runs under jit alone, which is told the mesh where it has several devices.
"""

from collections.abc import Callable
from functools import wraps
from operator import itemgetter
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ssljax.chunks import map_chunks, merge, split
from ssljax.collectives import example_keys, varying
from ssljax.collectives import mean as mean_over
from ssljax.engine.mesh import batch_sharding, data_axis, rows_sharding, state_sharding
from ssljax.engine.monitors import collapse_statistics
from ssljax.typing import Batch, Method, PyTree, TrainState

StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
SeveralSteps = Callable[[Batch, TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_train(
    method: Method,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    example: PyTree,
    *,
    seed: int = 0,
    chunks: int = 1,
    learning_rate: optax.Schedule | None = None,
) -> tuple[Callable[[], TrainState], StepFunction, PyTree]:
    """`init() -> state`, `step(state, batch) -> (state, metrics)`, and the abstract state with its shardings.

    example: a batch (arrays or shapes) whose leading dimension is small; only its other dimensions matter.
    chunks: number of parts in which the batch is worked on. Where the loss is a mean over examples, their gradients are
    averaged; a method that needs the whole batch for its loss sends it through its encoder in parts
    (`ssljax.models.run`). Views are made in parts for both.
    learning_rate: logged if given.

    `step` donates the state. Randomness is a function of (seed, state.step, place in the global batch) alone. A step
    whose loss, gradient or update is not finite changes nothing but `state.step`, from s to -s - 1, and so do all that
    follow: the host need not look at every step to find the state as it was before the first bad one.
    """
    axis = data_axis(mesh)
    accumulate = chunks if method.mean_over_examples else 1

    def init() -> TrainState:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)
        v = method.init(jax.random.key(seed), zeros)
        return TrainState(v.params, v.model_state, v.target, v.extra, jnp.int32(0), optimizer.init(v.params))

    def gradients(state: TrainState, views: PyTree, key: jax.Array) -> tuple[Any, Any]:
        def objective(params):
            # Said here, each gradient is summed over shards once, when it is whole; left to where a parameter meets an
            # example, it could be once for each example.
            params = varying(params, axis)
            with nn.intercept_methods(by_examples(mesh)):
                loss, aux = method.loss(params, state, views, key, axis)
            # Differentiating the mean over shards is what makes gradients arrive averaged: never touch them afterwards.
            return mean_over(loss, axis), aux

        return jax.value_and_grad(objective, has_aux=True)(state.params)

    def accumulated(state: TrainState, views: PyTree, key: jax.Array) -> tuple[Any, Any]:
        if accumulate == 1:
            return gradients(state, views, key)

        def one(total, part):
            (loss, aux), grads = gradients(state, part, key)
            return jax.tree.map(lambda t, g: t + g / accumulate, total, grads), (loss, aux["metrics"], aux["features"])

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        grads, (losses, metrics, features) = jax.lax.scan(one, zeros, split(views, accumulate))
        # All that such a method has to say of a batch: it has no statistics and no queue.
        metrics = jax.tree.map(lambda m: m.mean(0), metrics)
        aux = {"metrics": metrics, "features": merge(features), "embeddings": ()}
        return (losses.mean(), aux), grads

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        views_key, loss_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step))
        keys = example_keys(views_key, len(jax.tree.leaves(batch)[0]), axis)
        views = map_chunks(lambda part: method.views(*part), (keys, batch), chunks)
        (loss, aux), grads = accumulated(state, views, loss_key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            "loss": loss,
            **mean_over(aux["metrics"], axis),
            **collapse_statistics(aux, axis),
            "gradient_norm": optax.tree.norm(grads),
            "update_norm": optax.tree.norm(updates),
            "parameter_norm": optax.tree.norm(state.params),
        }
        if learning_rate is not None:
            metrics["learning_rate"] = jnp.asarray(learning_rate(state.step), jnp.float32)
        # `update` sees the new parameters (BYOL's target follows them); what follows the old ones (MoCo's keys) is in
        # aux.
        new = state.replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)
        new = method.update(new, aux, axis)
        healthy = jnp.isfinite(loss + metrics["gradient_norm"] + metrics["update_norm"]) & (state.step >= 0)
        new = jax.tree.map(lambda after, before: jnp.where(healthy, after, before), new, state)
        halted = jnp.where(state.step >= 0, -state.step - 1, state.step)
        metrics["step"] = jnp.where(healthy, state.step + 1, halted)
        return new.replace(step=metrics["step"]), metrics

    abstract = jax.eval_shape(init)
    shardings, specs = state_sharding(mesh, abstract), jax.tree.map(lambda _: P(), abstract)
    for name in getattr(method, "split_over_data", ()):
        shardings.extra[name] = rows_sharding(mesh, abstract.extra[name])
        specs.extra[name] = P(axis)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)

    @wraps(step)
    def spread_by_the_compiler(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # `ssljax.collectives` asks for it
            return step(state, batch)

    spread = step if mesh.devices.size == 1 else spread_by_the_compiler
    if axis is not None:  # says the mesh itself
        # With an axis that is left to the compiler, JAX marks each operation for it, which takes longer to compile.
        manual = {axis} if mesh.shape["fsdp"] > 1 else {*mesh.axis_names}
        spread = jax.shard_map(step, mesh=mesh, in_specs=(specs, P(axis)), out_specs=(specs, P()), axis_names=manual)
    return (
        jax.jit(init, out_shardings=shardings),
        jax.jit(spread, donate_argnums=0, out_shardings=(shardings, None)),
        abstract,
    )


def make_several(step: StepFunction, mesh: Mesh) -> SeveralSteps:
    """`several(examples, state, batches) -> (state, metrics of the last step)`: steps one after the other in one
    program, as many as the arrays of `batches`, (steps, batch, …), have.

    examples: arrays (examples, …) on every device, of which the batches' `index` says the rows; {} where all is in the
    batches. It donates the state.
    """
    # XLA's loops on a CPU run convolutions at a tenth of their speed, one of a single turn too; there the steps are
    # compiled one by one.
    in_a_row = mesh.devices.flat[0].platform == "cpu"

    def several(examples: Batch, state: TrainState, batches: Batch) -> tuple[TrainState, dict]:
        def one(state, batch):
            rows = {name: x[batch["index"]] for name, x in examples.items()}
            return step(state, jax.lax.with_sharding_constraint(rows, batch_sharding(mesh)) | batch)

        if in_a_row:
            for i in range(len(batches["index"])):
                state, metrics = one(state, jax.tree.map(itemgetter(i), batches))
            return state, metrics
        state, metrics = jax.lax.scan(one, state, batches)
        return state, jax.tree.map(lambda x: x[-1], metrics)

    return jax.jit(several, donate_argnums=1)


def by_examples(mesh: Mesh) -> Callable:
    """For `nn.intercept_methods`: what a module gives is split over `fsdp` by its first dimension, the examples.

    The compiler then gathers a layer's parameters when it needs them, instead of splitting its activations by width and
    adding them up over the devices.
    """
    n = mesh.shape["fsdp"]
    spec = P("fsdp")
    where = spec if data_axis(mesh) else NamedSharding(mesh, spec)

    def constrain(x):
        splits = n > 1 and isinstance(x, jax.Array) and x.ndim > 1 and x.shape[0] % n == 0
        return jax.lax.with_sharding_constraint(x, where) if splits else x

    return lambda function, args, kwargs, context: jax.tree.map(constrain, function(*args, **kwargs))
