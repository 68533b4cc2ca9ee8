"""The command on virtual CPU devices, and on a TPU slice where libtpu is installed."""

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from ssljax import preflight
from ssljax.cost.bill import report
from ssljax.cost.flops import count_work
from ssljax.cost.topologies import Slice, open_slice
from ssljax.cost.units import GIB
from ssljax.engine.mesh import make_mesh

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs" / "images"
TINY = [
    *("--config.views.size=16", "--config.batch_size=16", "--config.encoder.width=16", "--config.encoder.depth=1"),
    *("--config.encoder.heads=2", "--config.method.decoder_width=16", "--config.method.decoder_heads=2"),
]


def slice_of(limit):
    return Slice("", jax.devices()[:4], None, limit, "device")


@pytest.fixture
def here():
    return slice_of(8.0 * GIB)


def tiny_config(load_config):
    config = load_config(CONFIGS / "mae.py", "demo")
    config.method.update(decoder_width=16, decoder_heads=2)
    config.encoder.update(width=16, depth=2, heads=2)
    config.views.size = 16
    config.batch_size = 16
    return config


@pytest.fixture
def tiny(load_config):
    return tiny_config(load_config)


@pytest.fixture(scope="module")
def costs(load_config):
    """The tiny config's on two meshes: pure data parallelism, and all sharded."""
    return {shape: measured(tiny_config(load_config), slice_of(8.0 * GIB), shape) for shape in ((4, 1), (1, 4))}


@pytest.fixture
def instead(costs, monkeypatch):
    """Whatever is measured costs what the tiny config does, except for what `change(mesh)` says; nothing compiles."""

    def prepare(where, change=lambda mesh: {}):
        def measure(config, example, where, mesh):
            preflight._trace(config, example, mesh)
            return dataclasses.replace(costs[4, 1], **{"mesh": mesh, **change(mesh)})

        monkeypatch.setattr(preflight, "measure", measure)
        monkeypatch.setattr(preflight, "open_slice", lambda name: where)

    return prepare


def memory_of(costs, limit, **change):
    return dataclasses.replace(costs[4, 1].memory, limit=limit, **change)


def run(*arguments, variant="demo"):
    command = [sys.executable, "-m", "ssljax.preflight", *arguments]
    if not any(a.startswith("--config=") for a in arguments):
        command.insert(3, f"--config=configs/images/mae.py:{variant}")
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


def measured(config, where, mesh):
    example, _ = preflight.example_of(config)
    return preflight.measure(config, example, where, make_mesh(*mesh, devices=where.devices))


def test_the_command_prints_a_bill_and_a_verdict():
    done = run("--topology=cpu:4", "--mesh=2,2", *TINY)
    assert done.returncode == 0, done.stderr
    for word in (
        "arguments",
        "temporaries",
        "peak",
        "products",
        "all-reduce",
        "compiled",
        "unknown chip",
        "data=2 fsdp=2",
    ):
        assert word in done.stdout
    assert done.stdout.splitlines()[-1].startswith("fits: ")
    assert "compiling for 4 x cpu, mesh data=2 fsdp=2" in done.stderr


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--topology=v9:2x2"], "is unknown"),
        (["--topology=v5e:3x3"], "no such slice"),
        (["--topology=cpu:4", "--mesh=4"], "must be data,fsdp"),
        (["--topology=cpu:4", "--mesh=3,2"], "does not fill 4 devices"),
        (["--topology=cpu:4", "--config.batch_size=6"], "cannot be dealt equally"),
        (["--topology=cpu:4", "--config.dtype=float8"], "dtype 'float8' is unknown"),
        (["--topology=cpu:4", "--config.data.source=web:x"], "no data source"),
        (["--topology=cpu:4", "--config.nonsense=1"], "no field"),
        (["--config=nowhere.py"], "no config file"),
    ],
)
def test_what_is_wrong_ends_in_one_sentence(arguments, said):
    done = run(*arguments)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr


def test_what_does_not_fit_says_what_to_change(tiny, costs, instead, capsys):
    instead(slice_of(1000.0), lambda mesh: {"memory": memory_of(costs, 1000.0)})
    assert preflight.main(tiny, "", "4,1") == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("does not fit: each of 4 devices") and "--config.encoder.remat=products" in said


def test_a_refusal_of_the_compiler_becomes_numbers(tiny, here, monkeypatch):
    class Refusing:
        def __init__(self, traced):
            self.jaxpr = traced.jaxpr

        def lower(self):
            raise jax.errors.JaxRuntimeError("Used 23.10G of 15.75G hbm.")

    trace = preflight._trace
    monkeypatch.setattr(preflight, "_trace", lambda *a: (trace(*a)[0], Refusing(trace(*a)[1])))
    cost = measured(tiny, here, (4, 1))
    assert (cost.memory.peak, cost.memory.limit) == (23.1 * GIB, 15.75 * GIB)
    assert not cost.memory.fits and cost.traffic is None
    assert any("unknown" in line for line in report(tiny, cost, here))


@pytest.mark.parametrize("name", ["simclr", "moco_v2", "byol", "mae"], indirect=True)
def test_work_is_the_same_on_every_mesh(config, here):
    """But for the statistics of collapse, which every shard computes of the gathered batch, and which are little beside
    a true encoder."""
    if config.encoder.name == "smooth":
        config.encoder.update(name="resnet8", channels=4)
    example, _ = preflight.example_of(config)
    flops = []
    for shape in ((1, 1), (4, 1), (2, 2), (1, 4)):
        mesh = make_mesh(*shape, devices=here.devices[: shape[0] * shape[1]])
        flops.append(count_work(preflight._trace(config, example, mesh)[1].jaxpr).flops)
    assert flops[0] > 0 and flops == pytest.approx([flops[0]] * 4, rel=5e-3)


def test_data_parallel_training_sends_its_gradients(costs):
    """2 (n - 1) / n times 4 bytes a parameter, and little else."""
    cost = costs[4, 1]
    gradients = 2 * 3 / 4 * 4 * cost.parameters
    assert gradients < cost.traffic.sent["all-reduce"] < 1.5 * gradients
    assert cost.traffic.sent["all-gather"] == 0


def test_what_one_device_holds(tiny, costs):
    """AdamW's state is 12 bytes a parameter, whole or in four parts (but for what four does not divide)."""
    whole, parts = (costs[shape] for shape in ((4, 1), (1, 4)))
    batch = tiny.batch_size // 4 * 32 * 32 * 3
    assert whole.state == pytest.approx(12 * whole.parameters, abs=16)
    assert whole.memory.arguments == whole.state + batch
    assert whole.state / 4 <= parts.state < 1.1 * whole.state / 4
    assert parts.traffic.sent["all-gather"] > 0


def test_what_is_computed_again_is_no_work_of_the_model(tiny, here):
    tiny.encoder.remat = "products"
    tiny.train.microbatch = 8
    more = tiny.copy_and_resolve_references()
    more.encoder.remat = "blocks"
    plain = preflight._without_recomputation(tiny)
    example, _ = preflight.example_of(tiny)
    mesh = make_mesh(4, 1, devices=here.devices)
    of = (count_work(preflight._trace(c, example, mesh)[1].jaxpr).flops for c in (plain, tiny, more))
    once, products, blocks = of
    assert once < products < blocks < 4 / 3 * once
    assert preflight._without_recomputation(plain) is None


def test_what_is_computed_again_is_told(tiny, costs, here):
    again = dataclasses.replace(costs[4, 1], work=costs[4, 1].work.times(2))
    told = ["computed again" in "".join(report(tiny, cost, here)) for cost in (costs[4, 1], again)]
    assert told == [False, True]


def test_the_choice_of_a_mesh(tiny, costs, instead, here, capsys):
    """The first does not fit, the others send the same: the one with the lowest peak."""

    def change(mesh):
        fsdp = mesh.shape["fsdp"]
        return {"memory": memory_of(costs, 1e6, peak=2e6 / fsdp)}

    instead(here, change)
    assert preflight.main(tiny, "", "auto") == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["4,1", "2,2", "1,4"]
    assert ["does not fit" in line for line in out.splitlines()[1:4]] == [True, False, False]
    assert "recommended: --config.mesh.data=1 --config.mesh.fsdp=4" in out


def test_no_mesh_fits(tiny, costs, instead, here, capsys):
    instead(here, lambda mesh: {"memory": memory_of(costs, 1e3)})
    assert preflight.main(tiny, "", "auto") == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("does not fit")


def test_meshes_that_do_not_suit_are_skipped_with_the_reason(load_config, instead, here, capsys):
    """A queue of 18 embeddings cannot be dealt to four shards."""
    config = load_config(CONFIGS / "swav.py", "demo")
    config.encoder.channels = 4
    config.views.update(size=16, local_crops=0)
    config.batch_size = 16
    config.method.update(projector=(16, 8), prototypes=8, queue=18)
    instead(here)
    assert preflight.main(config, "", "auto") == 0
    out = capsys.readouterr().out
    assert "4,1 skipped: --config.method.queue=18" in out and "--config.mesh.fsdp=2" in out


@pytest.mark.parametrize(
    "source, canvas, shape, keys",
    [
        ("tfds:imagenet2012", 512, (2, 512, 512, 3), {"image", "index", "size"}),
        ("tfds:imagenet2012", 0, (2, 32, 32, 3), {"image", "index", "size"}),
        ("tfds:cifar10", 0, (2, 32, 32, 3), {"image", "index"}),
        ("tfds:no_such_set", 0, (2, 16, 16, 3), {"image", "index"}),
        ("npz:missing.npz", 0, (2, 16, 16, 3), {"image", "index"}),
        ("folder:missing", 0, (2, 32, 32, 3), {"image", "index", "size"}),
        ("demo", 0, None, {"image", "index"}),
    ],
)
def test_shapes_without_the_data(tiny, source, canvas, shape, keys):
    tiny.data.update(source=source, canvas=canvas)
    example, assumed = preflight.example_of(tiny)
    assert set(example) >= keys
    assert bool(assumed) == (source != "demo")
    if shape:
        assert example["image"].shape == shape and set(example) == keys and source in assumed[0]


@pytest.mark.parametrize(
    "file, fields, keys, assumes",
    [
        ("tables/vime.py", {}, {"values", "donors", "index"}, False),
        ("tables/scarf.py", {"source": "csv:missing.csv"}, {"values", "donors", "index"}, True),
        ("text/gpt.py", {"source": "txt:missing.txt", "length": 8}, {"tokens", "valid", "index"}, True),
        ("nodes/dgi.py", {"source": "npz:missing.npz", "shape": (30, 6, 80)}, {"features", "edges", "index"}, True),
        ("video/videomae.py", {"source": "folder:missing", "frames": 2}, {"video", "size", "index"}, True),
        ("speech/cpc.py", {"source": "folder:missing", "crop": 0.5}, {"audio", "length", "group", "index"}, True),
        (
            "graphs/graphcl.py",
            {"source": "tu:missing", "shape": (9, 3, 18)},
            {"features", "edges", "real", "index"},
            True,
        ),
        ("series/ts2vec.py", {"source": "ts:missing", "shape": (12, 2)}, {"series", "valid", "index"}, True),
    ],
)
def test_other_kinds_of_data(file, fields, keys, assumes, load_config, here, monkeypatch, capsys):
    """From a table, and from a graph that is not there but whose size is told, to a verdict."""
    config = load_config(ROOT / "configs" / file, "demo")
    config.encoder.width, config.batch_size = 16, 4
    config.data.update(fields)
    monkeypatch.setattr(preflight, "open_slice", lambda name: here)
    assert set(preflight.example_of(config)[0]) == keys
    assert preflight.main(config, "cpu:4", "2,2") == 0
    out = capsys.readouterr().out
    assert "fits: " in out and ("is not here" in out) == assumes


@pytest.mark.parametrize(
    "file, sentence",
    [
        ("tables/vime.py", "holds no table|cannot be read|has no"),
        (
            "nodes/dgi.py",
            r"There is no file .*missing.npz.* Or say how large it is by --config.data.shape",
        ),
        ("graphs/graphcl.py", r"There is no folder 'missing'.* Or say how large the largest graph is"),
        ("series/ts2vec.py", r"There is no file 'missing'.* Or say how large the series are by --config.data.shape"),
    ],
)
def test_other_kinds_of_data_that_are_not_there(file, sentence, load_config):
    config = load_config(ROOT / "configs" / file, "demo")
    config.data.source = {
        "tables/vime.py": f"csv:{CONFIGS}",
        "nodes/dgi.py": "npz:missing.npz",
        "series/ts2vec.py": "ts:missing",
        "graphs/graphcl.py": "tu:missing",
    }[file]
    with pytest.raises(ValueError, match=sentence):
        preflight.example_of(config)


@pytest.mark.parametrize("variant, canvas, length, vocabulary", [("demo", 64, 20, 8192), ("paper", 256, 77, 49_408)])
def test_captions_that_are_not_there(variant, canvas, length, vocabulary, load_config):
    config = load_config(ROOT / "configs" / "image_text" / "clip.py", variant)
    config.data.source = "folder:missing"
    example, (assumed,) = preflight.example_of(config)
    assert set(example) == {"image", "size", "captions", "index"} and config.method.vocabulary == vocabulary
    assert example["image"].shape == (2, canvas, canvas, 3) and example["captions"].shape == (2, 1, length)
    assert f"captions with {length} tokens" in assumed
    config.data.source = "npz:missing"
    with pytest.raises(ValueError, match="write one of demo, folder:PATH"):
        preflight.example_of(config)


needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


@needs_libtpu
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
def test_a_slice_that_is_not_there(topology, tiny):
    where = open_slice(topology)
    cost = measured(tiny, where, (-1, 2))
    assert cost.mesh.devices.size == 4 * where.chip.devices
    assert cost.memory.fits and 0.95 < cost.memory.limit * where.chip.devices / where.chip.hbm < 1.01
    assert cost.roof.seconds > 0 and 0 < cost.roof.mfu < 1
    assert cost.traffic.sent["all-reduce"] > 0 and cost.traffic.sent["all-gather"] > 0


@needs_libtpu
def test_what_a_slice_cannot_hold():
    done = run("--topology=v5e:2x2", *TINY, f"--config.batch_size={2**22}")
    assert done.returncode == 1 and done.stdout.splitlines()[-1].startswith("does not fit: each of 4 chips")
