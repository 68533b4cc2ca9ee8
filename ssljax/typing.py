"""The contract between a method and everything else: two pytrees and one protocol."""

from typing import Any, Protocol

import jax
from flax import struct

Array = jax.Array
PyTree = Any
Batch = dict[str, Array]
"""Of images `image` (batch, height, width, 3) uint8; `size` (batch, 2), the original ones, where they were resized. Of
clips `audio` (batch, samples) float32, of which `length` (batch,) samples are the clip; `group` (batch,), who speaks.
And while training `index` (batch,), which examples of the source these are, and `label` (batch,) for methods with
`needs_labels`."""


class Variables(struct.PyTreeNode):
    """What a method starts from; `{}` where it has none of a kind."""

    params: PyTree
    """Learnt by gradient."""
    model_state: PyTree
    """Statistics of the online network (BatchNorm)."""
    target: PyTree
    """A network that follows the online one: `{"params": …, "model_state": …}`, with statistics of its own; under
    "teacher" one that does not move."""
    extra: PyTree
    """Whatever else moves without a gradient: a queue and its pointer, a centre, prototypes."""


class TrainState(Variables):
    """The whole run: together with the step number it is all that a checkpoint holds."""

    step: Array
    opt_state: PyTree


class Method(Protocol):
    """One self-supervised system, frozen and free of state: everything that changes is an argument.

    `axis` is the mesh axis over which the batch is split by hand, or None on a single shard; a method that needs the
    global batch gathers over it. `key` is the step's, the same on all shards; `keys` holds one key for each example,
    made from its place in the global batch (`ssljax.collectives.example_keys`), so that no draw depends on how many
    devices there are.

    What only some methods have: `split_over_data`, names in `extra` of arrays whose rows are dealt to the shards
    (NPID's bank). `stop(step, metrics)`, a sentence where a run is beyond help, from its logged metrics, or None
    (data2vec). `needs_labels = True` to be given labels. A field `teacher`, which a config sets to the folder of a
    trained run, and which is built as that run's method; `init` then draws all that the teacher will bring, and
    `begin(state, teacher_state)` puts it there before the first step. `classify(state, batch)`, logits (batch,
    classes), whose accuracy is then evaluated. `measure(state, batch, keys)`, how well it does on examples what it was
    trained to do: by the name of a number (with its unit) two arrays (batch,), of which it is the sum of the first over
    that of the second. `embed(state, batch)`, `embed_images(state, batch)` and `embed_texts(state, ids)`, which put
    what a batch holds, its images, and texts into one space (CLIP; `Modality.judge`). `evaluated(state)`, (parameters,
    statistics) of the encoder that is evaluated and exported; where a method does not say, they are "encoder" of
    `params`, and no statistics. `look(state, batch)`, where the encoder is a ViT of images: these, in [0, 1], and
    `ssljax.models.vit.attention_of_patches` of them. `shown_ratios`, beside a field `mask_ratio`: shares to hide in
    pictures of `show`, which are then the original, what is seen of it, and what is painted (MAE).
    """

    @property
    def modality(self) -> str:
        """Which kind of data it is for (`ssljax.modalities`)."""

    @property
    def mean_over_examples(self) -> bool:
        """Whether the loss is a mean of terms that each depend on one example, and nothing else is learnt of a batch.

        Gradients may then be accumulated over microbatches; whatever is random must be in the views.
        """

    @property
    def caption(self) -> str:
        """What the columns of `show` are."""

    def init(self, key: Array, batch: Batch) -> Variables:
        """The variables at step 0. Only the shapes of `batch` matter."""

    def views(self, keys: Array, batch: Batch) -> PyTree:
        """What the method sees of a batch: augmentation and masks, outside the gradient."""

    def loss(
        self, params: PyTree, state: TrainState, views: PyTree, key: Array, axis: str | None
    ) -> tuple[Array, dict]:
        """The objective on this shard, and `aux`: what `update` needs, and for the monitors `metrics` (scalars),
        `features` (batch, dim) and `embeddings` (what the loss compares: a tuple with an array for each view, or
        ())."""

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        """What moves without a gradient, after the optimiser's step."""

    def features(self, state: Variables, batch: Batch) -> Array:
        """The representation (batch, dim) that is evaluated and exported."""

    def show(self, state: Variables, batch: Batch, keys: Array) -> Array:
        """What the method sees, for the report: pictures in [0, 1], (examples, columns, height, width, 3)."""
