"""Encoders in files of our own: every variable by its path, and in config.json what the encoder is."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssljax.models.clip import CLIPText, CLIPViT
from ssljax.models.cpc import CPCEncoder
from ssljax.models.language import BERT, GPT
from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT
from ssljax.models.wav2vec import Wav2Vec2
from ssljax.weights.architecture import Architecture, Config, Described, ImageInputs, SpeechInputs, TextInputs

ENCODERS: dict[str, Any] = {
    kind.__name__: kind for kind in (ViT, CLIPViT, CLIPText, ResNet, BERT, GPT, Wav2Vec2, CPCEncoder)
}
INPUTS: dict[str, Any] = {kind.__name__: kind for kind in (ImageInputs, SpeechInputs, TextInputs)}
OF_THE_RUN = ("parent", "name", "chunks", "dtype", "remat")
"""Fields that say how an encoder was computed, and not what it is."""


def describe(config: Config, _: Config) -> Described:
    said = config["ssljax"]
    fields = {name: _tuples(value) for name, value in said["fields"].items()}
    inputs = {name: _tuples(value) for name, value in said["inputs"]["fields"].items()}
    try:
        encoder = ENCODERS[said["encoder"]](**fields)
        seen = INPUTS[said["inputs"]["kind"]](**inputs)
    except (KeyError, TypeError) as error:
        raise ValueError(f"config.json was written by another version of ssljax ({error}); use that version.") from None
    return Described(encoder, jax.ShapeDtypeStruct(said["example"], jnp.dtype(said["type"])), seen)


def configure(described: Described) -> tuple[dict[str, Any], dict[str, Any]]:
    encoder, example, inputs = described
    kind = type(encoder)
    if kind.__name__ not in ENCODERS:
        raise ValueError(f"{kind.__name__} cannot be written yet; those that can are {', '.join(ENCODERS)}.")
    names = [field.name for field in dataclasses.fields(kind) if field.name not in OF_THE_RUN]
    said = {
        "encoder": kind.__name__,
        "fields": {name: getattr(encoder, name) for name in names},
        "inputs": {"kind": type(inputs).__name__, "fields": inputs._asdict()},
        "example": example.shape,
        "type": jnp.dtype(example.dtype).name,
    }
    return {"ssljax": said}, {}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(x) for x in value) if isinstance(value, list) else value


OWN = Architecture("ssljax", describe, configure, rows=None)
