"""Cate: masked operations predicted from pairs of architectures that cost alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasmw.candidates import Candidates, Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.learned.graphs import Graphs, graphs_of
from nasmw.profilers.learned.trained_encodings import TrainedEncoding, seeded
from nasmw.space import Space

__all__ = ["Cate"]

HEADS = 4
OWN, CROSS = 2, 1
"""Layers that see one architecture, and layers that see both."""
MASKED = 0.2
NEAR = 64
"""A partner is one of so many with the nearest costs."""
STEPS = 600
BATCH = 64
RATE = 2e-3


class _Block(nn.Module):
    """Attention and two linear layers, each around what comes in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.triple, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, hidden: Tensor, closed: Tensor | None) -> Tensor:
        b, m, width = hidden.shape
        parts = self.triple(self.first(hidden)).reshape(b, m, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=closed)
        hidden = hidden + self.out(attended.transpose(1, 2).reshape(b, m, width))
        return hidden + torch.as_tensor(self.layers(self.second(hidden)))


class _Model(nn.Module):
    """Layers for one architecture, each node seeing those before it, and layers for a pair."""

    def __init__(self, nodes: int, operations: int, width: int) -> None:
        super().__init__()
        self.operations = nn.Embedding(operations + 1, width)  # the last one is the mask
        self.places = nn.Parameter(0.5 * torch.randn(nodes, width))
        self.which = nn.Parameter(0.5 * torch.randn(2, 1, width))
        self.own = nn.ModuleList(_Block(width) for _ in range(OWN))
        self.cross = nn.ModuleList(_Block(width) for _ in range(CROSS))
        self.said = nn.Linear(width, operations)

    def encode(self, operations: Tensor, open_to: Tensor) -> Tensor:
        """Return what is known of each node, ``(b, m, width)``."""
        hidden: Tensor = self.operations(operations) + self.places
        for block in self.own:
            hidden = block(hidden, open_to[:, None])
        return hidden

    def loss(self, operations: Tensor, open_to: Tensor) -> Tensor:
        """Return the error of masked operations; rows 2 i and 2 i + 1 are a pair."""
        hidden_from = torch.rand(operations.shape) < MASKED
        masked = torch.where(hidden_from, torch.full_like(operations, self.operations.num_embeddings - 1), operations)
        known = self.encode(masked, open_to)
        b, m, width = known.shape
        both = (known.reshape(b // 2, 2, m, width) + self.which).reshape(b // 2, 2 * m, width)
        for block in self.cross:
            both = block(both, None)
        said = self.said(both).reshape(b, m, -1)
        error: Tensor = F.cross_entropy(said[hidden_from], operations[hidden_from])
        return error


class Cate(TrainedEncoding):
    """What a transformer knows of an architecture, having learnt to fill in operations in pairs that cost alike.

    Each node sees itself and the nodes that feed it, directly or not. Of two architectures that are near in
    multiply-adds (or the first cost that the space knows), a fifth of the operations is masked, and predicted from
    both. The encoding is the mean over the nodes of what the layers for one architecture give. Training takes some ten
    seconds of CPU for a chain of 22 layers.

    Args:
        options: As for `TrainedEncoding`; the number of columns is a multiple of 4.

    Raises:
        ProfilerError: If a word is unknown, the number of columns is no multiple of 4, or the space knows no costs.

    References:
        Yan, Song, Zhang, Zhang, CATE: Computation-aware Neural Architecture Encoding with Transformers, ICML 2021,
        section 3; smaller here: two and one layers of width 32 in the place of twelve and twenty-four of width 64.

    Example:
        >>> from nasmw.profilers.learned import make_encoding
        >>> make_encoding("cate(dim16, seed1)")
        <encoding cate(dim16, seed1)>
    """

    text = "cate"

    def __init__(self, *options: str) -> None:
        super().__init__(*options)
        if self.dimension % HEADS:
            raise ProfilerError(f"{self.text!r} takes a number of columns that is a multiple of {HEADS}, got {self!s}")

    def _learnt(self, space: Space, sample: Candidates) -> _Model:
        graphs = graphs_of(sample)
        operations, open_to = _tensors(graphs)
        order = np.argsort(_costs(space, sample), kind="stable")
        n = len(order)
        with seeded(self.seed):
            model = _Model(operations.shape[1], len(graphs.vocabulary), self.dimension)
            optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
            ranked = torch.from_numpy(order)
            for _ in range(STEPS):
                places = torch.randint(n, (BATCH // 2,))
                apart = torch.randint(1, NEAR // 2 + 1, (BATCH // 2,)) * (2 * torch.randint(2, (BATCH // 2,)) - 1)
                partners = (places + apart).clamp(0, n - 1)
                rows = ranked[torch.stack([places, partners], dim=1).flatten()]
                optimizer.zero_grad(set_to_none=True)
                model.loss(operations[rows], open_to[rows]).backward()
                optimizer.step()
                schedule.step()
        return model.eval()

    def _columns(self, learnt: _Model, candidates: Candidates) -> Floats:
        with torch.no_grad():
            known = learnt.encode(*_tensors(graphs_of(candidates)))
        return known.mean(dim=1).double().numpy()


def _costs(space: Space, sample: Candidates) -> Floats:
    """Return what architectures cost, by the table of multiply-adds, or else by the first one that the space has."""
    name = "macs" if "macs" in space.tables else next(iter(space.tables), None)
    if name is None:
        raise ProfilerError(
            f"the encoding 'cate' needs to know which networks cost alike, and {space!r} has no tables of costs; take "
            "'arch2vec', or make the space with `tables`"
        )
    return np.asarray(space.tables[name](space, None).evaluate(sample), dtype=np.float64)


def _tensors(graphs: Graphs) -> tuple[Tensor, Tensor]:
    """Return operations ``(n, m)``, and which nodes each one sees ``(n, m, m)``: itself and all that lead to it."""
    reach: npt.NDArray[np.bool_] = graphs.adjacency | np.eye(graphs.adjacency.shape[1], dtype=np.bool_)
    for _ in range(int(np.ceil(np.log2(reach.shape[1])))):
        wide = reach.astype(np.float32)
        reach = (wide @ wide) > 0.0
    return torch.from_numpy(graphs.operations), torch.from_numpy(np.ascontiguousarray(reach.transpose(0, 2, 1)))
