"""A large contrastive batch in the memory of a small one: bytes and time of a step with and without microbatches.

    python benchmarks/microbatch.py [--write]

With --write the tables go into docs/scaling.md. Bytes are what the compiled step needs on one device, arguments and
temporaries; times are medians over alternating runs of both in one process.
"""

import runpy
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sections import machine, publish, table

from ssljax.build import Run, build_run
from ssljax.engine.mesh import make_mesh, to_devices

ROOT = Path(__file__).parents[1]
BATCH, MICROBATCH, REPEATS = 4096, 64, 3
TIMED_BATCH = 512
STEPS = [("simclr", "cifar10", {}), ("simclr", "cifar10", {"norm": "group"}), ("moco_v2", "cifar10", {"bn_groups": 1})]
TIMED_ENCODERS = {"ResNet-8": {}, "ViT 4 x 128": {"name": "vit_micro", "width": 128}}


def build(name: str, variant: str, encoder: dict, microbatch: int, size: int = BATCH) -> tuple[Run, dict]:
    config = runpy.run_path(str(ROOT / "configs" / "images" / f"{name}.py"))["get_config"](variant)
    config.batch_size, config.train.microbatch = size, microbatch
    config.encoder.update(encoder)
    example = {"image": jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8)}
    run = build_run(config, examples=50_000, example=example, mesh=make_mesh(1, 1, jax.devices()[:1]), total=1000)
    return run, {"image": jax.ShapeDtypeStruct((size, 32, 32, 3), jnp.uint8)}


def gibibytes(name: str, variant: str, encoder: dict, microbatch: int) -> float:
    run, batch = build(name, variant, encoder, microbatch)
    memory = run.step.lower(run.abstract, batch).compile().memory_analysis()
    return (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**30


def seconds(encoder: dict) -> tuple[float, float]:
    """Of a step of SimCLR's demo with an encoder at once, and in microbatches."""
    runs = [build("simclr", "demo", encoder, microbatch, TIMED_BATCH)[0] for microbatch in (0, MICROBATCH)]
    images = np.random.RandomState(0).randint(0, 255, (TIMED_BATCH, 32, 32, 3), np.uint8)
    states = [run.init() for run in runs]
    times: list[list[float]] = [[], []]
    for repeat in range(REPEATS + 1):
        for i, run in enumerate(runs):
            batch = to_devices({"image": images}, run.mesh)
            begun = time.perf_counter()
            states[i], _ = jax.block_until_ready(run.step(states[i], batch))
            if repeat:  # the first compiles
                times[i].append(time.perf_counter() - begun)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    held, timed = [], []
    for name, variant, encoder in STEPS:
        whole, parts = (gibibytes(name, variant, encoder, m) for m in (0, MICROBATCH))
        said = ", ".join(f"{k}={v}" for k, v in encoder.items()) or "as configured"
        held.append([f"{name}:{variant}", said, whole, parts, parts / whole])
        print(*held[-1], flush=True)
    for encoder, fields in TIMED_ENCODERS.items():
        whole, parts = seconds(fields)
        timed.append([encoder, whole, parts, parts / whole])
        print(*timed[-1], flush=True)
    sizes = ("at once, GiB", ".2f"), ("in microbatches, GiB", ".2f"), ("of it", ".3f")
    blocks = [
        f"`python benchmarks/microbatch.py --write`: a step of {BATCH} examples at once, and with "
        f"`--config.train.microbatch={MICROBATCH}`.",
        table(["config", "encoder", *sizes], held),
        f"The price is one more forward pass of the encoder. A step of simclr:demo with {TIMED_BATCH} examples, at "
        f"once and with {MICROBATCH} at a time, median of {REPEATS} alternating runs:",
        table(["encoder", ("at once, s", ".2f"), ("in microbatches, s", ".2f"), ("of it", ".2f")], timed),
        "On this CPU a loop of convolutions is slow; a Transformer is not slower for its second forward pass. Nothing "
        "here was measured on an accelerator.",
        "The loss sees the whole batch. BatchNorm does not: in microbatches its statistics are of each microbatch, "
        "which is another network than the one at once (a run says so as it begins). `--config.encoder.norm=group`, or "
        "a Vision Transformer, has no statistics of the batch and gives the step at once to rounding, as "
        "`tests/methods/test_contract.py` holds for every method on every mesh. MAE's loss is a mean over examples, "
        "so its gradients are averaged over microbatches, without a second forward pass.",
        machine(),
    ]
    publish("scaling.md", "Microbatches", blocks)


if __name__ == "__main__":
    main()
