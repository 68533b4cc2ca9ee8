"""BYOL: predict what a slowly moving copy of the network makes of the other view; there are no negatives.

Grill et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", 2020.
"""

from dataclasses import dataclass

import jax

from ssljax.losses import cosine_regression
from ssljax.methods.images.image_method import Predictive, follow
from ssljax.models.heads import MLP
from ssljax.schedules import ema_decay
from ssljax.typing import Array, Batch, TrainState, Variables


@dataclass(frozen=True, eq=False)
class BYOL(Predictive):
    """p = q(g(f(view))), z' = g'(f'(other view)); loss |p̂ - ẑ'|², in both directions.

    projector, predictor: widths of g and q; hidden layers have a bias and BatchNorm, the last ones neither. momentum:
    the target f', g' <- momentum · target + (1 - momentum) · online, after each step, with a momentum that goes to 1 by
    momentum_schedule ("cosine" is the paper's) over total_steps. The target is initialised by itself, and it is in
    train mode, with batch statistics of its own.
    """

    projector: tuple[int, ...] = (4096, 256)
    predictor: tuple[int, ...] = (4096, 256)
    momentum: float = 0.996
    momentum_schedule: str = "cosine"
    total_steps: int = 0

    caption = "the image and the two views of which each must predict the other"

    def __post_init__(self):
        self._expect_views(2, "'byol', 'simclr' or 'moco_v2'")
        self._expect_widths_to_fit()

    @property
    def head(self) -> MLP:
        return MLP(self.projector, hidden_bias=True, last_bias=False, dtype=self.encoder.dtype)

    @property
    def predictor_head(self) -> MLP:
        return MLP(self.predictor, hidden_bias=True, last_bias=False, dtype=self.encoder.dtype)

    def init(self, key: Array, batch: Batch) -> Variables:
        online_key, target_key = jax.random.split(key)
        params, model_state = self.online(online_key, batch)
        target, target_state = self.network(target_key, batch)
        target = {"params": target, "model_state": target_state}
        return Variables(params=params, model_state=model_state, target=target, extra={})

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        online_key, target_key = jax.random.split(key)
        target_params, target_state = state.target["params"], state.target["model_state"]
        seen, _, predicted, model_state = self.predict_each(params, state.model_state, views, online_key, axis)
        _, targets, target_state = self.embed_each(target_params, target_state, views, target_key, axis)
        loss = cosine_regression(predicted[0], targets[1]) + cosine_regression(predicted[1], targets[0])
        return loss, {
            "model_state": model_state,
            "target_state": target_state,
            "metrics": {},
            "features": seen[0],
            "embeddings": tuple(predicted),
        }

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        momentum = ema_decay(state.step, self.total_steps, start=self.momentum, kind=self.momentum_schedule)
        target = {"params": follow(state.target["params"], state.params, momentum), "model_state": aux["target_state"]}
        return state.replace(model_state=aux["model_state"], target=target)
