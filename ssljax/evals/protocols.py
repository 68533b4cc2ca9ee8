"""The protocols that judge features of any kind of data: what each is called, does, and is in words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssljax.evals.few_shot import DRAWS as SHOT_DRAWS
from ssljax.evals.few_shot import few_shot
from ssljax.evals.finetune import BATCH, EPOCHS, PATIENCE, RATE
from ssljax.evals.folds import cross_validated
from ssljax.evals.knn import knn, one_nearest
from ssljax.evals.linear import DRAWS, FEW, linear_probe
from ssljax.evals.probe import RECIPES, VALIDATION, Features, sgd_probe
from ssljax.evals.scores import Score
from ssljax.evals.svm import INNER_FOLDS, svm
from ssljax.wording import counted

LINEAR = {"linear_1": 0.01, "linear_10": 0.1, "linear": 1.0}
"""Linear probes, and the share of the labels that they use."""
FINE_TUNED = {"finetune_1": 0.01, "finetune_10": 0.1, "finetune": 1.0}
"""The same of training encoders on."""
GROUPED = ("groups", "left_out")
"""Linear probes where it is known which group an example is of, such as who speaks: of the groups, and of the classes
in each group by a classifier that has learnt from the others."""
PROBES = {f"probe_{name}": recipe for name, recipe in RECIPES.items()}
"""Heads trained by gradient as papers do it (`ssljax.evals.probe`)."""
BLOCKS: dict[str, tuple[tuple[int, bool], ...]] = {
    "probe_dino": ((4, False), (1, True)),
    "probe_dinov2": ((1, False), (1, True), (4, False), (4, True)),
}
"""Those of the last blocks of a Vision Transformer: from how many their class tokens are, and whether the mean of the
last one's patches is beside them. The best is chosen; DINO's authors take the first for ViT-S, the second for ViT-B."""
FEW_SHOT = {
    f"{name}_{shots}": (classifier, shots)
    for name, classifier in (("few_shot", "centroid"), ("ridge", "ridge"))
    for shots in (1, 5, 10)
}
"""By so many labels of each class, in closed form (`ssljax.evals.few_shot`)."""
ONLINE = ("knn", "nn1", "svm", *LINEAR, *FEW_SHOT, *PROBES, "knn_grid", "same_class", "geometry")
"""What needs frozen features alone, and is so computed while a run is trained (`ssljax.train`)."""
TITLES = {
    "knn": "k-NN",
    "linear_1": "linear, 1 %",
    "linear_10": "linear, 10 %",
    "linear": "linear",
    "finetune_1": "fine-tuned, 1 %",
    "finetune_10": "fine-tuned, 10 %",
    "finetune": "fine-tuned",
    "groups": "linear, groups",
    "left_out": "left-out groups",
    "nn1": "1-NN",
    "svm": "SVM",
    "probe_simclr": "SimCLR's head",
    "probe_moco": "MoCo's head",
    "probe_simsiam": "SimSiam's head",
    "probe_byol": "BYOL's head",
    "probe_mae": "MAE's head",
    "probe_dino": "DINO's head",
    "probe_dinov2": "DINOv2's head",
    "probe_grid": "a grid of heads",
    **{name: f"{shots}-shot {classifier}" for name, (classifier, shots) in FEW_SHOT.items()},
}


@dataclass(frozen=True)
class Settings:
    """k, temperature: of k-NN. scaling: of features for linear probes (`ssljax.evals.linear`). folds: of
    cross-validation; 0 where one split is for learning and another one for testing. things: what the examples are.
    crops: of each image, on which PROBES are trained; 0 for the images as they are. blocks: how many a Vision
    Transformer has, the last of which BLOCKS are of; 0 for other encoders."""

    k: int
    temperature: float
    scaling: str
    folds: int
    things: str
    crops: int = 0
    blocks: int = 0


def judge(
    protocol: str,
    settings: Settings,
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray | None,
    truth: np.ndarray | None,
) -> Score:
    """Frozen features (examples, dim) by a protocol that needs nothing else than them and their labels (examples,).

    With folds, `train` is all there is, and `test` is not looked at. Without test examples (None) k-NN judges each
    training example by all others; other protocols need them.
    """

    def once(*features: Any) -> Score:
        if protocol == "knn":
            return knn(*features, k=settings.k, temperature=settings.temperature)
        if protocol == "nn1":
            return one_nearest(*features)
        if protocol == "svm":
            return svm(*features)
        if protocol in FEW_SHOT:
            classifier, shots = FEW_SHOT[protocol]
            return few_shot(*features, shots=shots, classifier=classifier)
        if protocol in PROBES:
            x, y, queries, truth = features
            return sgd_probe({"features": Features(x, queries)}, y, truth, PROBES[protocol]).score
        return linear_probe(*features, share=LINEAR[protocol], scaling=settings.scaling)[0]

    return cross_validated(once, train, labels, settings.folds) if settings.folds else once(train, labels, test, truth)


def require_shots(protocol: str, labels: np.ndarray, names: Sequence[str] | None) -> None:
    """Raises ValueError if one of FEW_SHOT takes more of a class than there are. names: of labels 0, 1, …, if known."""
    classifier, shots = FEW_SHOT[protocol]
    classes, counts = np.unique(labels, return_counts=True)
    if (fewest := counts.min()) < shots:
        place = classes[counts.argmin()]
        which = f"class '{names[place]}'" if names else f"class number {place}, counted from 0,"
        *_, fits = (name for name, (kind, few) in FEW_SHOT.items() if kind == classifier and few <= fewest)
        raise ValueError(
            f"protocol '{protocol}' needs {shots} labelled training examples of each class, of which {which} has "
            f"{fewest}: label more, or use {fits}."
        )


def described(protocol: str, settings: Settings, train: int, test: int, *, rate: float = RATE, epochs: int = 0) -> str:
    """A protocol in words, for so many things in each split; with no test things each is judged by all others. rate: of
    fine-tuning; epochs: of it, if these are fixed."""
    folds, things = settings.folds, settings.things
    of_test = counted(test, f"test {things}")
    tested = f"{folds}-fold cross-validation over {counted(test, things)}" if folds else of_test
    tested = tested if test else "each by all others"
    train = round(train * (1 - 1 / folds)) if folds else train
    learnt = counted(train, f"training {things}")
    share = (LINEAR | FINE_TUNED).get(protocol, 1.0)
    part = "" if share == 1 else f", {share:.0%} of each class and one at least, mean of {DRAWS} draws"
    if protocol == "knn":
        return (
            f"weighted k-NN, k = {min(settings.k, train)}, cosine similarity, T = {settings.temperature}; un-augmented "
            f"features of {learnt}; {tested}"
        )
    if protocol == "nn1":
        return f"the nearest of {learnt}, Euclid's distance of un-augmented features; {tested}"
    if protocol == "svm":
        return (
            f"support vector machine with an RBF kernel on un-augmented, frozen features; C chosen on {INNER_FOLDS} "
            f"folds of {learnt}; {tested}"
        )
    if protocol in FEW_SHOT:
        classifier, shots = FEW_SHOT[protocol]
        by = {"centroid": "nearest mean of a class", "ridge": "ridge regression, λ = 1, of each class from all others"}
        return (
            f"{by[classifier]}; {shots} of each class of {learnt}, mean of {SHOT_DRAWS} draws; "
            f"frozen, un-augmented features, centred and of length 1; {tested}"
        )
    if protocol in PROBES:
        recipe = replace(PROBES[protocol], batch=min(PROBES[protocol].batch, train))
        crops = f"features of {settings.crops} random crops and flips of each image"
        of = f"frozen {crops}" if settings.crops else "frozen, un-augmented features"
        if protocol in BLOCKS and settings.blocks:
            of += "; of a Vision Transformer " + ", or ".join(
                f"{counted(min(count, settings.blocks), 'last class tokens')}{' and the mean of the patches' * patches}"
                for count, patches in BLOCKS[protocol]
            )
        best = f"; what is best on {VALIDATION:.0%} of each class, held out"
        small = "; a published recipe, by which few examples or small features may learn little"
        chosen = best if recipe.is_grid else small
        return f"linear classifier on {of}: {recipe}{chosen}; {learnt}; {tested}"
    if protocol in FINE_TUNED:
        least = "the best on" if epochs else f"until {PATIENCE} epochs (of {EPOCHS}) brought nothing on"
        return (
            f"all weights and a linear classifier, Adam at {rate:g} in batches of {BATCH}, {least} a held-out fifth of "
            f"{learnt}{part}; {of_test}"
        )
    scaled = {"standard": "standardised", "unit": "unit-length"}[settings.scaling]
    regression = f"logistic regression (50 iterations of L-BFGS) on {scaled}, un-augmented, frozen features"
    if protocol == "left_out":
        return (
            f"{regression}: {things} of each group by a classifier that has learnt from the other groups, of which one "
            f"is held out to choose the L2 penalty; {counted(train + test, things)} of both splits. Pretraining had "
            f"the training {things} of all groups, without labels"
        )
    told = ", of which the groups are told" if protocol == "groups" else part
    fifths = "each fifth in turn" if share * train < FEW else "a fifth"
    return f"{regression}; L2 penalty chosen on {fifths} of {learnt}{told}, held out; {tested}"
