"""VICReg: two views come near each other, while each dimension keeps its variance and shares it with no other.

Bardes, Ponce and LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", 2022.
"""

from dataclasses import dataclass

import jax

from ssljax import collectives
from ssljax.losses import vicreg
from ssljax.methods.images.image_method import JointEmbedding
from ssljax.models.heads import MLP
from ssljax.typing import Array, TrainState


@dataclass(frozen=True, eq=False)
class VICReg(JointEmbedding):
    """z = g(f(view)); loss `vicreg` of both views' z, with statistics of the global batch.

    projector: widths of the expander g; hidden layers have a bias and BatchNorm, the last one neither. invariance,
    variance, covariance: weights of the three terms. convention: see `vicreg`.
    """

    projector: tuple[int, ...] = (8192, 8192, 8192)
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    convention: str = "mean"

    caption = "the image and its two views"

    def __post_init__(self):
        self._expect_views(2, "'byol', 'simclr' or 'moco_v2'")

    @property
    def head(self) -> MLP:
        return MLP(self.projector, hidden_bias=True, last_bias=False, dtype=self.encoder.dtype)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        seen, embedded, model_state = self.embed_each(params, state.model_state, views, key, axis)
        loss = vicreg(
            *embedded,
            invariance=self.invariance,
            variance=self.variance,
            covariance=self.covariance,
            convention=self.convention,
            axis=axis,
        )
        return loss, {
            "model_state": model_state,
            "metrics": {"output_std": collectives.std(jax.lax.stop_gradient(embedded[0]), axis)},
            "features": seen[0],
            "embeddings": tuple(embedded),
        }
