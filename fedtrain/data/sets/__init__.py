"""Named data sets: ``load("digits", seed=0)``."""

from fedtrain.data.sets.registry import SETS, SetInfo, load, names
from fedtrain.data.sets.split import DataSplit

__all__ = ["SETS", "DataSplit", "SetInfo", "load", "names"]
