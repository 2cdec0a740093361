"""Weights for once-for-all networks from a published once-for-all checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nasmw.errors import SpaceError

__all__ = ["load_ofa_weights", "ofa_checkpoint_name"]

BLOCKS_PER_STAGE = 4
KERNEL_STEPS = ((7, 5), (5, 3))


def ofa_checkpoint_name(published: str) -> str:
    """Return the name, in networks of `ofa_mobilenetv3`, of a tensor of a published checkpoint.

    ==============================================  =========================================
    published                                       here
    ==============================================  =========================================
    ``first_conv.…``, ``final_expand_layer.…``      the same
    ``feature_mix_layer.…``                         the same
    ``classifier.linear.…``                         ``classifier.…``
    ``blocks.0.mobile_inverted_conv.…``             ``first_block.…``
    ``blocks.{1 + 4 s + b}.mobile_inverted_conv.…``  ``stages.{s}.{b}.…``
    ``….depth_conv.se.fc.reduce.…``, ``expand``     ``….depth_conv.se.reduce.…``, ``expand``
    ``….conv.conv.…``, ``….bn.bn.…``                ``….conv.…``, ``….bn.…``
    ==============================================  =========================================

    Later releases write ``conv`` for ``mobile_inverted_conv``; that is understood as well.

    Args:
        published: The name in the checkpoint.

    Example:
        >>> ofa_checkpoint_name("blocks.6.mobile_inverted_conv.depth_conv.bn.bn.weight")
        'stages.1.1.depth_conv.bn.weight'
    """
    name = published.removeprefix("module.")
    name = re.sub(r"\.(conv|bn|linear)\.\1\.", r".\1.", name)
    name = name.replace("classifier.linear.", "classifier.").replace(".se.fc.", ".se.")
    block = re.fullmatch(r"blocks\.(\d+)\.(?:mobile_inverted_conv|conv)\.(.*)", name)
    if block is None:
        return name
    number, rest = int(block[1]) - 1, block[2]
    if number < 0:
        return f"first_block.{rest}"
    return f"stages.{number // BLOCKS_PER_STAGE}.{number % BLOCKS_PER_STAGE}.{rest}"


def load_ofa_weights(model: nn.Module, checkpoint: Mapping[str, Tensor]) -> None:
    """Copy the weights of a network of `ofa_mobilenetv3` or `compofa` out of a published checkpoint, in place.

    A network takes the first channels of every layer, and the middle of every depthwise kernel; smaller kernels are
    multiplied by the checkpoint's ``7to5_matrix`` and ``5to3_matrix``. The statistics of batch norm are those of the
    whole once-for-all network: run some hundred images through the network in training mode before it is judged.

    Source: Cai et al., Once-for-All, ICLR 2020, section 3.3 (elastic kernel size).

    Args:
        model: The network, of the width that the checkpoint has.
        checkpoint: The tensors by their published names, as ``torch.load(path)["state_dict"]`` gives them.

    Raises:
        SpaceError: If the checkpoint lacks a tensor, or has one that is too small.
    """
    known = {ofa_checkpoint_name(name): tensor for name, tensor in checkpoint.items()}
    weights = {}
    for name, own in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            weights[name] = known.get(name, own)
            continue
        if name not in known:
            raise SpaceError(f"the checkpoint has nothing for {name!r}; is it one for MobileNetV3 networks?")
        tensor = known[name]
        if own.ndim == 4 and own.shape[-1] < tensor.shape[-1]:
            tensor = _smaller_kernel(tensor, own.shape[-1], known, name.removesuffix("weight"))
        if tensor.ndim != own.ndim or any(has < needs for has, needs in zip(tensor.shape, own.shape, strict=True)):
            raise SpaceError(
                f"{name!r} needs a tensor of shape {tuple(own.shape)}, the checkpoint has {tuple(tensor.shape)}; "
                "is its width that of the network?"
            )
        weights[name] = tensor[tuple(slice(size) for size in own.shape)]
    model.load_state_dict(weights)


def _smaller_kernel(kernels: Tensor, side: int, known: Mapping[str, Tensor], prefix: str) -> Tensor:
    """Return depthwise kernels of a smaller side, as the once-for-all network shrinks them."""
    for greater, smaller in KERNEL_STEPS:
        if side >= greater or kernels.shape[-1] < greater:
            continue
        middle = kernels[..., 1:-1, 1:-1]
        matrix = known.get(f"{prefix}{greater}to{smaller}_matrix", torch.eye(smaller**2))
        kernels = (middle.flatten(2) @ matrix.T.to(middle)).view(middle.shape)
    return kernels
