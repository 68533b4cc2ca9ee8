"""Four devices on one CPU, and fixtures that several folders use."""

import functools
import gc
import os
import re
import runpy

# For the commands that tests start, too.
os.environ["JAX_PLATFORMS"] = "cpu"  # the golden numbers are float32's, and meshes of four devices must exist anywhere
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # tests compile for longer than they compute
# Threads of several processes would wait for each other.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from ssljax.build import build_method, build_run, build_source, modality_of, small_batch
from ssljax.commands import keep_memory
from ssljax.config import remember
from ssljax.data.pipeline import train_dataset
from ssljax.engine.checkpoint import Checkpoints
from ssljax.engine.mesh import make_mesh
from ssljax.methods import METHODS
from ssljax.models import ENCODERS
from ssljax.models.norm import BatchNorm, GroupNorm
from ssljax.models.resnet import ResNet
from ssljax.models.wav2vec import Wav2Vec2

keep_memory()
gc.set_threshold(50_000, 50, 100)  # what is traced is many small objects that stay
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_traceback_in_locations_limit", 0)
# Several steps in flight on devices that share a few cores can starve each other in a collective.
jax.config.update("jax_cpu_enable_async_dispatch", False)
flags = "--xla_backend_optimization_level=1"  # where optimisations are not disabled
if jax.__version_info__ < (0, 11):  # later ones do not have the flag, and end the process that sets it
    # Kernels by XLA's older way, which compiles three times as fast, and not in parts for cores that have enough to do.
    flags += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"

TOGETHER = re.compile(r"(tests/methods/test_contract.py)::.*(\[\w+\])|(tests/engine/)test_(?:faults|processes).py::.*")
"""Tests that go to one process: those of a method, which share what was compiled, and those that start processes, of
which several at once would wait for each other."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """How pytest-xdist deals the tests out. Its own `loadgroup` does nothing with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            together = TOGETHER.fullmatch(nodeid)
            return "".join(filter(None, together.groups())) if together else nodeid

    return Scheduling(config, log)


GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))  # tests and the scripts that made the golden numbers share `seeded`
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # and the pages are made by `sections`


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory) -> None:
    """What takes long to compile is kept for the tests that come, in any of the processes that run them."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    jax.config.update("jax_compilation_cache_dir", str(root / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Mapping[str, np.ndarray]]:
    """`golden("contrastive")` is the contents of tests/golden/contrastive.npz."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


@pytest.fixture(scope="session")
def spread() -> Callable[..., Callable]:
    """`spread(f, shards, out_specs)(*arrays)` runs `f` on each shard of arrays that are split by rows."""

    def run(f: Callable, shards: int, out_specs) -> Callable:
        mesh = jax.make_mesh((shards,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:shards])
        return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=out_specs))

    return run


@pytest.fixture(scope="session")
def value_and_gradients(spread) -> Callable:
    """`value_and_gradients(loss, shards, *arrays)`: of pmean(loss), by each of the arrays, which are split by rows."""

    def run(loss: Callable, shards: int, *arrays):
        def global_loss(*rows):
            return jax.lax.pmean(loss(*rows), "data")

        on_a_shard = jax.value_and_grad(global_loss, argnums=tuple(range(len(arrays))))
        return spread(on_a_shard, shards, (P(), P("data")))(*arrays)

    return run


# A small version of every method, so that whatever all methods must hold is one parametrised test.


class Smooth(ResNet):
    """A ResNet's place taken by the least with BatchNorm: patches, normalised, through tanh, and pooled.

    It compiles in a third of the time, and has no ReLU, where rounding decides a sign and so a gradient.
    """

    @nn.compact
    def __call__(self, images, *, train: bool = False, axis: str | None = None, keys=None):
        norm = BatchNorm(self.bn_groups, dtype=self.dtype) if self.norm == "batch" else GroupNorm(dtype=self.dtype)
        x = nn.Conv(self.channels, (4, 4), (4, 4), use_bias=False, dtype=self.dtype, name="stem")(images)
        return nn.tanh(norm(x, train=train, axis=axis)).astype(jnp.float32).mean(axis=(1, 2))


ENCODERS["smooth"] = functools.partial(Smooth, stages=(1,), bottleneck=False)
# Two convolutions, and random in one place only: it compiles in half the time.
ENCODERS["wav2vec2_tiny"] = functools.partial(
    Wav2Vec2, ((8, 10, 8), (8, 8, 8)), width=8, depth=1, heads=2, hidden=8, dropout=0.0, layer_drop=0.0, segments=2
)

EXAMPLES = 80
CONFIGS = Path(__file__).parents[1] / "configs"
SMALL_RESNET = {"channels": 4}
SMOOTH = {"name": "smooth", "channels": 16}
SMALL_VIT = {"width": 16, "depth": 1, "heads": 2}
SMALL_MLP = {"width": 16, "depth": 1}
SMALL_CPC = {"width": 8, "context_width": 8, "segments": 2}
SMALL_WAV2VEC2 = {"name": "wav2vec2_tiny", "positional_kernel": 4, "positional_groups": 2}
# Sharp distributions make rounding large.
SOFT = {"student_temperature": 0.5, "teacher_temperature": 0.5, "warmup_temperature": 0.5}
SMALLER = {
    "simclr": {"method": {"projector": (16, 16), "temperature": 0.5}, "encoder": SMOOTH},
    "simclr_v2": {
        "method": {"projector": (16, 16, 16), "temperature": 0.5, "memory": 64, "momentum": 0.9},
        "encoder": SMOOTH,
    },
    "fine_tune": {"method": {"classes": 10}, "encoder": SMOOTH},
    "distill": {"method": {"temperature": 0.1}, "encoder": SMOOTH | {"channels": 12}},
    "moco_v2": {"method": {"projector": (16, 8), "queue": 64}, "encoder": SMOOTH | {"bn_groups": 4}},
    "moco_v1": {"method": {"projector": (8,), "queue": 64}, "encoder": SMOOTH | {"bn_groups": 4}},
    "moco_v3": {"method": {"projector": (16, 8), "predictor": (16, 8)}, "encoder": SMOOTH},
    "byol": {"method": {"projector": (16, 8), "predictor": (16, 8)}, "encoder": SMOOTH},
    "simsiam": {"method": {"projector": (16, 16), "predictor": (8, 16)}, "encoder": SMOOTH},
    "barlow_twins": {"method": {"projector": (16, 16)}, "encoder": SMALL_RESNET},
    "vicreg": {"method": {"projector": (16, 16)}, "encoder": SMOOTH},
    "swav": {
        "method": {
            "projector": (16, 8),
            "prototypes": 12,
            "queue": 32,
            "queue_start": 1.0,
            "temperature": 0.5,
            "epsilon": 0.5,
        },
        "encoder": SMOOTH,
    },
    "npid": {"method": {"projector": (8,), "noise": 16}, "encoder": SMOOTH},
    "dino": {
        "method": {"count": 24, "head_layers": 2, "hidden": 16, "bottleneck": 8, "head_norm": False, **SOFT},
        "encoder": SMALL_VIT | {"name": "vit_micro", "positions": "learned"},
    },
    "ibot": {
        "method": {"count": 24, "head_layers": 2, "hidden": 16, "bottleneck": 8, "patch_temperature": 0.5, **SOFT},
        "encoder": SMALL_VIT,
    },
    "dinov2": {
        "method": {"count": 24, "head_layers": 2, "hidden": 16, "bottleneck": 8, **SOFT},
        "encoder": SMALL_VIT,
    },
    "dinov2_distill": {
        "method": {"count": 24, "head_layers": 2, "hidden": 16, "bottleneck": 8, **SOFT},
        "encoder": SMALL_VIT,
    },
    "data2vec": {"method": {"layers": 2, "smallest_block": 4, "momentum": 0.9}, "encoder": SMALL_VIT | {"depth": 2}},
    "ijepa": {
        "method": {"predictor_width": 16, "predictor_depth": 1, "predictor_heads": 2, "min_keep": 2, "momentum": 0.9},
        "encoder": SMALL_VIT,
    },
    "mae": {"method": {"decoder_width": 16, "decoder_heads": 2}, "encoder": SMALL_VIT},
    "clip": {
        "method": {"text_width": 16, "text_depth": 1, "text_heads": 2, "dim": 8, "temperature": 0.5},
        "encoder": SMALL_VIT | {"name": "clip_vit_micro"},
    },
    "dgi": {"encoder": {"width": 16}},
    "cpc": {"method": {"steps": 3, "negatives": 6}, "encoder": SMALL_CPC},
    "wav2vec2": {
        "method": {
            "dim": 8,
            "entries": 6,
            "codebook_dim": 8,
            "distractors": 4,
            "span": 3,
            "temperature": 0.5,
            "dropout": 0.0,
        },
        "encoder": SMALL_WAV2VEC2,
    },
    "ctc": {"method": {"span": 2, "words": ("one", "two", "nee") * 4}, "encoder": SMALL_WAV2VEC2},
    "scarf": {"method": {"projector": (16, 8)}, "encoder": SMALL_MLP},
    "vime": {"encoder": SMALL_MLP},
    "bert": {"encoder": SMALL_VIT | {"dropout": 0.1}, "data": {"length": 12}, "method": {"mask_share": 0.3}},
    "gpt": {"encoder": SMALL_VIT | {"dropout": 0.1}, "data": {"length": 12}},
    "videomae": {"method": {"decoder_width": 16, "decoder_heads": 2}, "encoder": SMALL_VIT},
    "graphcl": {"method": {"temperature": 0.5}, "encoder": {"width": 8, "depth": 2}},
    "ts2vec": {"encoder": {"width": 8, "hidden": 8, "depth": 2}},
}
TEACHERS = {"ctc": "wav2vec2", "fine_tune": "simclr_v2", "distill": "fine_tune", "dinov2_distill": "dinov2"}
WRITTEN_IN = {
    "ctc": ("wav2vec2", "ctc_demo"),
    "fine_tune": ("simclr_v2", "fine_tune_demo"),
    "distill": ("simclr_v2", "distill_demo"),
    "dinov2_distill": ("dinov2", "distill_demo"),
}


@pytest.fixture(scope="session")
def load_config() -> Callable:
    """`load_config(path, variant)` is what the launcher would get."""
    return lambda path, variant: runpy.run_path(str(path))["get_config"](variant)


@pytest.fixture(scope="session")
def small_graph(tmp_path_factory) -> Path:
    """Twelve nodes of three classes, most of whose edges are between nodes of a class; half of them to learn from."""
    rng, path = np.random.RandomState(0), tmp_path_factory.mktemp("graph") / "small.npz"
    label, train = np.arange(12) % 3, np.arange(12) < 6
    edges = [(i, j) for i in range(12) for j in range(i) if label[i] == label[j] or rng.rand() < 0.1]
    x = np.eye(3)[label] + rng.rand(12, 3)
    np.savez(path, edge_index=np.array(edges).T, x=x, label=label, train_mask=train, test_mask=~train)
    return path


@pytest.fixture(scope="session")
def small_series(tmp_path_factory) -> Path:
    """Forty sines of two channels, slow or fast, of 6 to 11 steps, with a gap here and there; a quarter to test."""
    rng, path = np.random.RandomState(0), tmp_path_factory.mktemp("series") / "small.npz"
    label, time = np.arange(40) % 2, np.arange(11)
    phase = rng.rand(40, 1) + 2.0 * time / np.where(label, 4, 9)[:, None]
    series = np.stack([np.sin(phase), np.cos(phase)], axis=2) + 0.1 * rng.standard_normal((40, 11, 2))
    series[time >= rng.randint(6, 12, size=(40, 1))] = np.nan
    series[::7, 3, 1] = np.nan
    np.savez(path, train_series=series[:30], train_label=label[:30], test_series=series[30:], test_label=label[30:])
    return path


@pytest.fixture(scope="session")
def small_graphs(tmp_path_factory) -> Path:
    """Forty graphs of 4 to 9 nodes of three kinds: rings, and stars, whose nodes are of the same kinds."""
    rng, folder = np.random.RandomState(0), tmp_path_factory.mktemp("graphs")
    sizes, edges, kinds, at = rng.randint(4, 10, 40), [], [], 1
    for i, n in enumerate(sizes):
        joined = [(at + k, at + (k + 1) % n if i % 2 else at) for k in range(n)]
        edges += [f"{a}, {b}" for a, b in joined] + [f"{b}, {a}" for a, b in joined]
        kinds += rng.randint(3, size=n).tolist()
        at += n
    texts = {
        "A": edges,
        "graph_indicator": np.repeat(np.arange(1, 41), sizes),
        "graph_labels": np.arange(40) % 2,
        "node_labels": kinds,
    }
    for name, lines in texts.items():
        (folder / f"SMALL_{name}.txt").write_text("\n".join(map(str, lines)) + "\n")
    return folder


@pytest.fixture(scope="session")
def load_small(load_config, small_graph, small_graphs, small_series, tmp_path_factory) -> Callable:
    """`load_small(name)` is a method's demo with few channels, and batches of 16; of images on views of 16 pixels
    without colours (which have tests of their own, and compile for long). A teacher is a run of another method that has
    made no steps."""

    @functools.cache
    def teacher(name: str) -> str:
        config, workdir = load(name), tmp_path_factory.mktemp("teacher") / name
        example = {"image": jax.ShapeDtypeStruct((2, 20, 20, 3), jnp.uint8)}
        example |= {"label": jax.ShapeDtypeStruct((2,), jnp.int32)} if name == "fine_tune" else {}
        if METHODS[name].modality != "images":
            example = small_batch(config, modality_of(config).shapes())
        config.seed, config.data.examples = 1, EXAMPLES
        run = build_run(config, examples=EXAMPLES, example=example, mesh=make_mesh(1, 1, jax.devices()[:1]))
        remember(config, workdir)
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            checkpoints.save(run.start())
        return str(workdir)

    def load(name: str):
        file, variant = WRITTEN_IN.get(name, (name, "demo"))
        (path,) = CONFIGS.glob(f"*/{file}.py")
        config = load_config(path, variant)
        for section, fields in SMALLER[name].items():
            config[section].update(fields)
        if METHODS[name].modality == "images":
            config.views.update(size=16, jitter=0.0, grey=0.0)
            if config.views.local_crops:
                config.views.local_size = 8
        elif name == "clip":
            config.views.size, config.data.length = 16, 8
        elif name == "dgi":
            config.data.source = f"npz:{small_graph}"
        elif METHODS[name].modality == "video":
            config.data.update(frames=4, canvas=16)
            config.views.size = 16
        elif METHODS[name].modality == "speech":
            config.data.update(crop=0.2, longest=0.3)
        elif name == "graphcl":
            config.data.source = f"tu:{small_graphs}"
        elif name == "ts2vec":
            config.data.source = f"npz:{small_series}"
        modality_of(config).settle()
        config.batch_size = 16
        config.optimizer.update(name="sgd", learning_rate=0.05, warmup_epochs=0.0)
        if name in TEACHERS:
            config.method.teacher = teacher(TEACHERS[name])
        return config

    return load


@pytest.fixture(scope="module", params=list(METHODS))  # of a module, so that all tests of a method are run together
def name(request):
    return request.param


@pytest.fixture
def config(name, load_small):
    return load_small(name)


@pytest.fixture
def method(config):
    return build_method(config, total_steps=5, examples=EXAMPLES)


@pytest.fixture(scope="session")
def batches_of(load_small) -> Callable:
    """`batches_of(modality)`: five batches of sixteen examples of ten classes.

    Images are smooth, random, and of 20 x 20; in each batch, two examples are said to be the same.
    """

    @functools.cache
    def make(modality):
        index = np.arange(EXAMPLES, dtype=np.int32).reshape(5, 16)
        if modality != "images":
            first = next(name for name, method in METHODS.items() if method.modality == modality)
            source = build_source(load_small(first), "train")
            made = [train_dataset(source, batch_size=16, seed=0)[i] for i in range(5)]
        else:
            coarse = np.random.RandomState(0).rand(5, 16, 5, 5, 3)
            made = [{"image": (np.kron(x, np.ones((1, 4, 4, 1))) * 255).astype(np.uint8)} for x in coarse]
            index[:, 15] = index[:, 2]
        numbers = ({"index": i, "label": i % 10} for i in index)
        return [jax.tree.map(jnp.asarray, x | n) for x, n in zip(made, numbers, strict=True)]

    return make


@pytest.fixture(scope="session")
def batches(batches_of):
    return batches_of("images")
