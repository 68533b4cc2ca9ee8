"""Encoders in files: safetensors with a config.json beside them, of timm, Hugging Face and our own."""

import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ssljax.typing import PyTree
from ssljax.weights import ARCHITECTURES, architecture_of
from ssljax.weights.architecture import Architecture, Config, Described, Inputs, TextInputs
from ssljax.weights.rows import Row, own, read, write

MODEL, CONFIG, PREPROCESSING, CARD = "model.safetensors", "config.json", "preprocessor_config.json", "README.md"
INDEX = f"{MODEL}.index.json"
"""Of weights that are in several files."""


class Weights(NamedTuple):
    """An encoder, its variables (float32), and how it sees the world."""

    encoder: nn.Module
    variables: PyTree
    inputs: Inputs


def load(path: Path, architecture: str | None = None) -> Weights:
    """Out of a folder with `model.safetensors` and `config.json`, or out of one safetensors file.

    architecture: what it is, where there is no config.json (a name of timm's with its size, such as
    "vit_base_patch16_224", or a `model_type` of Hugging Face's, which then has its default sizes), or another part of
    the model that it tells of ("clip_text_model").

    Raises ValueError that says what is wrong: no weights or no config, an architecture that there is none of here,
    tensors that are missing, of another shape, or too many.
    """
    folder = path if path.is_dir() else path.parent
    config = _config(folder, architecture)
    known = architecture_of(config)
    described = known.describe(config, _json(folder / PREPROCESSING) or {})
    tensors = {renamed(name, known): x for name, x in tensors_in(path).items()}
    shapes = variable_shapes(described)
    variables = read(tensors, rows_of(known, described), shapes, known.left_out)
    inputs = described.inputs
    if inputs == TextInputs() and (folder / "tokenizer.json").exists():
        inputs = TextInputs(file=str(folder / "tokenizer.json"))
    return Weights(described.encoder, variables, inputs)


def save(
    folder: Path,
    architecture: Architecture,
    described: Described,
    variables: PyTree,
    card: str,
    *,
    overwrite: bool = False,
) -> None:
    """Write `model.safetensors`, `config.json`, where the library has it `preprocessor_config.json`, and the card as
    `README.md`. Each file appears whole or not at all, and config.json last.

    Raises ValueError if one of them is there and must not be overwritten, or for an encoder that the architecture
    cannot be.
    """
    config, preprocessing = architecture.configure(described)
    tensors = write(variables, rows_of(architecture, described))
    if not overwrite:
        must_be_free(folder, MODEL, CONFIG, PREPROCESSING, CARD)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    part = folder / f"{MODEL}.part"
    # safetensors writes an array's memory as it lies, whatever its strides.
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, part, metadata={"format": "pt"})
    part.chmod(_readable())  # safetensors makes files that only their owner can read
    part.replace(folder / MODEL)
    texts = {CARD: card, PREPROCESSING: json.dumps(preprocessing, indent=2), CONFIG: json.dumps(config, indent=2)}
    for name, text in texts.items():
        if name != PREPROCESSING or preprocessing:
            put(folder, name, f"{text}\n".encode())


def must_be_free(folder: Path, *names: str) -> None:
    """Raises ValueError if one of these files is there."""
    if there := [name for name in names if (folder / name).exists()]:
        raise ValueError(f"{folder} has {', '.join(there)}: choose another folder, or overwrite them with --overwrite.")


def put(folder: Path, name: str, contents: bytes) -> None:
    """A file that appears whole or not at all."""
    part = folder / f"{name}.part"
    part.write_bytes(contents)
    part.replace(folder / name)


def _readable() -> int:
    """The mode that new files have here."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def is_weights(path: Path) -> bool:
    """Whether this is what `load` reads: a safetensors file, or a folder with one."""
    if path.is_dir():
        return any((path / name).exists() for name in (MODEL, INDEX))
    return path.suffix == ".safetensors"


def rows_of(architecture: Architecture, described: Described) -> list[Row]:
    if architecture.rows is None:
        return own(variable_shapes(described))
    return list(architecture.rows(described.encoder))


def variable_shapes(described: Described) -> PyTree:
    init = partial(described.encoder.init, jax.random.key(0))
    return jax.eval_shape(init, described.example)


def tensors_in(path: Path) -> dict[str, np.ndarray]:
    """Of a safetensors file, or of a folder's, in one file or in several that an index names; never of a pickle."""
    if not path.is_dir():
        return _tensors(path)
    if (path / MODEL).exists():
        return _tensors(path / MODEL)
    index = _json(path / INDEX)
    if index is None:
        raise ValueError(
            f"{path} has no {MODEL}: download it, or write it with save_pretrained of the library that has the "
            "weights. Other formats are pickles, which can run any program, and are not read."
        )
    tensors: dict[str, np.ndarray] = {}
    for name in sorted(set(index["weight_map"].values())):
        tensors |= _tensors(path / name)
    return tensors


def _tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, "flax") as file:  # NumPy's own way knows no bfloat16
            return {name: np.asarray(file.get_tensor(name)) for name in file.keys()}
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); copy it again.") from None


def _config(folder: Path, architecture: str | None) -> Config:
    config = _json(folder / CONFIG)
    if architecture is None:
        if config is None:
            raise ValueError(f"{folder} has no {CONFIG}: name the architecture, as load(…, architecture='dinov2').")
        return config
    of_library = "model_type" if architecture in ARCHITECTURES else "architecture"
    return {**(config or {}), of_library: architecture}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); copy it again.") from None


def renamed(name: str, architecture: Architecture) -> str:
    """A tensor's name as `Architecture.rows` has it."""
    for pattern, replacement in architecture.aliases:
        name = re.sub(pattern, replacement, name)
    return name
