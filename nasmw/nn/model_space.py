"""ModelSpace: a space that is written as a PyTorch model, and the supernet of its networks."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import nn

from nasmw.candidates import Architecture
from nasmw.errors import SpaceError
from nasmw.nn.construction import Building, Drafting, constructing, ongoing
from nasmw.nn.decisions import Deciding
from nasmw.nn.elastic_module import ElasticModule, record_options
from nasmw.nn.explain import explain_draft, explain_mixture
from nasmw.nn.plain import inherit, plain_class
from nasmw.nn.reading import Place, Reading, read
from nasmw.nn.switch import Gates, Switch, gates_of
from nasmw.nn.values import leaves_of, resolved
from nasmw.space import Space

__all__ = ["ModelSpace"]


class _ModelSpaceMeta(type):
    """Reads the choices off a model space once its `__init__` has run."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        construction = ongoing()
        if construction is not None:  # a part of another space
            made = super().__call__(*args, **kwargs)
            return _plain(made) if isinstance(construction, Building) else made
        kept = copy.deepcopy((args, kwargs))
        draft = Drafting()
        with constructing(draft):
            try:
                made = super().__call__(*args, **kwargs)
            except Exception as error:
                explain_draft(error)
                raise
        made._finish(*kept)
        used = {*made.names, *made._reading.names}
        for identity, value in draft.values.items():
            if identity not in used:
                what = repr(value) if value.label is None else f"choice {value.label!r}"
                raise SpaceError(
                    f"{what} was made and no module uses it; hand it to a layer of nasmw.nn, or keep it as an "
                    "attribute of a module. Modules in a plain list are unknown to PyTorch: use torch.nn.ModuleList"
                )
        return made


class ModelSpace(nn.Module, Space, metaclass=_ModelSpaceMeta):
    """A space of networks, written as a PyTorch model with choices in it.

    A class derives from it, makes its layers in `__init__`, `LayerChoice`, `Repeat`, `InputChoice`, `Cell` and layers
    with value choices among them, and says in `forward` how they are connected. An instance of it is two things: a
    `nasmw.Space`, whose choices are those that were made, and the supernet, a module that has the weights of all
    networks and runs as one of them at a time.

    `build` runs `__init__` once more, with everything chosen, so what it returns is what the same class would be
    without choices, with initial weights of its own. `__init__` must therefore make the same choices each time, and be
    no function of anything but its arguments.

    Names of choices are their labels. Choices without label are called by the path of the module: ``"features.0"`` for
    a layer choice, ``"features.0.depth"`` for a repetition, ``"classifier.out_features"`` for an argument. A choice
    matters where a module that it decides on is there; where one choice is used at several places, wherever one of them
    is. A few such combinations cannot be written as conditions of a `Space`: then the choice matters more often than it
    has to, and `function_keys` says which architectures are one network.

    Args:
        args: What the derived class takes.
        kwargs: What the derived class takes.

    Raises:
        SpaceError: If there is no choice, one was made that no module uses, one label has two sets of options, a layer
            without hook is given a value choice, or an attribute has the name of a method of a space.

    Example:
        >>> import torch
        >>> from nasmw.nn import LayerChoice, Linear, ModelSpace, choice
        >>> class Net(ModelSpace):
        ...     def __init__(self, inputs):
        ...         super().__init__()
        ...         width = choice("width", (8, 16))
        ...         self.inner = Linear(inputs, width)
        ...         self.act = LayerChoice({"relu": torch.nn.ReLU(), "tanh": torch.nn.Tanh()})
        ...         self.outer = Linear(width, 2)
        ...
        ...     def forward(self, x):
        ...         return self.outer(self.act(self.inner(x)))
        >>> space = Net(4)
        >>> space
        <ModelSpace 'Net': 2 choices, 4 architectures>
        >>> space.build({"width": 8, "act": "tanh"})
        Net(
          (inner): Linear(in_features=4, out_features=8, bias=True)
          (act): Tanh()
          (outer): Linear(in_features=8, out_features=2, bias=True)
        )
    """

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _RESERVED and ongoing() is not None:
            raise SpaceError(
                f"{type(self).__name__}.{name} is part of what a Space is, and cannot be an attribute of the model; "
                "give the attribute another name"
            )
        super().__setattr__(name, value)

    def _finish(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Become a space, once `__init__` has run."""
        for path, module in self.named_modules():
            if "_reading" in vars(module):
                raise SpaceError(
                    f"module {path!r} of {type(self).__name__} is the model space {type(module).__name__!r}, which was "
                    "made before and keeps its choices open; make it within `__init__`, then its choices belong to "
                    f"{type(self).__name__}"
                )
        found = read(self, _OWN)
        Space.__init__(self, found.choices, self._network, name=type(self).__name__, function_key=self._used)
        self._arguments = (args, kwargs)
        self._reading: Reading = found
        self._switch = Switch()
        self._activated: dict[str, Any] | None = None
        for path, module in self.named_modules(remove_duplicate=False):
            if isinstance(module, (Deciding, ElasticModule)):
                module.__dict__["_switch"] = self._switch
                module.__dict__.setdefault("_path", path)

    def __repr__(self) -> str:
        if "_reading" not in self.__dict__:
            return nn.Module.__repr__(self)
        return Space.__repr__(self).replace("<Space", "<ModelSpace", 1)

    def __str__(self) -> str:
        return nn.Module.__repr__(self)

    # -- the space ----------------------------------------------------------------------------------------------

    @property
    def builder_name(self) -> str:
        """The class, and a digest of the arguments that the space was made with."""
        digest = hashlib.sha256(re.sub(r" at 0x\w+", "", repr(self._arguments)).encode()).hexdigest()[:8]
        return f"{type(self).__module__}.{type(self).__qualname__}#{digest}"

    def places(self, name: str) -> tuple[Place, ...]:
        """Return the modules that a choice decides on.

        Raises:
            SpaceError: If there is no such choice; names the near ones.
        """
        self.column(name)
        return self._reading.places[name]

    def build(
        self,
        architecture: Architecture,
        *,
        weights: bool = False,
        seen_as: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> nn.Module:
        """Return the network of an architecture: a plain module of the derived class's name, without choices.

        Args:
            architecture: The architecture.
            weights: Whether the network gets the weights and buffers of this supernet, copied, and cut where they are
                elastic, with their dtype and on their device; else it has initial weights of its own, drawn from
                PyTorch's generator.
            seen_as: As for `Space.build`.

        Raises:
            BuildError: If a layer cannot be made with what is chosen.
            SpaceError: If the architecture does not belong to the space.
        """
        model = Space.build(self, architecture, seen_as=seen_as)
        if weights:
            inherit(self, model, self.decode(self.encode(architecture)))
        return model

    def fresh(self) -> ModelSpace:
        """Return this space once more: the same choices, and a supernet with initial weights of its own.

        `__init__` runs again, with the arguments that this space was made with; weights are drawn from PyTorch's
        generator, on the device and with the dtype that `__init__` gives them. Nothing is shared with this space.

        Raises:
            SpaceError: If `__init__` makes other choices this time.
        """
        args, kwargs = copy.deepcopy(self._arguments)
        made: ModelSpace = type(self)(*args, **kwargs)
        if made.fingerprint != self.fingerprint:
            raise SpaceError(
                f"{type(self).__name__} drafted another space the second time, with other choices; what it drafts must "
                "follow from its arguments"
            )
        return made

    def _network(self, architecture: dict[str, Any]) -> nn.Module:
        args, kwargs = copy.deepcopy(self._arguments)
        made = type(self).__new__(type(self))
        with constructing(Building(architecture, self._reading.names)):
            type(self).__init__(made, *args, **kwargs)
        return _plain(made)

    def _used(self, architecture: dict[str, Any]) -> Hashable:
        """Return the choices that decide on a module which the network of an architecture has."""
        codes = {name: self._code[self.column(name)][option] for name, option in architecture.items()}
        return tuple(
            (name, code)
            for name, code in codes.items()
            if any(
                all(codes.get(gate) in allowed for gate, allowed in condition.items())
                for condition in self._reading.conditions[name]
            )
        )

    # -- the supernet -------------------------------------------------------------------------------------------

    @property
    def activated(self) -> dict[str, Any] | None:
        """The architecture that runs; None where there is none, or a mixture runs."""
        return None if self._activated is None else dict(self._activated)

    def activate(self, architecture: Architecture) -> _Running:
        """Run as one architecture from now on.

        Args:
            architecture: The architecture.

        Returns:
            A context manager that may be used or not: at its end runs what ran before.

        Raises:
            SpaceError: If the architecture does not belong to the space.
        """
        complete = self.decode(self.encode(architecture))
        before = self._state()
        self._run(complete, complete, {})
        return _Running(self, before)

    def deactivate(self) -> None:
        """Run as nothing; a forward pass is an error then."""
        self._run(None, None, {})

    def mix(
        self,
        weights: Mapping[str, torch.Tensor | Gates],
        architecture: Mapping[str, Any] | None = None,
        *,
        once: bool = False,
    ) -> _Running:
        """Run as a mixture, within a ``with`` statement.

        A `LayerChoice` returns the weighted sum of what its options return, an `InputChoice` that of its inputs, a
        `Repeat` that of what is there after each number of blocks. A layer with value choices runs once, with the
        tensors that are expected, smaller ones filled up with zeros, or, where it looks at all channels at once, once
        for each size.

        Args:
            weights: For each choice that is mixed, by name, a tensor of shape ``(options,)`` that sums to 1; or
                `Gates`, the weights of some options, and only these run.
            architecture: The options of the other choices; those that the forward pass does not meet may be missing.
            once: Whether channels are scaled where they are read alone, and not by every layer that they go through:
                the layer that reads them then gives exactly the weighted sum of what it gives for each width, and
                those of an option without weight have a gradient. Right where layers with value choices are all that
                reads them, and these are PyTorch's own, or have a rule that says what is `Rule.written`.

        Returns:
            A context manager.

        Raises:
            SpaceError: If there is no such choice or option.
            MixtureError: If the weights do not fit a choice; and, in the forward pass, if a module cannot be mixed.
        """
        gates = {
            name: gates_of(len(self.choices[self.column(name)].options), given, name) for name, given in weights.items()
        }
        fixed = dict(architecture or {})
        for name, option in fixed.items():
            if option not in self.choices[self.column(name)].options:
                raise SpaceError(f"choice {name!r} has no option {option!r}")
        before = self._state()
        self._run({name: option for name, option in fixed.items() if name not in gates}, None, gates, once)
        return _Running(self, before)

    @property
    def elastic(self) -> frozenset[str]:
        """The choices that decide on arguments of layers, which are a part of the greatest one then."""
        return frozenset(
            name
            for name, places in self._reading.places.items()
            if any(isinstance(place.module, ElasticModule) for place in places)
        )

    @property
    def mixable(self) -> dict[str, bool]:
        """For each choice, whether all modules that it decides on can run as a mixture, as far as is known before."""
        found: dict[str, bool] = {}
        for name, places in self._reading.places.items():
            found[name] = all(self._mixable(place, name) for place in places)
        return found

    def _mixable(self, place: Place, name: str) -> bool:
        module = place.module
        if isinstance(module, ElasticModule):
            return module.mixable(record_options(module._record))
        if isinstance(module, Deciding):
            return getattr(module, "merge_op", "all") == "all" or "input_" not in place.role
        return False

    def _state(self) -> tuple[Any, ...]:
        return self._switch.chosen, self._activated, self._switch.gates, self._switch.once

    def _run(
        self,
        chosen: Mapping[str, Any] | None,
        activated: dict[str, Any] | None,
        gates: Mapping[str, Gates],
        once: bool = False,
    ) -> None:
        self._switch.once = once
        self._switch.chosen = None if chosen is None else {name: option for name, option in chosen.items()}
        self._switch.gates = gates
        self._activated = activated
        for module, name, value in self._reading.attributes:
            module.__dict__[name] = value
            if chosen is not None and all(leaf.label in chosen for leaf in leaves_of(value)):
                module.__dict__[name] = resolved(value, self._switch.chosen or {})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network of the active architecture, or the mixture."""
        if "_reading" not in self.__dict__:
            return super().__call__(*args, **kwargs)
        if self._switch.chosen is None:
            self._switch.value(())
        try:
            return super().__call__(*args, **kwargs)
        except Exception as error:
            explain_mixture(self, error, _OWN)
            raise


class _Running:
    """Ends an activation or a mixture: what ran before runs again."""

    def __init__(self, space: ModelSpace, before: tuple[Any, ...]) -> None:
        self._space = space
        self._before = before

    def __enter__(self) -> ModelSpace:
        return self._space

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._space._run(*self._before)


def _plain(made: nn.Module) -> nn.Module:
    object.__setattr__(made, "__class__", plain_class(type(made), ModelSpace))
    return made


_OWN = frozenset({"_arguments", "_reading", "_switch", "_activated", "choices", "tables", "parts", "_code", "_gates"})
_RESERVED = frozenset(
    name for name in {*vars(Space), *vars(ModelSpace), "choices", "name", "tables", "parts"} if name[:1] != "_"
) - {"forward"} | {"_arguments", "_reading", "_switch", "_activated", "_build", "_code", "_column", "_gates", "_sizes"}
