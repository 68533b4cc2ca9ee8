"""Protocols that give several numbers for an encoder, and what each is in words."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ssljax.collectives import example_keys
from ssljax.evals import geometry
from ssljax.evals.knn import NEIGHBOURS, knn_grid
from ssljax.evals.ood import NEAREST, auroc, knn_distance, mahalanobis
from ssljax.evals.same_class import MOST
from ssljax.evals.scores import bootstrap, written
from ssljax.typing import Array, Batch, Method
from ssljax.wording import counted

TABLES = {
    "knn_grid": "k-NN by k and temperature",
    "same_class": "retrieval of the same class",
    "geometry": "geometry of the features",
    "ood": "telling other data",
    "segmentation": "what is where in an image",
}
UNLABELLED = ("geometry", "segmentation")
"""Those that need no labels."""
ALONE = ("knn", "knn_grid", "same_class", *UNLABELLED)
"""Protocols that a set without a test split has, too."""
VIEWED, VIEWS = 500, 10
"""Of so many examples so many views are drawn, for alignment and LiDAR."""
SPECTRUM = 256
"""Singular values that are kept, of the largest."""

Numbers = dict[str, dict[str, float]]
"""{name of a number: {"value": …, "standard_error": …}}, the latter where it has one."""


def viewed(method: Method) -> Callable[[Any, Batch], Array] | None:
    """What gives features (batch, VIEWS, dim) of views of each example, the same draws for each batch; None where a
    method has no views."""
    of_views = getattr(method, "view_features", None)

    def of(state: Any, batch: Batch) -> Array:
        keys = example_keys(jax.random.key(0), len(batch["label"]))
        return of_views(state, batch, keys, VIEWS)  # type: ignore[misc]

    return None if of_views is None else of


def by_k(bank: np.ndarray, labels: np.ndarray, test: np.ndarray | None, truth: np.ndarray | None) -> Numbers:
    """Accuracies of `ssljax.evals.knn.knn_grid`, with intervals in which 95 % of bootstrap samples' lie."""
    found = {}
    for (k, temperature), score in knn_grid(bank, labels, test, truth).items():
        low, high = bootstrap(score.correct)
        name = f"k = {k}, {'majority' if temperature is None else f'T = {temperature:g}'}"
        found[name] = {"value": score.accuracy, "standard_error": score.standard_error, "low": low, "high": high}
    return found


def of_geometry(x: np.ndarray, views: np.ndarray | None) -> Numbers:
    """x (examples, dim); views (examples, views, dim), None where there are none."""
    found = {
        "feature std": geometry.feature_std(x),
        "RankMe": geometry.rankme(x),
        "uniformity": geometry.uniformity(x),
    }
    if views is not None:
        found |= {"alignment": geometry.alignment(views), "LiDAR": geometry.lidar(views)}
    return {name: {"value": float(value)} for name, value in found.items()}


def spectrum(x: np.ndarray) -> list[float]:
    """The largest singular values of features (examples, dim), as parts of the first."""
    values = geometry.singular_values(x)[:SPECTRUM]
    return (values / max(values[0], 1e-30)).tolist()


def of_other_data(bank: np.ndarray, labels: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> Numbers:
    """AUROCs of telling examples `outside` of the data from those of its test split."""
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        f"k-NN distance, k = {min(NEAREST, len(bank))}": lambda x: knn_distance(bank, x),
        "Mahalanobis distance": lambda x: mahalanobis(bank, labels, x),
    }
    return {f"AUROC by {name}": auroc(way(inside), way(outside)) for name, way in ways.items()}


def told(protocol: str, things: str, train: int, test: int | None, outside: str) -> str:
    """A table's protocol in words. test: None where each training example is judged by all others; outside: the other
    data."""
    of = counted(train, things) if test is None else counted(test, f"test {things}")
    judged = f"each of {of} among all others" if test is None else of
    bank = f"un-augmented features of {counted(train, f'training {things}')}"
    if protocol == "knn_grid":
        return (
            f"k-NN by cosine similarity s with k of {', '.join(map(str, NEIGHBOURS))} (as many as there are), votes "
            f"weighing exp(s / T) or all the same; {bank}; {judged}"
        )
    if protocol == "same_class":
        return (
            f"{bank} in the order of their cosine similarity to a query, of at most {MOST} drawn; R@k: whether one of "
            f"the first k is of its class; mAP: mean average precision of all; {judged}"
        )
    if protocol == "geometry":
        return (
            f"un-augmented features of {of}; RankMe by their singular values, uniformity of {geometry.MOST_PAIRED} at "
            f"most; alignment and LiDAR of {VIEWS} views each of {VIEWED} at most, where a method has views"
        )
    if protocol == "segmentation":
        return (
            f"patches of {of}, held against masks in the pixels of the view; k-means of their features, of length 1, "
            "or of their pixels into as many clusters as there are classes, each called by the class that makes most "
            "pixels right, one to one; of attention the patches that hold 60 % of a head's, against all that is not "
            "background"
        )
    return (
        f"AUROC of telling {outside} from {judged}: by the distance to a neighbour among {bank}, of length 1, and by "
        "the least Mahalanobis distance to a class"
    )


def table_lines(title: str, table: Mapping[str, Any]) -> list[str]:
    """A row for each number, a column for each encoder or floor. table: `measured on`, a sentence, and `of`, {encoder:
    Numbers}."""
    names = list(dict.fromkeys(name for numbers in table["of"].values() for name in numbers))
    lines = ["", f"{title:<34}" + "".join(f"{encoder:>18}" for encoder in table["of"])]
    for name in names:
        cells = (written(numbers[name]) if name in numbers else "" for numbers in table["of"].values())
        lines.append(f"{name:<34}" + "".join(f"{cell:>18}" for cell in cells))
    return [*lines, f"{title}: {table['measured on']}"]
