"""ResNets as timm (and torchvision, whose names it has) and as transformers have them."""

from collections.abc import Callable, Iterator
from typing import Any

from ssljax.models.resnet import ResNet, resnet18, resnet34, resnet50
from ssljax.weights.architecture import Architecture, Config, Described, can_be_written, must_be, only
from ssljax.weights.layout import CONVOLUTION
from ssljax.weights.rows import Row
from ssljax.weights.vision import huggingface_inputs, huggingface_preprocessing, images_of, timm_config, timm_inputs

OF_TIMM = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50}
DEFAULTS = {
    "embedding_size": 64,
    "hidden_sizes": [256, 512, 1024, 2048],
    "depths": [3, 4, 6, 3],
    "layer_type": "bottleneck",
}
"""What a config.json may leave out, as transformers does with its defaults."""
COUNTER = r".*\.num_batches_tracked"


def describe_timm(config: Config, _: Config) -> Described:
    name, _, _ = config["architecture"].partition(".")
    if name not in OF_TIMM:
        raise ValueError(f"timm's '{name}' is not among the models that can be read: {', '.join(OF_TIMM)}, vit_….")
    arguments = config.get("model_args", {})
    only(arguments, ("num_classes", "global_pool", "in_chans"))
    must_be(arguments, global_pool="avg", in_chans=3)
    inputs = timm_inputs(config, name)
    return Described(OF_TIMM[name](), images_of(inputs.size), inputs)


def configure_timm(described: Described) -> tuple[dict[str, Any], dict[str, Any]]:
    resnet = described.encoder
    as_what = "timm's ResNet"
    can_be_written(resnet, as_what, stem="imagenet", norm="batch", channels=64, width_multiplier=1.0)
    for name, kind in OF_TIMM.items():
        made = kind()
        if (tuple(resnet.stages), resnet.bottleneck) == (tuple(made.stages), made.bottleneck):
            return timm_config(name, resnet.num_features, "avg", {}, described.inputs), {}
    raise ValueError(f"a ResNet of {resnet.stages} blocks is none of timm's {', '.join(OF_TIMM)}.")


def describe_huggingface(config: Config, preprocessing: Config) -> Described:
    c = {**DEFAULTS, **config}
    must_be(c, num_channels=3, hidden_act="relu", downsample_in_first_stage=False, downsample_in_bottleneck=False)
    first = c["embedding_size"]
    bottleneck = c["layer_type"] == "bottleneck"
    widths = [first * 2**i * (4 if bottleneck else 1) for i in range(len(c["depths"]))]
    must_be(c, hidden_sizes=widths)
    resnet = ResNet(tuple(c["depths"]), bottleneck, channels=first)
    return Described(resnet, images_of(224), huggingface_inputs(224, preprocessing))


def configure_huggingface(described: Described) -> tuple[dict[str, Any], dict[str, Any]]:
    resnet = described.encoder
    can_be_written(resnet, "transformers' ResNet", stem="imagenet", norm="batch")
    first = int(resnet.channels * resnet.width_multiplier)
    config = {
        "model_type": "resnet",
        "architectures": ["ResNetModel"],
        "num_channels": 3,
        "embedding_size": first,
        "hidden_sizes": [first * 2**i * (4 if resnet.bottleneck else 1) for i in range(len(resnet.stages))],
        "depths": list(resnet.stages),
        "layer_type": "bottleneck" if resnet.bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
    return config, huggingface_preprocessing(described.inputs)


Names = Callable[[int, int, int], tuple[str, str]]
"""Of the convolution and the norm with a number (0: those of the shortcut), in a block of a stage."""


def _timm_names(stage: int, block: int, number: int) -> tuple[str, str]:
    of_block = f"layer{stage}.{block - 1}"
    if number == 0:
        return f"{of_block}.downsample.0", f"{of_block}.downsample.1"
    return f"{of_block}.conv{number}", f"{of_block}.bn{number}"


def _huggingface_names(stage: int, block: int, number: int) -> tuple[str, str]:
    of_block = f"encoder.stages.{stage - 1}.layers.{block - 1}"
    of_layer = f"{of_block}.shortcut" if number == 0 else f"{of_block}.layer.{number - 1}"
    return f"{of_layer}.convolution", f"{of_layer}.normalization"


def _rows(resnet: ResNet, stem: tuple[str, str], names: Names) -> Iterator[Row]:
    yield from _pair("stem", "stem_norm", *stem)
    for i, blocks in enumerate(resnet.stages, start=1):
        for j in range(1, blocks + 1):
            ours = f"stage{i}_block{j}"
            for k in range(1, 4 if resnet.bottleneck else 3):
                yield from _pair(f"{ours}/conv{k}", f"{ours}/norm{k}", *names(i, j, k))
            if j == 1 and (i > 1 or resnet.bottleneck):
                yield from _pair(f"{ours}/downsample", f"{ours}/downsample_norm", *names(i, j, 0))


def _pair(convolution: str, norm: str, their_convolution: str, their_norm: str) -> Iterator[Row]:
    yield Row((f"params/{convolution}/kernel",), (f"{their_convolution}.weight",), CONVOLUTION)
    yield Row((f"params/{norm}/scale",), (f"{their_norm}.weight",))
    yield Row((f"params/{norm}/bias",), (f"{their_norm}.bias",))
    yield Row((f"batch_stats/{norm}/mean",), (f"{their_norm}.running_mean",))
    yield Row((f"batch_stats/{norm}/var",), (f"{their_norm}.running_var",))


def timm_rows(resnet: ResNet) -> list[Row]:
    return list(_rows(resnet, ("conv1", "bn1"), _timm_names))


def huggingface_rows(resnet: ResNet) -> list[Row]:
    stem = "embedder.embedder.convolution", "embedder.embedder.normalization"
    return list(_rows(resnet, stem, _huggingface_names))


TIMM = Architecture("timm", describe_timm, configure_timm, timm_rows, left_out=(r"fc\..*", COUNTER))
HUGGINGFACE = Architecture(
    "huggingface",
    describe_huggingface,
    configure_huggingface,
    huggingface_rows,
    aliases=((r"^resnet\.", ""),),
    left_out=(r"classifier\..*", COUNTER),
)
