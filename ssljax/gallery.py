"""The pictures of a run's report: what the method sees, a map of the features, and what is near to what."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssljax.collectives import example_keys
from ssljax.data.sources import Source
from ssljax.data.subset import Subset
from ssljax.engine.mesh import over_devices
from ssljax.evals.knn import nearest
from ssljax.evals.maps import MAPS, maps
from ssljax.looks import Seen, looks
from ssljax.modalities.modality import Modality
from ssljax.typing import Array, Batch, Method, TrainState

BANK, TEST, QUERIES, NEIGHBOURS, PANELS, THUMBNAIL = 2000, 800, 8, 6, 8, 64
FEWEST_MAPPED, MOST_MAPPED = 10, 2000
"""Things in a map, of which one example, such as a graph's nodes, may have many more."""

SEEN = " (which pretraining has seen)"

Rows = Callable[[Any, Source], tuple[np.ndarray, np.ndarray]]
"""`rows(encoder, source)`: what an encoder makes of all examples of a source, and their labels."""


class Gallery(NamedTuple):
    """What `ssljax.report.Report` has under the same names."""

    panels: tuple[str, np.ndarray]
    maps: dict[str, dict[str, np.ndarray]]
    map_images: np.ndarray
    map_labels: np.ndarray | None
    map_texts: tuple[str, ...]
    neighbours: dict[str, np.ndarray]
    neighbour_labels: dict[str, np.ndarray] | None
    shown: str
    seen: tuple[Seen, ...]


def gallery(
    method: Method,
    modality: Modality,
    state: TrainState,
    mesh: Mesh,
    encoders: dict[str, Any],
    rows: Rows,
    train: Source,
    test: Source | None,
    *,
    other: bool = False,
) -> Gallery:
    """It needs no labels, and without test examples (None) a part of the training examples stands in. other: whether
    these data are not those of pretraining."""
    held_back = 0 if test else min(TEST, len(train) // 4)
    shown = Subset(test or train, TEST if test else max(held_back, 1))
    bank = Subset(train, BANK, skip=held_back)

    def thumbnail(_, batch):
        pixels = modality.thumbnails(batch, THUMBNAIL)
        return pixels.reshape(*pixels.shape[:-3], -1)

    def pictures(source):
        pixels, labels = rows(partial(over_devices(thumbnail, mesh), ()), source)
        return (pixels.reshape(-1, THUMBNAIL, THUMBNAIL, 3) * 255).round().astype(np.uint8), labels

    (bank_images, bank_labels), (images, labels) = pictures(bank), pictures(shown)
    some = np.linspace(0, len(images) - 1, min(MOST_MAPPED, len(images))).astype(int)
    texts = _texts(shown, len(images), some)
    images, labels = images[some], labels[some]
    queries = np.linspace(0, len(images) - 1, min(QUERIES, len(images))).astype(int)
    laid_out: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in MAPS}
    neighbours, neighbour_labels = {}, {}
    for name, encoder in encoders.items():
        bank_features, features = rows(encoder, bank)[0], rows(encoder, shown)[0][some]
        if len(features) >= FEWEST_MAPPED:
            for kind, points in maps(features).items():
                laid_out[kind][name] = points
        _, found = nearest(bank_features, features[queries], NEIGHBOURS)
        neighbours[name] = np.concatenate([images[queries, None], bank_images[found]], axis=1)
        neighbour_labels[name] = np.concatenate([labels[queries, None], bank_labels[found]], axis=1)
    return Gallery(
        panels=(method.caption, modality.pictures(_panels(method, state, train))),
        maps={kind: by_features for kind, by_features in laid_out.items() if by_features},
        map_images=images,
        map_labels=labels if train.has_labels else None,
        map_texts=texts,
        neighbours=neighbours,
        neighbour_labels=neighbour_labels if train.has_labels else None,
        shown=f"test {train.things}" if test else f"held-back {train.things}{'' if other else SEEN}",
        seen=looks(method, modality, jax.device_get(state), *_first(shown)),
    )


def _texts(source: Source, rows: int, some: np.ndarray) -> tuple[str, ...]:
    """What is said of `some` of a source's rows; nothing unless they are one an example that can be decoded."""
    examples = source.decodable()
    return tuple(source.text(examples[row]) for row in some) if len(examples) == rows else ()


def _panels(method: Method, state: TrainState, train: Source) -> Any:
    """Of training examples, in an order that is drawn."""
    batch, keys = _first(Subset(train, len(train)))
    return jax.jit(method.show)(jax.device_get(state), batch, keys)


def _first(source: Source) -> tuple[Batch, Array]:
    """A batch of the first examples of a source that can be decoded, without labels, and a key for each."""
    examples = list(islice(filter(None, map(source.read, range(len(source)))), PANELS))
    batch = {name: jnp.stack([x[name] for x in examples]) for name in source.gap() if name != "label"}
    return batch, example_keys(jax.random.key(0), len(examples))
