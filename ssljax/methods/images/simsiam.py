"""SimSiam: each view predicts the other's embedding, through which no gradient flows. No negatives, no second network.

Chen and He, "Exploring Simple Siamese Representation Learning", 2021.
"""

from dataclasses import dataclass

from ssljax.losses import negative_cosine
from ssljax.methods.images.image_method import Predictive
from ssljax.models.heads import MLP
from ssljax.typing import Array, TrainState


@dataclass(frozen=True, eq=False)
class SimSiam(Predictive):
    """z = g(f(view)), p = q(z); loss -cos(p, z of the other view), the mean of both directions.

    projector: widths of g, with BatchNorm after each layer, the last one without scale and offset. predictor: widths of
    q, a bottleneck; BatchNorm after the hidden layer only. Its learning rate must stay constant for the paper's numbers
    (`optimizer.constant = ("predictor",)`).
    """

    projector: tuple[int, ...] = (2048, 2048, 2048)
    predictor: tuple[int, ...] = (512, 2048)

    caption = "the image and the two views of which each must predict the other"

    def __post_init__(self):
        self._expect_views(2, "'moco_v2', 'simclr' or 'byol'")
        self._expect_widths_to_fit()

    @property
    def head(self) -> MLP:
        return MLP(self.projector, last_norm="plain", dtype=self.encoder.dtype)

    @property
    def predictor_head(self) -> MLP:
        return MLP(self.predictor, dtype=self.encoder.dtype)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        seen, embedded, predicted, model_state = self.predict_each(params, state.model_state, views, key, axis)
        loss = (negative_cosine(predicted[0], embedded[1]) + negative_cosine(predicted[1], embedded[0])) / 2
        return loss, {
            "model_state": model_state,
            "metrics": {},
            "features": seen[0],
            "embeddings": tuple(embedded),
        }
