"""Arch2Vec: a variational autoencoder of graphs, whose code is the encoding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasmw.candidates import Candidates, Floats
from nasmw.profilers.learned.graphs import graphs_of
from nasmw.profilers.learned.trained_encodings import TrainedEncoding, seeded
from nasmw.space import Space

__all__ = ["Arch2Vec"]

WIDTH = 64
PASSES = 3
KL_WEIGHT = 0.005
STEPS = 800
BATCH = 128
RATE = 2e-3


class _Isomorphism(nn.Module):
    """A layer of a graph isomorphism network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(()))
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, joined: Tensor) -> Tensor:
        taken: Tensor = self.layers((1.0 + self.share) * hidden + joined @ hidden)
        return F.relu(hidden + self.norm(taken))


class _Autoencoder(nn.Module):
    """From graphs to codes and back: operations of all nodes, and the pairs of nodes that are joined in some graphs."""

    def __init__(self, nodes: int, operations: int, pairs: Tensor, dimension: int) -> None:
        super().__init__()
        self.pairs: Tensor
        self.register_buffer("pairs", pairs)
        self.operations = nn.Embedding(operations, WIDTH)
        self.places = nn.Parameter(torch.randn(nodes, WIDTH))
        self.passes = nn.ModuleList(_Isomorphism(WIDTH) for _ in range(PASSES))
        self.code = nn.Linear(nodes * WIDTH, 2 * dimension)
        self.back = nn.Sequential(nn.Linear(dimension, 4 * WIDTH), nn.ReLU())
        self.to_operations = nn.Linear(4 * WIDTH, nodes * operations)
        if len(pairs):
            self.to_pairs = nn.Linear(4 * WIDTH, len(pairs))

    def encode(self, operations: Tensor, joined: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and logarithms of variances of the codes of graphs, each ``(b, p)``."""
        hidden = self.operations(operations) + self.places
        both = joined + joined.transpose(1, 2)
        for one in self.passes:
            hidden = one(hidden, both)
        means, logarithms = self.code(hidden.flatten(1)).chunk(2, dim=1)
        return means, logarithms.clamp(-10.0, 4.0)

    def loss(self, operations: Tensor, joined: Tensor) -> Tensor:
        """Return the error of what comes back from codes that are drawn, and how far they are from the prior."""
        means, logarithms = self.encode(operations, joined)
        hidden = self.back(means + torch.exp(0.5 * logarithms) * torch.randn_like(means))
        said = self.to_operations(hidden).reshape(*operations.shape, -1)
        error = F.cross_entropy(said.flatten(0, 1), operations.flatten())
        if len(self.pairs):
            wanted = joined[:, self.pairs[:, 0], self.pairs[:, 1]]
            error = error + F.binary_cross_entropy_with_logits(self.to_pairs(hidden), wanted)
        divergence = -0.5 * (1.0 + logarithms - means**2 - logarithms.exp()).sum(dim=1).mean()
        return error + KL_WEIGHT * divergence / operations.shape[1]


class Arch2Vec(TrainedEncoding):
    """The code of a variational graph autoencoder that learns to give back random graphs of the space.

    A graph isomorphism network reads the graph, with edges in both directions; from the code, operations and edges are
    predicted. No value of any architecture is needed. Training takes some ten seconds of CPU for a chain of 22 layers.

    Args:
        options: As for `TrainedEncoding`.

    Raises:
        ProfilerError: If a word is unknown.

    References:
        Yan, Zheng, Ao, Zeng, Zhang, Does Unsupervised Architecture Representation Learning Help Neural Architecture
        Search?, NeurIPS 2020, section 3. Deviations: nodes have an embedding of their place, and there is one code for
        the graph, of which all is predicted, in the place of the sum of one code for each node.

    Example:
        >>> from nasmw.profilers.learned import make_encoding
        >>> make_encoding("arch2vec(dim16)")
        <encoding arch2vec(dim16)>
    """

    text = "arch2vec"

    def _learnt(self, space: Space, sample: Candidates) -> _Autoencoder:
        operations, joined = _graphs(sample)
        share = joined.mean(dim=0)
        pairs = torch.nonzero((share > 0) & (share < 1))
        with seeded(self.seed):
            model = _Autoencoder(joined.shape[1], _vocabulary(sample), pairs, self.dimension)
            optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
            for _ in range(STEPS):
                rows = torch.randint(len(operations), (BATCH,))
                optimizer.zero_grad(set_to_none=True)
                model.loss(operations[rows], joined[rows]).backward()
                optimizer.step()
                schedule.step()
        return model.eval()

    def _columns(self, learnt: _Autoencoder, candidates: Candidates) -> Floats:
        with torch.no_grad():
            means, _ = learnt.encode(*_graphs(candidates))
        return means.double().numpy()


def _graphs(candidates: Candidates) -> tuple[Tensor, Tensor]:
    graphs = graphs_of(candidates)
    return torch.from_numpy(graphs.operations), torch.from_numpy(graphs.adjacency.astype(np.float32))


def _vocabulary(candidates: Candidates) -> int:
    return len(graphs_of(candidates[:1]).vocabulary)
