"""MAE by Hugging Face's ViTMAEForPreTraining: the loss of a given prediction, and a whole tiny model on fixed noise."""

import numpy as np
import torch
import transformers
from seeded import save, weight
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEDecoderOutput

MADE_BY = f"transformers {transformers.__version__}, torch {torch.__version__}, in float64"


class Given(torch.nn.Module):
    """Stands for the decoder and answers with a prediction that was given."""

    def __init__(self, prediction):
        super().__init__()
        self.prediction = prediction

    def forward(self, hidden_states, ids_restore, **_):
        return ViTMAEDecoderOutput(logits=self.prediction)


def tiny(image: int, patch: int, **fields) -> ViTMAEForPreTraining:
    config = ViTMAEConfig(
        image_size=image,
        patch_size=patch,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        **fields,
    )
    return ViTMAEForPreTraining(config).double().eval()


def channels_first(images):
    return torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2)


def loss_numbers():
    random = np.random.RandomState(1)
    images = random.uniform(size=(4, 16, 16, 3)).astype(np.float32)
    prediction = random.standard_normal((4, 16, 48)).astype(np.float32)
    noise = random.uniform(size=(4, 16)).astype(np.float32)
    arrays = {"images": images, "prediction": prediction}
    for norm_pix in (False, True):
        given = torch.tensor(prediction, dtype=torch.float64, requires_grad=True)
        model = tiny(16, 4, norm_pix_loss=norm_pix)
        model.decoder = Given(given)
        out = model(channels_first(images), noise=torch.tensor(noise))
        name = "norm_pix" if norm_pix else "pixels"
        arrays |= {name: out.loss.item(), f"{name}_gradient": torch.autograd.grad(out.loss, given)[0].numpy()}
        arrays["mask"] = out.mask.float().numpy()
    save("mae_loss", MADE_BY, **arrays)


def model_numbers():
    random = np.random.RandomState(2)
    images = random.standard_normal((2, 32, 32, 3)).astype(np.float32)
    noise = random.uniform(size=(2, 16)).astype(np.float32)
    model = tiny(32, 8, norm_pix_loss=True)
    fixed = {"vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"}
    weights = {k: weight(k, tuple(v.shape)) for k, v in model.state_dict().items() if k not in fixed}
    # A model that is built, not loaded, has only zeros for positions in this version: ask for its own table again.
    model.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    model.vit.embeddings.initialize_weights()
    model.decoder.initialize_weights(num_patches=16)
    assert model.vit.embeddings.position_embeddings.abs().sum() > 0 < model.decoder.decoder_pos_embed.abs().sum()
    model.load_state_dict({k: torch.tensor(v) for k, v in weights.items()}, strict=False)
    with torch.no_grad():
        encoded = model.vit(channels_first(images), noise=torch.tensor(noise))
        out = model(channels_first(images), noise=torch.tensor(noise))
    save(
        "vit_mae",
        MADE_BY,
        images=images,
        noise=noise,
        encoded=encoded.last_hidden_state,
        mask=encoded.mask,
        ids_restore=encoded.ids_restore,
        logits=out.logits,
        loss=out.loss,
        positions=model.vit.embeddings.position_embeddings[0].detach(),
        **weights,
    )


if __name__ == "__main__":
    loss_numbers()
    model_numbers()
