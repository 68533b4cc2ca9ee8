"""How well a method does on held-out data what it was trained to do, beside what needs no network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssljax.build import build_source, modality_of
from ssljax.collectives import example_keys
from ssljax.data.pipeline import eval_batches
from ssljax.data.sources import DataError
from ssljax.engine.mesh import eval_batch_size, over_devices, process_rows, replicate
from ssljax.evals.scores import mean_of
from ssljax.typing import Method, TrainState
from ssljax.wording import counted


def objective(
    method: Method, config: ConfigDict, states: dict[str, TrainState], mesh: Mesh, *, must: bool
) -> dict[str, Any]:
    """`Method.measure` on the test split, of each of the states and beside floors, for `results.json`.

    Nothing where the method has no such number or there is no such split, which is an error if it `must` be: ValueError
    and DataError.
    """
    measure = getattr(method, "measure", None)
    if measure is None:
        if must:
            raise ValueError(f"method '{config.method.name}' has no objective that is measured on test data.")
        return {}
    try:
        train, test = (build_source(config, split) for split in ("train", "test"))
    except DataError:
        if must:
            raise
        return {}
    size = eval_batch_size(mesh, about=min(16, len(test)))

    def of_batch(given, batch):
        state, number = given
        key = jax.random.fold_in(jax.random.key(0), number)
        found = measure(state, batch, example_keys(key, size))
        names[:] = sorted(found)
        return jnp.stack([jnp.stack(found[name], axis=-1) for name in names], axis=1)

    names: list[str] = []
    compute = over_devices(of_batch, mesh)

    def measured(state) -> dict[str, dict[str, float]]:
        rows = []
        for number, batch in enumerate(eval_batches(test, size, process_rows(size, mesh))):
            found, _, mask = compute((state, replicate(np.int32(number), mesh)), batch)
            rows.append(found[mask])
        return {name: mean_of(*of.T) for name, of in zip(names, np.concatenate(rows).transpose(1, 0, 2), strict=True)}

    found = {name: measured(state) for name, state in states.items()}
    floors = modality_of(config).objective_floors(train, test)
    found |= {
        floor: {name: {"value": value} for name, value in of.items() if name in names} for floor, of in floors.items()
    }
    text = f"the {counted(len(test), f'test {test.things}')} of {test.name}, ± the standard error over them"
    return {"objective": {"measured on": text, "of": {name: of for name, of in found.items() if of}}}
