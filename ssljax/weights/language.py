"""BERT and GPT-2 as transformers has them."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ssljax.models.language import BERT, GPT
from ssljax.weights.architecture import POOL, Architecture, Config, Described, TextInputs, can_be_written, must_be
from ssljax.weights.layout import SAME, by_heads, from_heads, packed, to_heads
from ssljax.weights.rows import Row, affine, attention, dense
from ssljax.weights.vision import ratio

BERT_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
GPT_DEFAULTS = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
}
"""What a config.json may leave out, as transformers does with its defaults."""
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
"""Theirs, and ours."""
TEXT = jax.ShapeDtypeStruct((1, 1), jnp.int32)


def describe_bert(config: Config, _: Config) -> Described:
    c = {**BERT_DEFAULTS, **config}
    must_be(c, position_embedding_type="absolute", is_decoder=False)
    bert = BERT(
        vocabulary=c["vocab_size"],
        positions=c["max_position_embeddings"],
        types=c["type_vocab_size"],
        activation=_activation(c, "hidden_act"),
        width=c["hidden_size"],
        depth=c["num_hidden_layers"],
        heads=c["num_attention_heads"],
        mlp_ratio=ratio(c["intermediate_size"], c["hidden_size"]),
        epsilon=c["layer_norm_eps"],
        pool=c.get(POOL, "mean"),
    )
    return Described(bert, TEXT, TextInputs())


def configure_bert(described: Described) -> tuple[dict[str, Any], dict[str, Any]]:
    bert = described.encoder
    can_be_written(bert, "transformers' BERT", norm="post")
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": bert.vocabulary,
        "hidden_size": bert.width,
        "num_hidden_layers": bert.depth,
        "num_attention_heads": bert.heads,
        "intermediate_size": int(bert.width * bert.mlp_ratio),
        "hidden_act": _theirs(bert.activation),
        "max_position_embeddings": bert.positions,
        "type_vocab_size": bert.types,
        "layer_norm_eps": bert.epsilon,
        POOL: bert.pool,
        "pad_token_id": None,
    }
    return config, {}


def describe_gpt(config: Config, _: Config) -> Described:
    c = {**GPT_DEFAULTS, **config}
    must_be(c, scale_attn_by_inverse_layer_idx=False, scale_attn_weights=True, add_cross_attention=False)
    gpt = GPT(
        vocabulary=c["vocab_size"],
        positions=c["n_positions"],
        activation=_activation(c, "activation_function"),
        width=c["n_embd"],
        depth=c["n_layer"],
        heads=c["n_head"],
        mlp_ratio=ratio(c["n_inner"] or 4 * c["n_embd"], c["n_embd"]),
        epsilon=c["layer_norm_epsilon"],
        pool=c.get(POOL, "last"),
    )
    return Described(gpt, TEXT, TextInputs())


def configure_gpt(described: Described) -> tuple[dict[str, Any], dict[str, Any]]:
    gpt = described.encoder
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2Model"],
        "vocab_size": gpt.vocabulary,
        "n_positions": gpt.positions,
        "n_embd": gpt.width,
        "n_layer": gpt.depth,
        "n_head": gpt.heads,
        "n_inner": int(gpt.width * gpt.mlp_ratio),
        "activation_function": _theirs(gpt.activation),
        "layer_norm_epsilon": gpt.epsilon,
        POOL: gpt.pool,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return config, {}


def bert_rows(bert: BERT) -> list[Row]:
    return [
        Row(("params/embed/tokens",), ("embeddings.word_embeddings.weight",)),
        Row(("params/embed/positions",), ("embeddings.position_embeddings.weight",)),
        Row(("params/types",), ("embeddings.token_type_embeddings.weight",)),
        *affine("params/embed_norm", "embeddings.LayerNorm"),
        *(row for i in range(bert.depth) for row in _bert_block(bert, i)),
    ]


def _bert_block(bert: BERT, i: int) -> Iterator[Row]:
    ours, theirs = f"params/encoder/block{i}", f"encoder.layer.{i}"
    names = (f"{theirs}.attention.{name}" for name in ("self.query", "self.key", "self.value", "output.dense"))
    yield from attention(f"{ours}/attention", names, bert.heads)
    yield from affine(f"{ours}/norm1", f"{theirs}.attention.output.LayerNorm")
    yield from dense(f"{ours}/mlp1", f"{theirs}.intermediate.dense")
    yield from dense(f"{ours}/mlp2", f"{theirs}.output.dense")
    yield from affine(f"{ours}/norm2", f"{theirs}.output.LayerNorm")


def gpt_rows(gpt: GPT) -> list[Row]:
    return [
        Row(("params/embed/tokens",), ("wte.weight",)),
        Row(("params/embed/positions",), ("wpe.weight",)),
        *(row for i in range(gpt.depth) for row in _gpt_block(gpt, i)),
        *affine("params/norm", "ln_f"),
    ]


def _gpt_block(gpt: GPT, i: int) -> Iterator[Row]:
    """Its kernels are not transposed."""
    ours, theirs = f"params/decoder/block{i}", f"h.{i}"
    yield from affine(f"{ours}/norm1", f"{theirs}.ln_1")
    qkv = [f"{ours}/attention/{name}" for name in ("query", "key", "value")]
    for part, name, layout in (("kernel", "weight", to_heads(gpt.heads)), ("bias", "bias", by_heads(gpt.heads))):
        packed_parts = packed(layout, 3, axis=-1)
        yield Row(tuple(f"{path}/{part}" for path in qkv), (f"{theirs}.attn.c_attn.{name}",), packed_parts)
    yield from dense(f"{ours}/attention/out", f"{theirs}.attn.c_proj", from_heads(gpt.heads))
    yield from affine(f"{ours}/norm2", f"{theirs}.ln_2")
    yield from dense(f"{ours}/mlp1", f"{theirs}.mlp.c_fc", SAME)
    yield from dense(f"{ours}/mlp2", f"{theirs}.mlp.c_proj", SAME)


def _activation(config: Config, field: str) -> str:
    if config[field] not in ACTIVATIONS:
        raise ValueError(f"'{field}': '{config[field]}' has no counterpart here; {', '.join(ACTIVATIONS)} have.")
    return ACTIVATIONS[config[field]]


def _theirs(activation: str) -> str:
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == activation)


BERT_LIKE = Architecture(
    "huggingface",
    describe_bert,
    configure_bert,
    bert_rows,
    aliases=((r"^bert\.", ""), (r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    left_out=(r"pooler\..*", r"cls\..*", r"classifier\..*", r"embeddings\.position_ids"),
)
GPT2 = Architecture(
    "huggingface",
    describe_gpt,
    configure_gpt,
    gpt_rows,
    aliases=((r"^transformer\.", ""),),
    left_out=(r"lm_head\.weight", r"h\.\d+\.attn\.(bias|masked_bias)"),  # tied to wte.weight; causal masks
)
