"""Datasets of TensorFlow Datasets, read by index and without TensorFlow."""

import os
import re
from typing import Any

import numpy as np

from ssljax.data.encoded import EncodedSource
from ssljax.data.images import image_shapes
from ssljax.data.sources import DataError, Example, resolve_split


class TFDSSource(EncodedSource):
    """One split of a prepared TFDS dataset; see :meth:`open`."""

    def __init__(self, name: str, records: Any, image_key: str, label_key: str | None, **description: Any):
        """Takes the TFDS data source, which gives the image as its encoded bytes, and the keys to read from it."""
        super().__init__(name, has_labels=label_key is not None, **description)
        self._records = records
        self._image_key = image_key
        self._label_key = label_key

    @classmethod
    def open(cls, dataset: str, split: str) -> "TFDSSource":
        """Opens ``NAME``, ``NAME:CONFIG`` or ``NAME:CONFIG:1.0.0`` below ``$TFDS_DATA_DIR``.

        The split may be a part, as ``train[:10%]``. The image is the feature ``image``, or the only one of that kind;
        the label likewise.

        Raises:
            DataError: TFDS doesn't know the dataset, it is not prepared for reading by index, it has no such split, or
                it is not clear which of its features is the image.
        """
        import tensorflow_datasets as tfds

        name = f"tfds:{dataset}"
        builder = _prepared_builder(_tfds_name(dataset))
        features = builder.info.features
        image_key = _feature_key(features, tfds.features.Image, "image")
        label_key = _feature_key(features, tfds.features.ClassLabel, "label")
        if image_key is None or features[image_key].np_dtype not in (np.uint8, np.uint16):
            raise DataError(f"{name} has no single image of 8 or 16 bits, but {', '.join(features)}: choose another.")

        base, bracket, part = split.partition("[")
        resolved = resolve_split(base, builder.info.splits, name) + bracket + part
        try:
            # Bytes, not pixels: decoding, and what is done about damaged images, is then the same for every source.
            records = builder.as_data_source(resolved, decoders={image_key: tfds.decode.SkipDecoding()})
        except ValueError as error:
            raise DataError(f"{name} has no split {split!r} ({_first_line(error)}): write train[:10%], say.") from error
        height, width = features[image_key].shape[:2]
        return cls(
            f"{name} ({split})",
            records,
            image_key,
            label_key,
            class_names=tuple(features[label_key].names) if label_key else None,
            shapes=image_shapes(height, width) if height and width else None,
        )

    def labels(self) -> np.ndarray:
        self.require_labels("this")
        return np.array([record[self._label_key] for record in self._records], np.int32)

    def __len__(self) -> int:
        return len(self._records)

    def _where(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def _encoded(self, index: int) -> tuple[bytes, Example]:
        record = self._records[index]
        return record[self._image_key], {"label": np.int32(record[self._label_key])} if self._label_key else {}


def _tfds_name(dataset: str) -> str:
    """``NAME[:CONFIG][:VERSION]`` in the spelling of TFDS, ``NAME[/CONFIG][:VERSION]``."""
    parts = dataset.split(":")
    versions = [part for part in parts if re.fullmatch(r"\d+\.\d+\.\d+", part)]
    return ":".join(["/".join(part for part in parts if part not in versions), *versions])


def _prepared_builder(tfds_name: str) -> Any:
    import tensorflow_datasets as tfds

    data_dir = os.environ.get("TFDS_DATA_DIR")
    try:
        builder = tfds.builder(tfds_name, data_dir=data_dir)
    except (ValueError, ImportError) as error:
        raise DataError(
            f"TFDS can't open {tfds_name!r} ({_first_line(error)}): check the name, and that TFDS_DATA_DIR "
            f"({data_dir or 'not set'}) is the folder with the prepared data."
        ) from error
    random_access = tfds.core.FileFormat.with_random_access()
    if not builder.is_prepared() or builder.info.file_format not in random_access:
        raise DataError(
            f"{tfds_name!r} is not prepared in array_record format under {builder.data_dir}: prepare it once, in a "
            "separate environment (`pip install tensorflow-cpu tensorflow-datasets importlib_resources`) and with the "
            'same TFDS_DATA_DIR, by `python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder('{tfds_name}', file_format='array_record').download_and_prepare()\"`, after deleting any "
            "copy there in another format; reading it then needs no TensorFlow."
        )
    return builder


def _feature_key(features: Any, kind: type, preferred: str) -> str | None:
    """The key of the feature of this kind: the preferred one, else the only one, else None."""
    keys = [key for key, feature in features.items() if isinstance(feature, kind)]
    if preferred in keys:
        return preferred
    return keys[0] if len(keys) == 1 else None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
