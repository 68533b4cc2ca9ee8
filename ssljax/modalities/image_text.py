"""Images with texts that say what they show."""

import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssljax.data.canvas import OnCanvas
from ssljax.data.captions import all_captions, caption_shapes, encode, open_captions
from ssljax.data.sources import DataError, Shapes, Source
from ssljax.data.subset import Subset
from ssljax.data.tokens import KINDS, Bytes, Tokenizer, learn, recalled
from ssljax.evals import retrieval
from ssljax.evals.features import colour_histogram, raw_pixels
from ssljax.evals.retrieval import ColoursToWords
from ssljax.evals.scores import Score
from ssljax.modalities.images import Images
from ssljax.modalities.modality import Compute, Judged
from ssljax.typing import Array, Batch
from ssljax.wording import counted

FIRST = (1, 5, 10)
OWN = {
    **{f"to_text_{k}": f"text R@{k}" for k in FIRST},
    **{f"to_image_{k}": f"image R@{k}" for k in FIRST},
    "zero_shot": "zero-shot",
}
WORDS, CHANCE = "colours to words", "chance"
LEARNT_FROM, SHOWN, ASKED, FOUND, SIDE = 20_000, 400, 8, 5, 96
LETTER = (6, 11)
"""Width and height of a letter in pictures."""

Space = tuple[np.ndarray, np.ndarray, np.ndarray, Callable[[Sequence[str]], np.ndarray]]
"""Of the test split: images (images, dim), captions (captions, dim), whose each is, and texts -> (texts, dim)."""


class ImageText(Images):
    encodes, own = "images", OWN
    protocols = ("knn", "linear", *OWN)
    data_fields = {
        **Images.data_fields,
        "tokenizer": "bytes",  # or words, bpe or wordpiece, learnt from the training captions
        "vocabulary": 8192,  # how many tokens at most, where they are learnt
        "length": 77,  # of a caption in tokens, with its begin and end; longer ones are cut
        "learnt": "",  # what a tokeniser has learnt; a run writes it down
        "templates": ("a photo of a {}.",),  # what is said of a class, for zero-shot classification
    }

    def open(self, split: str) -> Source:
        self._check_templates()
        options = {"tokenizer": self.tokenizer, "length": self.data.length}
        source = open_captions(self.data.source, self.data[f"{split}_split"], **options)
        side = self._canvas(source.shapes)
        others = caption_shapes(source.most, source.length)
        return source if side is None else OnCanvas(source, side, others)

    @property
    def tokenizer(self) -> Tokenizer:
        if self.data.tokenizer == "bytes" or self.data.learnt:
            return recalled(self.data.learnt)
        return _learnt(self.data.tokenizer, self.data.vocabulary, self.data.source, self.data.train_split)

    def settle(self) -> None:
        super().settle()
        tokenizer = self.tokenizer
        self.data.learnt = tokenizer.to_json()
        method = self.config.method
        method.vocabulary = method.vocabulary or tokenizer.size
        if method.vocabulary < tokenizer.size:
            raise ValueError(
                f"--config.method.vocabulary={method.vocabulary}, but there are {tokenizer.size} tokens: leave it at 0."
            )

    def shapes(self) -> Shapes:
        return super().shapes() | caption_shapes(1, self.data.length)

    def stand_in(self, wrong: DataError) -> tuple[Shapes, str]:
        if not self.data.source.startswith("folder:") or self.data.tokenizer not in KINDS:
            raise wrong
        shapes, told = super().stand_in(wrong)
        size = Bytes.size if self.data.tokenizer == "bytes" else self.data.vocabulary
        self.config.method.vocabulary = self.config.method.vocabulary or size
        return shapes | caption_shapes(1, self.data.length), f"{told}, and captions with {self.data.length} tokens"

    def as_batch(self, inputs: Any) -> Batch:
        """Of images, as `Images.as_batch`."""
        if has_texts(inputs):
            raise ValueError("features are of images only: `encoder.embed` puts texts, and images, into one space.")
        return super().as_batch(inputs)

    def token_ids(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, length)"""
        return encode(texts, self.tokenizer, len(texts), self.data.length)

    def floors(self) -> dict[str, Callable[[Batch], Array]]:
        return {"raw pixels": raw_pixels, "colour histogram": colour_histogram}

    def pictures(self, shown: Any) -> np.ndarray:
        """Of `images` (examples, columns, height, width, 3) and `captions` (examples, length): the texts are the last
        column."""
        images = np.asarray(shown["images"])
        times = -(-SIDE // images.shape[2])
        images = images.repeat(times, axis=2).repeat(times, axis=3)
        texts = written(self._read(np.asarray(shown["captions"])), images.shape[2]) / np.float32(255)
        return np.clip(np.concatenate([images, texts[:, None]], axis=1), 0.0, 1.0)

    def judge(self, method: Any, states: Mapping[str, Any], compute: Compute, protocols: Sequence[str]) -> Judged:
        """Retrieval in both directions among all images and captions of the test split, and zero-shot classification
        where there are labels; beside chance and words foretold from colours."""
        test = self.open("test")
        captions, labels = compute(lambda _, batch: batch["captions"], (), test)
        texts, owners = self._texts(captions)
        spaces: dict[str, Space] = {}
        for name, state in states.items():
            embedded, _ = compute(method.embed, state, test)
            said = (captions != 0).any(axis=2)
            spaces[name] = embedded[:, 0], embedded[:, 1:][said], owners, self._embed_texts(method, state)
        spaces[WORDS] = self._of_colours(compute, test, texts, owners)
        scores: dict[str, dict[str, Score]] = {name: {} for name in (*spaces, CHANCE)}
        images = np.arange(len(captions))
        for protocol in protocols:
            if protocol == "zero_shot":
                if test.has_labels or list(protocols) == ["zero_shot"]:
                    test.require_labels("zero-shot classification")
                    classes = test.class_names or ()
                    for name, (x, _, _, read) in spaces.items():
                        scores[name][protocol] = retrieval.zero_shot(x, labels, self._prompts(classes, read))
                    scores[CHANCE][protocol] = Score(np.full(len(labels), 1 / len(classes)))
                continue
            k, of_image = int(protocol.rpartition("_")[2]), protocol.startswith("to_text")
            asking, found = (images, owners) if of_image else (owners, images)
            for name, (x, y, _, _) in spaces.items():
                queries, items = (x, y) if of_image else (y, x)
                scores[name][protocol] = retrieval.recall(retrieval.ranks(queries, asking, items, found), k)
            scores[CHANCE][protocol] = retrieval.chance(asking, found, k)
        told = {p: self._described(p, len(images), len(texts)) for p in protocols if p in scores[CHANCE]}
        return Judged(scores, told, self._shown(method, states, compute, test))

    def _described(self, protocol: str, images: int, texts: int) -> str:
        if protocol == "zero_shot":
            templates, told = ", ".join(map(repr, self.data.templates)), counted(images, "test images")
            return f"the class whose texts, by {templates}, are the most similar by their mean; {told}"
        k, of_image = protocol.rpartition("_")[2], protocol.startswith("to_text")
        asked, found = ("images", "captions") if of_image else ("captions", "images")
        counts = {"images": images, "captions": texts}
        return (
            f"share of the {counted(counts[asked], f'test {asked}')} of which one of their own is among the "
            f"{k} most similar of all {counted(counts[found], found)}, by cosine; ties count against"
        )

    def _of_colours(self, compute: Compute, test: Source, texts: list[str], owners: np.ndarray) -> Space:
        train = Subset(self.open("train"), LEARNT_FROM)
        ids, _ = compute(lambda _, batch: batch["captions"], (), train)
        known, whose = self._texts(ids)
        of_each: list[list[str]] = [[] for _ in ids]
        for text, owner in zip(known, whose, strict=True):
            of_each[owner].append(text)
        colours, _ = compute(lambda _, batch: colour_histogram(batch), (), train)
        words = ColoursToWords(colours, of_each)
        seen, _ = compute(lambda _, batch: colour_histogram(batch), (), test)
        return words.of_images(seen), words.of_texts(texts), owners, words.of_texts

    def _prompts(self, classes: Sequence[str], read: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
        """(classes, templates, dim)"""
        texts = [template.format(name) for name in classes for template in self.data.templates]
        return read(texts).reshape(len(classes), len(self.data.templates), -1)

    def _embed_texts(self, method: Any, state: Any) -> Callable[[Sequence[str]], np.ndarray]:
        def read(texts: Sequence[str]) -> np.ndarray:
            return np.asarray(jax.device_get(jax.jit(method.embed_texts)(state, self.token_ids(texts))))

        return read

    def _texts(self, captions: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Of ids (images, captions, length): the captions that there are, and whose each of them is."""
        said = (captions != 0).any(axis=2)
        return self._read(captions[said]), np.nonzero(said)[0]

    def _read(self, ids: np.ndarray) -> list[str]:
        return [self.tokenizer.decode(row.astype(int)).strip() for row in ids]

    def _shown(self, method: Any, states: Mapping[str, Any], compute: Compute, test: Source) -> dict:
        """For the report: some test images with the captions that are found, and the other way round."""
        some = Subset(test, SHOWN)
        captions, _ = compute(lambda _, batch: batch["captions"], (), some)
        texts, owners = self._texts(captions)
        thumbnails, _ = compute(lambda _, b: self.thumbnails(b, SIDE).reshape(len(b["image"]), -1), (), some)
        pictures = (thumbnails.reshape(-1, SIDE, SIDE, 3) * 255).round().astype(np.uint8)
        embedded, _ = compute(method.embed, states["pretrained"], some)
        x, y = embedded[:, 0], embedded[:, 1:][(captions != 0).any(axis=2)]
        images = np.linspace(0, len(pictures) - 1, min(ASKED, len(pictures))).astype(int)
        asked = np.array([np.flatnonzero(owners == image)[0] for image in images])
        to_text = np.argsort(-(x[images] @ y.T), axis=1, kind="stable")[:, :FOUND]
        to_image = np.argsort(-(y[asked] @ x.T), axis=1, kind="stable")[:, :FOUND]

        def text(places: np.ndarray) -> np.ndarray:
            drawn = written([texts[place] for place in places.ravel()], SIDE)
            return drawn.reshape(*places.shape, SIDE, SIDE, 3)

        return {
            f"captions of an image, of all {len(texts)} of {counted(len(pictures), 'test images')}": (
                np.concatenate([pictures[images][:, None], text(to_text)], axis=1),
                np.concatenate([images[:, None], owners[to_text]], axis=1),
            ),
            f"images of a caption, of {len(pictures)}": (
                np.concatenate([text(asked)[:, None], pictures[to_image]], axis=1),
                np.concatenate([images[:, None], to_image], axis=1),
            ),
        }

    def _check_templates(self) -> None:
        if not self.data.templates or not all(map(_takes_a_name, self.data.templates)):
            raise ValueError(
                f"--config.data.templates={tuple(self.data.templates)} must be texts with {{}} once, for the class's "
                "name, and no other braces."
            )


def has_texts(inputs: Any) -> bool:
    """Whether it is a text, or a list in which there is one."""
    return isinstance(inputs, str) or isinstance(inputs, Sequence) and any(isinstance(x, str) for x in inputs)


def _takes_a_name(template: str) -> bool:
    try:
        return template.format("a") != template.format("b")
    except (LookupError, ValueError, AttributeError, TypeError):
        return False


@functools.lru_cache(maxsize=4)
def _learnt(kind: str, size: int, source: str, split: str) -> Tokenizer:
    return learn(kind, size, () if kind not in KINDS else all_captions(source, split))


def written(texts: Sequence[str], side: int) -> np.ndarray:
    """Pictures (texts, side, side, 3) of texts, uint8, black on white; what does not fit is cut."""
    font, drawn = ImageFont.load_default(10), np.full((len(texts), side, side, 3), 255, np.uint8)
    for i, text in enumerate(texts):
        page = Image.fromarray(drawn[i])
        lines = textwrap.wrap(text, max(1, side // LETTER[0]))[: max(1, side // LETTER[1])]
        ImageDraw.Draw(page).multiline_text((2, 2), "\n".join(lines), fill="black", font=font, spacing=1)
        drawn[i] = np.asarray(page)
    return drawn
