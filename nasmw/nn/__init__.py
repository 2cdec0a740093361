"""Spaces written as a PyTorch model: modules with choices in them, and one supernet of all networks.

Everything that `torch.nn` has is here, too. Its layers take value choices as arguments, and are plain layers without;
``MutableLinear`` and the like are other names of them.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nasmw.nn.cell import Cell
from nasmw.nn.decisions import InputChoice, LayerChoice
from nasmw.nn.elastic import Elastic, elastic
from nasmw.nn.elastic_module import ElasticModule
from nasmw.nn.model_space import ModelSpace
from nasmw.nn.reading import Place
from nasmw.nn.repeat import Repeat
from nasmw.nn.rules import Rule
from nasmw.nn.switch import Gates, MixtureError
from nasmw.nn.values import Value, ValueChoice, choice, derive, maximum, minimum

__all__ = [
    "Cell",
    "Elastic",
    "ElasticModule",
    "Gates",
    "InputChoice",
    "LayerChoice",
    "MixtureError",
    "ModelSpace",
    "Place",
    "Repeat",
    "Rule",
    "Value",
    "ValueChoice",
    "choice",
    "derive",
    "elastic",
    "maximum",
    "minimum",
]

_PREFIX = "Mutable"
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def __getattr__(name: str) -> Any:
    """Return what `torch.nn` has of this name; layers such that they take value choices."""
    found = getattr(nn, name.removeprefix(_PREFIX) or name, None)
    layer = isinstance(found, type) and issubclass(found, nn.Module) and found is not nn.Module
    if found is None or (name.startswith(_PREFIX) and not layer):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if layer and not issubclass(found, _CONTAINERS):
        found = elastic(found)
    globals()[name] = found
    return found
