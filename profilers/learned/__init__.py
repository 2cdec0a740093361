"""Learned profilers: predict a metric of architectures from those for which it is known."""

from nasmw.profilers.learned.adaptive import AdaptiveIntervals
from nasmw.profilers.learned.arch2vec import Arch2Vec
from nasmw.profilers.learned.base import LearnedProfiler, Samples
from nasmw.profilers.learned.boosting import Boosting
from nasmw.profilers.learned.calibration import Calibration
from nasmw.profilers.learned.cate import Cate
from nasmw.profilers.learned.costs import Costs, Counts
from nasmw.profilers.learned.descriptors import (
    GPUS,
    DescriptorProfiler,
    DeviceMeasurements,
    HardwareDescriptor,
    HardwareModel,
)
from nasmw.profilers.learned.device_split import DeviceSplit, rank_correlations, split_devices
from nasmw.profilers.learned.encoding_text import default_encoding, make_encoding
from nasmw.profilers.learned.encodings import Encoding, Features, Group, Interaction, Joined, OneHot, Slots
from nasmw.profilers.learned.gaussian_process import GaussianProcess
from nasmw.profilers.learned.given import Given
from nasmw.profilers.learned.graph_encoding import GraphEncoding
from nasmw.profilers.learned.graph_network import GraphNetwork
from nasmw.profilers.learned.graph_transfer import GraphSources
from nasmw.profilers.learned.graphs import Adjacency, Graphs, graphs_of
from nasmw.profilers.learned.layers import LayerCounts, LayerWork, PlacedCounts
from nasmw.profilers.learned.mlp import MLP
from nasmw.profilers.learned.multi_source import (
    MultiSource,
    MultiSourceEncoding,
    MultiSourceProfiler,
    multi_source_encoding,
)
from nasmw.profilers.learned.predictor import LeftOut, Linear, Prediction, Predictor, make_predictor
from nasmw.profilers.learned.ridge import Ridge
from nasmw.profilers.learned.robust import fit_robust
from nasmw.profilers.learned.samplers import (
    choose_buckets,
    choose_cosine,
    choose_kmeans,
    choose_random,
    choose_variance,
)
from nasmw.profilers.learned.source_devices import SourceDevice, SourceDevices
from nasmw.profilers.learned.sources import TransferEncoding
from nasmw.profilers.learned.store import PredictorStore, StoredPredictor
from nasmw.profilers.learned.structure import Blocks, Structure
from nasmw.profilers.learned.trained_encodings import GraphPCA, TrainedEncoding
from nasmw.profilers.learned.transfer import Transfer, TransferProfiler, transfer_encoding
from nasmw.profilers.learned.tuning import Curve, Tried, Tuning, learning_curve, tune

__all__ = [
    "GPUS",
    "MLP",
    "AdaptiveIntervals",
    "Adjacency",
    "Arch2Vec",
    "Blocks",
    "Boosting",
    "Calibration",
    "Cate",
    "Costs",
    "Counts",
    "Curve",
    "DescriptorProfiler",
    "DeviceMeasurements",
    "DeviceSplit",
    "Encoding",
    "Features",
    "GaussianProcess",
    "Given",
    "GraphEncoding",
    "GraphNetwork",
    "GraphPCA",
    "GraphSources",
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
    "MultiSource",
    "MultiSourceEncoding",
    "MultiSourceProfiler",
    "OneHot",
    "PlacedCounts",
    "Prediction",
    "Predictor",
    "PredictorStore",
    "Ridge",
    "Samples",
    "Slots",
    "SourceDevice",
    "SourceDevices",
    "StoredPredictor",
    "Structure",
    "TrainedEncoding",
    "Transfer",
    "TransferEncoding",
    "TransferProfiler",
    "Tried",
    "Tuning",
    "choose_buckets",
    "choose_cosine",
    "choose_kmeans",
    "choose_random",
    "choose_variance",
    "default_encoding",
    "fit_robust",
    "graphs_of",
    "learning_curve",
    "make_encoding",
    "make_predictor",
    "multi_source_encoding",
    "rank_correlations",
    "split_devices",
    "transfer_encoding",
    "tune",
]
