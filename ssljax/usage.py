"""Python for a card, which makes of an exported encoder the very features that are evaluated."""

from typing import Any

from ml_collections import ConfigDict

from ssljax.data.tokens import CLS, SEP, SPECIAL, UNK
from ssljax.models.clip import CLIPViT
from ssljax.models.language import BERT
from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT
from ssljax.weights.architecture import Described, ImageInputs, SpeechInputs
from ssljax.weights.vit_huggingface import kind_of

USE = {
    "safetensors": 'import ssljax\nencoder = ssljax.load("FOLDER")\nfeatures = encoder(examples)',
    "onnx": 'import onnxruntime\nsession = onnxruntime.InferenceSession("FOLDER/model.onnx")\n'
    "(features,) = session.run(None, inputs)  # a dictionary; see the end",
}
IMAGES = """import numpy
import torch
{imports}

model = {model}

def prepared(image):  # PIL's, in RGB: the central square, not rounded to whole pixels as by the library's own transform
    side = {crop:g} * min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    image = image.resize(({size}, {size}), 3, (left, top, left + side, top + side))
    x = torch.tensor(numpy.array(image)) / 255
    return ((x - torch.tensor({mean})) / torch.tensor({std})).permute(2, 0, 1)

with torch.no_grad():
    out = model(torch.stack([prepared(image) for image in images]))
features = {features}"""
MODELS = {
    "timm": ("import timm", 'timm.create_model("local-dir:FOLDER", pretrained=True).eval()'),
    "huggingface": ("from transformers import AutoModel", 'AutoModel.from_pretrained("FOLDER")'),
}
SPEECH = """import torch
from transformers import AutoFeatureExtractor, AutoModel

prepare = AutoFeatureExtractor.from_pretrained("FOLDER")
model = AutoModel.from_pretrained("FOLDER")
inputs = prepare(clip, sampling_rate={rate}, return_tensors="pt")  # clip: its samples, in [-1, 1]
with torch.no_grad():
    frames = model(**inputs).last_hidden_state[0]
n = len(frames)
# Means over {parts} equal parts. Of clips longer than {longest:g} seconds evaluation hears so much of the middle.
parts = [frames[i * n // {parts} : -(-(i + 1) * n // {parts})].mean(0) for i in range({parts})]
features = torch.cat(parts)"""
TEXT = """{imports}import torch
from transformers import AutoModel

model = AutoModel.from_pretrained("FOLDER")
{ids}
with torch.no_grad():
    out = model(torch.tensor([ids]))
features = {features}"""
LEARNT = '# RUN: the folder of the run, whose config.json has the tokeniser.\nwith open("RUN/config.json") as file:\n'
IDS = {
    "bytes": f"ids = [byte + {len(SPECIAL)} for byte in text.encode()]  # bytes of UTF-8, after {len(SPECIAL)} others",
    "words": LEARNT
    + f"""    known = json.loads(json.load(file)["data"]["learnt"])
places = {{word: i for i, word in enumerate(known, start={len(SPECIAL)})}}
words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
ids = [places.get(word, {UNK}) for word in words]""",
    "learnt": LEARNT
    + """    tokenizer = Tokenizer.from_str(json.load(file)["data"]["learnt"])
ids = tokenizer.encode(text, add_special_tokens=False).ids""",
}
"""Lines that make ids of a text, by the tokeniser."""


def usage(format: str, described: Described, data: ConfigDict) -> str:
    """Of the files in a FOLDER; data: what the run's config says of its own."""
    if format in USE:
        return USE[format]
    encoder, inputs = described.encoder, described.inputs
    if isinstance(inputs, ImageInputs):
        imports, model = MODELS[format]
        features = "out" if format == "timm" else _pooled(encoder)
        seen = inputs._asdict() | {"mean": list(map(float, inputs.mean)), "std": list(map(float, inputs.std))}
        return IMAGES.format(imports=imports, model=model, features=features, **seen)
    if isinstance(inputs, SpeechInputs):
        return SPEECH.format(rate=inputs.rate, parts=encoder.segments, longest=data.longest)
    kind = data.tokenizer if data.tokenizer in IDS else "learnt"
    needs = {"bytes": "", "words": "import json\n\n", "learnt": "import json\n\nfrom tokenizers import Tokenizer\n"}
    ids = IDS[kind]
    if data.marks:
        ids += f"\nids = [{CLS}, *ids[:{data.length - 2}], {SEP}]  # no more than evaluation reads, and marks around it"
    else:
        ids += f"\nids = ids[:{data.length}]  # no more than evaluation reads"
    return TEXT.format(imports=needs[kind], ids=ids, features=_pooled(encoder))


def _pooled(encoder: Any) -> str:
    """Of `out`, which a model of transformers returns."""
    if isinstance(encoder, ResNet):
        return "out.pooler_output.flatten(1)"
    if isinstance(encoder, CLIPViT):
        return "out.pooler_output  # of the class token"
    first = getattr(encoder, "num_prefix", 0)
    tokens = f"[:, {first}:].mean(1)" if first else ".mean(1)"
    pooled = {"cls": "[:, 0]", "last": "[:, -1]", "mean": tokens}[encoder.pool]
    pooler = isinstance(encoder, BERT) or (isinstance(encoder, ViT) and kind_of(encoder) == "vit")
    return f"out.last_hidden_state{pooled}" + "  # not the pooler's, which is said to be newly drawn" * pooler
