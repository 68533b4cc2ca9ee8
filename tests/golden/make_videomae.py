"""VideoMAE by Hugging Face's VideoMAEForPreTraining: a tiny model, its loss and gradients; and the loss of a given
prediction.

Only the encoder that is built with use_mean_pooling=False has the authors' last norm.
"""

import numpy as np
import torch
import transformers
from seeded import normal, save, weight
from torch import nn
from transformers import VideoMAEConfig, VideoMAEForPreTraining
from transformers.models.videomae.modeling_videomae import VideoMAEDecoderOutput

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
TINY = VideoMAEConfig(
    image_size=8,
    patch_size=4,
    num_frames=6,
    tubelet_size=2,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    decoder_hidden_size=8,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=32,
    use_mean_pooling=False,
    norm_pix_loss=True,
    layer_norm_eps=1e-5,  # of the decoder's last norm too, which has PyTorch's default
)
GRADIENTS = (
    "videomae.embeddings.patch_embeddings.projection.weight",
    "videomae.encoder.layer.0.attention.attention.query.bias",
    "videomae.encoder.layer.1.output.dense.weight",
    "mask_token",
    "encoder_to_decoder.weight",
    "decoder.head.weight",
)


class Given(nn.Module):
    """Stands for the decoder and answers with a prediction that was given."""

    def __init__(self, prediction):
        super().__init__()
        self.prediction = prediction

    def forward(self, hidden_states, return_token_num):
        return VideoMAEDecoderOutput(logits=self.prediction)


def main():
    videos = 1 / (1 + np.exp(-normal("videos", (2, 6, 8, 8, 3))))  # in [0, 1]
    videos = videos.astype(np.float32)
    pixels = torch.tensor((videos.astype(np.float64) - MEAN) / STD).permute(0, 1, 4, 2, 3)
    tubes = np.array([[0, 1, 1, 1], [1, 1, 0, 1]], bool)
    mask = torch.tensor(np.tile(tubes, (1, 3)))
    model = VideoMAEForPreTraining(TINY).double().eval()
    weights = {k: torch.tensor(weight(k, tuple(v.shape))) for k, v in model.state_dict().items()}
    model.load_state_dict(weights)
    out = model(pixels, mask)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(out.loss, [parameters[name] for name in GRADIENTS])
    arrays = {
        "videos": videos,
        "mask": mask,
        "mean": MEAN,
        "std": STD,
        "positions": model.videomae.embeddings.position_embeddings[0],
        "encoded": model.videomae(pixels, mask).last_hidden_state.detach(),
        "logits": out.logits.detach(),
        "loss": out.loss.detach(),
    }
    arrays |= {f"d.{name}": gradient for name, gradient in zip(GRADIENTS, gradients, strict=True)}
    prediction = normal("prediction", tuple(out.logits.shape))
    for name, norm_pix in (("norm_pix", True), ("pixels", False)):
        given = torch.tensor(prediction, dtype=torch.float64, requires_grad=True)
        model.config.norm_pix_loss, model.decoder = norm_pix, Given(given)
        loss = model(pixels, mask).loss
        arrays |= {f"given.{name}": loss.detach(), f"given.{name}.gradient": torch.autograd.grad(loss, given)[0]}
    save("videomae", f"transformers {transformers.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
