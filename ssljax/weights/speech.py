"""wav2vec 2.0 and HuBERT as transformers has them: the same encoder under the same names."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ssljax.models.wav2vec import Wav2Vec2
from ssljax.weights.architecture import SEGMENTS, Architecture, Config, Described, SpeechInputs, can_be_written, must_be
from ssljax.weights.layout import TRANSPOSED, leading
from ssljax.weights.rows import Row, affine, attention, dense

DEFAULTS = {
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": False,
    "feat_extract_norm": "group",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "do_stable_layer_norm": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "layer_norm_eps": 1e-5,
}
"""What a config.json may leave out, as transformers does with its defaults."""


def describe(config: Config, preprocessing: Config) -> Described:
    c = {**DEFAULTS, **config}
    must_be(c, hidden_act="gelu", feat_extract_activation="gelu", add_adapter=False)
    must_be(c, feat_proj_layer_norm=True, conv_pos_batch_norm=False)
    layers = tuple(zip(c["conv_dim"], c["conv_kernel"], c["conv_stride"], strict=True))
    encoder = Wav2Vec2(
        layers,
        c["feat_extract_norm"],
        c["conv_bias"],
        c["hidden_size"],
        c["num_hidden_layers"],
        c["num_attention_heads"],
        c["intermediate_size"],
        c["do_stable_layer_norm"],
        c["num_conv_pos_embeddings"],
        c["num_conv_pos_embedding_groups"],
        epsilon=c["layer_norm_eps"],
        segments=c.get(SEGMENTS, 4),
    )
    normalise = preprocessing.get("do_normalize", c["feat_extract_norm"] == "layer")
    inputs = SpeechInputs(preprocessing.get("sampling_rate", 16000), normalise)
    return Described(encoder, audio_for(encoder), inputs)


def audio_for(encoder: Wav2Vec2) -> jax.ShapeDtypeStruct:
    """The shortest clip of which one frame comes."""
    samples = 1
    for _, kernel, stride in reversed(encoder.layers):
        samples = (samples - 1) * stride + kernel
    return jax.ShapeDtypeStruct((1, samples), jnp.float32)


def configure(described: Described) -> tuple[dict[str, Any], dict[str, Any]]:
    encoder, inputs = described.encoder, described.inputs
    channels, kernels, strides = zip(*encoder.layers, strict=True)
    config = {
        "model_type": "wav2vec2",
        "architectures": ["Wav2Vec2Model"],
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "num_feat_extract_layers": len(channels),
        "conv_bias": encoder.bias,
        "feat_extract_norm": encoder.norm,
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.hidden,
        "do_stable_layer_norm": encoder.stable,
        "num_conv_pos_embeddings": encoder.positional_kernel,
        "num_conv_pos_embedding_groups": encoder.positional_groups,
        "layer_norm_eps": encoder.epsilon,
        SEGMENTS: encoder.segments,
    }
    can_be_written(encoder, "transformers' wav2vec 2.0", epsilon=1e-5)  # the convolutions' norms have no field there
    preprocessing = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": inputs.rate,
        "do_normalize": inputs.normalise,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": encoder.norm == "layer",
    }
    return config, preprocessing


def rows(encoder: Wav2Vec2) -> list[Row]:
    position = "encoder.pos_conv_embed.conv"
    return [
        *_convolutions(encoder),
        *affine("params/feature_norm", "feature_projection.layer_norm"),
        *dense("params/project", "feature_projection.projection"),
        Row(("params/masked",), ("masked_spec_embed",), optional=True),
        Row(("params/position/scale",), (f"{position}.parametrizations.weight.original0",), leading(2)),
        Row(("params/position/kernel",), (f"{position}.parametrizations.weight.original1",), TRANSPOSED),
        Row(("params/position/bias",), (f"{position}.bias",)),
        *affine("params/norm" if encoder.stable else "params/embed_norm", "encoder.layer_norm"),
        *(row for i in range(encoder.depth) for row in _block(encoder, i)),
    ]


def _convolutions(encoder: Wav2Vec2) -> Iterator[Row]:
    for i in range(len(encoder.layers)):
        ours, theirs = f"params/features/conv{i}", f"feature_extractor.conv_layers.{i}"
        yield Row((f"{ours}/kernel",), (f"{theirs}.conv.weight",), TRANSPOSED)
        if encoder.bias:
            yield Row((f"{ours}/bias",), (f"{theirs}.conv.bias",))
        if encoder.norm == "layer" or i == 0:
            yield from affine(f"params/features/norm{i}", f"{theirs}.layer_norm")


def _block(encoder: Wav2Vec2, i: int) -> Iterator[Row]:
    ours, theirs = f"params/encoder/block{i}", f"encoder.layers.{i}"
    names = (f"{theirs}.attention.{name}_proj" for name in ("q", "k", "v", "out"))
    yield from attention(f"{ours}/attention", names, encoder.heads)
    yield from affine(f"{ours}/norm1", f"{theirs}.layer_norm")
    yield from dense(f"{ours}/mlp1", f"{theirs}.feed_forward.intermediate_dense")
    yield from dense(f"{ours}/mlp2", f"{theirs}.feed_forward.output_dense")
    yield from affine(f"{ours}/norm2", f"{theirs}.final_layer_norm")


WAV2VEC2 = Architecture(
    "huggingface",
    describe,
    configure,
    rows,
    aliases=(
        (r"^(wav2vec2|hubert)\.", ""),
        (r"\.conv\.weight_g$", ".conv.parametrizations.weight.original0"),
        (r"\.conv\.weight_v$", ".conv.parametrizations.weight.original1"),
    ),
    left_out=(r"quantizer\..*", r"project_(hid|q)\..*", r"lm_head\..*", r"(projector|classifier)\..*", "layer_weights"),
)
