"""CPC: from what was heard so far, tell the frames that come from frames drawn at random.

van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018; scores, negatives and norm as
in Rivière et al., "Unsupervised Pretraining Transfers Well Across Languages", 2020.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.collectives import example_keys, shard_offset
from ssljax.models import infer, initialise, run
from ssljax.models.cpc import CPCEncoder, CPCPredictor
from ssljax.models.pooling import segment_means
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.speech import cpc_negatives


@dataclass(frozen=True, eq=False)
class CPC:
    """z = conv(audio), c = GRU(z), p = a matrix for each step of c; loss `cpc` of p and the z of `steps` frames ahead.

    negatives: how many frames each time's are told from, drawn from the global batch, or, with within=True, from the
    crop itself, so that who speaks tells nothing (the authors' code has all crops of a batch from one speaker).
    convention: over the steps, "sum" or "mean".
    """

    encoder: nn.Module
    steps: int = 12
    negatives: int = 128
    within: bool = False
    convention: str = "sum"

    modality = "speech"
    mean_over_examples = False
    needs_labels = False
    caption = "a clip's spectrogram, and what is predicted from its middle on"

    def __post_init__(self):
        if not isinstance(self.encoder, CPCEncoder):
            raise ValueError("cpc needs an encoder that does not hear the future: choose the encoder cpc.")

    @property
    def predictor(self) -> CPCPredictor:
        return CPCPredictor(self.steps, self.encoder.width, dtype=self.encoder.dtype)

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, predictor_key = jax.random.split(key)
        encoder, _ = initialise(self.encoder, encoder_key, batch["audio"])
        context = jnp.zeros((1, 1, self.encoder.context_width))
        predictor, _ = initialise(self.predictor, predictor_key, context)
        return Variables(params={"encoder": encoder, "predictor": predictor}, model_state={}, target={}, extra={})

    def views(self, keys: Array, batch: Batch) -> Array:
        return batch["audio"]

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        frames = self.encoder.frames(views.shape[1])
        windows = frames - self.steps
        if windows < 1:
            raise ValueError(
                f"crops of {frames} frames have none from which {self.steps} more could be predicted: lengthen "
                "--config.data.crop, or lower --config.method.steps."
            )
        # 1) What each frame is, and what was heard until then.
        (context, encodings), _ = run(self.encoder, params["encoder"], {}, views)
        predictions = infer(self.predictor, params["predictor"], {}, context[:, :windows])
        # 2) Frames to tell the right ones from: of any example, or of the crop's own, at other times.
        n = len(views)
        keys, everyone = example_keys(key, n, axis), 1 if axis is None else jax.lax.axis_size(axis)
        drawn = cpc_negatives(keys, 1 if self.within else n * everyone, frames, windows, self.negatives)
        if self.within:
            drawn = drawn + frames * (shard_offset(n, axis) + jnp.arange(n))[:, None, None]
        loss = losses.cpc(predictions, encodings, drawn, convention=self.convention, axis=axis)
        return loss, {"metrics": {}, "features": context.mean(axis=1), "embeddings": ()}

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state

    def features(self, state: Variables, batch: Batch) -> Array:
        """(batch, segments · context_width)"""
        context = infer(self.encoder, state.params["encoder"], {}, batch["audio"], batch["length"]).context
        return segment_means(context, self.encoder.frames(batch["length"]), self.encoder.segments)

    def show(self, state: Variables, batch: Batch, keys: Array) -> dict[str, Array]:
        frames, count = self.encoder.frames(batch["length"]), self.encoder.frames(batch["audio"].shape[1])
        ahead = jnp.arange(count) - frames[:, None] // 2
        hidden = (ahead >= 0) & (ahead < self.steps)
        return {"audio": batch["audio"], "length": batch["length"], "hidden": hidden, "frames": frames}
