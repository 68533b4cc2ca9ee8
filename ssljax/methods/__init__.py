"""The methods by the names that configs use. A new one is a file, a config, and a line here."""

from typing import Any

from ssljax.fields import Range, check_ranges
from ssljax.methods.graphs.graphcl import GraphCL
from ssljax.methods.image_text.clip import CLIP
from ssljax.methods.images.barlow_twins import BarlowTwins
from ssljax.methods.images.byol import BYOL
from ssljax.methods.images.data2vec import Data2Vec
from ssljax.methods.images.dino import DINO
from ssljax.methods.images.dinov2 import DINOv2
from ssljax.methods.images.dinov2_distill import DINOv2Distill
from ssljax.methods.images.distill import Distill
from ssljax.methods.images.fine_tune import FineTune
from ssljax.methods.images.ibot import IBOT
from ssljax.methods.images.ijepa import IJEPA
from ssljax.methods.images.mae import MAE
from ssljax.methods.images.moco_v1 import MoCoV1
from ssljax.methods.images.moco_v2 import MoCoV2
from ssljax.methods.images.moco_v3 import MoCoV3
from ssljax.methods.images.npid import NPID
from ssljax.methods.images.simclr import SimCLR
from ssljax.methods.images.simclr_v2 import SimCLRv2
from ssljax.methods.images.simsiam import SimSiam
from ssljax.methods.images.swav import SwAV
from ssljax.methods.images.vicreg import VICReg
from ssljax.methods.nodes.dgi import DGI
from ssljax.methods.series.ts2vec import TS2Vec
from ssljax.methods.speech.cpc import CPC
from ssljax.methods.speech.ctc import CTC
from ssljax.methods.speech.wav2vec2 import Wav2Vec2
from ssljax.methods.tables.scarf import SCARF
from ssljax.methods.tables.vime import VIME
from ssljax.methods.text.bert import BERT
from ssljax.methods.text.gpt import GPT
from ssljax.methods.video.videomae import VideoMAE
from ssljax.typing import Method

METHODS: dict[str, Any] = {
    "simclr": SimCLR,
    "simclr_v2": SimCLRv2,
    "fine_tune": FineTune,
    "distill": Distill,
    "moco_v1": MoCoV1,
    "moco_v2": MoCoV2,
    "moco_v3": MoCoV3,
    "byol": BYOL,
    "simsiam": SimSiam,
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "swav": SwAV,
    "npid": NPID,
    "dino": DINO,
    "ibot": IBOT,
    "dinov2": DINOv2,
    "dinov2_distill": DINOv2Distill,
    "data2vec": Data2Vec,
    "ijepa": IJEPA,
    "mae": MAE,
    "clip": CLIP,
    "dgi": DGI,
    "cpc": CPC,
    "wav2vec2": Wav2Vec2,
    "ctc": CTC,
    "scarf": SCARF,
    "vime": VIME,
    "bert": BERT,
    "gpt": GPT,
    "videomae": VideoMAE,
    "graphcl": GraphCL,
    "ts2vec": TS2Vec,
}


RANGES: list[Range] = [
    ("above 0", lambda x: x > 0, "temperature student_temperature teacher_temperature warmup_temperature"),
    ("above 0", lambda x: x > 0, "patch_temperature epsilon beta scale max_scale"),
    ("from 0 to 1", lambda x: 0 <= x <= 1, "momentum bank_momentum center_momentum mask_probability probability kept"),
    ("at least 2, for one tells nothing apart", lambda x: x >= 2, "count prototypes"),
    ("0, or at least 2", lambda x: x == 0 or x >= 2, "patch_count"),
    ("at least 1", lambda x: x >= 1, "hidden bottleneck patch_bottleneck head_layers iterations"),
    ("at least 1", lambda x: x >= 1, "targets layers smallest_block predictor_width predictor_depth predictor_heads"),
    ("at least 1", lambda x: x >= 1, "decoder_width decoder_depth decoder_heads most_masked"),
    ("at least 1", lambda x: x >= 1, "text_width text_depth text_heads dim"),
    ("at least 1", lambda x: x >= 1, "groups entries codebook_dim distractors span steps negatives"),
    ("0 or more", lambda x: x >= 0, "vocabulary unknown"),
    ("above 0 and at most 1", lambda x: 0 < x <= 1, "eval_crop context_share share mask_share"),
    ("0 or more", lambda x: x >= 0, "patch_weight koleo_weight invariance variance covariance weight alpha"),
    ("0 or more", lambda x: x >= 0, "queue memory noise classes warmup_temperature_epochs min_keep temporal_unit"),
    ("0 or more", lambda x: x >= 0, "diversity_weight penalty eval_depth"),
    ("at least 0 and below 1", lambda x: 0 <= x < 1, "dropout word_dropout"),
    ("a width or more, each at least 1", lambda x: len(x) > 0 and min(x) >= 1, "projector"),
    ("widths, each at least 1", lambda x: all(width >= 1 for width in x), "predictor"),
    (
        "two numbers above 0, the smaller first",
        lambda x: not isinstance(x, tuple) or (len(x) == 2 and 0 < x[0] <= x[1]),
        "mask_ratio aspect",
    ),
    (
        "two numbers above 0 and at most 1, the smaller first",
        lambda x: len(x) == 2 and 0 < x[0] <= x[1] <= 1,
        "context_scale target_scale",
    ),
]
"""What the fields of these names must be, whatever the method."""


def make_method(name: str, **fields) -> Method:
    """The method `name` with its modules and hyper-parameters.

    Raises ValueError that lists what there is for an unknown name or field, and for a number outside of `RANGES`.
    """
    if name not in METHODS:
        raise ValueError(f"method '{name}' is unknown; use one of {', '.join(METHODS)}.")
    known = METHODS[name].__dataclass_fields__
    for field in ("augmentations", "total_steps", "steps_per_epoch", "examples"):  # not all methods ask for these
        if field not in known:
            fields.pop(field, None)
    for field in fields:
        if field not in known:
            raise ValueError(f"method '{name}' has no field '{field}'; it has {', '.join(known)}.")
    check_ranges("method", fields, RANGES)
    return METHODS[name](**fields)
