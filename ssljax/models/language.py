"""Encoders of text, from token ids (batch, tokens): BERT with its head, and GPT."""

from abc import abstractmethod
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models.attention import dropout
from ssljax.models.transformer import ACTIVATIONS, Block, Stack
from ssljax.models.vit import NORMAL
from ssljax.typing import Array

TRUNCATED = nn.initializers.truncated_normal(0.02)  # TensorFlow's, which cuts at 2 standard deviations, as BERT has it


class Embed(nn.Module):
    """Ids (batch, tokens) -> each token's vector plus that of its place, (batch, tokens, width).

    The parameter `tokens` (vocabulary, width) is the table that heads are tied to. An id that is not in the vocabulary
    has a vector of NaN, so that a run with another tokeniser's ids stops; what stands in the padding must be an id too.
    """

    vocabulary: int
    positions: int
    width: int
    token_init: nn.initializers.Initializer = NORMAL
    position_init: nn.initializers.Initializer = NORMAL
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, ids: Array) -> Array:
        """Raises ValueError unless ids are integers, (batch, tokens), no more than there are positions."""
        if ids.ndim != 2 or not 0 < ids.shape[1] <= self.positions or not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(
                f"ids {ids.shape} of {ids.dtype} must be integers, (batch, tokens), with 1 to {self.positions} tokens: "
                "cut the text, or raise the encoder's positions."
            )
        table = self.param("tokens", self.token_init, (self.vocabulary, self.width))
        positions = self.param("positions", self.position_init, (self.positions, self.width))
        return (look_up(table, ids) + positions[: ids.shape[1]]).astype(self.dtype)


def look_up(table: Array, ids: Array) -> Array:
    """Rows of a table (rows, width), of NaN where there is none of that id: (batch, tokens, width)."""
    ids = jnp.where(ids < 0, len(table), ids)  # else those below 0 would count from the table's end
    return jnp.take(table, ids, axis=0, mode="fill", fill_value=jnp.nan)


def tied_logits(x: Array, table: Array) -> Array:
    """x (…, width) times the embeddings of all tokens (vocabulary, width): (…, vocabulary), summed in float32."""
    return jnp.einsum("...d,vd->...v", x, table.astype(x.dtype), preferred_element_type=jnp.float32)


class TextEncoder(nn.Module):
    """What encoders of text share: fields, and features (batch, width), float32, that are pooled of their tokens.

    positions: the most tokens of a text. pool: one of their `pools`; see `pooled`. dropout: of the embeddings,
    attention weights and branches. chunks: see `ssljax.models.run`; scan, remat: see `Stack`.
    """

    vocabulary: int
    positions: int
    activation: str
    pool: str
    dropout: float
    epsilon: float
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    scan: bool = False
    remat: str = ""
    chunks: int = 1
    dtype: DTypeLike = jnp.float32

    modality = "text"
    pools: ClassVar[tuple[str, ...]]

    def __post_init__(self):
        super().__post_init__()
        check_fields(self)
        if self.pool not in self.pools:
            raise ValueError(f"pool '{self.pool}' is unknown; use {' or '.join(map(repr, self.pools))}.")

    @property
    def num_features(self) -> int:
        return self.width

    def __call__(self, ids: Array, *, valid: Array | None = None, axis: str | None = None, **options: Any) -> Array:
        """Options: those of `tokens`. `axis` is accepted, as for every encoder, and not used: no statistic crosses
        examples."""
        return pooled(self.tokens(ids, valid=valid, **options), valid, self.pool)

    @abstractmethod
    def tokens(
        self, ids: Array, *, valid: Array | None = None, train: bool = False, keys: Array | None = None
    ) -> Array:
        """All tokens after the last block, (batch, tokens, width)."""


class BERT(TextEncoder):
    """Token ids (batch, tokens) -> features (batch, width), float32. The defaults are Base's; see `bert_large`.

    types: how many kinds of segments there are (0: no embedding of them). norm: "post", or "pre", with one more after
    the last block; see `Block`. initial: the standard deviation of the normal distribution, cut at 2 of them, that
    weights are drawn from. pool: "mean" of the tokens that are valid, or "cls", the first token. Other fields: see
    `TextEncoder`.

    Every token sees every valid one. The parameter `embed/tokens` is the table that `MLMHead` is given. The authors'
    code approximates GELU by tanh ("gelu_tanh"); Hugging Face has the exact one for their weights.

    Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", 2019.
    """

    vocabulary: int = 30522
    positions: int = 512
    types: int = 2
    activation: str = "gelu"
    norm: str = "post"
    initial: float = 0.02
    pool: str = "mean"
    dropout: float = 0.1
    epsilon: float = 1e-12

    pools = ("mean", "cls")

    def __post_init__(self):
        super().__post_init__()
        if self.norm not in ("post", "pre"):
            raise ValueError(f"norm '{self.norm}' is unknown; use 'post' or 'pre'.")

    @nn.compact
    def tokens(
        self,
        ids: Array,
        *,
        valid: Array | None = None,
        types: Array | None = None,
        train: bool = False,
        keys: Array | None = None,
    ) -> Array:
        """All tokens after the last block, (batch, tokens, width).

        valid (batch, tokens), bool: which of them count; no token attends to the others, which are padding (None: all
        count). types (batch, tokens): the segment that each is in (None: all in 0). keys (batch,): for dropout in train
        mode.

        Raises ValueError for shapes that do not fit, more tokens than positions, or where keys are missing.
        """
        _check_call(self, ids, train, keys, valid=valid, types=types)
        keys = keys if train else None
        drawn = nn.initializers.truncated_normal(self.initial)
        x = Embed(self.vocabulary, self.positions, self.width, drawn, drawn, self.dtype, name="embed")(ids)
        if self.types:
            table = self.param("types", drawn, (self.types, self.width)).astype(x.dtype)
            x = x + (table[0] if types is None else look_up(table, types))
        x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="embed_norm")(x)
        x = dropout(x, self.dropout, keys, self.depth)  # salts below are the blocks'
        block = Block(
            self.heads,
            int(self.mlp_ratio * self.width),
            self.norm,
            self.activation,
            self.epsilon,
            dropout=self.dropout,
            kernel_init=drawn,
            out_init=drawn,
            dtype=self.dtype,
        )
        stack = Stack(self.depth, block, self.scan, self.remat, name="encoder")
        x = stack(x, None if valid is None else valid[:, None, None, :], keys)
        if self.norm == "post":
            return x
        return nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="last_norm")(x)


class MLMHead(nn.Module):
    """What BERT takes the hidden tokens for: norm(gelu(W x)) times the embeddings of all tokens, plus a bias. Only
    those at given positions go through it, as the product with the vocabulary costs more than the rest of the head."""

    activation: str = "gelu"
    epsilon: float = 1e-12
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array, positions: Array, table: Array) -> Array:
        """tokens (batch, tokens, width), positions (batch, slots) of those that are predicted, the encoder's embeddings
        `table` (vocabulary, width) -> logits (batch, slots, vocabulary), float32.

        Raises ValueError if the shapes do not fit.
        """
        fits = tokens.ndim == 3 and positions.ndim == table.ndim == 2 and len(tokens) == len(positions)
        if not fits or tokens.shape[2] != table.shape[1]:
            raise ValueError(
                f"tokens {tokens.shape} must be (batch, tokens, width), positions {positions.shape} (batch, slots) and "
                f"table {table.shape} (vocabulary, width): give the embeddings of the encoder that made the tokens."
            )
        x = jnp.take_along_axis(tokens, positions[:, :, None], axis=1)
        x = nn.Dense(x.shape[-1], kernel_init=TRUNCATED, dtype=self.dtype, name="dense")(x)
        x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(ACTIVATIONS[self.activation](x))
        return tied_logits(x, table) + self.param("bias", nn.initializers.zeros, (len(table),))


class GPT(TextEncoder):
    """Token ids (batch, tokens) -> features (batch, width), float32; `logits` says what token comes next. The defaults
    are those of the smallest GPT-2.

    bias: whether linear layers and norms have one (nanoGPT: no). pool: "last", the last valid token, which alone has
    seen all others, or "mean" of the valid ones. Other fields: see `TextEncoder`.

    A token sees those before it and itself, by pre-norm blocks. The kernels that end a branch are drawn with 1 /
    √(2 depth) of the others' standard deviation, as so many branches are added.

    Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
    """

    vocabulary: int = 50257
    positions: int = 1024
    activation: str = "gelu_tanh"
    bias: bool = True
    pool: str = "last"
    dropout: float = 0.0
    epsilon: float = 1e-5

    pools = ("last", "mean")

    def logits(self, ids: Array, **options: Any) -> Array:
        """Of the token after each one, (batch, tokens, vocabulary), float32; options: those of `tokens`."""
        return tied_logits(self.tokens(ids, **options), self.variables["params"]["embed"]["tokens"])

    @nn.compact
    def tokens(
        self, ids: Array, *, valid: Array | None = None, train: bool = False, keys: Array | None = None
    ) -> Array:
        """All tokens after the last norm, (batch, tokens, width).

        valid (batch, tokens), bool: which of them count; no other token attends to the rest, which is padding, at the
        end (None: all count). keys (batch,): for dropout in train mode.

        Raises ValueError for shapes that do not fit, more tokens than positions, or where keys are missing.
        """
        _check_call(self, ids, train, keys, valid=valid)
        keys = keys if train else None
        x = Embed(self.vocabulary, self.positions, self.width, dtype=self.dtype, name="embed")(ids)
        x = dropout(x, self.dropout, keys, self.depth)  # salts below are the blocks'
        block = Block(
            self.heads,
            int(self.mlp_ratio * self.width),
            "pre",
            self.activation,
            self.epsilon,
            dropout=self.dropout,
            out_init=nn.initializers.normal(0.02 / (2 * self.depth) ** 0.5),
            bias=self.bias,
            dtype=self.dtype,
        )
        x = Stack(self.depth, block, self.scan, self.remat, name="decoder")(x, causal_mask(ids.shape[1], valid), keys)
        return nn.LayerNorm(epsilon=self.epsilon, use_bias=self.bias, dtype=self.dtype, name="norm")(x)


def causal_mask(count: int, valid: Array | None = None) -> Array:
    """Which keys a query may attend to: (batch or 1, 1, queries, keys)."""
    places = jnp.arange(count)
    earlier = (places[:, None] >= places)[None, None]
    return earlier if valid is None else earlier & valid[:, None, None, :]


def pooled(tokens: Array, valid: Array | None, pool: str) -> Array:
    """Tokens (batch, tokens, width) -> (batch, width) float32; pool: "mean" of the valid ones, "cls", the first, or
    "last", the last valid one."""
    x = tokens.astype(jnp.float32)
    if pool == "cls":
        return x[:, 0]
    if pool == "mean":
        return _mean(x, valid)
    places = jnp.arange(x.shape[1])
    last = places[-1:] if valid is None else jnp.max(jnp.where(valid, places, 0), axis=1)
    return token_at(x, jnp.broadcast_to(last, x.shape[:1]))


def _mean(x: Array, valid: Array | None) -> Array:
    """Of the tokens that are valid; zero where none is."""
    weights = jnp.ones(x.shape[:2]) if valid is None else valid.astype(jnp.float32)
    return jnp.sum(x * weights[:, :, None], axis=1) / jnp.maximum(weights.sum(axis=1), 1.0)[:, None]


def token_at(x: Array, places: Array) -> Array:
    """x (batch, tokens, width), places (batch,) -> (batch, width)."""
    return jnp.take_along_axis(x, places[:, None, None], axis=1)[:, 0]


def check_fields(model: Any) -> None:
    if model.width % model.heads:
        raise ValueError(f"width {model.width} must be divisible by heads {model.heads}.")
    if model.activation not in ACTIVATIONS:
        raise ValueError(f"activation '{model.activation}' is unknown; use one of {', '.join(ACTIVATIONS)}.")


def _check_call(model: Any, ids: Array, train: bool, keys: Array | None, **arrays: Array | None) -> None:
    for name, x in arrays.items():
        if x is not None and x.shape != ids.shape:
            raise ValueError(f"{name} {x.shape} must have the shape of ids, (batch, tokens) = {ids.shape}.")
    if train and model.dropout and keys is None:
        raise ValueError(f"dropout={model.dropout} in train mode needs `keys`, one random key for each example.")


bert_base = partial(BERT)
bert_large = partial(BERT, width=1024, depth=24, heads=16)
gpt2 = partial(GPT)
