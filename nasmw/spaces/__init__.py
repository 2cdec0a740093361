"""Ready search spaces, each with a builder of real networks and exact cost tables."""

from nasmw.spaces.layerwise import fbnet, proxylessnas
from nasmw.spaces.nasbench201 import nasbench201, nats_size
from nasmw.spaces.ofa import compofa, ofa_mobilenetv3

__all__ = [
    "compofa",
    "fbnet",
    "nasbench201",
    "nats_size",
    "ofa_mobilenetv3",
    "proxylessnas",
]
