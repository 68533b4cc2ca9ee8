"""benchmarks/gpu.py: what it builds are the configs' methods, what it counts is what XLA counts, and it runs bare."""

import dataclasses
import json
import runpy
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpu import COLUMNS, end_to_end, fitting, peak_of, row, run
from gpu_ssljax import CIFAR10, RECIPES, STEPS_PER_EPOCH, TOTAL, cifar10, flops, gradient, knn
from sections import ROOT, markdown, table

from ssljax.build import build_method
from ssljax.config import base_config
from ssljax.evals.knn import knn as knn_on_host

FULL = {**RECIPES, "cifar10": CIFAR10}


@pytest.mark.parametrize("name", FULL)
def test_recipes_are_those_of_the_configs(name):
    recipe = FULL[name]
    file, variant = recipe.config
    config = runpy.run_path(str(ROOT / "configs" / f"{file}.py"))["get_config"](variant)
    config.encoder.name = recipe.encoder["name"]  # of a ViT-L no config has numbers of its own
    ours, theirs = recipe.build(), build_method(config, TOTAL, steps_per_epoch=STEPS_PER_EPOCH)
    differ = {f.name for f in dataclasses.fields(ours) if getattr(ours, f.name) != getattr(theirs, f.name)}
    assert differ <= {"eval_crop"}
    names = {"base": "learning_rate", "kind": "schedule"}
    fields = {names.get(field, field): x for field, x in (recipe.schedule | recipe.optimizer).items()}
    assert {field: config.optimizer[field] for field in fields} == fields
    default = base_config(config.method.name).optimizer
    changed = {field for field in default if config.optimizer[field] != default[field]}
    assert changed - {"warmup_epochs", "freeze", "freeze_epochs"} <= set(fields)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_counted_is_what_xla_counts(name):
    """XLA counts what lies between products too, and no taps on the border; of a scan it would count one turn."""
    encoder = RECIPES[name].encoder
    recipe = dataclasses.replace(RECIPES[name], encoder={k: x for k, x in encoder.items() if k != "scan"})
    assert gradient(recipe).lower().cost_analysis()["flops"] == pytest.approx(2 * flops(RECIPES[name]), rel=0.04)


def test_neighbours_vote_as_in_evaluation():
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(60, 8)).astype(np.float32), rng.normal(size=(20, 8)).astype(np.float32)
    labels, truth = rng.integers(0, 4, 60).astype(np.int32), rng.integers(0, 4, 20).astype(np.int32)
    found = knn(jnp.asarray(bank), jnp.asarray(labels), jnp.asarray(queries), 4, k=10)
    score = knn_on_host(bank, labels, queries, truth, k=10, temperature=0.1)
    assert (np.asarray(found) == truth).mean() == score.accuracy


def test_end_to_end_says_how_far_it_is_after_each_epoch(tmp_path, capsys):
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 16), ("test", 8)):
        arrays[f"{split}_image"] = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        arrays[f"{split}_label"] = np.arange(count) % 4
    np.savez(tmp_path / "small.npz", **arrays)
    cifar10(str(tmp_path / "small.npz"), epochs=2, every=1, tiny=True, begun=0.0)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(0 <= line["accuracy"] <= 1 and line["minutes"] > 0 for line in lines)


def test_what_was_reached_and_what_was_not():
    lines = [{"epoch": 5, "accuracy": 0.8, "minutes": 0.5}, {"epoch": 10, "accuracy": 0.86, "minutes": 1.0}]
    assert end_to_end(lines, "")["rows"] == [
        ["85%", 1.0, 10],
        ["90%", "not reached", None],
        ["86.0%, the last", 1.0, 10],
    ]
    assert "not run: no CIFAR-10 at hand" in end_to_end([], "not run: no CIFAR-10 at hand")


def test_a_row_has_numbers_or_says_why_not():
    ours = {"seconds": 0.5, "views": 0.1, "batch": 64, "flops": 10**9}
    found = {"ssljax": ours, "eager": {"seconds": 0.5, "batch": 32, "flops": 10**9}}
    cells = row("MAE", found, {"torch.compile": "no end in 30 s"}, peak=1e12)
    assert cells[:4] == ["MAE", "64 / 32", 128.0, pytest.approx(0.128)]
    assert cells[6:] == ["no end in 30 s", None, None, pytest.approx(1 / 6)]
    assert "no end in 30 s" in markdown([table(COLUMNS, [cells])])


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("NVIDIA L40S", None),
        ("", None),
    ],
)
def test_a_card_is_known_by_its_whole_name(card, peak):
    assert peak_of(card) == peak


def test_a_batch_is_halved_until_it_fits():
    def measure(batch: int) -> dict:
        if batch > 20:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return {"seconds": 1.0}

    assert fitting(measure, 64) == {"seconds": 1.0, "batch": 16}


def test_what_takes_too_long_is_ended():
    assert run("probe", [], limit=0.1, tiny=True) == ([], "no end in 0 s")
    assert run("probe", [], limit=0.0, tiny=True) == ([], "no time left")


def test_it_runs_with_little_at_hand():
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--only=mae_vit_b"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    (line,) = [line for line in said.splitlines() if line.startswith("| MAE ViT-B |")]
    assert float(line.split("|")[3]) > 0


@pytest.mark.parametrize("name", RECIPES)
def test_pytorch_has_as_many_parameters(name):
    pytest.importorskip("torch")
    from gpu_torch import make

    recipe = RECIPES[name]
    method, shape = recipe.build(tiny=True), recipe.example_shape(tiny=True)
    kind = ("audio", jnp.float32) if len(shape) == 1 else ("image", jnp.uint8)
    batch = {kind[0]: jnp.zeros((2, *shape), kind[1])}
    params = jax.eval_shape(lambda: method.init(jax.random.key(0), batch)).params
    net = make(method, shape[0])
    learnt = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert learnt == sum(x.size for x in jax.tree.leaves(params))
