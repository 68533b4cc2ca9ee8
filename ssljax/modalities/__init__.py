"""Kinds of data. A method says which it is for, and the commands take from here what they must know of it."""

from ssljax.modalities.graphs import Graphs
from ssljax.modalities.image_text import ImageText
from ssljax.modalities.images import Images
from ssljax.modalities.modality import Modality
from ssljax.modalities.nodes import Nodes
from ssljax.modalities.series import Series
from ssljax.modalities.speech import Speech
from ssljax.modalities.tables import Tables
from ssljax.modalities.text import Text
from ssljax.modalities.video import Video

MODALITIES: dict[str, type[Modality]] = {
    "graphs": Graphs,
    "image_text": ImageText,
    "images": Images,
    "nodes": Nodes,
    "series": Series,
    "speech": Speech,
    "tables": Tables,
    "text": Text,
    "video": Video,
}
