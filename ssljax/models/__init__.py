"""Encoders by the names that configs use. Each is called as `encoder(images, train=…, axis=…, keys=…)`."""

from functools import partial
from inspect import signature
from typing import Any

import flax.linen as nn
import jax

from ssljax.chunks import merge, split
from ssljax.fields import Range, check_ranges
from ssljax.models import clip, cpc, gin, gnn, language, mlp, resnet, ts2vec, video, vit, wav2vec
from ssljax.typing import Array, PyTree

ENCODERS: dict[str, partial] = {
    "resnet8": resnet.resnet8,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "vit_micro": vit.vit_micro,
    "vit_ti": vit.vit_ti,
    "vit_s": vit.vit_s,
    "vit_b": vit.vit_b,
    "vit_l": vit.vit_l,
    "vit_h": vit.vit_h,
    "vit_g": vit.vit_g,
    "clip_vit_micro": clip.clip_vit_micro,
    "clip_vit_b": clip.clip_vit_b,
    "clip_vit_l": clip.clip_vit_l,
    "mlp": partial(mlp.TableMLP),
    "gcn": partial(gnn.GCN),
    "bert_base": language.bert_base,
    "bert_large": language.bert_large,
    "gpt2": language.gpt2,
    "video_vit_micro": video.video_vit_micro,
    "video_vit_s": video.video_vit_s,
    "video_vit_b": video.video_vit_b,
    "video_vit_l": video.video_vit_l,
    "video_vit_h": video.video_vit_h,
    "cpc": partial(cpc.CPCEncoder),
    "wav2vec2_micro": wav2vec.wav2vec2_micro,
    "wav2vec2_base": wav2vec.wav2vec2_base,
    "wav2vec2_large": wav2vec.wav2vec2_large,
    "gin": partial(gin.GIN),
    "dilated": partial(ts2vec.TSEncoder),
}


OF_DATA = {"cardinalities", "vocabulary"}
NOT_IN_CONFIGS = {"parent", "name", "stages", "bottleneck", "layers", "chunks", *OF_DATA}
"""Fields of encoders that their names, the run or the data (`OF_DATA`) say."""

RANGES: list[Range] = [
    ("at least 1", lambda x: x >= 1, "patch tubelet width depth heads channels bn_groups"),
    ("at least 1", lambda x: x >= 1, "hidden context_width segments positional_kernel positional_groups"),
    ("above 0", lambda x: x > 0, "mlp_ratio width_multiplier epsilon"),
    ("0 or more", lambda x: x >= 0, "registers layer_scale position_offset types feature_gradient"),
    ("at least 0 and below 1", lambda x: 0 <= x < 1, "drop_path dropout input_dropout layer_drop"),
]
"""What the fields of these names must be, whatever the encoder."""


def encoders_for(modality: str) -> dict[str, partial]:
    """The encoders of a kind of data (`ssljax.modalities`)."""
    return {name: encoder for name, encoder in ENCODERS.items() if encoder.func.modality == modality}  # type: ignore[attr-defined]


def make_encoder(name: str, *, chunks: int = 1, **fields) -> Any:
    """The encoder `name` with some of its fields set; chunks: see `run`.

    Raises ValueError that lists what there is for an unknown name or field, and for a number outside of `RANGES`.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder '{name}' is unknown; use one of {', '.join(ENCODERS)}.")
    known = set(signature(ENCODERS[name].func).parameters) - NOT_IN_CONFIGS
    if unknown := set(fields) - known - OF_DATA:
        take_back = " ".join(f"--config.encoder.{field}=None" for field in sorted(unknown))
        raise ValueError(
            f"encoder '{name}' has no field '{min(unknown)}'; it has {', '.join(sorted(known))}. What a config set for "
            f"another encoder is taken back by {take_back}."
        )
    check_ranges("encoder", fields, RANGES)
    return ENCODERS[name](**fields, chunks=chunks)


def initialise(module: nn.Module, key: Array, *inputs, **options) -> tuple[PyTree, PyTree]:
    """(params, state) of a module; state is `{}` or holds its statistics, and params are where nothing is learnt."""
    state = dict(module.init(key, *inputs, **options))
    return state.pop("params", {}), state


def run(module: nn.Module, params: PyTree, state: PyTree, *inputs, **options) -> tuple[Any, PyTree]:
    """Output of a module in train mode, and its state after it has seen this batch.

    A module with a field `chunks` > 1 sees the batch in so many parts, one after the other, and keeps none of their
    intermediate arrays: the backward pass makes them again, a part at a time. Each part has batch statistics of its
    own, and the running ones follow their mean, as they do with `chunks` groups of BatchNorm.
    """
    chunks = getattr(module, "chunks", 1)
    arrays = {name: x for name, x in options.items() if isinstance(x, jax.Array)}
    rest = {name: x for name, x in options.items() if name not in arrays}

    def apply(params, inputs, arrays):
        variables = {"params": params, **state}
        output, new_state = module.apply(variables, *inputs, train=True, mutable=["batch_stats"], **arrays, **rest)
        return output, dict(new_state)

    if chunks == 1:
        return apply(params, inputs, arrays)
    outputs, states = jax.lax.map(lambda part: jax.checkpoint(apply)(params, *part), split((inputs, arrays), chunks))
    return merge(outputs), jax.tree.map(lambda x: x.mean(0), states)


def infer(module: nn.Module, params: PyTree, state: PyTree, *inputs, **options) -> Any:
    """Output of a module that changes no state: in evaluation mode, unless the options say otherwise."""
    return module.apply({"params": params, **state}, *inputs, **options)
