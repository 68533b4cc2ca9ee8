"""Kinds of data. A method says which it is for, and the commands take from here what they must know of it."""

from ssljax.modalities.graphs import Graphs
from ssljax.modalities.images import Images
from ssljax.modalities.modality import Modality
from ssljax.modalities.nodes import Nodes
from ssljax.modalities.series import Series
from ssljax.modalities.tables import Tables

MODALITIES: dict[str, type[Modality]] = {
    "graphs": Graphs,
    "images": Images,
    "nodes": Nodes,
    "series": Series,
    "tables": Tables,
}
