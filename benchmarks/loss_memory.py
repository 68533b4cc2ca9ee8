"""What NT-Xent and its gradient hold at once, and for how long they run: the whole similarity matrix beside its tiles.

    python benchmarks/loss_memory.py [--write]

Bytes are the compiler's own account of one compiled program (arguments, results and temporaries, on each device); the
programs of the table are compiled and not run. Times are medians of alternating runs. With --write the tables go into
docs/scaling.md.
"""

import statistics
import sys
import time
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sections import machine, publish, table

from ssljax.losses import blockwise, nt_xent

jax.config.update("jax_num_cpu_devices", 8)

BATCHES = (4096, 32768, 262144)
DIM = 128
REPEATS = 15
WHOLE = {"whole": sys.maxsize, "tiles": 0}  # the largest matrix that is held whole


def one_device():
    return jax.jit(jax.value_and_grad(nt_xent, argnums=(0, 1)))


def on_a_mesh():
    """As the engine's steps are: the batch is split by hand, embeddings are gathered."""
    mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(AxisType.Auto,))

    def loss(z1, z2):
        return jax.lax.pmean(nt_xent(z1, z2, axis="data"), "data")

    step = jax.value_and_grad(loss, argnums=(0, 1))
    return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=P("data"), out_specs=(P(), P("data"))))


def placed_by_the_compiler():
    """As the engine's steps are where only `fsdp` has several devices."""
    mesh = jax.make_mesh((len(jax.devices()),), ("fsdp",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, P("fsdp"))
    step = jax.value_and_grad(nt_xent, argnums=(0, 1))
    return jax.jit(step, in_shardings=(rows, rows), out_shardings=(None, rows))


def compiled(make, n: int, way: str):
    views = [jax.ShapeDtypeStruct((n, DIM), jnp.float32)] * 2
    with patch.object(blockwise, "LARGEST_WHOLE", WHOLE[way]):
        return make().lower(*views).compile()


def held(program) -> int:
    memory = program.memory_analysis()
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes


def memory_table() -> dict:
    count = len(jax.devices())
    places = {
        "one device": one_device,
        f"each of {count} devices, `data`": on_a_mesh,
        f"each of {count} devices, `fsdp`": placed_by_the_compiler,
    }
    rows = []
    for place, make in places.items():
        for n in BATCHES:
            whole, tiles = (held(compiled(make, n, way)) for way in WHOLE)
            rows.append([n, place, whole / 2**20, tiles / 2**20, whole / tiles])
    sizes = ("whole matrix, MiB", ",.1f"), (f"tiles of {blockwise.BLOCK}, MiB", ",.1f"), ("whole / tiles", ",.0f")
    return table(["N", "where", *sizes], rows)


def times(n: int) -> str:
    keys = jax.random.split(jax.random.key(0))
    z1 = jax.random.normal(keys[0], (n, DIM))
    views = z1, z1 + jax.random.normal(keys[1], (n, DIM))
    programs = {way: compiled(one_device, n, way) for way in WHOLE}
    seconds: dict[str, list[float]] = {way: [] for way in programs}
    results = {}
    for i in range(REPEATS + 1):
        for way, program in programs.items():
            start = time.perf_counter()
            results[way] = jax.block_until_ready(program(*views))
            if i:  # the first of each warms the machine
                seconds[way].append(time.perf_counter() - start)
    whole, tiles = (statistics.median(seconds[way]) for way in WHOLE)
    (value, gradients), (expected, expected_gradients) = results["tiles"], results["whole"]
    apart = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(gradients, expected_gradients, strict=True))
    return (
        f"One value and gradient at N = {n}, one device, median of {REPEATS}: {whole:.3f} s with the whole matrix, "
        f"{tiles:.3f} s in tiles (ratio {tiles / whole:.2f}). Largest difference between the two: "
        f"{abs(value - expected) / expected:.1e} of the value, {apart:.1e} of the gradients' largest entry."
    )


def main() -> None:
    head = (
        "Made by `python benchmarks/loss_memory.py --write`: what `nt_xent` and its gradient hold at once, for N pairs "
        f"of embeddings of {DIM} numbers. The similarity matrix has (2N)² entries; tiles are what `block=None` takes "
        f"beyond {blockwise.LARGEST_WHOLE:,} entries on a device."
    )
    publish("scaling.md", "Contrastive losses", [head, memory_table(), times(BATCHES[0]), machine()])


if __name__ == "__main__":
    main()
