"""Reading the choices of a model space off its modules: their names, where they act, and when they matter."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import attrs
from torch import nn

from nasmw.choice import Choice
from nasmw.errors import SpaceError
from nasmw.nn.construction import Key
from nasmw.nn.decisions import Deciding
from nasmw.nn.elastic_module import ElasticModule
from nasmw.nn.values import Value, ValueChoice, combinations, is_open, leaves_of, resolved

__all__ = ["Place", "Reading", "read"]

Condition = Mapping[str, frozenset[int]]
"""For some choices the codes that they have; all of them hold."""


@attrs.frozen(eq=False)
class Place:
    """One module that a choice decides on.

    Attributes:
        path: The path of the module within the space.
        module: The module.
        role: What the choice is to the module: an argument, an attribute; empty for what `LayerChoice` chooses.
        value: The value that depends on the choice.
    """

    path: str
    module: nn.Module
    role: str
    value: Any


@attrs.frozen(eq=False)
class Reading:
    """What was read off a module.

    Attributes:
        choices: The choices, gates before what they gate.
        places: Where each choice acts, by its name.
        conditions: For each choice the ways to matter, one of which holds wherever it does.
        attributes: The modules whose attributes hold values, with the name and the value.
        names: The names of choices without label, by their keys.
    """

    choices: tuple[Choice, ...]
    places: Mapping[str, tuple[Place, ...]]
    conditions: Mapping[str, tuple[Condition, ...]]
    attributes: tuple[tuple[nn.Module, str, Any], ...]
    names: Mapping[Key, str]


def read(root: nn.Module, ignored: frozenset[str]) -> Reading:
    """Return the choices of a module; choices without label are given names, the paths of the modules they act on.

    Args:
        root: The module.
        ignored: The attributes of `root` that are no business of a search.

    Raises:
        SpaceError: If choices of one label have different options, or there is no choice.
    """
    names = _name(root, ignored)
    places: dict[str, list[Place]] = {}
    options: dict[str, tuple[Any, ...]] = {}
    conditions: dict[str, list[Condition]] = {}
    attributes: dict[tuple[int, str], tuple[nn.Module, str, Any]] = {}
    for place, condition in _walk(root, "", {}, ignored):
        if not isinstance(place.module, (Deciding, ElasticModule)):
            attributes[id(place.module), place.role] = (place.module, place.role, place.value)
        for leaf in leaves_of(place.value):
            name = str(leaf.label)
            if name not in places:
                places[name], conditions[name] = [], []
                options[name] = leaf.options
            elif leaf.options != options[name]:
                first = places[name][0]
                raise SpaceError(
                    f"two choices are labelled {name!r} and have different options: {options[name]!r} at "
                    f"{_shown(first)} and {leaf.options!r} at {_shown(place)}; give them two labels, or one and the "
                    "same options to have them chosen together"
                )
            if not any(known.module is place.module and known.role == place.role for known in places[name]):
                places[name].append(place)
            if condition not in conditions[name]:
                conditions[name].append(condition)
    if not places:
        raise SpaceError(
            f"a {type(root).__name__} has no choices: make a LayerChoice, a Repeat or a value choice in its `__init__` "
            "and keep it as an attribute, or in a module that is one"
        )
    sizes = {name: len(of) for name, of in options.items()}
    simple = {name: _simplified(ways, sizes) for name, ways in conditions.items()}
    order = _ordered({name: _together(ways, sizes) for name, ways in simple.items()})
    choices = [
        Choice(
            name,
            options[name],
            when={gate: tuple(options[gate][code] for code in sorted(codes)) for gate, codes in condition.items()},
        )
        for name, condition in order.items()
    ]
    return Reading(
        tuple(choices),
        {name: tuple(places[name]) for name in order},
        {name: tuple(simple[name]) for name in order},
        tuple(attributes.values()),
        names,
    )


def _shown(place: Place) -> str:
    role = f" ({place.role})" if place.role else ""
    kind = place.module.plain if isinstance(place.module, ElasticModule) else type(place.module)
    return f"{place.path or 'the space itself'!r}{role}, a {kind.__name__}"


def values_at(module: nn.Module, ignored: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """Yield what values a module depends on, not its children, each with its role."""
    if isinstance(module, Deciding):
        yield from module.decided_by()
    elif isinstance(module, ElasticModule):
        for name, value in module.arguments.items():
            if is_open(value):
                yield name, value
    else:
        for name, value in vars(module).items():
            if name not in ignored and isinstance(value, (Value, tuple, list, dict)) and is_open(value):
                yield name, value


def children_of(module: nn.Module) -> Iterator[tuple[str, nn.Module, Value | None, Callable[[Any], bool]]]:
    """Yield the children of a module: name, module, and for which values of which value it runs; None: always."""
    if isinstance(module, Deciding):
        yield from module.branches()
    elif not isinstance(module, ElasticModule):
        for name, child in module._modules.items():
            if child is not None:
                yield name, child, None, bool


def joined(path: str, name: str) -> str:
    """Return the path of a child."""
    return f"{path}.{name}" if path else name


NO_BUSINESS = frozenset({"_parameters", "_buffers", "_modules"})


def _name(root: nn.Module, ignored: frozenset[str]) -> dict[Key, str]:
    """Give names to choices without label, and return them by key."""
    names: dict[Key, str] = {}
    labels: set[str] = set()
    unnamed: list[tuple[ValueChoice, str]] = []

    def visit(module: nn.Module, path: str) -> None:
        for role, value in values_at(module, ignored | NO_BUSINESS):
            for leaf in leaves_of(value):
                if leaf.label is None:
                    unnamed.append((leaf, joined(path, role) if role else path))
                else:
                    labels.add(leaf.label)
        for name, child, *_ in children_of(module):
            visit(child, joined(path, name))

    visit(root, "")
    for leaf, proposed in unnamed:
        if leaf.key not in names:
            name = proposed
            for number in itertools.count(2):
                if name not in labels:
                    break
                name = f"{proposed}.{number}"
            names[leaf.key] = name
            labels.add(name)
        leaf.label = names[leaf.key]
    return names


def _walk(
    module: nn.Module, path: str, condition: Condition, ignored: frozenset[str]
) -> Iterator[tuple[Place, Condition]]:
    for role, value in values_at(module, ignored | NO_BUSINESS):
        yield Place(path, module, role, value), condition
    for name, child, value, runs in children_of(module):
        for further in [{}] if value is None else _conditions(value, runs, joined(path, name)):
            both = _both(condition, further)
            if both is not None:
                yield from _walk(child, joined(path, name), both, ignored)


def _conditions(value: Value, runs: Callable[[Any], bool], path: str) -> list[Condition]:
    """Return the ways in which a value meets a condition, each a product of codes; none if it always does is {}."""
    met: list[Condition] = []
    for chosen in combinations(value, f"the condition of {path!r}"):
        if runs(resolved(value, chosen)):
            codes = {str(leaf.label): leaf.options.index(chosen[leaf.identity]) for leaf in value.leaves}
            met.append({name: frozenset([code]) for name, code in codes.items()})
    return _simplified(met, {str(leaf.label): len(leaf.options) for leaf in value.leaves})


def _both(one: Condition, other: Condition) -> Condition | None:
    """Return the condition that both hold; None where they cannot."""
    found = dict(one)
    for name, codes in other.items():
        found[name] = found[name] & codes if name in found else codes
        if not found[name]:
            return None
    return found


def _simplified(ways: list[Condition], sizes: Mapping[str, int]) -> list[Condition]:
    """Return as few conditions as it is easy to find, one of which holds wherever one of the given ones does."""
    found = [_bare(way, sizes) for way in ways]
    changed = True
    while changed and len(found) > 1:
        changed = False
        merged: dict[Hashable, dict[str, frozenset[int]]] = {}
        for name in sorted({name for way in found for name in way}):
            merged = {}
            for way in found:
                rest = frozenset((gate, codes) for gate, codes in way.items() if gate != name)
                codes = way.get(name, frozenset(range(sizes[name])))
                known = merged.setdefault(rest, {})
                known[name] = known.get(name, frozenset()) | codes
            if len(merged) < len(found):
                found = [_bare({**dict(rest), **own}, sizes) for rest, own in merged.items()]  # type: ignore[call-overload]
                changed = True
        kept = [way for at, way in enumerate(found) if not _covered(at, found, sizes)]
        changed = changed or len(kept) < len(found)
        found = kept
    return found


def _covered(at: int, ways: list[Condition], sizes: Mapping[str, int]) -> bool:
    """Return whether another condition holds wherever the one at a place does."""
    for other, way in enumerate(ways):
        if other != at and all(gate in ways[at] and ways[at][gate] <= codes for gate, codes in way.items()):
            return True
    return False


def _bare(way: Condition, sizes: Mapping[str, int]) -> Condition:
    return {name: codes for name, codes in way.items() if len(codes) < sizes[name]}


def _together(ways: list[Condition], sizes: Mapping[str, int]) -> Condition:
    """Return the narrowest single condition that holds wherever one of several does."""
    gates = set.intersection(*[set(way) for way in ways])
    return _bare({gate: frozenset().union(*[way[gate] for way in ways]) for gate in sorted(gates)}, sizes)


def _ordered(conditions: Mapping[str, Condition]) -> dict[str, Condition]:
    """Return the conditions by name, gates before what they gate."""
    found: dict[str, Condition] = {}

    def add(name: str) -> None:
        if name not in found:
            for gate in conditions[name]:
                add(gate)
            found[name] = conditions[name]

    for name in conditions:
        add(name)
    return found
