"""Learned profilers: predict a metric of architectures from those for which it is known."""

from nasmw.profilers.learned.adaptive import AdaptiveIntervals
from nasmw.profilers.learned.base import LearnedProfiler, Samples
from nasmw.profilers.learned.boosting import Boosting
from nasmw.profilers.learned.calibration import Calibration
from nasmw.profilers.learned.costs import Costs, Counts
from nasmw.profilers.learned.descriptors import (
    GPUS,
    DescriptorProfiler,
    DeviceMeasurements,
    HardwareDescriptor,
    HardwareModel,
)
from nasmw.profilers.learned.encoding_text import default_encoding, make_encoding
from nasmw.profilers.learned.encodings import Encoding, Features, Group, Interaction, Joined, OneHot, Slots
from nasmw.profilers.learned.gaussian_process import GaussianProcess
from nasmw.profilers.learned.given import Given
from nasmw.profilers.learned.graphs import Adjacency, Graphs, graphs_of
from nasmw.profilers.learned.layers import LayerCounts, LayerWork, PlacedCounts
from nasmw.profilers.learned.mlp import MLP
from nasmw.profilers.learned.predictor import LeftOut, Linear, Prediction, Predictor, make_predictor
from nasmw.profilers.learned.ridge import Ridge
from nasmw.profilers.learned.robust import fit_robust
from nasmw.profilers.learned.sources import TransferEncoding
from nasmw.profilers.learned.store import PredictorStore, StoredPredictor
from nasmw.profilers.learned.transfer import Transfer, TransferProfiler, transfer_encoding
from nasmw.profilers.learned.tuning import Curve, Tried, Tuning, learning_curve, tune

__all__ = [
    "GPUS",
    "MLP",
    "AdaptiveIntervals",
    "Adjacency",
    "Boosting",
    "Calibration",
    "Costs",
    "Counts",
    "Curve",
    "DescriptorProfiler",
    "DeviceMeasurements",
    "Encoding",
    "Features",
    "GaussianProcess",
    "Given",
    "Graphs",
    "Group",
    "HardwareDescriptor",
    "HardwareModel",
    "Interaction",
    "Joined",
    "LayerCounts",
    "LayerWork",
    "LearnedProfiler",
    "LeftOut",
    "Linear",
    "OneHot",
    "PlacedCounts",
    "Prediction",
    "Predictor",
    "PredictorStore",
    "Ridge",
    "Samples",
    "Slots",
    "StoredPredictor",
    "Transfer",
    "TransferEncoding",
    "TransferProfiler",
    "Tried",
    "Tuning",
    "default_encoding",
    "fit_robust",
    "graphs_of",
    "learning_curve",
    "make_encoding",
    "make_predictor",
    "transfer_encoding",
    "tune",
]
