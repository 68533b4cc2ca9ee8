"""CLIP's and SigLIP's losses by Hugging Face, of given embeddings, and a whole tiny CLIPModel; gradients of all.

SigLIP's loss is computed a second time, by a loop over pairs. All parameters of the tiny model are random and not
stored: `seeded.weight` draws them. Its texts end at different places, with tokens after the end. Also the numbers of
parameters of the text towers in their published sizes.
"""

import numpy as np
import torch
import transformers
from seeded import normal, save, weight
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection, SiglipConfig, SiglipModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

BATCH, DIM, VOCABULARY, TOKENS = 8, 6, 24, 9
TOWER = dict(hidden_size=8, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
TEXT = TOWER | dict(
    vocab_size=VOCABULARY,
    max_position_embeddings=12,
    bos_token_id=0,
    eos_token_id=VOCABULARY - 1,
    pad_token_id=1,
)
VISION = TOWER | dict(image_size=8, patch_size=4)
EXAMPLES = 3


class Given(torch.nn.Module):
    """Stands for a tower and answers with embeddings that were given."""

    def __init__(self, embeddings):
        super().__init__()
        self.embeddings = embeddings

    def forward(self, **_):
        return BaseModelOutputWithPooling(pooler_output=self.embeddings)


def of_embeddings(name, model, image, text, parameters):
    image, text = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (image, text))
    model.vision_model, model.text_model = Given(image), Given(text)
    for key, value in parameters.items():
        getattr(model, key).data.fill_(value)
    loss = model.double()(input_ids=None, pixel_values=None, return_loss=True).loss
    gradients = torch.autograd.grad(loss, [image, text, *(getattr(model, key) for key in parameters)])
    names = ("image", "text", *parameters)
    return {f"{name}.loss": loss.item()} | {
        f"{name}.gradient.{k}": g.squeeze().numpy() for k, g in zip(names, gradients, strict=True)
    }


def siglip_loop(image, text, log_scale, bias):
    """As the paper's equation has it."""
    total = 0.0
    for i, x in enumerate(image.astype(np.float64)):
        for j, y in enumerate(text.astype(np.float64)):
            similarity = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
            sign = 1 if i == j else -1
            total -= np.log(1 / (1 + np.exp(-sign * (np.exp(log_scale) * similarity + bias))))
    return total / len(image)


def whole_model():
    config = CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=DIM)
    model = CLIPModel(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "logit_scale":
                parameter.fill_(np.log(8.0))
            else:
                parameter.copy_(torch.tensor(weight(name, tuple(parameter.shape))))
    images = normal("images", (EXAMPLES, 8, 8, 3))
    ids = np.random.RandomState(5).randint(1, VOCABULARY - 1, size=(EXAMPLES, TOKENS))
    for row, end in enumerate((8, 3, 5)):
        ids[row, end] = VOCABULARY - 1
    pixels = torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2)
    out = model(input_ids=torch.tensor(ids), pixel_values=pixels, return_loss=True)
    out.loss.backward()
    made = {
        "loss": out.loss.item(),
        "vision_tokens": out.vision_model_output.last_hidden_state,
        "text": out.text_embeds,
        "image": out.image_embeds,
        "images": images,
        "ids": ids,
    }
    made |= {f"gradient.{name}": p.grad for name, p in model.named_parameters()}
    return {f"model.{k}": v.detach().numpy() if torch.is_tensor(v) else v for k, v in made.items()}


def size(**fields):
    with torch.device("meta"):
        return sum(p.numel() for p in CLIPTextModelWithProjection(CLIPTextConfig(**fields)).parameters())


def main():
    image, text = normal("image", (BATCH, DIM)), normal("text", (BATCH, DIM))
    text = (text + image).astype(np.float32)
    clip = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=DIM))
    clip.visual_projection = clip.text_projection = torch.nn.Identity()
    siglip = SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION))
    log_scale, bias = np.log(10.0), -2.71
    arrays = {"image": image, "text": text, "log_scale": log_scale, "bias": bias}
    arrays |= of_embeddings("clip", clip, image, text, {"logit_scale": log_scale})
    arrays |= of_embeddings("siglip", siglip, image, text, {"logit_scale": log_scale, "logit_bias": bias})
    arrays["siglip.loop"] = siglip_loop(image, text, log_scale, bias)
    arrays |= whole_model()
    large = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768)
    arrays |= {"parameters.clip_text_b": size(), "parameters.clip_text_l": size(**large)}
    save("image_text", f"transformers {transformers.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
