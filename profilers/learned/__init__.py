"""Learned profilers: predict a metric of architectures from those for which it is known."""

from nasmw.profilers.learned.base import LearnedProfiler, Samples
from nasmw.profilers.learned.calibration import Calibration
from nasmw.profilers.learned.costs import Costs, Counts
from nasmw.profilers.learned.encoding_text import default_encoding, make_encoding
from nasmw.profilers.learned.encodings import Encoding, Features, Group, Interaction, Joined, OneHot, Slots
from nasmw.profilers.learned.given import Given
from nasmw.profilers.learned.graphs import Adjacency, Graphs, graphs_of
from nasmw.profilers.learned.predictor import LeftOut, Linear, Prediction, Predictor, make_predictor
from nasmw.profilers.learned.ridge import Ridge

__all__ = [
    "Adjacency",
    "Calibration",
    "Costs",
    "Counts",
    "Encoding",
    "Features",
    "Given",
    "Graphs",
    "Group",
    "Interaction",
    "Joined",
    "LearnedProfiler",
    "LeftOut",
    "Linear",
    "OneHot",
    "Prediction",
    "Predictor",
    "Ridge",
    "Samples",
    "Slots",
    "default_encoding",
    "graphs_of",
    "make_encoding",
    "make_predictor",
]
