"""Kinds of data. A method says which it is for, and the commands take from here what they must know of it."""

from ssljax.modalities.image_text import ImageText
from ssljax.modalities.images import Images
from ssljax.modalities.modality import Modality
from ssljax.modalities.nodes import Nodes
from ssljax.modalities.speech import Speech
from ssljax.modalities.tables import Tables
from ssljax.modalities.text import Text
from ssljax.modalities.video import Video

MODALITIES: dict[str, type[Modality]] = {
    "image_text": ImageText,
    "images": Images,
    "nodes": Nodes,
    "speech": Speech,
    "tables": Tables,
    "text": Text,
    "video": Video,
}
