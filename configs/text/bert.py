"""BERT, Devlin et al., 2019, without the prediction of the next sentence.

    python -m ssljax.train --config=configs/text/bert.py:demo --workdir=runs/bert

| variant      | data                      | encoder       | hardware     | expected                 | status      |
|--------------|---------------------------|---------------|--------------|--------------------------|-------------|
| `:demo`      | Tiny Shakespeare, bytes   | BERT, 4 x 128 | 2 CPU cores  | docs/results.md          | run         |
| `:sentences` | csv:PATH or tsv:PATH      | BERT, 4 x 128 | 2 CPU cores  | nothing published        | not run     |
| `:paper`     | txt:PATH, 30,522 tokens   | BERT Base     | 16 TPU chips | 79.6 on GLUE, fine-tuned | not run     |
"""

from ssljax.config import base_config, variant_of


def demo():
    """Made to learn in minutes: tokens must find their neighbours by attention, of which they know nothing at first;
    that takes the longer the more tokens a text has. The first weights are as large as suits a width of 128."""
    config = base_config("bert")
    config.method.mask_share = 0.2
    config.encoder.update(name="bert_base", width=128, depth=4, heads=4, positions=128, types=0, dropout=0.0)
    config.encoder.update(activation="gelu_tanh", norm="pre", initial=0.09)
    config.data.update(length=32, marks=True, stride=1, probe="demo_speeches")
    config.batch_size, config.steps = 32, 3000
    config.optimizer.update(
        name="adamw", learning_rate=2e-3, scaling="none", warmup_steps=100, b2=0.99, weight_decay=0.01
    )
    config.optimizer.update(schedule="linear", clip_norm=1.0)
    config.log.every = 50
    config.evaluate.update(every=1000, train_examples=1000, test_examples=300)
    config.checkpoint.every = 500
    return config


def sentences():
    """Sentences of a table, for instance `--config.data.source=tsv:sst2_train.tsv.gz`; which columns hold them and
    their labels, if not the first and the last, `--config.data.text` and `--config.data.label` say, by name or place:
    `--config.data.source=tsv:stsb_train.csv.gz --config.data.text=5 --config.data.label=none`."""
    config = demo()
    config.data.update(source="csv:PATH", probe="", length=128, stride=0)
    return config


def paper():
    """Base's: 256 texts of 128 tokens, which the authors make 512 for the last tenth of their million steps
    (`--config.data.length=512 --config.method.most_masked=76`). Their Adam does not correct its means for their start.
    """
    config = base_config("bert")
    config.encoder.update(name="bert_base", types=0, activation="gelu_tanh", scan=True)
    config.data.update(source="txt:PATH", length=128, marks=True, tokenizer="wordpiece", vocabulary=30522)
    config.batch_size, config.steps = 256, 1_000_000
    config.optimizer.update(
        name="adamw", learning_rate=1e-4, scaling="none", warmup_steps=10_000, b2=0.999, weight_decay=0.01
    )
    config.optimizer.update(schedule="linear", clip_norm=1.0)
    config.dtype = "bfloat16"
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "sentences": sentences, "paper": paper}, variant)
