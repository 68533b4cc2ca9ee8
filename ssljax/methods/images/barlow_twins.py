"""Barlow Twins: over the batch, each dimension of one view's embedding correlates with itself in the other and with no
other dimension.

Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", 2021.
"""

from dataclasses import dataclass

from ssljax.losses import barlow_twins
from ssljax.methods.images.image_method import JointEmbedding
from ssljax.models.heads import MLP
from ssljax.typing import Array, TrainState


@dataclass(frozen=True, eq=False)
class BarlowTwins(JointEmbedding):
    """z = g(f(view)); loss `barlow_twins` of both views' z, with statistics of the global batch.

    projector: widths of g, no biases; BatchNorm after each layer but the last. weight: of the off-diagonal terms.
    scale: factor on the loss, which only matters to optimisers that are not LARS (solo-learn has 0.1 for CIFAR).
    """

    projector: tuple[int, ...] = (8192, 8192, 8192)
    weight: float = 0.0051
    scale: float = 1.0

    caption = "the image and its two views"

    def __post_init__(self):
        self._expect_views(2, "'byol', 'simclr' or 'moco_v2'")

    @property
    def head(self) -> MLP:
        return MLP(self.projector, last_bias=False, dtype=self.encoder.dtype)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        seen, embedded, model_state = self.embed_each(params, state.model_state, views, key, axis)
        loss = self.scale * barlow_twins(*embedded, weight=self.weight, axis=axis)
        return loss, {
            "model_state": model_state,
            "metrics": {"loss_per_dimension": loss / self.projector[-1]},
            "features": seen[0],
            "embeddings": tuple(embedded),
        }
