"""One supernet instead of many networks: how it is trained, and networks that inherit its weights."""

from nasmw.oneshot.data import Data, DatasetData, TensorData
from nasmw.oneshot.evaluator import SupernetEvaluator
from nasmw.oneshot.norms import recalibrate
from nasmw.oneshot.recipe import Recipe
from nasmw.oneshot.training import Hook, Training

__all__ = ["Data", "DatasetData", "Hook", "Recipe", "SupernetEvaluator", "TensorData", "Training", "recalibrate"]
