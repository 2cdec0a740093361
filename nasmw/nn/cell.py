"""Cell: a small graph of which the operators and their inputs are chosen, as the cells of DARTS and NASNet are."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from nasmw.errors import SpaceError
from nasmw.nn.construction import Building, current
from nasmw.nn.decisions import Deciding, LayerChoice, module_of
from nasmw.nn.switch import MixtureError, total
from nasmw.nn.values import Value, ValueChoice

__all__ = ["Cell"]

Merge = Literal["all", "loose_end"]
Operator = nn.Module | Callable[[int, int, int], nn.Module]


class Cell(Deciding):
    """Nodes that each add up some operators on chosen inputs; the output is the nodes, concatenated.

    A node reads from the inputs of the cell and the nodes before it. `forward` takes the inputs, one by one or as a
    list. Each operator has weights of its own for each input that it may read.

    The choices are ``{label}/input_{node}_{k}``, the number of an input, and ``{label}/op_{node}_{k}``, the name of an
    operator, where nodes are numbered after the inputs.

    Args:
        op_candidates: The operators by name, or in a list, where their numbers are their names. Each is a module, which
            is copied, or a function of the node, the operator of the node and the input, by number, which makes one.
        num_nodes: The number of nodes.
        num_ops_per_node: How many operators a node adds up.
        num_predecessors: The number of inputs of the cell.
        merge_op: ``"all"`` concatenates all nodes, ``"loose_end"`` those that no other node reads.
        preprocessor: Takes the list of inputs and returns the list that the nodes read; a module or a function.
        postprocessor: Takes the output and the list of inputs as they were given, and returns what the cell returns.
        concat_dim: The axis of the concatenation.
        label: What the names of the choices begin with; cells with one label are the same graph. None: the path.

    Raises:
        SpaceError: If a number is below 1, there is no operator, one is no module, or it is made outside a model space.

    References:
        Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019, section 2.1. There a node's inputs
        are distinct; here they are chosen independently.
    """

    def __new__(
        cls,
        op_candidates: Mapping[str, Operator] | Sequence[Operator],
        num_nodes: int,
        num_ops_per_node: int = 1,
        num_predecessors: int = 1,
        merge_op: Merge = "all",
        preprocessor: Callable[[list[Tensor]], list[Tensor]] | None = None,
        postprocessor: Callable[[Tensor, list[Tensor]], Any] | None = None,
        concat_dim: int = 1,
        *,
        label: str | None = None,
    ) -> Any:
        """Return the module, or the graph that is chosen where an architecture is built."""
        what = f"the cell {label!r}" if label else "a cell"
        construction = current(what)
        if not isinstance(construction, Building):
            return super().__new__(cls)
        operators = _operators(op_candidates, what)
        nodes: list[list[tuple[int, nn.Module]]] = []
        for node in range(num_predecessors, num_predecessors + num_nodes):
            edges: list[tuple[int, nn.Module]] = []
            for number in range(num_ops_per_node):
                read = construction.option(_joined(label, f"input_{node}_{number}"), tuple(range(node)))
                name = construction.option(_joined(label, f"op_{node}_{number}"), tuple(operators))
                with construction.within(construction.key(), read):
                    edges.append((read, LayerChoice(_made(operators, node, number, read), chosen=name)))
            nodes.append(edges)
        read_by_others = {read for edges in nodes for read, _ in edges}
        last = range(num_predecessors, num_predecessors + num_nodes)
        joined = [node for node in last if merge_op == "all" or node not in read_by_others]
        return ChosenCell(nodes, joined, num_predecessors, preprocessor, postprocessor, concat_dim)

    def __init__(
        self,
        op_candidates: Mapping[str, Operator] | Sequence[Operator],
        num_nodes: int,
        num_ops_per_node: int = 1,
        num_predecessors: int = 1,
        merge_op: Merge = "all",
        preprocessor: Callable[[list[Tensor]], list[Tensor]] | None = None,
        postprocessor: Callable[[Tensor, list[Tensor]], Any] | None = None,
        concat_dim: int = 1,
        *,
        label: str | None = None,
    ) -> None:
        super().__init__()
        what = f"the cell {label!r}" if label else "a cell"
        numbers = {
            "num_nodes": num_nodes,
            "num_ops_per_node": num_ops_per_node,
            "num_predecessors": num_predecessors,
        }
        for argument, number in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise SpaceError(f"`{argument}` of {what} is an integer of at least 1, got {number!r}")
        if merge_op not in get_args(Merge):
            raise SpaceError(f"`merge_op` of {what} is one of {get_args(Merge)}, got {merge_op!r}")
        construction = current(what)
        operators = _operators(op_candidates, what)
        self.num_predecessors = num_predecessors
        self.merge_op: Merge = merge_op
        self.concat_dim = concat_dim
        self.preprocessor = preprocessor
        self.postprocessor = postprocessor
        self.nodes: list[list[tuple[ValueChoice, ValueChoice]]] = []
        for node in range(num_predecessors, num_predecessors + num_nodes):
            edges = []
            for number in range(num_ops_per_node):
                read = ValueChoice(tuple(range(node)), label=_joined(label, f"input_{node}_{number}"))
                name = ValueChoice(tuple(operators), label=_joined(label, f"op_{node}_{number}"))
                edges.append((read, name))
                at = construction.key()
                for source in range(node):
                    with construction.within(at, source):
                        made = LayerChoice(_made(operators, node, number, source), chosen=name)
                    self._modules[f"op_{node}_{number}_{source}"] = made
            self.nodes.append(edges)

    def decided_by(self) -> Iterator[tuple[str, Value]]:
        """Yield the choices of inputs and operators."""
        for node, edges in enumerate(self.nodes, self.num_predecessors):
            for number, (read, name) in enumerate(edges):
                yield f"input_{node}_{number}", read
                yield f"op_{node}_{number}", name

    def branches(self) -> Iterator[tuple[str, nn.Module, Value | None, Callable[[Any], bool]]]:
        """Yield the operators, each under the condition that its input is chosen, and the processors."""
        for node, edges in enumerate(self.nodes, self.num_predecessors):
            for number, (read, _) in enumerate(edges):
                for source in range(node):
                    name = f"op_{node}_{number}_{source}"
                    yield name, self._operator(name), read, partial(operator.eq, source)
        for name in ("preprocessor", "postprocessor"):
            if isinstance(module := getattr(self, name), nn.Module):
                yield name, module, None, bool

    def _operator(self, name: str) -> nn.Module:
        return self.get_submodule(name)

    def inherit(self, built: nn.Module, value: Callable[[Value], Any]) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Yield the operators that are there, and the processors."""
        for node, edges in enumerate(self.nodes, self.num_predecessors):
            for number, (read, _) in enumerate(edges):
                chosen = built.get_submodule(f"op_{node}_{number}")
                yield self._operator(f"op_{node}_{number}_{value(read)}"), chosen
        for name in ("preprocessor", "postprocessor"):
            if isinstance(module := getattr(self, name), nn.Module):
                yield module, built.get_submodule(name)

    def forward(self, *inputs: Any) -> Any:
        """Run the chosen operators, or a mixture of all.

        Args:
            inputs: The inputs, one by one or as one list.
        """
        given = _listed(inputs, self.num_predecessors)
        states = list(given) if self.preprocessor is None else list(self.preprocessor(given))
        used: set[int] = set()
        for node, edges in enumerate(self.nodes, self.num_predecessors):
            parts = []
            for number, (read, _) in enumerate(edges):
                runs = self._switch.combinations(read)
                sources = [run.chosen[read.identity] for run in runs]
                if self.merge_op == "loose_end" and runs[0].weight is not None:
                    raise MixtureError(
                        f"the cell {self._path!r} merges loose ends, whose number is another one in each architecture, "
                        "so its inputs cannot be mixed; use merge_op='all'"
                    )
                used.update(sources)
                outputs = (
                    (run.weight, self._operator(f"op_{node}_{number}_{source}")(states[source]))
                    for run, source in zip(runs, sources, strict=True)
                )
                parts.append(total(outputs, f"operator {number} of node {node} of the cell {self._path!r}"))
            states.append(_added(parts))
        last = range(self.num_predecessors, len(states))
        joined = [states[at] for at in last if self.merge_op == "all" or at not in used]
        output = torch.cat(joined, self.concat_dim)
        return output if self.postprocessor is None else self.postprocessor(output, given)


class ChosenCell(nn.Module):
    """A cell of a built network: for each node its inputs by number and its operators.

    Args:
        nodes: For each node, pairs of an input's number and an operator.
        joined: The numbers of the nodes that are the output.
        predecessors: The number of inputs.
        preprocessor: As for `Cell`.
        postprocessor: As for `Cell`.
        axis: The axis of the concatenation.
    """

    def __init__(
        self,
        nodes: list[list[tuple[int, nn.Module]]],
        joined: list[int],
        predecessors: int,
        preprocessor: Callable[[list[Tensor]], list[Tensor]] | None,
        postprocessor: Callable[[Tensor, list[Tensor]], Any] | None,
        axis: int,
    ) -> None:
        super().__init__()
        self.preprocessor = preprocessor
        self.postprocessor = postprocessor
        self.predecessors = predecessors
        self.joined = joined
        self.axis = axis
        self.inputs = [[read for read, _ in edges] for edges in nodes]
        for node, edges in enumerate(nodes, predecessors):
            for number, (_, chosen) in enumerate(edges):
                self.add_module(f"op_{node}_{number}", chosen)

    def forward(self, *inputs: Any) -> Any:
        """Return the nodes, concatenated.

        Args:
            inputs: The inputs, one by one or as one list.
        """
        given = _listed(inputs, self.predecessors)
        states = list(given) if self.preprocessor is None else list(self.preprocessor(given))
        for node, reads in enumerate(self.inputs, self.predecessors):
            parts = [self.get_submodule(f"op_{node}_{number}")(states[read]) for number, read in enumerate(reads)]
            states.append(_added(parts))
        output = torch.cat([states[at] for at in self.joined], self.axis)
        return output if self.postprocessor is None else self.postprocessor(output, given)


def _joined(label: str | None, role: str) -> str | None:
    return None if label is None else f"{label}/{role}"


def _listed(inputs: tuple[Any, ...], wanted: int) -> list[Tensor]:
    given = list(inputs[0]) if len(inputs) == 1 and isinstance(inputs[0], (list, tuple)) else list(inputs)
    if len(given) != wanted:
        raise SpaceError(f"a cell of {wanted} inputs was given {len(given)}")
    return given


def _added(parts: list[Tensor]) -> Tensor:
    added = parts[0]
    for part in parts[1:]:
        added = added + part
    return added


def _operators(candidates: Any, what: str) -> dict[Any, Operator]:
    if isinstance(candidates, (Mapping, nn.ModuleDict)):
        operators: dict[Any, Operator] = dict(candidates.items())
    elif isinstance(candidates, (Sequence, nn.ModuleList)) and not isinstance(candidates, str):
        operators = dict(enumerate(candidates))
    else:
        raise SpaceError(f"{what} takes a dictionary or a list of operators, got {candidates!r}")
    if not operators:
        raise SpaceError(f"{what} has no operators; give at least one")
    for name, candidate in operators.items():
        if not callable(candidate):
            module_of(candidate, f"candidate {name!r} of {what}")
    return operators


def _made(operators: Mapping[Any, Operator], node: int, number: int, source: int) -> dict[Any, Any]:
    """Return the operators of one place, each to be made when it is needed."""
    return {name: partial(_make, operator, node, number, source) for name, operator in operators.items()}


def _make(candidate: Operator, node: int, number: int, source: int) -> nn.Module:
    if isinstance(candidate, nn.Module):
        return copy.deepcopy(candidate)
    return candidate(node, number, source)
