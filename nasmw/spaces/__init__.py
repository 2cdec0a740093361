"""Ready search spaces, each with a builder of real networks and exact cost tables."""

from nasmw.spaces.autoformer import autoformer
from nasmw.spaces.darts import darts
from nasmw.spaces.extended import extended
from nasmw.spaces.layerwise import fbnet, proxylessnas
from nasmw.spaces.mobilenetv3 import mobilenetv3
from nasmw.spaces.nasbench201 import nasbench201, nats_size
from nasmw.spaces.ofa import compofa, ofa_mobilenetv3
from nasmw.spaces.ofa_weights import load_ofa_weights, ofa_checkpoint_name

__all__ = [
    "autoformer",
    "compofa",
    "darts",
    "extended",
    "fbnet",
    "load_ofa_weights",
    "mobilenetv3",
    "nasbench201",
    "nats_size",
    "ofa_checkpoint_name",
    "ofa_mobilenetv3",
    "proxylessnas",
]
