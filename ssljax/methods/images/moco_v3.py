"""MoCo v3: queries find their keys among those of the same batch, in both directions, through a predictor.

Chen, Xie and He, "An Empirical Study of Training Self-Supervised Vision Transformers", 2021.
"""

from dataclasses import dataclass

import jax

from ssljax.losses import info_nce
from ssljax.methods.images.image_method import Predictive, follow, momentum_network
from ssljax.models.heads import MLP
from ssljax.schedules import ema_decay
from ssljax.typing import Array, Batch, TrainState, Variables


@dataclass(frozen=True, eq=False)
class MoCoV3(Predictive):
    """query p = q(g(f(view))); key k = g'(f'(other view)) with the momentum network f', g'; loss 2 T · InfoNCE among
    the keys of the global batch, the sum of both directions.

    projector, predictor: widths of g and q, no biases; BatchNorm after each layer, the projector's last one without
    scale and offset. The paper has (4096, 256) on a ResNet and (4096, 4096, 256) on a ViT. predictor_norm: what follows
    the predictor's last layer: "none" on a ResNet, "plain" (BatchNorm without scale and offset) on a ViT. momentum:
    f' <- momentum f' + (1 - momentum) f before the keys are made, with the weights that the step started from; it may
    go to 1 by momentum_schedule ("constant", "cosine") over total_steps. ViTs are to keep their patch projection
    as it was drawn (`encoder.freeze_patch_embed` and `optimizer.freeze = ("patch_embed",)`), or they are unstable.
    """

    projector: tuple[int, ...] = (4096, 256)
    predictor: tuple[int, ...] = (4096, 256)
    predictor_norm: str = "none"
    temperature: float = 1.0
    momentum: float = 0.99
    momentum_schedule: str = "cosine"
    total_steps: int = 0

    caption = "the image and the two views of which each must find the other"

    def __post_init__(self):
        self._expect_views(2, "'moco_v3', 'byol' or 'moco_v2'")
        self._expect_widths_to_fit()
        if self.predictor_norm not in ("none", "plain"):
            raise ValueError(f"predictor_norm '{self.predictor_norm}' is unknown; use 'none' or 'plain'.")

    @property
    def head(self) -> MLP:
        return MLP(self.projector, last_norm="plain", dtype=self.encoder.dtype)

    @property
    def predictor_head(self) -> MLP:
        return MLP(self.predictor, last_norm=self.predictor_norm, last_bias=False, dtype=self.encoder.dtype)

    def init(self, key: Array, batch: Batch) -> Variables:
        params, model_state = self.online(key, batch)
        target = momentum_network(params, model_state)
        for tree in target.values():
            del tree["predictor"]
        return Variables(params=params, model_state=model_state, target=target, extra={})

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        # 1) The momentum network takes its step towards the weights before this step's update.
        momentum = ema_decay(state.step, self.total_steps, start=self.momentum, kind=self.momentum_schedule)
        momentum_params = follow(state.target["params"], state.params, momentum)
        # 2) Queries and keys of both views.
        query_key, key_key = jax.random.split(key)
        seen, _, queries, model_state = self.predict_each(params, state.model_state, views, query_key, axis)
        _, keys, target_state = self.embed_each(momentum_params, state.target["model_state"], views, key_key, axis)
        # 3) A query's key is that of the other view; 2 T keeps the gradient's size whatever the temperature.
        both = info_nce(queries[0], keys[1], None, self.temperature, axis=axis) + info_nce(
            queries[1], keys[0], None, self.temperature, axis=axis
        )
        return 2 * self.temperature * both, {
            "model_state": model_state,
            "target": {"params": momentum_params, "model_state": target_state},
            "metrics": {},
            "features": seen[0],
            "embeddings": tuple(queries),
        }

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state.replace(model_state=aux["model_state"], target=aux["target"])
