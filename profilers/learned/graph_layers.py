"""GraphScorer: the network of NASFLAT over dense batches of graphs, in torch."""

from __future__ import annotations

import itertools

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["GraphScorer", "Sizes"]

PLACE = 16
"""How many numbers say which node a node is."""
EXTRA = 48
"""How many numbers the supplementary encodings are made into."""


@attrs.frozen
class Sizes:
    """The sizes of the network's inputs and layers.

    Attributes:
        nodes: Of each graph, ``m``.
        operations: In the vocabulary, ``v``.
        work: What is known of each node's cost, ``f``; 0 for nothing.
        extra: Columns of supplementary encodings, ``e``; 0 for none.
        devices: How many devices have an embedding.
        operation: Width of the embedding of an operation.
        device: Width of the embedding of a device.
        graph: Width of the graph layers.
        first: Graph layers of the pass that refines the embeddings of operations; 0 leaves it out.
        second: Graph layers of the pass that is read out.
        head: Width of the three layers behind the graph.
        per_operation: Whether a device's embedding is joined to those of the operations; else it is joined to what
            is read out of the graph.
        dropout: Behind graph layers.
    """

    nodes: int
    operations: int
    work: int
    extra: int
    devices: int
    operation: int = 40
    device: int = 8
    graph: int = 128
    first: int = 2
    second: int = 3
    head: int = 200
    per_operation: bool = True
    dropout: float = 0.1


class _GraphLayer(nn.Module):
    """The mean of a graph flow, gated by the operations, and of attention over those that feed a node."""

    def __init__(self, inputs: int, outputs: int, operation: int) -> None:
        super().__init__()
        self.values = nn.Linear(inputs, 2 * outputs, bias=False)
        self.gates = nn.Linear(operation, 2 * outputs)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scores = nn.Linear(outputs, 2, bias=False)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, hidden: Tensor, operations: Tensor, fed: Tensor, closed: Tensor) -> Tensor:
        flow, attended = self.values(hidden).chunk(2, dim=-1)
        flow_gate, gate = torch.sigmoid(self.gates(operations)).chunk(2, dim=-1)
        flow = flow_gate * (fed @ flow) + flow + self.bias
        scores = self.scores(attended)
        logits = F.leaky_relu(scores[..., :1] + scores[..., 1:].transpose(1, 2), 0.2)
        weights = torch.softmax(logits + closed, dim=-1)
        mean: Tensor = 0.5 * (flow + self.norm(gate * (weights @ attended)))
        return mean


def _stack(widths: list[int], last: bool = False) -> nn.Sequential:
    """Return linear layers with ReLU between them, and behind the last one too if `last`."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers) if last else nn.Sequential(*layers[:-1])


class GraphScorer(nn.Module):
    """Gives a score for each graph on a device, of which only the order means something.

    The embedding of each node's operation is joined by that of the device and by the node's cost. A first pass of graph
    layers refines it by what is around the node; a second one gives the nodes' states, whose mean goes through
    three layers with the supplementary encodings. Nodes also have an embedding of their place, since in a chain the
    place decides on the channels.

    References:
        Akhauri and Abdelfattah, On Latency Predictors for Neural Architecture Search, MLSys 2024, section 4. Otherwise:
        places have an embedding; refinement takes a node's own state and the mean of all, not the output node's; all
        nodes of a chain take part, joined to their neighbours.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        per_node = sizes.operation + sizes.work + (sizes.device if sizes.per_operation else 0)
        self.operations = nn.Linear(sizes.operations, sizes.operation, bias=False)
        self.devices = nn.Embedding(sizes.devices, sizes.device)
        self.places = nn.Parameter(torch.randn(sizes.nodes, PLACE))
        self.enter = nn.Linear(per_node + PLACE, sizes.graph)
        self.first = nn.ModuleList(_GraphLayer(sizes.graph, sizes.graph, per_node) for _ in range(sizes.first))
        if sizes.first:
            self.refine = _stack([per_node + 2 * sizes.graph, sizes.graph, per_node])
        self.second = nn.ModuleList(_GraphLayer(sizes.graph, sizes.graph, per_node) for _ in range(sizes.second))
        read = sizes.graph
        if sizes.extra:
            self.extra = _stack([sizes.extra, 128, 128, EXTRA])
            read += EXTRA
        if not sizes.per_operation:
            read += sizes.device
        self.head = _stack([read, sizes.head, sizes.head, sizes.head, 1])
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, operations: Tensor, joined: Tensor, work: Tensor, extra: Tensor, device: Tensor) -> Tensor:
        """Return scores, ``(b,)``.

        Args:
            operations: ``(b, m, v)``, one-hot.
            joined: ``(b, m, m)``, 1 where the row's node feeds the column's.
            work: ``(b, m, f)``.
            extra: ``(b, e)``.
            device: ``(b,)`` int64.
        """
        b, m = operations.shape[:2]
        fed = joined.transpose(1, 2)
        closed = torch.log((fed + torch.eye(m, dtype=fed.dtype)).clamp(1e-9, 1.0))
        parts = [self.operations(operations), work]
        if self.sizes.per_operation:
            parts.append(self.devices(device)[:, None, :].expand(b, m, -1))
        known = torch.cat(parts, dim=-1)
        entered = self.enter(torch.cat([known, self.places.expand(b, m, -1)], dim=-1))
        if self.sizes.first:
            hidden = self._pass(self.first, entered, known, fed, closed)
            mean = hidden.mean(dim=1, keepdim=True).expand_as(hidden)
            known = known + self.refine(torch.cat([known, hidden, mean], dim=-1))
        read = [self._pass(self.second, entered, known, fed, closed).mean(dim=1)]
        if self.sizes.extra:
            read.append(self.extra(extra))
        if not self.sizes.per_operation:
            read.append(self.devices(device))
        scores: Tensor = self.head(torch.cat(read, dim=-1)).squeeze(-1)
        return scores

    def _pass(self, layers: nn.ModuleList, hidden: Tensor, operations: Tensor, fed: Tensor, closed: Tensor) -> Tensor:
        for number, layer in enumerate(layers):
            hidden = layer(hidden, operations, fed, closed)
            if number < len(layers) - 1:
                hidden = self.dropout(F.relu(hidden))
        return hidden
