"""What must be known of another library's architecture: which encoder of ours it is, and where its tensors go."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from ssljax.weights.rows import Row

Config = Mapping[str, Any]
"""What is in a config.json."""
POOL, SEGMENTS = "ssljax_pool", "ssljax_segments"
"""Fields that we write into a config.json of Hugging Face, which keeps what it does not know: how our encoder makes one
vector of its tokens, or of its frames."""
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class ImageInputs(NamedTuple):
    """How an encoder sees an image: the central square of `crop` times the short side, resized to `size` pixels, less
    `mean`, over `std`, of colours in [0, 1]."""

    size: int
    crop: float = 1.0
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]


class SpeechInputs(NamedTuple):
    """How it hears a clip: so many samples a second, maybe of zero mean and unit variance."""

    rate: int = 16000
    normalise: bool = False


class TextInputs(NamedTuple):
    """What makes token ids of a text: a file of the library tokenizers, or the fields of `config.data` of the run that
    the encoder comes from. With neither it must be given the ids."""

    file: str = ""
    data: Mapping[str, Any] | None = None


Inputs = ImageInputs | SpeechInputs | TextInputs


class Described(NamedTuple):
    """An encoder (a module), what it can be initialised with, by its shape, and how it sees the world."""

    encoder: Any
    example: jax.ShapeDtypeStruct
    inputs: Any
    """One of `Inputs`."""


@dataclass(frozen=True)
class Architecture:
    """An architecture as a library (`library`: "timm" or "huggingface") has it.

    describe(config, preprocessing): what config.json, and preprocessor_config.json where there is one (else `{}`),
      tell of. Raises ValueError for what our encoders cannot be.
    configure(described): these two files, for an encoder of ours. Raises ValueError for what theirs cannot be.
    rows(encoder): see `ssljax.weights.rows`; None: every variable lies under its own path.
    aliases: (pattern, replacement) of names that other versions, or larger models around this one, have for tensors.
    left_out: patterns of names, after that, of which our encoder has nothing, such as heads'.
    """

    library: str
    describe: Callable[[Config, Config], Described]
    configure: Callable[[Described], tuple[dict[str, Any], dict[str, Any]]]
    rows: Callable[[Any], Sequence[Row]] | None
    aliases: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()


def must_be(config: Config, **values: Any) -> None:
    """Raises ValueError where fields of a config are set to something else."""
    for field, value in values.items():
        if config.get(field, value) != value:
            raise ValueError(
                f"'{field}': {config[field]!r} in config.json has no counterpart here; only {value!r} has."
            )


def only(fields: Config, known: Iterable[str]) -> None:
    """Raises ValueError for a field that nobody here knows the meaning of."""
    if unknown := set(fields) - set(known):
        raise ValueError(f"'{min(unknown)}' in config.json has no counterpart here; {', '.join(known)} have.")


def can_be_written(encoder: nn.Module, as_what: str, **values: Any) -> None:
    """Raises ValueError where fields of an encoder are not as another library's architecture needs them."""
    for field, value in values.items():
        if getattr(encoder, field) != value:
            raise ValueError(
                f"{type(encoder).__name__} with {field}={getattr(encoder, field)!r} cannot be written as {as_what}, "
                f"which has {value!r}: use --format=safetensors."
            )
