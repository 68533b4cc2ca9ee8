"""What DINO, iBOT and DINOv2 share."""

from dataclasses import dataclass, replace
from typing import Self

import jax
import jax.numpy as jnp

from ssljax.collectives import example_keys
from ssljax.methods.images.image_method import JointEmbedding, follow, momentum_network
from ssljax.models import run
from ssljax.models.heads import DINOHead
from ssljax.models.vit import ViT
from ssljax.schedules import ema_decay
from ssljax.typing import Array, Batch, PyTree, TrainState, Variables


@dataclass(frozen=True, eq=False)
class SelfDistillation(JointEmbedding):
    """What DINO, iBOT and DINOv2 share: a student that sees all crops, and a teacher that sees the first two.

    count: prototypes, the outputs of the head; hidden, bottleneck, head_layers, norm_last_layer: see `DINOHead`; its
    last layer does not move in the first epoch (`optimizer.freeze = ("last_layer",)`).
    student_temperature; teacher_temperature: the latter is reached in a straight line from warmup_temperature in
    warmup_temperature_epochs, and changes once an epoch (DINOv2's at each step). center_momentum: of the centre that is
    subtracted from the teacher's outputs. momentum: teacher <- momentum · teacher + (1 - momentum) · student after each
    step, with a momentum that goes to 1 by momentum_schedule over total_steps. The teacher is in train mode, with batch
    statistics of its own, but has no drop-path; it is what is evaluated.
    """

    count: int = 65536
    hidden: int = 2048
    bottleneck: int = 256
    head_layers: int = 3
    norm_last_layer: bool = True
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    warmup_temperature: float = 0.04
    warmup_temperature_epochs: int = 0
    center_momentum: float = 0.9
    momentum: float = 0.996
    momentum_schedule: str = "cosine"
    total_steps: int = 0
    steps_per_epoch: float = 1.0

    head_norm = False
    caption = "the image, the two views that the teacher sees, and the local crops"

    def __post_init__(self):
        self._expect_two_of_one_size("has a teacher that sees", "'dino', 'ibot' or 'dinov2'")

    @property
    def head(self) -> DINOHead:
        return DINOHead(
            self.count,
            layers=self.head_layers,
            hidden=self.hidden,
            bottleneck=self.bottleneck,
            norm=self.head_norm,
            norm_last_layer=self.norm_last_layer,
            dtype=self.encoder.dtype,
        )

    @property
    def without_drop_path(self) -> Self:
        """The same method with an encoder that drops nothing."""
        drops = getattr(self.encoder, "drop_path", 0.0)
        return replace(self, encoder=self.encoder.clone(drop_path=0.0)) if drops else self

    def init(self, key: Array, batch: Batch) -> Variables:
        params, model_state = self.network(key, batch)
        target = momentum_network(params, model_state)
        return Variables(params=params, model_state=model_state, target=target, extra=self.centers())

    def centers(self) -> dict[str, Array]:
        """What is subtracted from the teacher's outputs, at the start."""
        return {"center": jnp.zeros(self.count)}

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        momentum = ema_decay(state.step, self.total_steps, start=self.momentum, kind=self.momentum_schedule)
        teacher = follow(state.target["params"], state.params, momentum)
        target = {"params": teacher, "model_state": aux["target_state"]}
        return state.replace(model_state=aux["model_state"], target=target, extra=aux["extra"])

    def evaluated(self, state: Variables) -> tuple[PyTree, PyTree]:
        """The teacher's."""
        return state.target["params"]["encoder"], state.target["model_state"]["encoder"]

    def temperature(self, step: Array, final: float) -> Array:
        """The teacher's at a step: T_w + (final - T_w) · min(⌊step / steps_per_epoch⌋ / (E - 1), 1), with T_w =
        warmup_temperature and E = warmup_temperature_epochs."""
        epochs = self.warmup_temperature_epochs
        if not epochs:
            return jnp.float32(final)
        progress = jnp.minimum(jnp.floor(step / self.steps_per_epoch) / max(epochs - 1, 1), 1.0)
        return self.warmup_temperature + (final - self.warmup_temperature) * progress


@dataclass(frozen=True, eq=False)
class MaskedDistillation(SelfDistillation):
    """What iBOT and DINOv2 share: tokens of a Vision Transformer that has a mask token, and a head for patches.

    mask_ratio, mask_probability: with that probability a share of a view's patches, uniform in mask_ratio, is hidden.
    patch_weight: of the loss between patches. patch_count: prototypes of patches, if they have their own; 0: they share
    the class token's.
    """

    mask_ratio: tuple[float, float] = (0.1, 0.5)
    mask_probability: float = 0.5
    patch_weight: float = 1.0
    patch_count: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.encoder, ViT) or not self.encoder.mask_token or not self.encoder.cls_token:
            raise ValueError(
                f"{type(self).__name__} hides patches, so it needs a Vision Transformer with a class token and a mask "
                "token: choose an encoder vit_* with --config.encoder.mask_token=True."
            )

    @property
    def grid(self) -> tuple[int, int]:
        side = self.augmentations[0].size // self.encoder.patch
        return side, side

    def centers(self) -> dict[str, Array]:
        return {"center": jnp.zeros(self.count), "patch_center": jnp.zeros(self.patch_count or self.count)}

    def tokens(self, params, crops, key: Array, axis: str | None, masked: Array | None = None) -> tuple[Array, Array]:
        """(class tokens (n, width), patches (n, patches, width)) of n crops of one size, given for each view."""
        keys = [example_keys(k, len(crops[0]), axis) for k in jax.random.split(key, len(crops))]
        options = {"keys": jnp.concatenate(keys), **({} if masked is None else {"masked": masked})}
        tokens, _ = run(self.encoder, params["encoder"], {}, jnp.concatenate(crops), method="tokens", **options)
        return tokens[:, 0], tokens[:, self.encoder.num_prefix :]

    def student(self, params, crops, masked: Array | None, key: Array, axis: str | None) -> tuple[Array, Array, Array]:
        """(representation of the first view, class tokens of all crops, patches of the global views)"""
        global_key, local_key = jax.random.split(key)
        classes, patches = self.tokens(params, crops[:2], global_key, axis, masked)
        if len(crops) > 2:
            of_locals, _ = self.tokens(params, crops[2:], local_key, axis)
            classes = jnp.concatenate([classes, of_locals])
        return classes[: len(crops[0])], classes, patches
