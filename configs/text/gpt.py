"""GPT, Radford et al., 2018 and 2019.

    python -m ssljax.train --config=configs/text/gpt.py:demo --workdir=runs/gpt

| variant        | data                    | encoder         | hardware    | expected, nats            | status  |
|----------------|-------------------------|-----------------|-------------|---------------------------|---------|
| `:demo`        | Tiny Shakespeare, bytes | GPT-2, 4 x 128  | 2 CPU cores | 1.88 a letter, or better  | run     |
| `:shakespeare` | Tiny Shakespeare, bytes | GPT-2, 6 x 384  | 1 GPU       | 1.47 a letter             | not run |
| `:sentences`   | csv:PATH or tsv:PATH    | GPT-2, 4 x 128  | 2 CPU cores | nothing published         | not run |
| `:paper`       | txt:PATH, 50,257 tokens | GPT-2, 12 x 768 | 8 GPUs      | 2.85 a token, OpenWebText | not run |
"""

from ssljax.config import base_config, variant_of


def gpt_config(rate: float, final: float, warmup: int, b2: float):
    """nanoGPT's optimiser: AdamW with decay on what has two dimensions, a short warm-up, then a cosine."""
    config = base_config("gpt")
    config.encoder.update(name="gpt2", bias=False, pool="mean")
    config.optimizer.update(
        name="adamw", learning_rate=rate, scaling="none", warmup_steps=warmup, final=final, b2=b2, weight_decay=0.1
    )
    config.optimizer.clip_norm = 1.0
    return config


def demo():
    """nanoGPT's for a CPU, but with three times its rate: pieces of 64 letters that begin anywhere."""
    config = gpt_config(rate=3e-3, final=0.1, warmup=100, b2=0.99)
    config.encoder.update(width=128, depth=4, heads=4, positions=128)
    config.data.update(length=64, stride=1, probe="demo_speeches")
    config.batch_size, config.steps = 12, 4000
    config.log.every = 50
    config.evaluate.update(every=1000, train_examples=1000, test_examples=300)
    config.checkpoint.every = 500
    return config


def sentences():
    """Sentences of a table; see `bert.py`."""
    config = demo()
    config.data.update(source="csv:PATH", probe="", length=128, stride=0)
    return config


def shakespeare():
    """nanoGPT's for a GPU. The best loss is that of about 2,000 steps; later ones know the text by heart."""
    config = gpt_config(rate=1e-3, final=0.1, warmup=100, b2=0.99)
    config.encoder.update(width=384, depth=6, heads=6, positions=256, dropout=0.2)
    config.data.update(length=256, stride=1, probe="demo_speeches")
    config.batch_size, config.steps = 64, 5000
    config.evaluate.every = config.checkpoint.every = 500
    return config


def paper():
    """GPT-2's smallest, as nanoGPT reproduces it: 600,000 steps of half a million tokens."""
    config = gpt_config(rate=6e-4, final=0.1, warmup=2000, b2=0.95)
    config.encoder.update(width=768, depth=12, heads=12, positions=1024, scan=True)
    config.data.update(source="txt:PATH", length=1024, tokenizer="bpe", vocabulary=50257)
    config.batch_size, config.steps = 480, 600_000
    config.train.microbatch = 32  # of nanoGPT's 96, eight chips of 16 GiB would need 28 GiB each
    config.dtype = "bfloat16"
    return config


def get_config(variant=None):
    variants = {"demo": demo, "shakespeare": shakespeare, "sentences": sentences, "paper": paper}
    return variant_of(variants, variant)
