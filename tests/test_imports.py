"""Who may import whom (see the design): methods know losses, models and views; nothing below knows a method."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ssljax"
SHARED = {"chunks", "collectives", "numerics", "fields", "layers", "patches", "schedules", "typing", "wording"}
ALLOWED = {
    "chunks": {"typing"},
    "collectives": {"typing"},
    "numerics": {"typing"},
    "fields": {"typing"},
    "layers": {"typing"},
    "patches": {"typing"},
    "schedules": {"typing"},
    "typing": set(),
    "wording": set(),
    "cost": {"typing"},
    "losses": SHARED,
    "models": SHARED,
    "views": SHARED,
    "data": SHARED,
    "methods": SHARED | {"losses", "models", "views"},
    "engine": SHARED,
    "evals": SHARED,
    "modalities": SHARED | {"data", "views", "models", "evals"},
    "weights": SHARED | {"models"},
}


def part_of(path: Path) -> str:
    """ssljax/losses/contrastive.py is part of losses, ssljax/typing.py of typing."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(source: str) -> set[str]:
    """The parts of ssljax that a file imports, wherever in the file it does so."""
    parts = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not used here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("ssljax.")}
    return parts


FILES = sorted(path for path in PACKAGE.rglob("*.py") if part_of(path) in ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_part_may(path):
    part = part_of(path)
    assert imported_parts(path.read_text()) <= ALLOWED[part] | {part}


def test_every_part_is_found():
    assert {part_of(path) for path in FILES} == set(ALLOWED)


def test_all_ways_to_import_are_seen():
    """What the test above rests on."""
    source = """
import os, ssljax.losses
from ssljax import models
from ssljax.views.masks import Mask
def f():
    import ssljax.data.folder
"""
    assert imported_parts(source) == {"losses", "models", "views", "data"}


@pytest.mark.parametrize(
    "module, needed, waits",
    [
        ("losses", "jax", {"tensorflow", "torch", "orbax", "grain", "matplotlib", "sklearn"}),
        ("train", "grain", {"tensorflow", "torch", "matplotlib", "sklearn", "scipy.signal", "scipy.stats"}),
    ],
)
def test_what_takes_long_to_import_is_not_imported_unasked(module, needed, waits):
    """A notebook that wants one loss loads no engine, and a run begins before what its first evaluation needs."""
    command = [sys.executable, "-c", f"import sys, ssljax.{module}; print(*sys.modules)"]
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=PACKAGE.parent)
    imported = set(run.stdout.split())
    assert needed in imported
    assert not imported & waits


def test_a_method_needs_jax_flax_and_optax_alone():
    """benchmarks/gpu.py runs where there is nothing else."""
    missing = "einops", "ml_collections", "sklearn", "PIL", "grain", "matplotlib", "filelock", "tensorboardX"
    imports = "import ssljax.methods, ssljax.views.recipes, ssljax.engine.step, ssljax.engine.optim"
    code = f"import sys; sys.modules.update(dict.fromkeys({missing})); {imports}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
