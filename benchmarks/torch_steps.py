"""What `steps.py` holds our train steps against: the same ones in PyTorch, of lightly's, timm's, torchvision's and
transformers' pieces, put together as their examples have it."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import timm
import torch
import torchvision
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import heads
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining, Wav2Vec2Config, Wav2Vec2ForPreTraining
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices


class Step(NamedTuple):
    learns: nn.Module
    loss: Callable[..., Tensor]
    """Of the views."""
    views: tuple[Tensor, ...]
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None


def resnet18() -> nn.Module:
    network = torchvision.models.resnet18()
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool, network.fc = nn.Identity(), nn.Identity()
    return network


def vit_tiny() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=0, dynamic_img_size=True)


def images(batch: int, side: int = 32) -> Tensor:
    return torch.randn(batch, 3, side, side)


def momentum_copy(network: nn.Module) -> nn.Module:
    target = copy.deepcopy(network)
    deactivate_requires_grad(target)
    return target


def simclr(encoder: nn.Module, dim: int, batch: int) -> Step:
    network = nn.Sequential(encoder, heads.SimCLRProjectionHead(dim, 512, 128))
    criterion = NTXentLoss(temperature=0.1)

    def loss(views: Tensor) -> Tensor:
        return criterion(*network(views).chunk(2))

    return Step(network, loss, (images(2 * batch),))


def moco_v2(batch: int) -> Step:
    network = nn.Sequential(resnet18(), heads.MoCoProjectionHead(512, 512, 128))
    target = momentum_copy(network)
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(4096, 128))

    def loss(query: Tensor, key: Tensor) -> Tensor:
        with torch.no_grad():
            keys = target(key)
        return criterion(network(query), keys)

    return Step(network, loss, (images(batch), images(batch)), before=lambda: update_momentum(network, target, 0.99))


def byol(batch: int) -> Step:
    network = nn.Sequential(resnet18(), heads.BYOLProjectionHead(512, 1024, 256))
    predictor = heads.BYOLPredictionHead(256, 1024, 256)
    target = momentum_copy(network)
    criterion = NegativeCosineSimilarity()

    def loss(first: Tensor, second: Tensor) -> Tensor:
        with torch.no_grad():
            of_first, of_second = target(first), target(second)
        one, other = predictor(network(first)), predictor(network(second))
        return 0.5 * (criterion(one, of_second) + criterion(other, of_first))

    learns = nn.ModuleList([network, predictor])
    return Step(learns, loss, (images(batch), images(batch)), after=lambda: update_momentum(network, target, 0.99))


def dino(batch: int) -> Step:
    encoder, head = vit_tiny(), heads.DINOProjectionHead(192, 2048, 256, 8192)
    teacher, teacher_head = momentum_copy(encoder), heads.DINOProjectionHead(192, 2048, 256, 8192)
    student, follower = nn.ModuleList([encoder, head]), nn.ModuleList([teacher, teacher_head])
    criterion = DINOLoss(8192)

    def loss(large: Tensor, small: Tensor) -> Tensor:
        with torch.no_grad():
            targets = teacher_head(teacher(large))
        seen = head(torch.cat([encoder(large), encoder(small)]))
        return criterion(list(targets.chunk(2)), list(seen.chunk(8)), epoch=1)

    views = images(2 * batch), images(6 * batch, 16)
    return Step(student, loss, views, after=lambda: update_momentum(student, follower, 0.99))


def mae(batch: int) -> Step:
    sizes = dict(hidden_size=384, num_attention_heads=6, intermediate_size=1536)  # ViT-S; the decoder is the default
    network = ViTMAEForPreTraining(ViTMAEConfig(image_size=32, patch_size=4, norm_pix_loss=True, **sizes))
    return Step(network, lambda x: network(x).loss, (images(batch),))


def wav2vec2(batch: int) -> Step:
    rates = dict(activation_dropout=0.0, feat_proj_dropout=0.1, feat_quantizer_dropout=0.1, layerdrop=0.05)
    network = Wav2Vec2ForPreTraining(Wav2Vec2Config(**rates))
    audio = torch.randn(batch, 32_000)
    shape = batch, int(network._get_feat_extract_output_lengths(32_000))
    mask = _compute_mask_indices(shape, 0.65, 10, min_masks=2)
    others = torch.tensor(_sample_negative_indices(shape, 100, mask))

    def loss(audio: Tensor, mask: Tensor, others: Tensor) -> Tensor:
        return network(audio, mask_time_indices=mask, sampled_negative_indices=others).loss

    return Step(network, loss, (audio, torch.tensor(mask), others))


STEPS = {
    "SimCLR ResNet-18": lambda batch: simclr(resnet18(), 512, batch),
    "SimCLR ViT-Ti/4": lambda batch: simclr(vit_tiny(), 192, batch),
    "MAE ViT-S/4": mae,
    "MoCo v2 ResNet-18": moco_v2,
    "BYOL ResNet-18": byol,
    "DINO ViT-Ti/4": dino,
    "wav2vec 2.0 Base": wav2vec2,
}


def make(name: str, batch: int, kind: str, threads: int) -> tuple[Callable[[], None], int]:
    """(a step, how many numbers are learnt); kind: "eager", "channels-last" or "compiled"."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    convolutions = name.endswith("ResNet-18")
    step = STEPS[name](batch)
    learnt = [p for p in step.learns.train().parameters() if p.requires_grad]
    loss, views = step.loss, step.views
    if convolutions:
        optimizer = torch.optim.SGD(learnt, 1e-4, momentum=0.9, weight_decay=5e-4, fused=True)
    else:
        optimizer = torch.optim.AdamW(learnt, 1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    if convolutions and kind != "eager":
        step.learns.to(memory_format=torch.channels_last)
        views = tuple(view.contiguous(memory_format=torch.channels_last) for view in views)
    if kind == "compiled":
        loss = torch.compile(loss)

    def once() -> None:
        step.before()
        optimizer.zero_grad()
        value = loss(*views)
        value.backward()
        optimizer.step()
        step.after()
        assert value.isfinite()

    return once, sum(p.numel() for p in learnt)
