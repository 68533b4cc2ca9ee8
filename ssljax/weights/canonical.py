"""Of equal encoders, the one that other libraries can be given: no layer axis, no fixed positions, all biases."""

from typing import Any

import flax.linen as nn
import numpy as np
from flax import traverse_util

from ssljax.models.language import BERT, GPT
from ssljax.models.positions import sincos_positions
from ssljax.models.vit import ViT
from ssljax.typing import PyTree


def canonical(encoder: nn.Module, variables: PyTree, size: int) -> tuple[Any, PyTree]:
    """An encoder and its variables, which give the same features: blocks apart from each other; of a Vision Transformer
    positions that are stored, for square images of `size` pixels, and no token for hidden patches; of language models
    zeros for biases and segments that there are none of."""
    if getattr(encoder, "scan", False):
        encoder, variables = encoder.clone(scan=False), _apart(variables)
    if isinstance(encoder, ViT) and encoder.positions == "sincos":
        side = size // encoder.patch
        table = sincos_positions(side, side, encoder.width)
        encoder, variables = encoder.clone(positions="learned"), _with(variables, positions=table)
    if isinstance(encoder, ViT) and encoder.mask_token:
        rest = {name: x for name, x in variables["params"].items() if name != "mask_token"}
        encoder, variables = encoder.clone(mask_token=False), {**variables, "params": rest}
    if isinstance(encoder, GPT) and not encoder.bias:
        encoder, variables = encoder.clone(bias=True), _with_biases(variables)
    if isinstance(encoder, BERT) and not encoder.types:
        types = np.zeros((1, encoder.width), np.float32)
        encoder, variables = encoder.clone(types=1), _with(variables, types=types)
    return encoder, variables


def _with(variables: PyTree, **params: np.ndarray) -> PyTree:
    return {**variables, "params": {**variables["params"], **params}}


def _apart(tree: PyTree) -> PyTree:
    """Of blocks with a leading layer axis, each by its own name."""
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {"blocks"}:
        flat = traverse_util.flatten_dict(tree["blocks"])
        depth = len(next(iter(flat.values())))
        layers = ({path: x[i] for path, x in flat.items()} for i in range(depth))
        return {f"block{i}": traverse_util.unflatten_dict(layer) for i, layer in enumerate(layers)}
    return {name: _apart(child) for name, child in tree.items()}


def _with_biases(variables: PyTree) -> PyTree:
    flat = traverse_util.flatten_dict(variables)
    for path, x in list(flat.items()):
        if path[-1] in ("kernel", "scale"):
            by_heads = path[-2] in ("query", "key", "value")
            flat[(*path[:-1], "bias")] = np.zeros(x.shape[1:] if by_heads else x.shape[-1:], np.float32)
    return traverse_util.unflatten_dict(flat)
