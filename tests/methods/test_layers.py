"""Layers of an encoder, by which rates decay and weights are frozen: from what comes first to what comes last."""

import jax
import pytest

from ssljax.layers import layer_numbers, names_of
from ssljax.methods import METHODS

FIRST, LAST = 0, -1
LAYERS = {
    "simclr_v2": {"stem": FIRST},
    "barlow_twins": {"stem": FIRST, "stem_norm": FIRST, "stage1_block1": 1, "stage3_block1": 3},
    "mae": {"patch_embed": FIRST, "prefix": FIRST, "encoder": 1, "norm": LAST},
    "ijepa": {"patch_embed": FIRST, "positions": FIRST, "encoder": 1, "norm": LAST},
    "bert": {"embed": FIRST, "embed_norm": FIRST, "encoder": 1, "last_norm": LAST},
    "gpt": {"embed": FIRST, "decoder": 1, "norm": LAST},
    "wav2vec2": {
        **dict.fromkeys(("features", "feature_norm", "project", "masked", "position", "embed_norm"), FIRST),
        "encoder": 1,
    },
    "cpc": {"conv0": FIRST, "norm0": FIRST, "conv4": 4, "norm4": 4, "gru": LAST},
    "ts2vec": {"project": FIRST, "block0": 1, "block1": 2},
    "videomae": {"patch_embed": FIRST, "encoder": 1, "norm": LAST},
    "scarf": {"dense1": 1},
    "graphcl": {"layer1_dense1": 1, "layer2_norm": 2},
    "dgi": {"dense1": 1, "slope1": 1},
}
"""Of parts of an encoder, by their names."""


@pytest.mark.parametrize("name", LAYERS, indirect=True)
def test_layers_go_from_what_comes_first_to_what_comes_last(name, method, batches_of):
    batch = batches_of(METHODS[name].modality)[0]
    params = jax.eval_shape(lambda: method.init(jax.random.key(0), batch)).params
    numbers, top = layer_numbers(params)
    found: dict[str, set[int]] = {}
    for path, number in jax.tree_util.tree_leaves_with_path(numbers["encoder"]):
        found.setdefault(names_of(path)[0], set()).add(int(number))
    for part, layer in LAYERS[name].items():
        assert found.pop(part) == {top if layer == LAST else layer}, part
    # What is not listed is between.
    assert all(0 < number <= top for rest in found.values() for number in rest)
    assert all(int(number) == top for part in params if part != "encoder" for number in jax.tree.leaves(numbers[part]))
