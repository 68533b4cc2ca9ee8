"""wav2vec 2.0: tell what was said in hidden spans, in learnt codes, from what was said elsewhere in the same crop.

Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", 2020.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.models import infer, initialise, run
from ssljax.models.pooling import segment_means
from ssljax.models.quantizer import Wav2Vec2Head
from ssljax.typing import Array, Batch, PyTree, TrainState, Variables
from ssljax.views.images import fold
from ssljax.views.speech import distractors, masked_frames, span_mask


@dataclass(frozen=True, eq=False)
class Wav2Vec2:
    """c = Transformer(hidden(conv(audio))), q = quantiser(conv(audio)), both projected, at the hidden frames;

        loss = wav2vec2(c, q, distractors) + diversity_weight · diversity + penalty · mean(conv(audio)²)

    encoder: a Wav2Vec2; as published, one with LayerNorm in its convolutions (Large) hears clips of zero mean and unit
    variance (--config.data.normalise). share, span: see `ssljax.views.speech.span_mask`. dim, groups, entries,
    codebook_dim, dropout: see `Wav2Vec2Head`.
    gumbel: the temperature of the codes' draw falls from the first number to the second, at each step by the third.
    eval_depth: after how many blocks features are taken; 0: after all. (Published comparisons take a weighted sum of
    all; what is near the loss says less of speech than the blocks in the middle.)
    """

    encoder: nn.Module
    share: float = 0.65
    span: int = 10
    distractors: int = 100
    temperature: float = 0.1
    dim: int = 256
    groups: int = 2
    entries: int = 320
    codebook_dim: int = 256
    dropout: float = 0.1
    gumbel: tuple[float, float, float] = (2.0, 0.5, 0.999995)
    diversity_weight: float = 0.1
    penalty: float = 10.0
    eval_depth: int = 0

    modality = "speech"
    mean_over_examples = False
    needs_labels = False
    caption = "a clip's spectrogram, what of it is hidden, and the codes of its frames, a row for each code"

    def __post_init__(self):
        if not hasattr(self.encoder, "depth"):
            raise ValueError("wav2vec2 needs an encoder that can hide frames: choose wav2vec2_micro, _base or _large.")
        if self.eval_depth > self.encoder.depth:
            raise ValueError(
                f"--config.method.eval_depth={self.eval_depth}, but there are {self.encoder.depth} blocks."
            )
        if len(self.gumbel) != 3 or not 0 < self.gumbel[1] <= self.gumbel[0] or not 0 < self.gumbel[2] <= 1:
            raise ValueError(
                f"--config.method.gumbel={self.gumbel} must be the highest and the lowest temperature, above 0, and a "
                "factor for each step in (0, 1]."
            )

    @property
    def head(self) -> Wav2Vec2Head:
        sizes = self.dim, self.groups, self.entries, self.codebook_dim
        return Wav2Vec2Head(*sizes, self.dropout, dtype=self.encoder.dtype)

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, head_key = jax.random.split(key)
        audio = batch["audio"]
        encoder, _ = initialise(self.encoder, encoder_key, audio, mask=jnp.zeros(self._grid(audio), bool))
        frame = jnp.zeros((1, 1, self.encoder.width)), jnp.zeros((1, 1, self.encoder.layers[-1][0]))
        head, _ = initialise(self.head, head_key, *frame)
        return Variables(params={"encoder": encoder, "head": head}, model_state={}, target={}, extra={})

    def views(self, keys: Array, batch: Batch) -> tuple[Array, ...]:
        """The audio, which frames are hidden, as a mask and as indexes, what they are told from, and keys for dropout
        and codes."""
        _, frames = self._grid(batch["audio"])
        mask, hidden = span_mask(fold(keys, 0), frames, self.share, self.span)
        others = distractors(fold(keys, 1), masked_frames(frames, self.share, self.span), self.distractors)
        return batch["audio"], mask, hidden, others, fold(keys, 2)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        audio, mask, hidden, others, keys = views
        # 1) The Transformer hears the audio without the hidden spans.
        encoded, _ = run(self.encoder, params["encoder"], {}, audio, mask=mask, keys=keys)
        context, local = (jnp.take_along_axis(x, hidden[:, :, None], axis=1) for x in encoded[:2])
        # 2) What was there is said in codes.
        highest, lowest, factor = self.gumbel
        temperature = jnp.maximum(highest * factor ** state.step.astype(jnp.float32), lowest)
        compared = infer(self.head, params["head"], {}, context, local, temperature, keys)
        # 3) Each hidden frame's must be told from others of its crop; all codes should be used.
        contrastive = losses.wav2vec2(
            compared.predictions, compared.targets, others, self.temperature, codes=compared.codes
        )
        unused = losses.diversity(compared.probabilities, axis=axis)
        large = jnp.mean(jnp.square(encoded.features))
        loss = contrastive + self.diversity_weight * unused + self.penalty * large
        return loss, {
            "metrics": {"contrastive": contrastive, "codebook_use": 1.0 - unused},
            "features": encoded.context.mean(axis=1),
            "embeddings": (),
        }

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state

    def features(self, state: Variables, batch: Batch) -> Array:
        """(batch, segments · width)"""
        return clip_features(self.encoder, state.params["encoder"], batch, self.eval_depth)

    def show(self, state: Variables, batch: Batch, keys: Array) -> dict[str, Array]:
        audio, mask, *_ = self.views(keys, batch)
        encoded = infer(self.encoder, state.params["encoder"], {}, audio, lengths=batch["length"])
        codes = infer(self.head, state.params["head"], {}, encoded.context, encoded.local).codes
        used = jax.nn.one_hot(codes, self.entries).reshape(*codes.shape[:2], -1)
        frames = self.encoder.frames(batch["length"])
        return {"audio": batch["audio"], "length": batch["length"], "hidden": mask, "rows": used, "frames": frames}

    def _grid(self, audio: Array) -> tuple[int, int]:
        """(batch, frames)"""
        return len(audio), self.encoder.frames(audio.shape[1])


def clip_features(encoder: nn.Module, params: PyTree, batch: Batch, depth: int = 0) -> Array:
    """Means over parts of each clip, (batch, segments · width), of what the first `depth` blocks give (0: all)."""
    encoder = encoder.clone(depth=depth or encoder.depth)
    if encoder.scan:
        params = {**params, "encoder": jax.tree.map(lambda x: x[: encoder.depth], params["encoder"])}
    context = infer(encoder, params, {}, batch["audio"], lengths=batch["length"]).context
    return segment_means(context, encoder.frames(batch["length"]), encoder.segments)
