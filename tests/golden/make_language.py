"""Tiny BertForMaskedLM and GPT2LMHeadModel by Hugging Face: logits, loss, and the gradients of all parameters.

All parameters are random, those too that a new model has as zeros or ones, and are not stored: `seeded.weight` draws
them. Texts have unequal lengths; BERT's have two segments, and unequal numbers of tokens to be found. Also the numbers
of parameters of the models in their published sizes. (Hugging Face takes the loss itself in float32.)
"""

import numpy as np
import torch
import transformers
from seeded import save, weight
from transformers import BertConfig, BertForMaskedLM, BertModel, GPT2Config, GPT2LMHeadModel, GPT2Model

VOCABULARY, TOKENS = 24, 10
BERT = dict(
    vocab_size=VOCABULARY,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=12,
    pad_token_id=None,  # else id 0 would get no gradient
)
GPT = dict(
    vocab_size=VOCABULARY,
    n_embd=8,
    n_layer=2,
    n_head=2,
    n_positions=12,
    bos_token_id=None,
    eos_token_id=None,
)


def prepare(model):
    model = model.double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(weight(name, tuple(parameter.shape))))
    return model


def results(prefix, model, out):
    out.loss.backward()
    made = {"logits": out.logits.detach(), "loss": out.loss.item()}
    made |= {f"gradient.{name}": p.grad for name, p in model.named_parameters()}
    return {f"{prefix}.{k}": np.asarray(v) for k, v in made.items()}


def size(kind, config):
    with torch.device("meta"):
        return sum(p.numel() for p in kind(config).parameters())


def main():
    random = np.random.RandomState(4)
    lengths = np.array([10, 7, 4, 8])
    valid = np.arange(TOKENS) < lengths[:, None]
    arrays = {
        "ids": random.randint(VOCABULARY, size=(4, TOKENS)),
        "valid": valid,
        "types": (np.arange(TOKENS) >= lengths[:, None] // 2).astype(np.int64),
        "positions": np.array([[1, 8, 5], [3, 6, 0], [2, 0, 1], [7, 4, 5]]),
        "weights": np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], np.float32),
        "targets": random.randint(VOCABULARY, size=(4, 3)),
    }
    ids, types, mask = (torch.tensor(arrays[k]) for k in ("ids", "types", "valid"))

    labels = np.full((4, TOKENS), -100)
    for row in range(4):
        for slot in np.flatnonzero(arrays["weights"][row]):
            labels[row, arrays["positions"][row, slot]] = arrays["targets"][row, slot]
    bert = prepare(BertForMaskedLM(BertConfig(**BERT)))
    out = bert(ids, attention_mask=mask.long(), token_type_ids=types, labels=torch.tensor(labels))
    arrays |= results("bert", bert, out)

    gpt = prepare(GPT2LMHeadModel(GPT2Config(**GPT)))
    labels = torch.where(mask, ids, -100)
    arrays |= results("gpt", gpt, gpt(ids, attention_mask=mask.long(), labels=labels))

    large = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
    arrays |= {
        "parameters.bert_base": size(lambda c: BertModel(c, add_pooling_layer=False), BertConfig()),
        "parameters.bert_large": size(lambda c: BertModel(c, add_pooling_layer=False), large),
        "parameters.gpt2": size(GPT2Model, GPT2Config()),
    }
    save("language", f"transformers {transformers.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
