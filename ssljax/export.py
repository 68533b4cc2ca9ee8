"""Write a run's encoder alone into a folder that others can load, with a card that says what it is.

    python -m ssljax.export --workdir=runs/dino --format=huggingface [--to=FOLDER] [--step=N] [--license=cc-by-4.0]

Formats: `safetensors`, for `ssljax.load`; `timm`, for `timm.create_model("local-dir:FOLDER", pretrained=True)`;
`huggingface`, for `AutoModel.from_pretrained("FOLDER")`; and `onnx`, a graph for ONNX Runtime and others (needs
`pip install -r requirements-onnx.txt`). docs/weights.md says which encoders they can be.
"""

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import ConfigDict

from ssljax import __version__
from ssljax.build import modality_of, open_run
from ssljax.commands import launch, local_path
from ssljax.evals.results import accuracy_lines, found_of, objective_lines
from ssljax.evals.tables import TABLES, table_lines
from ssljax.evaluate import PROTOCOLS
from ssljax.modalities import Modality
from ssljax.typing import Method, PyTree, Variables
from ssljax.usage import usage
from ssljax.weights import architecture_for, graphs
from ssljax.weights.architecture import Described, ImageInputs, SpeechInputs, TextInputs
from ssljax.weights.canonical import canonical
from ssljax.weights.files import save

LIBRARIES = {"safetensors": "ssljax", "timm": "timm", "huggingface": "transformers", "onnx": "onnx"}
"""Formats, and the library that each is for."""
UNKNOWN, LINE = "unknown", "\n"
NOT_EVALUATED = (
    "None yet of this step: `python -m ssljax.evaluate --workdir=RUN --step={step}` makes them, and this command then "
    "writes them."
)


def main(workdir: str | None, format: str, to: str | None, step: int | None, license: str, overwrite: bool) -> None:
    if workdir is None:
        raise ValueError("--workdir is needed: the folder of a run.")
    run = local_path(workdir)
    folder = local_path(to) if to else run / "export" / format
    export(run, folder, format, step=step, license=license, overwrite=overwrite)
    print(f"exported: {folder}")


def export(
    workdir: Path,
    folder: Path,
    format: str,
    *,
    step: int | None = None,
    license: str = UNKNOWN,
    overwrite: bool = False,
) -> None:
    """Write the encoder of a run's newest checkpoint, or of that of `step`.

    Raises ValueError for a format that there is none of or whose packages are missing, an encoder that its library has
    none like, and files that are there already; CheckpointError if there is no checkpoint.
    """
    if format not in LIBRARIES:
        raise ValueError(f"--format={format} is unknown; use {', '.join(LIBRARIES)}.")
    config, run, state = open_run(workdir, step)
    found = found_of(workdir, int(state.step))
    modality = modality_of(config)
    described, _ = encoder_of(run.method, modality, state)
    card = model_card(config, int(state.step), format, license, found, usage(format, described, config.data))
    write_encoder(run.method, modality, state, folder, format, card, overwrite=overwrite)


def write_encoder(
    method: Method, modality: Modality, state: Variables, folder: Path, format: str, card: str, *, overwrite: bool
) -> None:
    """Raises ValueError as `export`."""
    described, variables = encoder_of(method, modality, state)
    if format != "onnx":
        architecture = architecture_for(described.encoder, "ssljax" if format == "safetensors" else format)
    if format != "safetensors":
        side = described.example.shape[1] if isinstance(described.inputs, ImageInputs) else 0
        encoder, variables = canonical(described.encoder, variables, side)
        described = described._replace(encoder=encoder)
    variables = jax.device_get(variables)
    if format == "onnx":
        graphs.save(folder, described, variables, card, overwrite=overwrite)
    else:
        save(folder, architecture, described, variables, card, overwrite=overwrite)


def encoder_of(method: Method, modality: Modality, state: Variables) -> tuple[Described, PyTree]:
    """The encoder that is evaluated, and its variables. Raises ValueError for kinds of data that no format is for."""
    m: Any = method
    params, statistics = m.evaluated(state) if hasattr(m, "evaluated") else (state.params["encoder"], {})
    data, kind = modality.data, modality.encodes or method.modality
    shapes = modality.shapes()
    inputs: Any
    if kind == "images":
        view = m.augmentations[0]
        inputs = ImageInputs(view.size, m.eval_crop, tuple(view.mean), tuple(view.std))
        example = jax.ShapeDtypeStruct((1, view.size, view.size, 3), jnp.float32)
    elif kind == "speech":
        inputs = SpeechInputs(data.rate, data.normalise)
        samples = round(data.rate * max(data.crop, data.longest))  # that evaluation hears, too
        example = jax.ShapeDtypeStruct((1, samples), jnp.float32)
    elif kind == "text":
        inputs = TextInputs(data={name: data[name] for name in modality.data_fields})
        example = jax.ShapeDtypeStruct((1, *shapes["tokens"][0]), jnp.int32)
    else:
        raise ValueError(
            f"encoders of {kind} cannot be exported yet; those of images, speech and text can. ssljax.load(RUN) gives "
            "this one from its run's folder."
        )
    return Described(m.encoder, example, inputs), {"params": params, **statistics}


def model_card(config: ConfigDict, step: int, format: str, license: str, results: dict[str, Any], code: str) -> str:
    """README.md, with what hubs of models read at its head. Paths of this machine are left out of it.

    code: see `usage`.
    """
    method, encoder, source = config.method.name, config.encoder.name, _without_place(config.data.source)
    lines = objective_lines(results["objective"]) if "objective" in results else []
    lines += accuracy_lines(results, PROTOCOLS) if "encoders" in results else []
    for protocol, table in results.get("tables", {}).items():
        lines += table_lines(TABLES[protocol], table)
    lines = [re.sub(r"\b([a-z]+:)\S*/", r"\1", line) for line in lines]
    measured = ["```", *"\n".join(lines).strip().splitlines(), "```"] if lines else [NOT_EVALUATED.format(step=step)]
    told = config.to_dict()
    told["data"] |= {"source": source} | ({"learnt": "…"} if config.data.get("learnt") else {})
    if told["method"].get("teacher"):
        told["method"]["teacher"] = Path(told["method"]["teacher"]).name
    return f"""---
license: {license}
library_name: {LIBRARIES[format]}
tags:
- self-supervised-learning
- {method}
---

# {method}, {encoder}, {source}

An encoder that was pretrained without labels by ssljax {__version__}: method `{method}`, step {step}, batches of
{config.batch_size}, seed {config.seed}.

```python
{code}
```

## Data

`{source}`, split `{config.data.train_split}`, {config.data.examples} examples.

## Results

{LINE.join(measured)}

## Licence

`{license}`{", as nobody said: `--license=` does" if license == UNKNOWN else ""}. It is of these weights; the terms of
the data they have learnt from may bind them too.

## Config

```json
{json.dumps(_set(told), indent=2)}
```
"""


def _set(tree: dict[str, Any]) -> dict[str, Any]:
    """Without the fields that have no value."""
    shown = {name: _set(value) if isinstance(value, dict) else value for name, value in tree.items()}
    return {name: value for name, value in shown.items() if value is not None}


def _without_place(source: str) -> str:
    kind, _, where = source.partition(":")
    return f"{kind}:{Path(where).name}" if "/" in where else source


if __name__ == "__main__":
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
    FORMAT = flags.DEFINE_string("format", "safetensors", f"One of {', '.join(LIBRARIES)}.")
    TO = flags.DEFINE_string("to", None, "Folder to write into; by default export/FORMAT in the run's.")
    STEP = flags.DEFINE_integer("step", None, "Export the checkpoint of this step; by default the newest.")
    LICENSE = flags.DEFINE_string("license", UNKNOWN, "Of the weights, for the card, such as cc-by-4.0.")
    OVERWRITE = flags.DEFINE_bool("overwrite", False, "Whether files that are there already are replaced.")
    launch(lambda: main(WORKDIR.value, FORMAT.value, TO.value, STEP.value, LICENSE.value, OVERWRITE.value), alone=True)
