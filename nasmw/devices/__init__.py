"""Devices: what networks are measured on, each in a process of its own, here or on another host."""

from nasmw.devices.base import Artifact, Device
from nasmw.devices.measurements import Measurements
from nasmw.devices.measuring import Protocol, measure
from nasmw.devices.ncnn import Ncnn
from nasmw.devices.noise import DeviceNoise, NoiseReport, noise_report, rank_agreement
from nasmw.devices.onnxruntime import OnnxRuntime
from nasmw.devices.openvino import OpenVino
from nasmw.devices.registry import Known, get
from nasmw.devices.registry import known as list
from nasmw.devices.session import Sample, Session
from nasmw.devices.torch import Torch
from nasmw.devices.weights import sensible_weights

__all__ = [
    "Artifact",
    "Device",
    "DeviceNoise",
    "Known",
    "Measurements",
    "Ncnn",
    "NoiseReport",
    "OnnxRuntime",
    "OpenVino",
    "Protocol",
    "Sample",
    "Session",
    "Torch",
    "get",
    "list",
    "measure",
    "noise_report",
    "rank_agreement",
    "sensible_weights",
]
