"""GraphNetwork: NASFLAT's graph network as a predictor, learnt on source devices and tuned on a new one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import attrs
import numpy as np

from nasmw.candidates import Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.learned.encodings import Features, Group
from nasmw.profilers.learned.graph_encoding import JOINED, OPERATIONS, WORK
from nasmw.profilers.learned.monotone import Monotone
from nasmw.profilers.learned.predictor import Arrays, Prediction, Predictor, number, whole
from nasmw.profilers.learned.scores import ranks
from nasmw.profilers.learned.trained_encodings import seeded

if TYPE_CHECKING:
    from torch import Tensor

    from nasmw.profilers.learned.graph_layers import GraphScorer, Sizes

__all__ = ["GraphNetwork", "HardwareEmbedding", "graph_groups"]

HardwareEmbedding = Literal["operation", "network", "none"]
SOURCE, OWN = "source/", "own/"
"""Before the names of weights: learnt on the sources, and tuned on the device."""
BLOCK = 512
MOST_DEVICES = 8
"""So many devices at most take part in one step."""
FINITE = number("a number above 0", lambda x: 0.0 < x < math.inf)


def graph_groups(groups: Sequence[Group]) -> dict[str, Group]:
    """Return groups of columns by name, a graph among them.

    Raises:
        ProfilerError: If there is no graph.
    """
    found = {group.name: group for group in groups}
    if OPERATIONS not in found or JOINED not in found:
        raise ProfilerError(
            "the predictor 'graph_network' learns from graphs: give the encoding 'graph' or 'graph(work)', with "
            f"others behind it if wished; got {[group.name for group in groups]}"
        )
    return found


def _embedding(value: object) -> HardwareEmbedding:
    if value not in get_args(HardwareEmbedding):
        raise ProfilerError(f"GraphNetwork(embedding=...) is one of {get_args(HardwareEmbedding)}, got {value!r}")
    return value  # type: ignore[return-value]


@attrs.frozen(eq=False)
class _Inputs:
    """Features as the network takes them, ``n`` rows of each."""

    operations: Tensor
    joined: Tensor
    work: Tensor
    extra: Tensor

    def __getitem__(self, rows: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.operations[rows], self.joined[rows], self.work[rows], self.extra[rows]


@attrs.define(eq=False)
class GraphNetwork(Predictor):
    """NASFLAT's graph network: it learns to order architectures, on many devices at once; for a `GraphEncoding`.

    `learn_sources` trains it on the values of source devices, each with an embedding that is joined to those of the
    operations. `fit` starts from there: the new device takes the embedding of the source whose order is closest on the
    samples, and the whole network is tuned on the samples. Without sources `fit` trains from random weights. Scores are
    made into values by an increasing function through the samples. Every prediction has the same spread, and to
    calibrate takes `folds_used` more tunings.

    The loss of a pair of one device is ``max(0, margin - (s_i - s_j))`` where ``i`` is the slower one; AdamW, with a
    rate that falls along a cosine. Weights, batches and dropout are drawn from a state of their own.

    Args:
        embedding: ``"operation"`` joins the device's embedding to those of operations, ``"network"`` to what is read
            out of the graph, ``"none"`` has none: the order is the same on all sources.
        width: Of graph layers.
        refine: Graph layers of the pass that refines the embeddings of operations; 0 leaves it out.
        layers: Graph layers of the pass that is read out.
        head: Width of the three layers behind the graph.
        dropout: Behind graph layers.
        margin: Of the loss, in scores.
        weight_decay: As for AdamW.
        steps: Of the training on the sources, or of that without sources.
        rows: How many rows, architectures times devices, a step has.
        rate: The greatest learning rate of that training.
        tuning_steps: Of the tuning.
        tuning_rows: Samples in a step of it.
        tuning_rate: The greatest learning rate of it; small cells bear 3e-3, longer chains do not.
        starts: How many sources, the closest first, lend their embedding to a tuning each; scores are averaged.
        seed: From which everything is drawn.

    References:
        Akhauri and Abdelfattah, On Latency Predictors for Neural Architecture Search, MLSys 2024, sections 4 and 5, and
        the hyper-parameters of the authors' code: width 128, 1,500 or more steps of 128 rows; smaller here, for CPUs.
        `GraphScorer` says where the network deviates.
    """

    kind: ClassVar[str] = "graph_network"
    minimum: ClassVar[int] = 4
    folds: ClassVar[int] = 4
    folds_used: ClassVar[int] = 4

    embedding: HardwareEmbedding = attrs.field(default="operation", converter=_embedding)
    width: int = attrs.field(default=64, validator=whole(1))
    refine: int = attrs.field(default=2, validator=whole(0))
    layers: int = attrs.field(default=3, validator=whole(1))
    head: int = attrs.field(default=200, validator=whole(1))
    dropout: float = attrs.field(default=0.1, validator=number("a share from 0 to below 1", lambda x: 0.0 <= x < 1.0))
    margin: float = attrs.field(default=0.1, validator=FINITE)
    weight_decay: float = attrs.field(
        default=1e-5, validator=number("a number of at least 0", lambda x: 0.0 <= x < math.inf)
    )
    steps: int = attrs.field(default=300, validator=whole(1))
    rows: int = attrs.field(default=128, validator=whole(2))
    rate: float = attrs.field(default=1e-3, validator=FINITE)
    tuning_steps: int = attrs.field(default=60, validator=whole(1))
    tuning_rows: int = attrs.field(default=32, validator=whole(2))
    tuning_rate: float = attrs.field(default=1e-3, validator=FINITE)
    starts: int = attrs.field(default=1, validator=whole(1))
    seed: int = attrs.field(default=0, validator=whole(0))
    devices: int = attrs.field(init=False, default=0)
    _source: Arrays = attrs.field(init=False, factory=dict)
    _own: Arrays = attrs.field(init=False, factory=dict)
    _monotone: Monotone = attrs.field(init=False, factory=Monotone)
    _scorers: list[tuple[int, GraphScorer]] | None = attrs.field(init=False, default=None)

    # -- learning -----------------------------------------------------------------------------------------------

    def learn_sources(self, features: Features, values: Floats, names: Sequence[str] = ()) -> None:
        """Learn from source devices, from scratch.

        Args:
            features: Of ``n`` architectures.
            values: ``(n, d)``, one column for each device, in any unit; NaN where there is no measurement.
            names: Of the devices, for messages; their numbers by default.

        Raises:
            ProfilerError: If there is no device, or one has fewer than two values that differ.
        """
        if values.ndim != 2 or values.shape[0] != len(features) or not values.shape[1]:
            raise ProfilerError(
                f"values of sources are a row for each of {len(features)} architectures and a column for each device, "
                f"got {values.shape}"
            )
        for device, column in enumerate(values.T):
            known = column[np.isfinite(column)]
            if len(known) < 2 or not np.ptp(known):
                source = repr(names[device]) if names else f"number {device}"
                raise ProfilerError(
                    f"the source {source} has no two values that differ: there is no order to learn; leave it out"
                )
        inputs, sizes = self._read(features, values.shape[1])
        with seeded(self.seed):
            scorer = _made(sizes)
            self._train(scorer, inputs, values, np.ones(len(values)))
        self.devices = values.shape[1]
        self._source = _arrays(scorer)

    def fit(self, features: Features, values: Floats, weights: Floats) -> None:
        """Learn from samples of the new device, starting from the sources where there are any."""
        inputs, sizes = self._read(features, max(self.devices, 1))
        found = []
        if not self._source:
            with seeded(self.seed):
                scorer = _made(sizes)
                self._train(scorer, inputs, values[:, None], weights)
            found.append((0, scorer))
        else:
            for device in self._closest(inputs, sizes, values)[: self.starts]:
                with seeded(self.seed):
                    scorer = _made(sizes, self._source)
                    self._tune(scorer, inputs, values, weights, device)
                found.append((device, scorer))
        self._own = {"devices": np.array([device for device, _ in found])}
        for start, (_, scorer) in enumerate(found):
            self._own |= {f"{start}/{name}": array for name, array in _arrays(scorer).items()}
        self._scorers = None
        self._monotone = Monotone.fit(self.scores(features), values, weights)

    def _closest(self, inputs: _Inputs, sizes: Sizes, values: Floats) -> list[int]:
        """Return the sources by how close their order is to that of the samples, the closest first."""
        if self.embedding == "none":
            return [0]
        scorer = _made(sizes, self._source)
        closeness = [_rank_correlation(_scores(scorer, inputs, device), values) for device in range(self.devices)]
        return [int(device) for device in np.argsort(-np.array(closeness), kind="stable")]

    def _train(self, scorer: GraphScorer, inputs: _Inputs, values: Floats, weights: Floats) -> None:
        import torch

        n, devices = values.shape
        together = min(devices, MOST_DEVICES)
        share = max(2, min(n, self.rows // together))

        def draw() -> tuple[Tensor, Tensor]:
            return torch.randperm(n)[:share], torch.randperm(devices)[:together]

        self._descend(scorer, inputs, values, weights, draw, self.steps, self.rate)

    def _tune(self, scorer: GraphScorer, inputs: _Inputs, values: Floats, weights: Floats, device: int) -> None:
        import torch

        n = len(values)

        def draw() -> tuple[Tensor, Tensor]:
            return torch.randperm(n)[: self.tuning_rows], torch.tensor([device])

        whole = np.repeat(values[:, None], device + 1, axis=1)
        self._descend(scorer, inputs, whole, weights, draw, self.tuning_steps, self.tuning_rate)

    def _descend(
        self,
        scorer: GraphScorer,
        inputs: _Inputs,
        values: Floats,
        weights: Floats,
        draw: Any,
        steps: int,
        rate: float,
    ) -> None:
        import torch

        scorer.train()
        optimizer = torch.optim.AdamW(scorer.parameters(), lr=rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-3 * rate)
        targets = torch.from_numpy(values)
        factors = torch.from_numpy(weights.astype(np.float32))
        for _ in range(steps):
            rows, devices = draw()
            taken = rows.repeat_interleave(len(devices))
            embedded = torch.zeros_like(devices) if self.embedding == "none" else devices
            scores = scorer(*inputs[taken], embedded.repeat(len(rows))).reshape(len(rows), len(devices))
            slower = targets[rows][:, devices]
            ahead = (slower[:, None, :] > slower[None, :, :]).float() * (factors[rows][:, None] * factors[rows])[
                ..., None
            ]
            missing = torch.relu(self.margin - (scores[:, None, :] - scores[None, :, :]))
            loss = (missing * ahead).sum() / ahead.sum().clamp(min=1e-12)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()

    # -- predicting ---------------------------------------------------------------------------------------------

    def scores(self, features: Features) -> Floats:
        """Return the network's own numbers, ``(n,)``: greater where the metric is, without its unit."""
        inputs, sizes = self._read(features, max(self.devices, 1))
        if self._scorers is None:
            self._scorers = []
            for start, device in enumerate(self._own["devices"].tolist()):
                prefix = f"{start}/"
                own = {name[len(prefix) :]: array for name, array in self._own.items() if name.startswith(prefix)}
                self._scorers.append((device, _made(sizes, own)))
        return np.asarray(np.mean([_scores(scorer, inputs, device) for device, scorer in self._scorers], axis=0))

    def predict(self, features: Features) -> Prediction:
        """Return what was learnt of candidates."""
        return Prediction(self._monotone(self.scores(features)), np.ones(len(features)))

    def _read(self, features: Features, devices: int) -> tuple[_Inputs, Sizes]:
        """Return features as the network takes them, and the sizes of the network for them."""
        import torch

        from nasmw.profilers.learned.graph_layers import Sizes

        groups = graph_groups(features.groups)
        n = len(features)
        m = math.isqrt(groups[JOINED].stop - groups[JOINED].start)
        named = {OPERATIONS, JOINED, WORK}

        def columns(wanted: list[str], *shape: int) -> Tensor:
            taken = [features.values[:, groups[name].columns] for name in wanted if name in groups]
            whole = np.concatenate([np.zeros((n, 0)), *taken], axis=1)
            return torch.from_numpy(whole.astype(np.float32)).reshape(n, *shape, whole.shape[1] // math.prod(shape))

        further = [group.name for group in features.groups if group.name not in named]
        inputs = _Inputs(columns([OPERATIONS], m), columns([JOINED], m), columns([WORK], m), columns(further))
        sizes = Sizes(
            nodes=m,
            operations=inputs.operations.shape[2],
            work=inputs.work.shape[2],
            extra=inputs.extra.shape[1],
            devices=1 if self.embedding == "none" else devices,
            graph=self.width,
            first=self.refine,
            second=self.layers,
            head=self.head,
            per_operation=self.embedding == "operation",
            dropout=self.dropout,
        )
        return inputs, sizes

    # -- files --------------------------------------------------------------------------------------------------

    def fresh(self, **changes: Any) -> GraphNetwork:
        """Return the same predictor, which keeps what it learnt of the sources, and of nothing else."""
        made = GraphNetwork(**{**self.parameters, **changes})
        made._source, made.devices = self._source, self.devices
        return made

    def state(self) -> Arrays:
        """Return what was learnt, as arrays."""
        arrays = {f"{SOURCE}{name}": array for name, array in self._source.items()}
        arrays |= {f"{OWN}{name}": array for name, array in self._own.items()}
        return arrays | {
            "devices": np.array(self.devices),
            "scores": self._monotone.scores,
            "values": self._monotone.values,
        }

    def restore(self, state: Arrays, groups: tuple[Any, ...]) -> None:
        """Take back what `state` gave."""
        self._source = {name[len(SOURCE) :]: array for name, array in state.items() if name.startswith(SOURCE)}
        self._own = {name[len(OWN) :]: array for name, array in state.items() if name.startswith(OWN)}
        self.devices = int(state["devices"])
        self._monotone = Monotone(state["scores"], state["values"])
        self._scorers = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            field.name: None if field.name == "_scorers" else getattr(self, field.name)
            for field in attrs.fields(type(self))
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def _made(sizes: Sizes, arrays: Arrays | None = None) -> GraphScorer:
    """Return a network, its weights drawn or given."""
    import torch

    from nasmw.profilers.learned.graph_layers import GraphScorer

    if arrays is None:
        return GraphScorer(sizes)
    with torch.device("meta"):
        scorer = GraphScorer(sizes)
    scorer.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, assign=True)
    return scorer


def _arrays(scorer: GraphScorer) -> Arrays:
    return {name: tensor.numpy().copy() for name, tensor in scorer.state_dict().items()}


def _scores(scorer: GraphScorer, inputs: _Inputs, device: int) -> Floats:
    """Return scores in double precision, in which the other rows of a batch change a row by next to nothing."""
    import torch

    scorer = scorer.double().eval()
    found = []
    with torch.no_grad():
        for rows in torch.arange(len(inputs.extra)).split(BLOCK):
            taken = [part.double() for part in inputs[rows]]
            found.append(scorer(*taken, torch.full((len(rows),), device)).numpy())
    return np.concatenate([np.zeros(0), *found])


def _rank_correlation(first: Floats, second: Floats) -> float:
    """Return Spearman's correlation; ties have their mean rank."""
    both = [ranks(first), ranks(second)]
    spreads = [float(np.std(own)) for own in both]
    if not all(spreads):
        return 0.0
    return float(np.mean((both[0] - both[0].mean()) * (both[1] - both[1].mean())) / (spreads[0] * spreads[1]))
