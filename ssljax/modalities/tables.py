"""Tables, whose rows are numbers and categories."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from ssljax.data.schema import Schema
from ssljax.data.sources import DataError, Shapes, split_spec
from ssljax.data.tables import FORMS, TableSource, open_table
from ssljax.evals.columns import boosting, logistic_regression
from ssljax.modalities.modality import Modality
from ssljax.models.mlp import expand
from ssljax.typing import Array, Batch

RED, BLUE = np.array([0.84, 0.37, 0.0]), np.array([0.21, 0.39, 0.66])


class Tables(Modality):
    protocols = "knn", "linear_1", "linear_10", "linear", "finetune_1", "finetune_10", "finetune"
    classifiers = {"logistic regression": logistic_regression, "gradient boosting": boosting}
    data_fields = {
        "label": "",  # the column of the classes; "": the last one; "none": there is none
        "ignore": (),  # columns that are not used
        "scale": "standard",  # of numbers: standard or minmax
        "schema": "",  # what the columns are; a run writes down what it finds
    }
    view_fields = {}

    def encoder_fields(self) -> dict[str, Any]:
        return {"cardinalities": self.schema.cardinalities}

    def open(self, split: str) -> TableSource:
        """What its columns are is as the config has it, once that is settled: so it is of other data, too."""
        options = {name: self.data[name] for name in ("label", "scale")}
        options |= {"ignore": tuple(self.data.ignore), "schema": self.schema if self.data.schema else None}
        return open_table(self.data.source, self.data[f"{split}_split"], **options)

    def settle(self) -> None:
        super().settle()
        self.data.schema = ""
        self.data.schema = self.open("train").schema.to_json()

    @property
    def schema(self) -> Schema:
        if not self.data.schema:
            raise ValueError("what the table's columns are is not known yet: settle the config (ssljax.build.settle).")
        return Schema.from_json(self.data.schema)

    def shapes(self) -> Shapes:
        columns = (len(self.schema.cardinalities),)
        return {"values": (columns, np.float32), "donors": (columns, np.float32)}

    def stand_in(self, wrong: DataError) -> tuple[Shapes, str]:
        """Nothing but the table says what its columns are: they are taken to be those of the embedded one."""
        _, path = split_spec(self.data.source, FORMS)
        if Path(path).expanduser().exists():
            raise wrong
        if not self.data.schema:
            self.data.schema = open_table("demo", "train", scale=self.data.scale).schema.to_json()
        count = len(self.schema.columns)
        return self.shapes(), f"its columns are taken to be the {count} of the embedded table"

    def as_batch(self, inputs: Mapping[str, Sequence] | pa.Table) -> Batch:
        """Of columns by their names, as the table that was trained on has them: what is missing is None."""
        if not isinstance(inputs, pa.Table) and not hasattr(inputs, "keys"):
            raise ValueError(
                "the input must be columns by their names, in a dictionary, a pandas.DataFrame or a pyarrow.Table, not "
                f"{type(inputs).__name__}; pyarrow.Table.from_pylist makes one of rows that are dictionaries."
            )
        try:
            table = inputs if isinstance(inputs, pa.Table) else pa.table(dict(inputs))
        except (pa.ArrowInvalid, TypeError) as error:
            raise ValueError(f"the input's columns must be of one length and of one kind each ({error}).") from error
        return {"values": jnp.asarray(self.schema.values(table, "the input"))}

    def floors(self) -> dict[str, Callable[[Batch], Array]]:
        """Numbers as they are, and each category as zeros and a one."""
        cardinalities = self.schema.cardinalities
        return {"raw columns": lambda batch: expand(batch["values"], cardinalities)}

    def pictures(self, shown: Array) -> np.ndarray:
        """Of rows (examples, pictures, columns): a square for each column, line by line; see `_cells`."""
        return np.asarray(jax.vmap(self._cells, in_axes=1, out_axes=1)(shown))

    def thumbnails(self, batch: Batch, side: int) -> Array:
        cells = self._cells(batch["values"])
        return jax.image.resize(cells, (len(cells), side, side, 3), "nearest")

    def _cells(self, values: Array) -> Array:
        """(rows, columns) -> pictures (rows, side, side, 3): white is 0, blue more and red less; of categories, the
        higher their place the bluer."""
        cardinalities = jnp.array(self.schema.cardinalities)
        shade = jnp.where(cardinalities > 0, values / jnp.maximum(cardinalities - 1, 1), values / 3.0)
        shade = jnp.clip(shade, -1.0, 1.0)[..., None]
        side = int(np.ceil(np.sqrt(values.shape[1])))
        colours = 1.0 - jnp.where(shade > 0, shade * (1.0 - BLUE), -shade * (1.0 - RED))
        colours = jnp.pad(colours, ((0, 0), (0, side**2 - values.shape[1]), (0, 0)), constant_values=1.0)
        return colours.reshape(-1, side, side, 3)
