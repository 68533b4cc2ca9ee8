"""What an encoder out of a file makes of a batch, by the kind of its inputs."""

from functools import partial
from typing import Any

from ssljax.models import infer
from ssljax.models.clip import CLIPText
from ssljax.models.pooling import segment_means
from ssljax.typing import Array, Batch, PyTree
from ssljax.weights.architecture import ImageInputs, Inputs, SpeechInputs


def features(encoder: Any, inputs: Inputs, variables: PyTree, batch: Batch) -> Array:
    """(batch, dim), float32, of `images` (batch, size, size, 3) that are normalised; `audio` (batch, samples), of which
    `length` (batch,) are the clip; or `tokens` (batch, tokens), of which those count that are `valid` (the same)."""
    statistics = {name: x for name, x in variables.items() if name != "params"}
    encode = partial(infer, encoder, variables["params"], statistics)
    if isinstance(inputs, ImageInputs):
        return encode(batch["images"])
    if isinstance(inputs, SpeechInputs):
        context = encode(batch["audio"], lengths=batch["length"]).context
        return segment_means(context, encoder.frames(batch["length"]), encoder.segments)
    if isinstance(encoder, CLIPText):  # which sees nothing of what comes after the token that ends a text
        return encode(batch["tokens"])
    return encode(batch["tokens"], valid=batch["valid"])
