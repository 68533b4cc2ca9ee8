"""An encoder as a graph of ONNX, which jax2onnx makes, and which ONNX Runtime must run to the same features."""

import functools
import importlib
import logging
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import symbolic_shape
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from ssljax.typing import Array, PyTree
from ssljax.weights.architecture import Described, ImageInputs, SpeechInputs
from ssljax.weights.features import features
from ssljax.weights.files import CARD, must_be_free, put

MODEL = "model.onnx"
OPSET = 18
TOLERANCE = 1e-3
"""By how much a feature may differ, as a part of the largest."""
LARGEST = 2**31 - 2**24
"""Bytes of weights in a file: protocol buffers end at 2 GiB."""
INSTEAD = "use --format=safetensors; or timm or huggingface, and from there torch.onnx."


def save(folder: Path, described: Described, variables: PyTree, card: str, *, overwrite: bool = False) -> None:
    """Write `model.onnx`, which takes batches of any size, and the card, with what it takes, as `README.md`. Each file
    appears whole or not at all.

    Raises ValueError if one of them is there and must not be overwritten, if a package is missing, for an encoder that
    jax2onnx cannot convert, and where ONNX Runtime gives other features than ours.
    """
    if not overwrite:
        must_be_free(folder, MODEL, CARD)
    jax2onnx, runtime = (_package(name) for name in ("jax2onnx", "onnxruntime"))
    encoder = described.encoder
    name = type(encoder).__name__
    if (size := sum(x.nbytes for x in jax.tree.leaves(variables))) > LARGEST:
        raise ValueError(f"{name} has {size / 2**30:.1f} GiB of weights, and a file of ONNX holds 2: {INSTEAD}")
    encoder = encoder.clone(dtype=jnp.float32, **({"remat": ""} if hasattr(encoder, "remat") else {}))
    shapes = _shapes(described)

    def compute(*arrays: Array) -> Array:
        return features(encoder, described.inputs, variables, dict(zip(shapes, arrays, strict=True)))

    try:
        model = jax2onnx.to_onnx(
            _convertible(compute, shapes),
            list(shapes.values()),
            model_name=name,
            opset=OPSET,
            input_names=list(shapes),
            output_names=["features"],
        )
        contents = model.SerializeToString()
        session = runtime.InferenceSession(contents, providers=["CPUExecutionProvider"])
        example = _example(described)
        (found,) = session.run(None, example)
    except Exception as error:  # whatever is wrong in there
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"jax2onnx {version('jax2onnx')} makes no graph of {name} that ONNX Runtime runs ({said}): {INSTEAD}"
        ) from error
    expected = np.asarray(jax.jit(compute)(*example.values()))
    difference = np.max(np.abs(found - expected)) / np.max(np.abs(expected))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the graph that jax2onnx {version('jax2onnx')} makes of {name} gives other features than the encoder, by "
            f"{difference:.1e} of the largest: {INSTEAD}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    put(folder, MODEL, contents)
    told = _told(described, shapes)
    checked = f"ONNX Runtime {runtime.__version__} gives them to within {difference:.1e} of the largest."
    put(folder, CARD, f"{card}\n{told}\n{checked}\n".encode())


def _package(name: str) -> Any:
    try:
        package = importlib.import_module(name)
    except ImportError:
        raise ValueError(
            f'--format=onnx needs {name}: `pip install -r requirements-onnx.txt`, or `pip install "ssljax[onnx]"`.'
        ) from None
    for talkative in ("jax2onnx", "onnx_ir"):  # of their own parts that do not concern us
        logging.getLogger(talkative).setLevel(logging.ERROR)
    return package


def _shapes(described: Described) -> dict[str, jax.ShapeDtypeStruct]:
    """What a graph takes, by name; the batch is of any size."""
    (batch,) = symbolic_shape("batch")
    first = jax.ShapeDtypeStruct((batch, *described.example.shape[1:]), described.example.dtype)
    if isinstance(described.inputs, ImageInputs):
        return {"images": first}
    if isinstance(described.inputs, SpeechInputs):
        return {"audio": first, "length": jax.ShapeDtypeStruct((batch,), jnp.int32)}
    return {"tokens": first, "valid": jax.ShapeDtypeStruct(first.shape, jnp.bool_)}


def _example(described: Described) -> dict[str, np.ndarray]:
    """Two examples of random numbers, the second a shorter one."""
    random, shape = np.random.RandomState(0), (2, *described.example.shape[1:])
    length = np.array([shape[1], shape[1] // 2 + 1], np.int32)
    if isinstance(described.inputs, ImageInputs):
        return {"images": random.standard_normal(shape).astype(np.float32)}
    if isinstance(described.inputs, SpeechInputs):
        return {"audio": random.standard_normal(shape).astype(np.float32), "length": length}
    ids = random.randint(0, described.encoder.vocabulary, shape).astype(np.int32)
    return {"tokens": ids, "valid": np.arange(shape[1]) < length[:, None]}


def _convertible(compute: Callable[..., Array], shapes: dict[str, jax.ShapeDtypeStruct]) -> Callable[..., Array]:
    """The same function, with no more in it than jax2onnx 0.17 converts rightly.

    It is traced here, as it replaces functions of Flax and jnp by some of its own, which know fewer arguments, and
    in `nn.max_pool` forgets the padding. Of primitives, that in there becomes a pool over all dimensions, which ONNX
    Runtime has none of, and the remainder in `//` fails where a dimension has no number.
    """
    traced = jax.make_jaxpr(compute)(*shapes.values())
    equations = []
    for equation in traced.eqns:
        simpler: Callable[..., Array] | None = None
        if equation.primitive.name == "reduce_window_max":
            simpler = partial(_max_pool, **equation.params)
        elif equation.params.get("name") == "floor_divide" and equation.outvars[0].aval.dtype == jnp.int32:
            simpler = _floor_divide
        if simpler:
            (call,) = jax.make_jaxpr(jax.jit(simpler))(*(x.aval for x in equation.invars)).eqns
            equation = equation.replace(primitive=call.primitive, params=call.params)
        equations.append(equation)
    run = jaxpr_as_fun(ClosedJaxpr(traced.jaxpr.replace(eqns=equations), traced.consts))
    return lambda *arrays: run(*arrays)[0]


def _max_pool(x: Array, *, window_dimensions, window_strides, padding, **_: Any) -> Array:
    """`lax.reduce_window` by maxima, one dimension after the other; without dilations, and where each window has
    something besides padding: its numbers at the edges may then stand there as well."""
    for axis, (window, stride, (low, high)) in enumerate(zip(window_dimensions, window_strides, padding, strict=True)):
        if window > 1:
            last = x.shape[axis] - 1
            first = np.arange(-low, last + high - window + 2, stride)
            places = (np.clip(first + i, 0, last) for i in range(window))
            x = functools.reduce(jnp.maximum, (jnp.take(x, at, axis, mode="clip") for at in places))
    return x


def _floor_divide(x: Array, y: Array) -> Array:
    """Of whole numbers, y above 0."""
    towards_zero = jax.lax.div(*jnp.broadcast_arrays(x, y))
    return towards_zero - (towards_zero * y > x).astype(x.dtype)


def _told(described: Described, shapes: dict[str, jax.ShapeDtypeStruct]) -> str:
    """Of the card, what the graph takes."""
    inputs, told = described.inputs, {}
    if isinstance(inputs, ImageInputs):
        mean, std = (", ".join(f"{x:.6g}" for x in numbers) for numbers in (inputs.mean, inputs.std))
        told["images"] = (
            f"the central square of {inputs.crop:g} times an image's short side, resized to {inputs.size} pixels "
            f"(bicubic), red, green and blue in [0, 1] less ({mean}), over ({std})"
        )
    elif isinstance(inputs, SpeechInputs):
        scale = "of mean 0 and standard deviation 1" if inputs.normalise else "in [-1, 1]"
        told["audio"] = f"clips at {inputs.rate} Hz, {scale}, cut, or filled with zeros"
        told["length"] = "how many of the samples are the clip"
    else:
        told["tokens"] = "ids of the run's own tokeniser, cut, or filled with any of them"
        told["valid"] = "which of the tokens are the text"
    lines = [f"- `{name}`, {x.dtype} ({', '.join(map(str, x.shape))}): {told[name]}." for name, x in shapes.items()]
    return "\n".join(["## What the graph takes", "", *lines, "", "It gives `features`, float32 (batch, dim)."])
