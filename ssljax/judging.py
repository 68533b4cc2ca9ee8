"""Encoders judged by what they make of labelled data: what `ssljax.evaluate` measures, whatever the kind of data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssljax.build import Run, modality_of
from ssljax.collectives import example_keys
from ssljax.data.pipeline import eval_batches
from ssljax.data.sources import Source
from ssljax.data.subset import Subset
from ssljax.engine.mesh import eval_batch_size, over_devices, process_rows
from ssljax.evals import few_shot, linear, tables
from ssljax.evals import protocols as of_features
from ssljax.evals.features import extract, labelled
from ssljax.evals.finetune import PLAIN, Tuning, factors_of, fine_tune
from ssljax.evals.linear import class_share, leave_one_out, linear_probe
from ssljax.evals.probe import Features, sgd_probe
from ssljax.evals.protocols import (
    BLOCKS,
    FEW_SHOT,
    FINE_TUNED,
    GROUPED,
    LINEAR,
    PROBES,
    Settings,
    described,
    require_shots,
)
from ssljax.evals.results import Scores
from ssljax.evals.same_class import same_class
from ssljax.evals.scores import Score
from ssljax.evals.segmentation import of_attention, of_clusters
from ssljax.evals.tables import TABLES, told
from ssljax.methods.images.image_method import ImageMethod
from ssljax.models.vit import ViT
from ssljax.progress import Say, progress
from ssljax.typing import Batch
from ssljax.views.evaluation import cropped, masks_in_view
from ssljax.wording import counted

SCRATCH = "from scratch"
"""The floor that has learnt from the same labels and nothing else: an encoder that was drawn, trained on with them."""


class Found(NamedTuple):
    """scores: of each encoder and floor by each protocol; tables: by each protocol with several numbers, as in
    `results.json`; described: the former in words; counts: how many things they learn from and are tested on; left_out:
    protocols that these data do not allow, and why; subsets: which training examples a part of the labels is of, by the
    name of the part, their places in the split; notes: what a reader should know of the labels."""

    scores: Scores
    tables: dict[str, dict[str, Any]]
    described: dict[str, str]
    counts: dict[str, int]
    left_out: dict[str, str]
    subsets: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judge:
    """encoders: by their names, what gives the features of a batch (`ssljax.gallery.Rows`), of which the `states` are
    those that have weights. train, test: what is learnt from, and judged; test is None where there is no such split.
    outside: other data, for the protocol `ood`. tuning, scratch: of fine-tuning; the latter whether SCRATCH is judged.
    crops: of each training image, on which heads of PROBES are trained; 0 for the image as it is. must: whether it is
    an error if the data do not allow a protocol and that is known before anything is computed, or if they allow none;
    otherwise such a one is left out.
    """

    config: ConfigDict
    run: Run
    mesh: Mesh
    encoders: Mapping[str, Any]
    states: Mapping[str, Any]
    train: Source
    test: Source | None
    outside: Source | None = None
    tuning: Tuning = PLAIN
    scratch: bool = False
    crops: int = 0
    must: bool = False

    def rows(self, encoder: Callable, source: Source) -> tuple[np.ndarray, np.ndarray]:
        """See `ssljax.gallery.Rows`; each process makes its part of them."""
        size = eval_batch_size(self.mesh, about=min(256, len(source)))
        return extract(encoder, eval_batches(source, size, process_rows(size, self.mesh)))

    def by(self, protocols: Sequence[str]) -> Found:
        """Raises ValueError as `must` says."""
        failed: dict[str, ValueError] = {}
        for protocol in protocols:
            try:
                self._require(protocol)
            except ValueError as error:
                if self.must:
                    raise
                failed[protocol] = error
        modality = modality_of(self.config)
        settings = Settings(
            self.config.evaluate.k,
            self.config.evaluate.temperature,
            modality.scaling,
            folds_of(self.config),
            things=self.train.things,
            crops=self.crops,
            blocks=self._depth,
        )
        raw = next(iter(modality.floors()))
        scores: Scores = {}
        of_floors: Scores = {}
        of_tables: dict[str, dict[str, Any]] = {}
        accuracies = [p for p in protocols if p not in TABLES]
        shares = {p: share for p, share in (LINEAR | FINE_TUNED).items() if p in protocols and self.scratch}
        with progress(len(self.encoders) * (1 + len(protocols)) + len(shares)) as (begin, tell):
            tune = cache(partial(self._tuned, tell))
            for name, encoder in self.encoders.items():
                begin(f"{name}: features")
                features = self._features(encoder)
                for protocol in protocols:
                    begin(f"{name}: {protocol}")
                    try:
                        if protocol in failed:
                            continue
                        if protocol in TABLES:
                            table = of_tables.setdefault(protocol, {"of": {}})
                            self._tabulate(table, protocol, name, encoder, features)
                        elif (score := self._score(protocol, name, settings, tune, features)) is not None:
                            scores.setdefault(name, {})[protocol] = score
                    except ValueError as error:
                        failed[protocol] = error
                if name == raw:
                    learnt = {p: LINEAR[p] for p in protocols if p in LINEAR and p not in failed}
                    for floor, classify in modality.classifiers.items() if learnt else ():
                        of_floors[floor] = {p: classify(*features, share=share) for p, share in learnt.items()}
            for protocol, share in shares.items():
                begin(f"{SCRATCH}: {protocol}")
                if protocol in failed:
                    continue
                if (score := tune("random init", share, self.tuning.of_all)) is not None:
                    scores.setdefault(SCRATCH, {})[protocol] = score
        if failed and self.must and set(protocols) <= set(failed):
            raise next(iter(failed.values()))
        scores |= of_floors
        left_out = {protocol: str(error) for protocol, error in failed.items()}
        train, train_labels, test, truth = features
        counts = {"train": len(train)} | ({} if test is None else {"test": len(test)})
        in_words = {
            p: self._in_words(p, settings, len(train), 0 if test is None or self._leaves_one_out(p) else len(test))
            for p in accuracies
            if p not in left_out
        }
        other = self.outside
        outside = "" if other is None else f"the {counted(len(other), self.train.things)} of {other.name}"
        for protocol, table in of_tables.items():
            alone = None if test is None else len(test)
            table["measured on"] = told(protocol, self.train.things, len(train), alone, outside)
        kept = {p: table for p, table in of_tables.items() if p not in left_out}
        drawn = {} if settings.folds else _subsets(set(accuracies) - set(left_out), train_labels)
        places = self._places(len(train)) if drawn else np.arange(0)
        subsets = {name: places[rows] for name, rows in drawn.items()}
        notes = () if truth is None else _unknown_classes(train_labels, truth, self.train.things)
        return Found(scores, kept, in_words, counts, left_out, subsets, notes)

    def _require(self, protocol: str) -> None:
        """Raises ValueError if the data or the encoder do not allow a protocol, as far as shapes and labels tell."""
        if protocol in FINE_TUNED:
            for state in self.states.values():
                factors_of(state, self.tuning)
        if protocol in FEW_SHOT:
            labels = self.train.labels()
            require_shots(protocol, labels[labelled(labels)], self.train.class_names)
        if protocol == "ood" and self.alone:
            raise ValueError("protocol 'ood' needs a test split that is not learnt from: give --data one.")
        if protocol == "segmentation":
            source, method = self._segmentable, self.run.method
            if getattr(source, "masks", None) is None:
                raise ValueError(
                    f"protocol 'segmentation' needs masks: {source.name} has none (npz:PATH may have them)."
                )
            if not (isinstance(method, ImageMethod) and isinstance(method.encoder, ViT)):
                raise ValueError("protocol 'segmentation' is of patches: the encoder must be a Vision Transformer.")

    @property
    def _segmentable(self) -> Any:
        return self.train if self.alone or self.test is None else self.test

    @property
    def alone(self) -> bool:
        """Whether there is no other split to test on than what is learnt from."""
        return self.test is None or self.config.data.train_split == self.config.data.test_split

    def _leaves_one_out(self, protocol: str) -> bool:
        """Whether each training example is judged by all others."""
        return protocol == "knn" and self.alone and not folds_of(self.config)

    def _features(self, encoder: Callable) -> tuple[np.ndarray, np.ndarray, Any, Any]:
        """(features, labels) of training and of test examples, without those of label -1 where others have one."""

        def of(source: Source) -> tuple[np.ndarray, np.ndarray]:
            x, labels = self.rows(encoder, source)
            kept = labelled(labels)
            return x[kept], labels[kept]

        return *of(self.train), *((None, None) if self.test is None else of(self.test))

    def _places(self, count: int) -> np.ndarray:
        """In the training split, of the so many examples that have a label and can be decoded."""
        if count == len(self.train):
            return np.arange(count)
        labels, mask = map(
            np.concatenate, zip(*((b["label"], b["mask"]) for b in eval_batches(self.train, 256)), strict=True)
        )
        if labels.ndim > 1:  # of the things in one example
            return np.arange(count)
        return np.flatnonzero(mask)[labelled(labels[mask])]

    def _score(self, protocol: str, name: str, settings: Settings, tune: Callable, features) -> Score | None:
        """Of an encoder; None of what a protocol is not for."""
        x, labels, test, truth = features
        if self._leaves_one_out(protocol):
            test = truth = None
        if protocol in FINE_TUNED:
            return tune(name, FINE_TUNED[protocol], self.tuning)
        if protocol in GROUPED:
            of_group = partial(over_devices(lambda _, batch: batch["group"][:, None], self.mesh), ())
            splits = filter(None, (self.train, self.test))
            groups = [self.rows(of_group, split)[0][:, 0].astype(int) for split in splits]
            if protocol == "groups":
                return linear_probe(x, groups[0], test, groups[1], scaling=settings.scaling)[0]
            together = [np.concatenate(pair) for pair in ((x, test), (labels, truth), groups)]
            return leave_one_out(*together, scaling=settings.scaling)
        if protocol in PROBES and not settings.folds:
            blocks = self._blocks(protocol, name)
            several = {of: Features(*self._features(f)[::2]) for of, f in blocks.items()}
            several = several or {"features": Features(x, test)}
            if self.crops and name in self.states:
                encoders = blocks or {"features": self.encoders[name]}
                several = {of: several[of]._replace(crops=self._of_crops(f)) for of, f in encoders.items()}
            return sgd_probe(several, labels, truth, PROBES[protocol]).score
        return of_features.judge(protocol, settings, x, labels, test, truth)

    def _of_crops(self, encoder: Callable) -> np.ndarray:
        """Features (crops, examples, dim) of random crops of the training images."""
        size = eval_batch_size(self.mesh, about=min(256, len(self.train)))
        mine = process_rows(size, self.mesh)

        def batches(crop: int) -> Iterator[dict[str, np.ndarray]]:
            for place, batch in enumerate(eval_batches(self.train, size, mine)):
                keys = example_keys(jax.random.fold_in(jax.random.key(crop), place), size)[mine]
                yield batch | jax.device_get(cropped(keys, batch))

        found = [extract(encoder, batches(crop)) for crop in range(self.crops)]
        return np.stack([x[labelled(labels)] for x, labels in found])

    @property
    def _depth(self) -> int:
        """How many blocks a Vision Transformer has of which the last can be had; 0 of other encoders."""
        method: Any = self.run.method
        return method.encoder.depth if isinstance(method, ImageMethod) and isinstance(method.encoder, ViT) else 0

    def _blocks(self, protocol: str, name: str) -> dict[str, Callable]:
        """What gives the features of the last blocks, by their name; nothing where there are no such blocks."""
        if name not in self.states or not self._depth:
            return {}
        found: dict[str, Callable] = {}
        last_blocks = self.run.method.last_blocks  # type: ignore[attr-defined]
        for count, patches in BLOCKS.get(protocol, ()):
            of = partial(last_blocks, count=min(count, self._depth), patches=patches)
            found[f"{count} blocks, patches {patches}"] = partial(over_devices(of, self.mesh), self.states[name])
        return found

    def _tabulate(self, table: dict[str, Any], protocol: str, name: str, encoder: Callable, features) -> None:
        """Adds what a protocol finds of an encoder to its table."""
        x, labels, test, truth = features
        if self.alone:
            test = truth = None
        if protocol == "knn_grid":
            table["of"][name] = tables.by_k(x, labels, test, truth)
        elif protocol == "same_class":
            table["of"][name] = same_class(x, labels, test, truth)
        elif protocol == "geometry":
            judged = x if test is None else test
            table["of"][name] = tables.of_geometry(judged, self._views(name))
            table.setdefault("spectrum", {})[name] = tables.spectrum(judged)
        elif protocol == "segmentation":
            if (of := self._segmented(name)) is not None:
                table["of"][name] = of
        else:
            assert self.outside is not None
            assert test is not None
            outside, _ = self.rows(encoder, self.outside)
            if outside.shape[1:] == x.shape[1:]:  # raw images of another size are no vectors of the same space
                table["of"][name] = tables.of_other_data(x, labels, test, outside)

    def _segmented(self, name: str) -> tables.Numbers | None:
        """Of what has patches: encoders, and their pixels, the first floor."""
        source, method = self._segmentable, self.run.method
        assert isinstance(method, ImageMethod)
        encoder: Any = method.encoder
        floor = next(iter(modality_of(self.config).floors()))
        if name not in (*self.states, floor):
            return None

        def look(state: Any, batch: Batch) -> jax.Array:
            parts = method.look(state, batch)
            return jnp.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

        state = self.states["pretrained" if name == floor else name]
        seen = self.rows(partial(over_devices(look, self.mesh), state), source)[0]
        side, heads = method.augmentations[0].size, encoder.heads
        grid = side // encoder.patch
        pixels, attention, tokens = np.split(seen, [3 * side**2, 3 * side**2 + heads * grid**2], axis=1)
        truth = masks_in_view(source.masks, side, method.eval_crop)
        if name == floor:
            pixels = pixels.reshape(-1, grid, encoder.patch, grid, encoder.patch, 3).swapaxes(2, 3)
            return of_clusters(pixels.reshape(-1, grid**2, 3 * encoder.patch**2), truth)
        tokens = tokens.reshape(-1, grid**2, encoder.width)
        of_tokens = of_clusters(tokens / np.linalg.norm(tokens, axis=-1, keepdims=True), truth)
        return of_tokens | of_attention(attention.reshape(-1, heads, grid**2), truth)

    def _views(self, name: str) -> np.ndarray | None:
        """Features (examples, views, dim) of views of some examples, the same draws for each batch."""
        of_views = tables.viewed(self.run.method)
        if name not in self.states or of_views is None:
            return None
        some = Subset(self.test or self.train, tables.VIEWED)
        return self.rows(partial(over_devices(of_views, self.mesh), self.states[name]), some)[0]

    def _tuned(self, tell: Say, name: str, share: float, tuning: Tuning) -> Score | None:
        """An encoder trained on, begun from one of the `states`; None for what has no weights. Each process does it
        all. tell: see `fine_tune`."""
        if name not in self.states or self.test is None:
            return None

        def examples(source: Source) -> tuple[dict[str, np.ndarray], np.ndarray]:
            parts = [{k: x[batch["mask"]] for k, x in batch.items()} for batch in eval_batches(source, 256)]
            arrays = {k: np.concatenate([part[k] for part in parts]) for k in parts[0] if k != "mask"}
            kept = labelled(arrays["label"])
            arrays = {k: x[kept] for k, x in arrays.items()}
            return arrays, arrays.pop("label")

        train, labels = examples(self.train)
        if labels.ndim > 1:
            things = self.train.things
            raise ValueError(f"fine-tuning is of examples that have one label each, not of {things} of one example.")
        state = jax.device_get(self.states[name])
        encode, test = self.run.method.features, examples(self.test)
        return fine_tune(encode, state, train, labels, *test, share=share, tuning=tuning, tell=tell)

    def _in_words(self, protocol: str, settings: Settings, train: int, test: int) -> str:
        text = described(protocol, settings, train, test, rate=self.tuning.rate, epochs=self.tuning.epochs)
        if protocol in LINEAR and self.scratch:
            return f"{text}; {SCRATCH}: all weights have learnt from these labels, as `finetune` does it"
        return f"{text}; {self.tuning}" if protocol in FINE_TUNED and self.tuning != PLAIN else text


def folds_of(config: ConfigDict) -> int:
    """0 where one split is for learning and another one for testing."""
    return modality_of(config).folds if config.data.train_split == config.data.test_split else 0


def _unknown_classes(labels: np.ndarray, truth: np.ndarray, things: str) -> tuple[str, ...]:
    """Whether test examples have labels that no training example has."""
    unknown = int((~np.isin(truth, labels)).sum())
    if labels.ndim > 1 or not unknown:
        return ()
    return (
        f"{unknown} of {counted(len(truth), f'test {things}')} {'is' if unknown == 1 else 'are'} of a class of which "
        "there is no training example, and never right: give both splits some of every class.",
    )


def _subsets(protocols: set[str], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Which of the training examples the protocols learn from, that use a part of the labels."""
    shares = {share for p, share in (LINEAR | FINE_TUNED).items() if p in protocols and share < 1}
    shots = {count for p, (_, count) in FEW_SHOT.items() if p in protocols}
    drawn = {
        f"share_{share:g}_draw_{seed}": class_share(labels, share, seed)
        for share in sorted(shares)
        for seed in range(linear.DRAWS)
    }
    return drawn | {
        f"shots_{count}_draw_{seed}": few_shot.draw_shots(labels, count, seed)
        for count in sorted(shots)
        for seed in range(few_shot.DRAWS)
    }
