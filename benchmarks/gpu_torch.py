"""The rows of benchmarks/gpu.py in PyTorch: networks, losses and optimisers by their formulas, with the sizes of a
method of ssljax.

Written as its users write it: NCHW images (channels last in memory), one projection for queries, keys and values,
`scaled_dot_product_attention`, fused AdamW, autocast to bfloat16 over parameters in float32. Views and masks are drawn
before anything is timed, as with ssljax.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssljax.views.speech import masked_frames

Inputs = tuple[Tensor, ...]


# Parts ----------------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A Transformer block with the norms before its branches, or after them (`post`)."""

    def __init__(self, width: int, heads: int, hidden: int, epsilon: float, post=False, dropout=0.0, drop_path=0.0):
        super().__init__()
        self.heads, self.post, self.dropout, self.drops = heads, post, dropout, drop_path > 0
        self.register_buffer("drop_path", torch.tensor(drop_path))  # a number would be compiled anew for each block
        self.norm1, self.norm2 = (nn.LayerNorm(width, epsilon) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp1, self.mlp2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.branch(self.out(y.transpose(1, 2).flatten(2)))

    def mlp(self, x: Tensor) -> Tensor:
        return self.branch(self.mlp2(F.gelu(self.mlp1(x))))

    def branch(self, y: Tensor) -> Tensor:
        y = F.dropout(y, self.dropout, self.training)
        if not (self.drops and self.training):
            return y
        kept = torch.rand(len(y), 1, 1, device=y.device) >= self.drop_path
        return y * (kept / (1 - self.drop_path)).to(y.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            x = self.norm1(x + self.attention(x))
            return self.norm2(x + self.mlp(x))
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def sincos(side: int, width: int) -> Tensor:
    """(side², width): the column's half first."""
    frequency = 10000.0 ** (-torch.arange(width // 4) / (width / 4))
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [place.reshape(-1, 1) * frequency for place in (x, y)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1)


class ViT(nn.Module):
    """Images -> all tokens after the last norm; e: the encoder of ssljax. Class token and its position are one."""

    def __init__(self, e: Any, side: int):
        super().__init__()
        self.side, self.learned, self.offset = side // e.patch, e.positions == "learned", e.position_offset
        self.patch_embed = nn.Conv2d(3, e.width, e.patch, e.patch)
        self.prefix = nn.Parameter(0.02 * torch.randn(e.num_prefix, e.width))
        if self.learned:
            self.positions = nn.Parameter(0.02 * torch.randn(self.side**2, e.width))
        else:
            self.register_buffer("positions", sincos(self.side, e.width))
        rates = [e.drop_path * i / max(e.depth - 1, 1) for i in range(e.depth)]
        hidden = int(e.mlp_ratio * e.width)
        self.blocks = nn.ModuleList(Block(e.width, e.heads, hidden, e.epsilon, drop_path=rate) for rate in rates)
        self.norm = nn.LayerNorm(e.width, e.epsilon)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.patch_embed(images)
        x = x.flatten(2).mT + self.placed(x.shape[-1])
        if keep is not None:
            x = x.gather(1, keep[:, :, None].expand(-1, -1, x.shape[-1]))
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def placed(self, side: int) -> Tensor:
        if side == self.side:
            return self.positions
        grid = self.positions.mT.unflatten(-1, (self.side, self.side))[None]
        factor = (side + self.offset) / self.side
        return F.interpolate(grid, scale_factor=factor, mode="bicubic")[0].flatten(1).mT


class Bottleneck(nn.Module):
    def __init__(self, wide: int, channels: int, stride: int):
        super().__init__()
        out = 4 * channels
        self.conv1, self.norm1 = nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3, self.norm3 = nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out)
        self.down = None
        if stride > 1 or wide != out:
            self.down = nn.Sequential(nn.Conv2d(wide, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = F.relu(self.norm2(self.conv2(y)), inplace=True)
        y = self.norm3(self.conv3(y))
        return F.relu(y + (x if self.down is None else self.down(x)), inplace=True)


class ResNet(nn.Sequential):
    """Images -> pooled features."""

    def __init__(self, e: Any):
        wide = e.channels
        layers = [nn.Conv2d(3, wide, 7, 2, 3, bias=False), nn.BatchNorm2d(wide), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]
        for i, count in enumerate(e.stages):
            for j in range(count):
                layers.append(Bottleneck(wide, e.channels * 2**i, 2 if i > 0 and j == 0 else 1))
                wide = 4 * e.channels * 2**i
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


# Methods --------------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """forward(*inputs) -> the loss. `compiled`: those of its parts that torch.compile is given, with `loss`, unless it
    is given the whole."""

    compiled: tuple[type[nn.Module], ...] = (Block,)

    def after(self) -> None:
        """What moves without a gradient, after the optimiser's step."""

    def clip(self) -> None:
        """What is done to gradients before it."""


class SimCLR(Net):
    compiled = (ResNet,)

    def __init__(self, m: Any, _):
        super().__init__()
        self.temperature, self.side = m.temperature, m.augmentations[0].size
        self.encoder = ResNet(m.encoder)
        hidden, dim = m.projector
        first, last = nn.Linear(m.encoder.num_features, hidden, bias=False), nn.Linear(hidden, dim, bias=False)
        self.head = nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(True), last, nn.BatchNorm1d(dim, affine=False))
        self.scale = nn.Parameter(torch.ones(dim))

    def inputs(self, batch: int) -> Inputs:
        return (torch.rand(2 * batch, 3, self.side, self.side),)

    def forward(self, views: Tensor) -> Tensor:
        return self.loss(self.head(self.encoder(views)) * self.scale)

    def loss(self, z: Tensor) -> Tensor:
        z = F.normalize(z.float(), dim=1)
        with torch.autocast(z.device.type, enabled=False):
            logits = z @ z.T / self.temperature
        logits = logits.fill_diagonal_(-torch.inf)
        other = torch.arange(len(z), device=z.device).roll(len(z) // 2)
        return 2 * F.cross_entropy(logits, other)

    def optimizer(self) -> torch.optim.Optimizer:
        return LARS(self.parameters(), rate=0.3, decay=1e-6)


class MAE(Net):
    def __init__(self, m: Any, _):
        super().__init__()
        e, self.side, wide = m.encoder, m.augmentations[0].size, m.decoder_width
        self.patch, self.prefix, self.patches = e.patch, e.num_prefix, (self.side // e.patch) ** 2
        self.kept = int(self.patches * (1 - m.mask_ratio))
        self.encoder = ViT(e, self.side)
        self.embed, self.mask_token = nn.Linear(e.width, wide), nn.Parameter(0.02 * torch.randn(wide))
        self.register_buffer("positions", sincos(self.side // e.patch, wide))
        decoder = (Block(wide, m.decoder_heads, 4 * wide, e.epsilon) for _ in range(m.decoder_depth))
        self.decoder, self.norm = nn.Sequential(*decoder), nn.LayerNorm(wide, e.epsilon)
        self.pixels = nn.Linear(wide, 3 * e.patch**2)

    def inputs(self, batch: int) -> Inputs:
        order = torch.rand(batch, self.patches).argsort(dim=1)
        restore = order.argsort(dim=1)
        return torch.randn(batch, 3, self.side, self.side), order[:, : self.kept], restore

    def forward(self, images: Tensor, keep: Tensor, restore: Tensor) -> Tensor:
        x = self.embed(self.encoder(images, keep))
        hidden = self.mask_token.to(x.dtype).expand(len(x), self.patches - self.kept, -1)
        patches = torch.cat([x[:, self.prefix :], hidden], dim=1)
        patches = patches.gather(1, restore[:, :, None].expand(-1, -1, x.shape[-1])) + self.positions
        x = self.norm(self.decoder(torch.cat([x[:, : self.prefix], patches], dim=1)))
        return self.loss(images, self.pixels(x[:, self.prefix :]), restore >= self.kept)

    def loss(self, images: Tensor, prediction: Tensor, hidden: Tensor) -> Tensor:
        p = self.patch
        target = images.unflatten(2, (-1, p)).unflatten(4, (-1, p)).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        error = (prediction.float() - (target - mean) / (variance + 1e-6).sqrt()).square().mean(-1)
        return (error * hidden).sum() / hidden.sum()

    def optimizer(self) -> torch.optim.Optimizer:
        return adamw(self, rate=1.5e-4, betas=(0.9, 0.95), decay=0.05)


class DINOHead(nn.Module):
    def __init__(self, width: int, m: Any):
        super().__init__()
        widths = [width, *[m.hidden] * (m.head_layers - 1), m.bottleneck]
        layers = [f(a, b) for a, b in zip(widths, widths[1:], strict=False) for f in (nn.Linear, lambda *_: nn.GELU())]
        self.mlp = nn.Sequential(*layers[:-1])
        self.kernel, self.g = nn.Parameter(torch.randn(m.count, m.bottleneck)), nn.Parameter(torch.ones(m.count))

    def forward(self, x: Tensor) -> Tensor:
        z = F.normalize(self.mlp(x), dim=1)
        return F.linear(z, F.normalize(self.kernel, dim=1) * self.g[:, None])


class DINO(Net):
    compiled = (Block, DINOHead)

    def __init__(self, m: Any, _):
        super().__init__()
        self.sides = [view.size for view in m.augmentations]
        self.temperatures = m.student_temperature, m.teacher_temperature
        self.momentum, self.center_momentum = m.momentum, m.center_momentum
        self.student = nn.ModuleList([ViT(m.encoder, self.sides[0]), DINOHead(m.encoder.width, m)])
        self.teacher = deepcopy(self.student).requires_grad_(False)
        for block in self.teacher[0].blocks:
            block.drops = False
        self.register_buffer("center", torch.zeros(m.count))

    def inputs(self, batch: int) -> Inputs:
        local = self.sides[2:]
        large = torch.randn(2 * batch, 3, *self.sides[:1] * 2)
        return large, torch.randn(len(local) * batch, 3, *local[:1] * 2)

    def forward(self, large: Tensor, small: Tensor) -> Tensor:
        with torch.no_grad():
            encoder, head = self.teacher
            teacher = head(encoder(large)[:, 0])
        encoder, head = self.student
        seen = torch.cat([encoder(images)[:, 0] for images in (large, small)])
        loss, self.mean = self.loss(head(seen), teacher, self.center)
        return loss

    def loss(self, student: Tensor, teacher: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
        """And the mean of the teacher's logits."""
        of_student, of_teacher = self.temperatures
        targets = F.softmax((teacher.float() - center) / of_teacher, dim=1).chunk(2)
        logs = F.log_softmax(student.float() / of_student, dim=1).chunk(len(self.sides))
        pairs = [(t, s) for i, t in enumerate(targets) for j, s in enumerate(logs) if i != j]
        return -sum((t * s).sum(1).mean() for t, s in pairs) / len(pairs), teacher.float().mean(0)

    def clip(self) -> None:
        gradients = [p.grad for p in self.student.parameters() if p.grad is not None]
        factors = [(3.0 / (norm + 1e-6)).clamp(max=1.0) for norm in torch._foreach_norm(gradients)]
        torch._foreach_mul_(gradients, factors)

    @torch.no_grad()
    def after(self) -> None:
        ours, theirs = list(self.teacher.parameters()), list(self.student.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - self.momentum)
        self.center.lerp_(self.mean, 1 - self.center_momentum)

    def optimizer(self) -> torch.optim.Optimizer:
        return adamw(self, rate=5e-4, betas=(0.9, 0.999), decay=0.04)


class Convolutions(nn.Sequential):
    """Audio (batch, 1, samples) -> (batch, channels, frames)."""

    def __init__(self, shapes: Any):
        layers: list[nn.Module] = []
        wide = 1
        for i, (channels, kernel, stride) in enumerate(shapes):
            layers.append(nn.Conv1d(wide, channels, kernel, stride, bias=False))
            layers += [nn.GroupNorm(channels, channels)] if i == 0 else []
            layers.append(nn.GELU())
            wide = channels
        super().__init__(*layers)


class Wav2Vec2(Net):
    """Layer drop is for each example, of blocks that are computed, as with ssljax."""

    compiled = (Block, Convolutions)

    def __init__(self, m: Any, samples: int):
        super().__init__()
        e, self.m, self.samples, wide = m.encoder, m, samples, m.encoder.layers[-1][0]
        self.scale, self.dropout, self.input_dropout = e.feature_gradient, e.dropout, e.input_dropout
        self.layer_drop, self.channels = e.layer_drop, wide
        self.features, self.feature_norm = Convolutions(e.layers), nn.LayerNorm(wide, e.epsilon)
        self.project, self.masked = nn.Linear(wide, e.width), nn.Parameter(torch.rand(e.width))
        position = nn.Conv1d(e.width, e.width, e.positional_kernel, 1, e.positional_kernel // 2, 1, e.positional_groups)
        self.position = nn.utils.parametrizations.weight_norm(position, dim=2)
        self.norm = nn.LayerNorm(e.width, e.epsilon)
        stack = (Block(e.width, e.heads, e.hidden, e.epsilon, post=True, dropout=e.dropout) for _ in range(e.depth))
        self.blocks = nn.ModuleList(stack)
        self.logits = nn.Linear(wide, m.groups * m.entries)
        self.codebook = nn.Parameter(torch.rand(m.groups, m.entries, m.codebook_dim // m.groups))
        self.context, self.targets = nn.Linear(e.width, m.dim), nn.Linear(m.codebook_dim, m.dim)

    def inputs(self, batch: int) -> Inputs:
        """As many frames are hidden as with ssljax, not in spans, which costs the same."""
        frames = int(self.m.encoder.frames(self.samples))
        count = masked_frames(frames, self.m.share, self.m.span)
        hidden = torch.rand(batch, frames).argsort(dim=1)[:, :count].sort(dim=1).values
        others = torch.randint(0, count - 1, (batch, count, self.m.distractors))
        return torch.randn(batch, 1, self.samples), hidden, others + (others >= torch.arange(count)[:, None])

    def forward(self, audio: Tensor, hidden: Tensor, others: Tensor) -> Tensor:
        x = self.features(audio)
        x = x.detach() + self.scale * (x - x.detach())
        features = x.mT
        local = self.feature_norm(features)
        x = F.dropout(self.project(local), self.input_dropout, self.training)
        mask = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device).scatter(1, hidden, True)
        x = torch.where(mask[:, :, None], self.masked.to(x.dtype), x)
        x = x + F.gelu(self.position(x.mT)[:, :, : x.shape[1]]).mT
        x = F.dropout(self.norm(x), self.dropout, self.training)
        for block in self.blocks:
            y = block(x)
            dropped = torch.rand(len(x), 1, 1, device=x.device) < self.layer_drop
            x = torch.where(dropped, x, y)
        context, local = (z.gather(1, hidden[:, :, None].expand(-1, -1, z.shape[-1])) for z in (x, local))
        return self.loss(context, F.dropout(local, self.m.dropout, self.training), features, others)

    def loss(self, context: Tensor, local: Tensor, features: Tensor, others: Tensor) -> Tensor:
        m = self.m
        logits = self.logits(local).float().unflatten(-1, (m.groups, m.entries))
        chosen = F.gumbel_softmax(logits, tau=m.gumbel[0], hard=True)
        vectors = torch.einsum("bkgv,gvd->bkgd", chosen, self.codebook).flatten(2)
        c, q = (F.normalize(x.float(), dim=-1) for x in (self.context(context), self.targets(vectors)))
        similarity = c @ q.mT / m.temperature
        codes = chosen.argmax(-1)
        equal = (codes[:, :, None] == codes[:, None]).all(-1)
        positive = similarity.diagonal(dim1=1, dim2=2)[..., None]
        negative = similarity.masked_fill(equal, -torch.inf).gather(2, others)
        contrastive = -F.log_softmax(torch.cat([positive, negative], dim=-1).float(), dim=-1)[..., 0].mean()
        p = logits.softmax(-1).mean((0, 1))
        perplexity = (-(p * (p + 1e-7).log()).sum(-1)).exp().sum()
        unused = 1 - perplexity / p.numel()
        return contrastive + m.diversity_weight * unused + m.penalty * features.float().square().mean()

    def optimizer(self) -> torch.optim.Optimizer:
        return adamw(self, rate=5e-4, betas=(0.9, 0.98), decay=0.01)


NETS: dict[str, type[Net]] = {net.__name__: net for net in (SimCLR, MAE, DINO, Wav2Vec2)}


# Training -------------------------------------------------------------------------------------------------------------


def adamw(net: nn.Module, rate: float, betas: tuple[float, float], decay: float) -> torch.optim.AdamW:
    learnt = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learnt if p.ndim > 1]},
        {"params": [p for p in learnt if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=betas, weight_decay=decay, fused=True)


class LARS(torch.optim.Optimizer):
    """SimCLR's: arrays of one dimension have neither decay nor a rate of their own."""

    def __init__(self, params: Iterator[nn.Parameter], rate: float, decay: float, momentum=0.9, trust=0.001):
        super().__init__(params, {"rate": rate, "decay": decay, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            adapted = [p for p in params if p.ndim > 1]
            gradients = torch._foreach_add([p.grad for p in adapted], adapted, alpha=group["decay"])
            sizes = zip(torch._foreach_norm(adapted), torch._foreach_norm(gradients), strict=True)
            factors = [torch.where((w > 0) & (g > 0), group["trust"] * w / g, 1.0) for w, g in sizes]
            torch._foreach_mul_(gradients, factors)
            plain = [p for p in params if p.ndim <= 1]
            params, gradients = [*adapted, *plain], [*gradients, *(p.grad for p in plain)]
            traces = [self.state[p].setdefault("trace", torch.zeros_like(p)) for p in params]
            torch._foreach_mul_(traces, group["momentum"])
            torch._foreach_add_(traces, gradients, alpha=-group["rate"])
            torch._foreach_add_(params, traces)


def make(method: Any, samples: int = 0) -> Net:
    """The network of a method of ssljax; samples: of a clip of speech."""
    return NETS[type(method).__name__](method, samples)


def measure(method: Any, samples: int, compile: str, timed: Callable, batch: int) -> dict[str, float]:
    """Seconds of a step: forward, backward, optimiser. compile: "" for eager mode, "parts" (each block and the loss, so
    that equal blocks are compiled once) or "whole". Raises FloatingPointError for a loss that is not finite."""
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    net = make(method, samples).to(device)
    inputs = tuple(x.to(device) for x in net.inputs(batch))
    if inputs[0].ndim == 4:
        net = net.to(memory_format=torch.channels_last)
        inputs = tuple(x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs)
    optimizer = net.optimizer()
    torch.compiler.reset()
    if compile:
        torch._dynamo.config.automatic_dynamic_shapes = False  # crops of two sizes are two programs
        torch._dynamo.config.recompile_limit = 64
        parts = [module for module in net.modules() if isinstance(module, net.compiled)]
        for part in [net] if compile == "whole" else parts:
            part.compile()
        if compile == "parts":
            net.loss = torch.compile(net.loss)

    def once() -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            loss = net(*inputs)
        loss.backward()
        net.clip()
        optimizer.step()
        optimizer.zero_grad()
        net.after()
        return loss.detach()

    seconds = timed(once, torch.Tensor.item)
    if not once().isfinite():
        raise FloatingPointError("the loss is not finite")
    return {"seconds": seconds}
