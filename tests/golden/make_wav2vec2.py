"""wav2vec 2.0 by Hugging Face: tiny models of both layouts, Gumbel-softmax, diversity, masks, numbers of parameters.

The models are in evaluation mode, where codes are the most probable ones and nothing is drawn; mask and negatives are
given. All parameters are random, and drawn alike by script and test. PyTorch's `gumbel_softmax` is given its noise.
"""

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from seeded import normal, save, weight
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
from transformers.models.wav2vec2.modeling_wav2vec2 import (
    Wav2Vec2GumbelVectorQuantizer,
    _compute_mask_indices,
    _sample_negative_indices,
)

MADE_BY = f"transformers {transformers.__version__}, torch {torch.__version__}, in float64"
BATCH, SAMPLES, HIDDEN = 4, 90, 6
DRAWS, FRAMES = 6000, 99
TINY = dict(
    conv_dim=(8, 8, 8),
    conv_kernel=(4, 3, 2),
    conv_stride=(3, 2, 1),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    num_conv_pos_embeddings=6,
    num_conv_pos_embedding_groups=4,
    num_codevectors_per_group=5,
    num_codevector_groups=2,
    codevector_dim=8,
    proj_codevector_dim=12,
    apply_spec_augment=True,
    mask_time_prob=0.5,
)
LAYOUTS = {
    "base": dict(feat_extract_norm="group", do_stable_layer_norm=False, conv_bias=False),
    "large": dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True),
}
PUBLISHED = {
    "base": {},
    "large": dict(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        codevector_dim=768,
        proj_codevector_dim=768,
    ),
}
GRADIENTS = (
    "wav2vec2.feature_extractor.conv_layers.0.conv.weight",
    "wav2vec2.feature_extractor.conv_layers.0.layer_norm.weight",
    "wav2vec2.masked_spec_embed",
    "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original1",
    "wav2vec2.encoder.layers.0.attention.q_proj.weight",
    "wav2vec2.encoder.layer_norm.bias",
    "quantizer.codevectors",
    "project_hid.weight",
)


def model_numbers(layout: str, audio, mask, negatives) -> dict:
    model = Wav2Vec2ForPreTraining(Wav2Vec2Config(**TINY, **LAYOUTS[layout])).double().eval()
    weights = {k: torch.tensor(weight(k, tuple(v.shape))) for k, v in model.state_dict().items()}
    model.load_state_dict(weights)
    audio, mask = torch.tensor(audio, dtype=torch.float64), torch.tensor(mask)
    out = model(audio, mask_time_indices=mask, sampled_negative_indices=torch.tensor(negatives))
    inner = model.wav2vec2(audio, mask_time_indices=mask)
    vectors, _ = model.quantizer(inner.extract_features)
    parameters = dict(model.named_parameters())
    wanted = {name: parameters[name] for name in GRADIENTS}
    wanted |= {"predictions": out.projected_states, "targets": out.projected_quantized_states}
    gradients = torch.autograd.grad(out.contrastive_loss, list(wanted.values()))
    arrays = {
        "context": inner.last_hidden_state,
        "local": inner.extract_features,
        "vectors": vectors,
        "predictions": out.projected_states,
        "targets": out.projected_quantized_states,
        "perplexity": out.codevector_perplexity,
        "contrastive": out.contrastive_loss,
        "diversity": out.diversity_loss,
    }
    arrays |= {f"d.{name}": gradient for name, gradient in zip(wanted, gradients, strict=True)}
    return {f"{layout}.{k}": v.detach().numpy() for k, v in arrays.items()}


def quantizer_numbers() -> dict:
    """Value and gradient of the hard Gumbel-softmax on given noise, and of the perplexity of masked frames."""
    logits, noise, toward = (normal(name, (3, 7, 2, 5)) for name in ("logits", "uniform", "toward"))
    noise = -np.log(-np.log(1.0 / (1.0 + np.exp(-noise)))).astype(np.float32)
    x = torch.tensor(2 * logits, dtype=torch.float64, requires_grad=True)
    draw = torch.Tensor.exponential_
    torch.Tensor.exponential_ = lambda self: self.copy_(torch.exp(-torch.tensor(noise, dtype=torch.float64)))
    hard = F.gumbel_softmax(x, tau=0.7, hard=True)
    torch.Tensor.exponential_ = draw
    (gradient,) = torch.autograd.grad((hard * torch.tensor(toward)).sum(), x)
    arrays = {"gumbel.noise": noise, "gumbel.hard": hard.detach(), "gumbel.gradient": gradient}

    mask = torch.tensor(normal("mask", (1, 21)).argsort() < 8)
    soft = torch.softmax(x, dim=-1).detach().reshape(21, 2, 5).requires_grad_()
    perplexity = Wav2Vec2GumbelVectorQuantizer._compute_perplexity(soft, mask)
    diversity = (10 - perplexity) / 10
    (gradient,) = torch.autograd.grad(diversity, soft)
    arrays |= {"diversity.p": soft.detach(), "diversity.mask": mask, "diversity": diversity.detach()}
    return arrays | {"diversity.gradient": gradient}


def parameter_count(layout: str) -> int:
    with torch.device("meta"):
        model = Wav2Vec2ForPreTraining(Wav2Vec2Config(**PUBLISHED[layout], **LAYOUTS[layout]))
    return sum(p.numel() for p in model.parameters())


def main():
    np.random.seed(0)
    frames = 13
    mask = normal("hidden", (BATCH, frames)).argsort(axis=1).argsort(axis=1) < HIDDEN
    negatives = _sample_negative_indices((BATCH, frames), 7, mask)
    audio = normal("audio", (BATCH, SAMPLES))
    arrays = {"audio": audio, "mask": mask, "negatives": negatives}
    for layout in LAYOUTS:
        arrays |= model_numbers(layout, audio, mask, negatives)
        arrays |= {f"{layout}.parameters": parameter_count(layout)}
    arrays |= quantizer_numbers()
    masks = np.concatenate([_compute_mask_indices((1, FRAMES), 0.65, 10, min_masks=2) for _ in range(DRAWS)])
    arrays |= {"masks.often": masks.mean(axis=0), "masks.mean": masks.sum(axis=1).mean(), "masks.draws": DRAWS}
    save("wav2vec2", MADE_BY, **arrays)


if __name__ == "__main__":
    main()
