"""What data2vec and I-JEPA share."""

from dataclasses import dataclass

from ssljax.losses.regression import TARGET_NORMS
from ssljax.methods.images.image_method import ImageMethod, follow
from ssljax.schedules import ema_decay
from ssljax.typing import TrainState


@dataclass(frozen=True, eq=False)
class TokenRegression(ImageMethod):
    """What data2vec and I-JEPA share: the tokens of a teacher that follows the encoder are regressed, and a run stops
    where they have become the same.

    momentum: teacher <- momentum · teacher + (1 - momentum) · encoder after each step, going to 1 by momentum_schedule
    over total_steps unless that is "constant".
    target_norm: "layer" (each of the teacher's tokens is normalised by itself, as published) or "instance" (before
    that, each feature over the tokens of its image, as data2vec 2.0 has it). The latter takes out what all tokens of an
    image share, which in small images is above all their colour.
    `target_std` and `prediction_std` in the logs are over the predicted tokens of the batch, the former before
    "instance", which would blow up what is left of tokens that have become the same (fairseq's target_var and pred_var,
    roots of variances too, but with n - 1 below the sum). From step `collapse_after` on, which is to be after the
    warm-up, a run is stopped whose target_std is below least_target_std, or its prediction_std below
    least_prediction_std.
    """

    momentum: float = 0.9998
    momentum_schedule: str = "constant"
    target_norm: str = "layer"
    least_target_std: float = 0.1
    least_prediction_std: float = 0.01
    collapse_after: int = 5000
    total_steps: int = 0

    def __post_init__(self):
        if self.target_norm not in TARGET_NORMS:
            raise ValueError(
                f"--config.method.target_norm='{self.target_norm}' is unknown; use {' or '.join(TARGET_NORMS)}."
            )

    @property
    def grid(self) -> tuple[int, int]:
        side = self.augmentations[0].size // self.encoder.patch
        return side, side

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        momentum = ema_decay(state.step, self.total_steps, start=self.momentum, kind=self.momentum_schedule)
        return state.replace(target=state.target | {"params": follow(state.target["params"], state.params, momentum)})

    def stop(self, step: int, metrics: dict[str, float]) -> str | None:
        for name, least in (("target_std", self.least_target_std), ("prediction_std", self.least_prediction_std)):
            if step >= self.collapse_after and metrics[name] < least:
                return (
                    f"{name} is {metrics[name]:.3g}, below {least}: all patches have become nearly the same. Lower the "
                    f"learning rate, or change --config.method.momentum; --config.method.least_{name}=0 goes on."
                )
        return None
