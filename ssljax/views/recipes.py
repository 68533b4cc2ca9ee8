"""The papers' views, by the names that configs use: how each method draws its crops of an image."""

import inspect
from collections.abc import Callable
from dataclasses import replace

from ssljax.views.images import Augment, check_scale

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


def simclr_views(
    size: int = 224, *, strength: float = 1.0, blur: float = 0.5, scale=(0.08, 1.0)
) -> tuple[Augment, Augment]:
    """SimCLR: jitter 0.8, 0.8, 0.8, 0.2 times strength, no mean and std. For CIFAR: strength 0.5 and no blur.

    Crops are drawn as torchvision draws them, ten times and then from the centre; the authors' code draws a hundred
    times and then takes the whole image.
    """
    if not 0 <= strength <= 2.5:
        raise ValueError(f"views.strength {strength} must be from 0 to 2.5.")
    view = Augment(
        size,
        scale,
        jitter=0.8,
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
        grey=0.2,
        blur=blur,
    )
    return view, view


def npid_views(size: int = 224, *, scale=(0.2, 1.0), mean=IMAGENET_MEAN, std=IMAGENET_STD) -> tuple[Augment]:
    """NPID: grey, then jitter of strength 0.4 in all four, always. On CIFAR grey comes last, and it does not flip
    (grey_first=False, flip=0)."""
    return (Augment(size, scale, "bilinear", jitter=1.0, hue=0.4, grey=0.2, grey_first=True, mean=mean, std=std),)


def moco_v1_views(
    size: int = 224, *, scale=(0.2, 1.0), mean=IMAGENET_MEAN, std=IMAGENET_STD
) -> tuple[Augment, Augment]:
    """MoCo v1: two views as NPID's."""
    (view,) = npid_views(size, scale=scale, mean=mean, std=std)
    return view, view


def moco_v2_views(
    size: int = 224, *, blur: float = 0.5, scale=(0.2, 1.0), mean=IMAGENET_MEAN, std=IMAGENET_STD
) -> tuple[Augment, Augment]:
    """MoCo v2 (and SimSiam): jitter 0.4, 0.4, 0.4, 0.1, crops no smaller than a fifth, bilinear."""
    view = Augment(size, scale, "bilinear", jitter=0.8, grey=0.2, blur=blur, mean=mean, std=std)
    return view, view


def byol_views(size: int = 224, *, scale=(0.08, 1.0), mean=IMAGENET_MEAN, std=IMAGENET_STD) -> tuple[Augment, Augment]:
    """BYOL (and Barlow Twins, VICReg): two different views, blur 1.0 and 0.1, solarize 0 and 0.2."""
    first = Augment(size, scale, jitter=0.8, saturation=0.2, grey=0.2, blur=1.0, mean=mean, std=std)
    return first, replace(first, blur=0.1, solarize=0.2)


def moco_v3_views(
    size: int = 224, *, scale=(0.2, 1.0), mean=IMAGENET_MEAN, std=IMAGENET_STD
) -> tuple[Augment, Augment]:
    """MoCo v3: BYOL's pair, bilinear; scale (0.2, 1) for its ResNets, (0.08, 1) for its ViTs."""
    first, second = byol_views(size, scale=scale, mean=mean, std=std)
    return replace(first, interpolation="bilinear"), replace(second, interpolation="bilinear")


def multi_crop(
    views: tuple[Augment, ...], local_crops: int, local_size: int, local_scale: tuple[float, float], **fields
) -> tuple[Augment, ...]:
    """`views`, and behind them `local_crops` (0: none) crops of another size and scale, else as the first of `views`.

    fields: what else is different in the local crops.
    """
    if local_crops < 0:
        raise ValueError(f"views.local_crops {local_crops} must be a number of crops, 0 for none.")
    if local_size < 1:
        raise ValueError(f"views.local_size {local_size} must be a side in pixels.")
    check_scale("local_scale", local_scale)
    return *views, *local_crops * (replace(views[0], size=local_size, scale=local_scale, **fields),)


def swav_views(
    size: int = 224,
    *,
    local_crops: int = 6,
    local_size: int = 96,
    local_scale=(0.05, 0.14),
    scale=(0.14, 1.0),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
) -> tuple[Augment, ...]:
    """SwAV: two global views and six local, all with SimCLR's colours. Without local crops its scale is (0.08, 1).

    Its code has a standard deviation of 0.228 for red.
    """
    view = replace(simclr_views(size, scale=scale)[0], interpolation="bilinear", window=13, mean=mean, std=std)
    return multi_crop((view, view), local_crops, local_size, local_scale)


def dino_views(
    size: int = 224,
    *,
    local_crops: int = 8,
    local_size: int = 96,
    local_scale=(0.05, 0.4),
    scale=(0.4, 1.0),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
) -> tuple[Augment, ...]:
    """DINO: BYOL's pair, and eight local crops that are blurred half of the time.

    For ResNet-50 the scales are (0.14, 1) and (0.05, 0.14); without local crops (0.14, 1). The blur's window holds
    three sigma to each side, for Pillow's blur, which the paper used, has none.
    """
    pair = tuple(replace(view, window=13) for view in byol_views(size, scale=scale, mean=mean, std=std))
    return multi_crop(pair, local_crops, local_size, local_scale, blur=0.5)


def ibot_views(
    size: int = 224,
    *,
    local_crops: int = 10,
    local_size: int = 96,
    local_scale=(0.05, 0.25),
    scale=(0.25, 1.0),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
) -> tuple[Augment, ...]:
    """iBOT, as in its published command: DINO's views at other scales, with ten local crops."""
    shape = dict(local_crops=local_crops, local_size=local_size, local_scale=local_scale)
    return dino_views(size, **shape, scale=scale, mean=mean, std=std)


def dinov2_views(
    size: int = 224,
    *,
    local_crops: int = 8,
    local_size: int = 96,
    local_scale=(0.05, 0.32),
    scale=(0.32, 1.0),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    inverted_blur: bool = False,
) -> tuple[Augment, ...]:
    """DINOv2: DINO's views at other scales, with a blur of nine pixels; local_size is 98 for patches of 14.

    inverted_blur: blur with one minus the meant probability, 0, 0.9 and 0.5 instead of 1, 0.1 and 0.5, as the official
    code does by mistake; the published weights were trained with it.
    """
    shape = dict(local_crops=local_crops, local_size=local_size, local_scale=local_scale)
    views = dino_views(size, **shape, scale=scale, mean=mean, std=std)
    return tuple(replace(view, window=9, blur=1 - view.blur if inverted_blur else view.blur) for view in views)


def mae_views(size: int = 224, *, scale=(0.2, 1.0), mean=IMAGENET_MEAN, std=IMAGENET_STD) -> tuple[Augment]:
    """MAE: crop and flip, no colour."""
    return (Augment(size, scale, mean=mean, std=std),)


def data2vec_views(size: int = 224, *, scale=(0.08, 1.0), mean=IMAGENET_MEAN, std=IMAGENET_STD) -> tuple[Augment]:
    """data2vec (and BEiT): crop, flip, and always a jitter of 0.4 without hue.

    The originals jitter the image before they crop it, so that contrast turns about the mean of the whole image; here
    it turns about the crop's.
    """
    return (Augment(size, scale, jitter=1.0, hue=0.0, mean=mean, std=std),)


def ijepa_views(size: int = 224, *, scale=(0.3, 1.0), mean=IMAGENET_MEAN, std=IMAGENET_STD) -> tuple[Augment]:
    """I-JEPA: the crop alone, bilinear; no flip, no colour."""
    return (Augment(size, scale, "bilinear", flip=0.0, mean=mean, std=std),)


def clip_views(size: int = 224, *, scale=(0.9, 1.0), mean=CLIP_MEAN, std=CLIP_STD) -> tuple[Augment]:
    """CLIP: the crop alone, as OpenCLIP draws it; the paper's is a random square of the resized image."""
    return (Augment(size, scale, flip=0.0, mean=mean, std=std),)


RECIPES: dict[str, Callable[..., tuple[Augment, ...]]] = {
    "npid": npid_views,
    "simclr": simclr_views,
    "moco_v1": moco_v1_views,
    "moco_v2": moco_v2_views,
    "moco_v3": moco_v3_views,
    "byol": byol_views,
    "swav": swav_views,
    "dino": dino_views,
    "ibot": ibot_views,
    "dinov2": dinov2_views,
    "mae": mae_views,
    "data2vec": data2vec_views,
    "ijepa": ijepa_views,
    "clip": clip_views,
}


def make_views(name: str, **fields) -> tuple[Augment, ...]:
    """The recipe `name`; `fields` are its parameters, or fields of `Augment`, which are then set in all of its views.

    Raises ValueError that lists what there is.
    """
    if name not in RECIPES:
        raise ValueError(f"views '{name}' are unknown; use one of {', '.join(RECIPES)}.")
    own = inspect.signature(RECIPES[name]).parameters
    known = {*own, *Augment.__dataclass_fields__}
    if unknown := set(fields) - known:
        take_back = " ".join(f"--config.views.{field}=None" for field in sorted(unknown))
        raise ValueError(
            f"views '{name}' have no field '{min(unknown)}'; they have {', '.join(sorted(known))}. What a config set "
            f"for other views is taken back by {take_back}."
        )
    views = RECIPES[name](**{k: v for k, v in fields.items() if k in own})
    return tuple(replace(view, **{k: v for k, v in fields.items() if k not in own}) for view in views)
