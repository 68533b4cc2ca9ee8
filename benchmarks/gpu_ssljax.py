"""The rows of benchmarks/gpu.py with ssljax: methods by their recipes, what a step costs, and how long it takes.

Built without configs, whose numbers the recipes have (a test says so), for ml_collections may be missing.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.collectives import example_keys
from ssljax.cost.flops import count_work
from ssljax.engine.mesh import make_mesh
from ssljax.engine.optim import make_optimizer, make_schedule
from ssljax.engine.step import make_several, make_train
from ssljax.methods import make_method
from ssljax.models import make_encoder
from ssljax.numerics import normalize
from ssljax.typing import Array, Batch, Method, PyTree, TrainState, Variables
from ssljax.views.recipes import make_views

TOTAL, STEPS_PER_EPOCH = 400_000, 1251.0
"""Of a run that schedules are made for."""
SMALL_VIT = {"width": 32, "depth": 2, "heads": 4, "patch": 8}


@dataclass(frozen=True)
class Recipe:
    """config: the file and its variant that has these numbers. batch: what an 80 GB card holds. shape: of an example
    before its views: sides of a canvas, or samples. tiny_*: what is less with --tiny."""

    title: str
    config: tuple[str, str]
    method: dict[str, Any]
    encoder: dict[str, Any]
    schedule: dict[str, Any]
    optimizer: dict[str, Any]
    batch: int
    shape: tuple[int, ...]
    views: dict[str, Any] = field(default_factory=dict)
    tiny_encoder: Mapping[str, Any] = field(default_factory=dict)
    tiny_views: Mapping[str, Any] = field(default_factory=dict)
    tiny_method: Mapping[str, Any] = field(default_factory=dict)
    tiny_shape: tuple[int, ...] = (40, 40, 3)

    def build(self, tiny: bool = False) -> Method:
        encoder = {**self.encoder, **(self.tiny_encoder if tiny else {})}
        views = {**self.views, **(self.tiny_views if tiny else {})}
        return make_method(
            **{**self.method, **(self.tiny_method if tiny else {})},
            encoder=make_encoder(**encoder, dtype=jnp.bfloat16),
            augmentations=make_views(**views) if views else (),
            total_steps=TOTAL,
            steps_per_epoch=STEPS_PER_EPOCH,
        )

    def example_shape(self, tiny: bool = False) -> tuple[int, ...]:
        return self.tiny_shape if tiny else self.shape

    def train(self, method: Method, batch: int, example: PyTree, total: int = TOTAL, warmup: int = 10_000):
        """`init`, `step` and the mesh of one device."""
        mesh = make_mesh(1, 1, jax.devices()[:1])
        schedule = make_schedule(batch_size=batch, total=total, warmup=warmup, **self.schedule)
        optimizer = make_optimizer(schedule=schedule, total=total, **self.optimizer)
        init, step, _ = make_train(method, optimizer, mesh, example, learning_rate=schedule)
        return init, step, mesh


def mae(size: str, batch: int) -> Recipe:
    return Recipe(
        f"MAE ViT-{size.upper()}",
        ("images/mae", "imagenet"),
        method={"name": "mae"},
        encoder={"name": f"vit_{size}"},
        schedule={"base": 1.5e-4, "scaling": "linear"},
        optimizer={"name": "adamw", "weight_decay": 0.05},
        batch=batch,
        shape=(512, 512, 3),
        views={"name": "mae", "size": 224},
        tiny_encoder=SMALL_VIT,
        tiny_views={"size": 32},
        tiny_method={"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4},
    )


RECIPES = {
    "simclr_resnet50": Recipe(
        "SimCLR ResNet-50",
        ("images/simclr", "imagenet"),
        method={"name": "simclr", "projector": (2048, 128), "temperature": 0.1, "convention": "sum"},
        encoder={"name": "resnet50", "zero_init_residual": True},
        schedule={"base": 0.3, "scaling": "linear"},
        optimizer={"name": "lars_simclr", "weight_decay": 1e-6},
        batch=256,
        shape=(512, 512, 3),
        views={"name": "simclr", "size": 224, "strength": 1.0, "blur": 0.5},
        tiny_encoder={"channels": 4},
        tiny_views={"size": 32},
        tiny_method={"projector": (32, 16)},
    ),
    "mae_vit_b": mae("b", 512),
    "mae_vit_l": mae("l", 256),
    "dino_vit_s": Recipe(
        "DINO ViT-S/16, 2 + 8 crops",
        ("images/dino", "imagenet"),
        method={
            "name": "dino",
            "teacher_temperature": 0.07,
            "warmup_temperature_epochs": 30,
            "norm_last_layer": False,
        },
        encoder={
            "name": "vit_s",
            "positions": "learned",
            "position_offset": 0.1,
            "initializer": "dino",
            "drop_path": 0.1,
        },
        schedule={"base": 5e-4, "scaling": "linear", "final": 1e-6 / 2e-3},
        # As after the first epoch, in which the last layer is frozen.
        optimizer={
            "name": "adamw",
            "b2": 0.999,
            "weight_decay": 0.04,
            "weight_decay_final": 0.4,
            "exclude": ("bias", "scale"),
            "clip_each": 3.0,
        },
        batch=128,
        shape=(512, 512, 3),
        views={"name": "dino"},
        tiny_encoder=SMALL_VIT,
        tiny_views={"size": 32, "local_size": 16, "local_crops": 2},
        tiny_method={"count": 64, "hidden": 32, "bottleneck": 16},
    ),
    "wav2vec2_base": Recipe(
        "wav2vec 2.0 base, clips of 15.6 s",
        ("speech/wav2vec2", "paper"),
        method={"name": "wav2vec2"},
        encoder={"name": "wav2vec2_base", "scan": True},
        schedule={"base": 5e-4, "scaling": "none", "kind": "linear"},
        optimizer={"name": "adamw", "b2": 0.98, "weight_decay": 0.01},
        batch=24,
        shape=(250_000,),
        tiny_encoder={"width": 32, "depth": 2, "heads": 4, "hidden": 64, "positional_kernel": 8},
        tiny_method={"dim": 16, "entries": 8, "codebook_dim": 16, "span": 3, "distractors": 5},
        tiny_shape=(16_000,),
    ),
}
CIFAR10 = Recipe(
    "SimCLR ResNet-18 on CIFAR-10",
    ("images/simclr", "cifar10"),
    method={"name": "simclr", "projector": (512, 512, 128), "temperature": 0.5, "convention": "sum"},
    encoder={"name": "resnet18", "stem": "cifar", "zero_init_residual": True},
    schedule={"base": 1.0, "scaling": "linear"},
    optimizer={"name": "lars_simclr", "weight_decay": 1e-4},
    batch=512,
    shape=(32, 32, 3),
    views={"name": "simclr", "size": 32, "strength": 0.5, "blur": 0.0},
    tiny_encoder={"channels": 4},
    tiny_method={"projector": (32, 16)},
)


# What a step costs ----------------------------------------------------------------------------------------------------


def gradient(recipe: Recipe, tiny: bool = False) -> Any:
    """The loss's, traced for two examples: what `jax.jit(…).trace` gives."""
    method, shape = recipe.build(tiny), recipe.example_shape(tiny)
    batch, key = jax.eval_shape(lambda: (inputs(shape, 2), jax.random.key(0)))
    views = jax.eval_shape(lambda key, batch: method.views(example_keys(key, 2), batch), key, batch)
    v = jax.eval_shape(method.init, key, batch)
    state = TrainState(v.params, v.model_state, v.target, v.extra, jax.ShapeDtypeStruct((), jnp.int32), {})

    def of(params: PyTree, state: TrainState, views: PyTree, key: Array) -> Any:
        return jax.value_and_grad(lambda params: method.loss(params, state, views, key, None)[0])(params)

    return jax.jit(of).trace(v.params, state, views, key)


def flops(recipe: Recipe, tiny: bool = False) -> float:
    """Of loss and gradient, for each example: two for each multiply-add of products and convolutions."""
    return count_work(gradient(recipe, tiny).jaxpr).flops / 2


# How long it takes ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Given:
    """A method whose batches are its views, so that a step without them can be timed."""

    method: Any
    example: Batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def init(self, key: Array, _: PyTree) -> Variables:
        return self.method.init(key, self.example)

    def views(self, keys: Array, batch: PyTree) -> PyTree:
        return batch


def inputs(shape: tuple[int, ...], batch: int) -> Batch:
    """Made on the device: images of noise, or clips."""
    key = jax.random.key(0)
    if len(shape) == 1:
        return {"audio": jax.random.normal(key, (batch, *shape))}
    return {"image": jax.random.bits(key, (batch, *shape), jnp.uint8)}


def measure(recipe: Recipe, tiny: bool, timed: Callable, batch: int) -> dict[str, float]:
    """Seconds of a step without its views, and of these. Raises FloatingPointError for a loss that is not finite."""
    method = recipe.build(tiny)
    given = inputs(recipe.example_shape(tiny), batch)
    example = jax.tree.map(lambda x: jnp.zeros((2, *x.shape[1:]), x.dtype), given)
    keys, draw = example_keys(jax.random.key(1), batch), jax.jit(method.views)
    views_seconds = timed(partial(draw, keys, given), jax.block_until_ready)
    views = draw(keys, given)
    init, step, _ = recipe.train(Given(method, example), batch, {})
    state = init()

    def once() -> Array:
        nonlocal state
        state, metrics = step(state, views)
        return metrics["loss"]

    seconds = timed(once, jax.block_until_ready)
    if int(state.step) < 0:
        raise FloatingPointError("the loss is not finite")
    return {"seconds": seconds, "views": views_seconds}


# From nothing to an accuracy ------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("classes", "k"))
def knn(bank: Array, labels: Array, queries: Array, classes: int, k: int = 200, temperature: float = 0.1) -> Array:
    """Classes of queries (n, dim) by the weighted votes of their k nearest rows of the bank, as `ssljax.evals.knn`."""
    bank = normalize(bank)

    def of(query: Array) -> Array:
        similarity, index = jax.lax.top_k(jnp.matmul(bank, query, precision="highest"), k)
        weights = jnp.exp((similarity - similarity[0]) / temperature)
        return jnp.zeros(classes).at[labels[index]].add(weights).argmax()

    return jax.lax.map(of, normalize(queries), batch_size=512)


def cifar10(path: str, epochs: int, every: int, tiny: bool, begun: float) -> None:
    """Train on `train_image` of an npz file, all of it on the device, and print a line of JSON for each `every` epochs:
    accuracy of k-NN on `test_image`, and minutes since `begun` (time.perf_counter)."""
    with np.load(path) as file:
        data = {
            f"{split}_{kind}": file[f"{split}_{kind}"] for split in ("train", "test") for kind in ("image", "label")
        }
    images, known = jax.device_put(data["train_image"]), jax.device_put(data["train_label"].ravel().astype(np.int32))
    tests, truth = jax.device_put(data["test_image"]), data["test_label"].ravel()
    method, batch = CIFAR10.build(tiny), min(CIFAR10.batch, len(images))
    steps, classes = len(images) // batch, int(data["train_label"].max()) + 1
    example = {"image": jnp.zeros((2, *images.shape[1:]), jnp.uint8), "index": jnp.zeros(2, jnp.int32)}
    init, step, mesh = CIFAR10.train(method, batch, example, total=epochs * steps, warmup=min(10, epochs // 10) * steps)
    several, state = make_several(step, mesh), init()

    @jax.jit
    def features(state: PyTree, images: Array) -> Array:
        def of(part: Array) -> Array:
            return method.features(state, {"image": part[None]})[0]

        return jax.lax.map(of, images, batch_size=min(1000, len(images)))

    for epoch in range(1, epochs + 1):
        order = jax.random.permutation(jax.random.fold_in(jax.random.key(1), epoch), len(images))
        index = order[: steps * batch].reshape(steps, batch).astype(jnp.int32)
        state, metrics = several({"image": images}, state, {"index": index})
        if epoch % every == 0 or epoch == epochs:
            found = knn(features(state, images), known, features(state, tests), classes, k=min(200, len(images)))
            line = {"epoch": epoch, "accuracy": float((np.asarray(found) == truth).mean())}
            print(json.dumps(line | {"minutes": (time.perf_counter() - begun) / 60}), flush=True)
            if int(metrics["step"]) < 0:
                raise FloatingPointError("the loss is not finite")
