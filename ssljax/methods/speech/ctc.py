"""Fine-tuning of wav2vec 2.0 with few labels: letters at frames, whose order alone is told.

Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", 2020, section 4.4;
Graves et al., "Connectionist Temporal Classification", 2006.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssljax import losses
from ssljax.methods.speech.wav2vec2 import Wav2Vec2, clip_features
from ssljax.models import infer, initialise, run
from ssljax.models.wav2vec import within
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.images import fold
from ssljax.views.speech import span_mask


@dataclass(frozen=True, eq=False)
class CTC:
    """logits = linear(f(audio)) of each frame, over the letters and a blank; loss the mean over examples of
    `ctc` of the word's letters, and 0 of a word that is too long for its clip's frames; `too_long` is the share of such
    examples. Clips are whole (--config.data.crop=0), and spans of frames are hidden.

    teacher: in a config the folder of a run of wav2vec2; here that run's method. scratch: what that run has learnt is
    not taken over, as a floor. words: what is said in a clip of each class; () in a config: the classes' names. share,
    span: see `ssljax.views.speech.span_mask`.
    """

    encoder: nn.Module
    teacher: Any = ""
    scratch: bool = False
    words: tuple[str, ...] = ()
    share: float = 0.3
    span: int = 5

    modality = "speech"
    mean_over_examples = True
    needs_labels = True
    teachers = "a run of 'wav2vec2'"
    caption = "a clip's spectrogram, what of it is hidden, and what its frames are taken for: the blank, then letters"

    def __post_init__(self):
        if not isinstance(self.teacher, Wav2Vec2):
            raise ValueError(
                f"CTC starts from {self.teachers}, but --config.method.teacher is one of {type(self.teacher).__name__}."
            )
        if len(self.words) < 2 or not all(self.words):
            raise ValueError(f"--config.method.words={self.words} must be at least 2 words, none empty.")

    @property
    def letters(self) -> tuple[str, ...]:
        """Those that occur, in order; the number of each is its place plus 1, and the blank's 0."""
        return tuple(sorted(set("".join(self.words))))

    @property
    def linear(self) -> nn.Dense:
        return nn.Dense(1 + len(self.letters))

    def spelling(self) -> tuple[np.ndarray, np.ndarray]:
        """The letters of each word, (words, longest) int32, and where they are padding."""
        longest = max(map(len, self.words))
        numbers = {letter: place for place, letter in enumerate(self.letters, start=1)}
        spelt = [[numbers[letter] for letter in word] + [0] * (longest - len(word)) for word in self.words]
        return np.array(spelt, np.int32), np.array(spelt) == 0

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, linear_key = jax.random.split(key)
        audio = batch["audio"]
        mask = jnp.zeros((len(audio), self.encoder.frames(audio.shape[1])), bool)
        encoder, _ = initialise(self.encoder, encoder_key, audio, mask=mask)
        linear, _ = initialise(self.linear, linear_key, jnp.zeros((1, 1, self.encoder.width)))
        return Variables(params={"encoder": encoder, "classifier": linear}, model_state={}, target={}, extra={})

    def begin(self, state: TrainState, teacher: TrainState) -> TrainState:
        """`state` with the teacher's encoder, unless it is to begin from scratch. Raises ValueError if that is another
        one."""
        ours, theirs = (jax.tree.map(jnp.shape, x.params["encoder"]) for x in (state, teacher))
        if ours != theirs:
            raise ValueError("the teacher's encoder is another: give --config.encoder what the teacher's run has.")
        return state if self.scratch else state.replace(params=state.params | {"encoder": teacher.params["encoder"]})

    def views(self, keys: Array, batch: Batch) -> tuple[Array, ...]:
        """The audio and its length, which frames are hidden, what is said, and keys for dropout."""
        frames = self.encoder.frames(batch["audio"].shape[1])
        mask, _ = span_mask(fold(keys, 0), frames, self.share, self.span)
        return batch["audio"], batch["length"], mask, batch["label"], fold(keys, 1)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        audio, lengths, mask, labels, keys = views
        encoded, _ = run(self.encoder, params["encoder"], {}, audio, mask=mask, lengths=lengths, keys=keys)
        logits = infer(self.linear, params["classifier"], {}, encoded.context)
        letters, padding = (jnp.asarray(x)[labels] for x in self.spelling())
        nats = losses.ctc(logits, self._after(lengths, logits), letters, padding)
        # Its 1e30 would be all that a mean is of. Divided by all examples, it is the same on shards and in chunks.
        too_long = nats > 1e29
        loss = jnp.where(too_long, 0.0, nats).mean()
        metrics = {"too_long": too_long.mean()}
        return loss, {"metrics": metrics, "features": encoded.context.mean(axis=1), "embeddings": ()}

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state

    def features(self, state: Variables, batch: Batch) -> Array:
        return clip_features(self.encoder, state.params["encoder"], batch)

    def logits(self, state: Variables, batch: Batch) -> Array:
        """(batch, frames, 1 + letters) in evaluation mode."""
        encoded = infer(self.encoder, state.params["encoder"], {}, batch["audio"], lengths=batch["length"])
        return infer(self.linear, state.params["classifier"], {}, encoded.context)

    def classify(self, state: Variables, batch: Batch) -> Array:
        """log p(word | audio) of each word, (batch, words): the error rate is that of words out of this list."""
        logits = self.logits(state, batch)
        after, n = self._after(batch["length"], logits), len(logits)

        def of_word(letters: Array, padding: Array) -> Array:
            return -losses.ctc(logits, after, *(jnp.broadcast_to(x, (n, *x.shape)) for x in (letters, padding)))

        return jax.vmap(of_word, out_axes=1)(*map(jnp.asarray, self.spelling()))

    def measure(self, state: Variables, batch: Batch, keys: Array) -> dict[str, tuple[Array, Array]]:
        """Of the likeliest symbol of each frame, without a list of words; a word with any error is wrong."""
        logits = self.logits(state, batch)
        letters, padding = (jnp.asarray(x)[batch["label"]] for x in self.spelling())
        errors = edits(*heard(logits, self._after(batch["length"], logits)), letters, padding)
        return {
            "letter error rate": (errors, jnp.sum(~padding, axis=1)),
            "word error rate": (errors > 0, jnp.ones_like(errors)),
        }

    def show(self, state: Variables, batch: Batch, keys: Array) -> dict[str, Array]:
        mask, _ = span_mask(fold(keys, 0), self.encoder.frames(batch["audio"].shape[1]), self.share, self.span)
        rows = nn.softmax(self.logits(state, batch))
        frames = self.encoder.frames(batch["length"])
        return {"audio": batch["audio"], "length": batch["length"], "hidden": mask, "rows": rows, "frames": frames}

    def _after(self, lengths: Array, logits: Array) -> Array:
        """(batch, frames), bool: which come after the end."""
        return ~within(self.encoder.frames(lengths), logits.shape[1])


def heard(logits: Array, after: Array) -> tuple[Array, Array]:
    """The likeliest symbol of each frame, (batch, frames), and which of them are letters, bool: a run of frames with
    one symbol says it once, blanks and frames after the end (`after`) say nothing."""
    symbols = logits.argmax(axis=-1)
    new = symbols != jnp.pad(symbols, [(0, 0), (1, 0)])[:, :-1]
    return symbols, new & (symbols > 0) & ~after


def edits(said: Array, said_letters: Array, meant: Array, padding: Array) -> Array:
    """(batch,) int32: how many letters must be added, left out or changed to make what was said what was meant.

    said (batch, places): symbols, of which `said_letters`, bool, are letters. meant, padding (batch, letters).

    Levenshtein, "Binary Codes Capable of Correcting Deletions, Insertions and Reversals", 1966.
    """
    place = jnp.arange(meant.shape[1] + 1)

    def step(row: Array, one: tuple[Array, Array]) -> tuple[Array, None]:
        """From the distances of each beginning of `meant` to what was said until now, those with one letter more."""
        letter, counts = one
        changed = jnp.pad(row[:, :-1] + (meant != letter[:, None]), [(0, 0), (1, 0)], constant_values=len(said.T) + 1)
        best = jnp.minimum(row + 1, changed)
        added = jax.lax.cummin(best - place, axis=1) + place
        return jnp.where(counts[:, None], added, row), None

    start = jnp.broadcast_to(place, (len(meant), len(place))) + 0 * said[:, :1]
    distances, _ = jax.lax.scan(step, start, (said.T, said_letters.T))
    return jnp.take_along_axis(distances, jnp.sum(~padding, axis=1, keepdims=True), axis=1)[:, 0]
