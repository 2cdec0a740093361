"""The settings of strategies and peers, compared on tables that judge nothing: NATS-Bench's sizes, NAS-Bench-Macro.

Every candidate setting searches six problems: the size space of NATS-Bench on its three data sets, with the MACs that
25, 50 and 75 % of the networks keep, and NAS-Bench-Macro with the MACs that 25, 50 and 75 % keep. Ours search in
``Chain(strategy, Deduplicate(), Filter(limit))``, peers behind the loop that checks (`peers.py`). A figure is the mean
regret after 50, 100 and 300 evaluations over seeds, as a share of that of random search without repeats in the same
chain, and the mean of these shares over the problems. Of each group the setting with the least mean of the three is
taken (>), and written down in `chosen.py`; a default stays where it is within 5 % of that. Strategies for several
objectives search accuracy, MACs and parameters without a limit, and are compared by the hypervolume that they miss.

    OMP_NUM_THREADS=1 python benchmarks/strategy_choices.py --data folder      (or NASMW_DATA)
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable

import numpy as np
from kept_runs import Kept, Unit, add_arguments, known, opened
from pareto_nb201 import Scale
from peers import LOOP, Made, NevergradPeer, OptunaPeer, PymooPeer, checked_search, nni_search
from strategies_nb201 import chained, versions
from table_search import Problem, Run, regrets, searched
from tables import Benchmark, MissingDataError, NASBenchMacro, NATSSize

from nasmw import Chain, Rank, Strategy
from nasmw.candidates import Floats
from nasmw.strategies import NSGA2, TPE, Evolution, LocalSearch, PolicyGradient, PredictorGuided, Random

AT = (50, 100, 300)
PROBLEMS = (
    "NATS cifar10, 75 %",
    "NATS cifar100, 25 %",
    "NATS ImageNet16-120, 50 %",
    "Macro, 25 %",
    "Macro, 50 %",
    "Macro, 75 %",
)
FRONTS = ("NATS cifar10", "NATS cifar100", "Macro")
REFERENCE = "random search"
SLOW = ("PolicyGradient", "Optuna", "Nevergrad")
"""Groups that search with a third of the seeds."""


@functools.cache
def benchmark(name: str) -> Benchmark:
    """Return a table with the columns ``accuracy``, ``macs`` and ``params``."""
    if name == "Macro":
        table: Benchmark = NASBenchMacro()
        table.columns["macs"] = table.column("flops")
        return table
    table = NATSSize(name.split()[1])
    macs = table.space.tables["macs"](table.space, None)
    table.columns["accuracy"] = table.column("test90")
    table.columns["macs"] = macs.evaluate(table.space.candidates(table.codes))
    return table


@functools.cache
def problem(setting: str) -> Problem:
    """Return what a setting searches."""
    name, _, share = setting.partition(", ")
    table = benchmark(name)
    if not share:
        told = ("accuracy", "macs", "params")
        return Problem(setting, table, told, (), frozenset(told[1:]), same="architecture")
    limit = float(np.quantile(table.column("macs"), int(share.removesuffix(" %")) / 100, method="inverted_cdf"))
    return Problem(setting, table, ("accuracy",), (table.profiler("macs") <= limit,))


Maker = Callable[[Benchmark], Strategy]


def _costs(table: Benchmark, *features: str, **options: int) -> PredictorGuided:
    return PredictorGuided(features=[table.profiler(name) for name in features], **options)


OURS: dict[str, dict[str, Maker]] = {
    "Evolution": {
        f"Evolution({size}, {size // part}, crossover={crossover}, repeats=False)": functools.partial(
            lambda table, size, part, crossover: Evolution(size, size // part, crossover=crossover, repeats=False),
            size=size,
            part=part,
            crossover=crossover,
        )
        for size in (10, 20, 50)
        for part in (4, 2)
        for crossover in (0.0, 0.5)
    },
    "LocalSearch": {
        f"LocalSearch({initial}, {steepest})": functools.partial(
            lambda table, initial, steepest: LocalSearch(initial, steepest), initial=initial, steepest=steepest
        )
        for initial in (1, 5, 20)
        for steepest in (False, True)
    },
    "TPE": {
        f"TPE({options})": functools.partial(lambda table, options: TPE(**options), options=options)
        for options in (
            {},
            {"startup": 20},
            {"gamma": 0.1},
            {"gamma": 0.25},
            {"candidates": 64},
            {"prior": 0.5},
            {"prior": 2.0},
            {"gamma": 0.1, "candidates": 64},
        )
    },
    "NSGA2": {f"NSGA2({size})": functools.partial(lambda table, size: NSGA2(size), size=size) for size in (10, 20, 50)},
    "PolicyGradient": {
        f"PolicyGradient({options})": functools.partial(
            lambda table, options: PolicyGradient(**options), options=options
        )
        for options in (
            {},
            {"learning_rate": 0.02},
            {"learning_rate": 0.05},
            {"batch": 4, "learning_rate": 0.02},
            {"clip": 0.2, "epochs": 4, "learning_rate": 0.02},
        )
    },
    "PredictorGuided": {
        f"PredictorGuided({options})": functools.partial(
            lambda table, options: PredictorGuided(**options), options=options
        )
        for options in (
            {},
            {"startup": 5},
            {"startup": 20},
            {"candidates": 300},
            {"parents": 2},
            {"parents": 20},
            {"acquisition": "thompson"},
        )
    },
    "PredictorGuided with costs": {
        f"PredictorGuided({options}, features={features})": functools.partial(
            lambda table, features, options: _costs(table, *features, **options), features=features, options=options
        )
        for features, options in (
            (("params",), {}),
            (("macs",), {}),
            (("params", "macs"), {}),
            (("params", "macs"), {"startup": 5}),
            (("params", "macs"), {"candidates": 300}),
            (("params", "macs"), {"parents": 2}),
            (("params", "macs"), {"parents": 10}),
        )
    },
}
RANKED: dict[str, Maker] = {
    "Evolution": lambda table: Evolution(20, 5, repeats=False),
    "LocalSearch": lambda table: LocalSearch(),
    "TPE": lambda table: TPE(),
    "PredictorGuided": lambda table: PredictorGuided(),
}
GROUPS = (2, 4, 8)
PEERS: dict[str, dict[str, Made]] = {
    "Optuna TPE": {
        f"TPESampler({options})": Made(OptunaPeer, {"sampler": "TPESampler", **options})
        for options in ({}, {"n_startup_trials": 20}, {"n_ei_candidates": 64}, {"told": False})
    },
    "Optuna NSGA-II": {
        f"NSGAIISampler({size}, {'told' if told else 'not told'})": Made(
            OptunaPeer, {"sampler": "NSGAIISampler", "population_size": size, "told": told}
        )
        for size in (10, 20, 50)
        for told in (True, False)
    },
    "Nevergrad": {
        f"{name}, {'told' if told else 'not told'}": Made(NevergradPeer, {"optimizer": name, "told": told})
        for name in (
            "DiscreteOnePlusOne",
            "DoubleFastGADiscreteOnePlusOne",
            "RecombiningPortfolioDiscreteOnePlusOne",
            "DiscreteDE",
            "NGOpt",
        )
        for told in (True, False)
    },
}
NNI = {
    f"RegularizedEvolution({size}, {size // 4}, {probability})": {
        "population_size": size,
        "sample_size": size // 4,
        "mutation_prob": probability,
    }
    for size in (20, 50, 100)
    for probability in (0.05, 0.2)
}
FRONT_PEERS = {
    "Optuna NSGA-II, fronts": PEERS["Optuna NSGA-II"],
    "pymoo NSGA-II, fronts": {f"NSGA2({size})": Made(PymooPeer, {"population_size": size}) for size in (10, 20, 50)},
}


def groups() -> dict[str, list[str]]:
    """Return the names of the settings of every group that can be run here."""
    found = {REFERENCE: [REFERENCE], **{group: list(makers) for group, makers in OURS.items()}}
    found["Rank"] = [f"{name} ranked by params, best of {of}" for name in RANKED for of in GROUPS]
    found["NSGA2, fronts"] = list(OURS["NSGA2"])
    for group, made in {**PEERS, **FRONT_PEERS}.items():
        if importlib.util.find_spec(group.split()[0].lower()):
            found[group] = list(made)
    if importlib.util.find_spec("nni"):
        found["NNI RegularizedEvolution"] = list(NNI)
    return found


def described(group: str, name: str) -> str:
    """Return what a setting is, so that a run of another version or with other defaults does not count."""
    table = benchmark("Macro")
    if group == REFERENCE:
        return repr(Random(replacement=False))
    if group == "Rank":
        return f"{RANKED[name.partition(' ranked')[0]](table)!r}{name.partition(' ranked')[2]}"
    kind = group.partition(",")[0]
    if kind in OURS:
        return repr(OURS[kind][name](table))
    version = importlib.metadata.version(group.split()[0].lower())
    if group.startswith("NNI"):
        return f"{NNI[name]!r}, {version}"
    return f"{ ({**PEERS, **FRONT_PEERS}[group][name])!r}, {version}, {LOOP}"


def search(unit: Unit) -> Run:
    """Do one search."""
    where = problem(unit.setting)
    where.networks, where.inside  # noqa: B018  computed before the clock starts
    group, name = unit.method.split(": ", 1)
    evaluations = int(unit.evaluations)
    if group in PEERS or group in FRONT_PEERS:
        return checked_search(where, {**PEERS, **FRONT_PEERS}[group][name], evaluations, unit.seed)
    if group.startswith("NNI"):
        return nni_search(where, evaluations, unit.seed, checked=True, **NNI[name])
    if group == REFERENCE:
        chain = chained(Random(replacement=False), where)
    elif group == "Rank":
        inner, _, of = name.partition(" ranked by params, best of ")
        ranked = chained(RANKED[inner](where.benchmark), where)
        chain = Chain(ranked, Rank(where.benchmark.profiler("params"), groups_of=int(of)))
    else:
        chain = chained(OURS[group.partition(",")[0]][name](where.benchmark), where)
    return searched(where, chain, evaluations, unit.seed)


@functools.cache
def scale(setting: str) -> Scale:
    """Return what hypervolumes of a setting are measured with."""
    return Scale(problem(setting), "accuracy")


def losses(kept: Kept, units: list[Unit]) -> Floats:
    """Return ``(settings, len(AT))`` means over seeds: of regrets, or of shares of the hypervolume that are missed."""
    result = []
    for setting in dict.fromkeys(unit.setting for unit in units):
        runs = [kept[unit].rows for unit in units if unit.setting == setting]
        if setting in FRONTS:
            found = [[1.0 - scale(setting).share(rows[:n]) for n in AT] for rows in runs]
        else:
            found = [regrets(problem(setting), rows, "accuracy", AT).tolist() for rows in runs]
        result.append(np.mean(found, axis=0))
    return np.array(result)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=6, evaluations=AT[-1])
    given = parser.parse_args()
    if given.data:
        os.environ["NASMW_DATA"] = given.data
    try:
        for setting in (*PROBLEMS, *FRONTS):
            problem(setting)
    except MissingDataError as error:
        sys.exit(f"skipped: {error}")
    chosen = groups()
    chosen = {group: chosen[group] for group in dict.fromkeys((REFERENCE, *known("--methods", given.methods, chosen)))}
    units: dict[tuple[str, str], list[Unit]] = {}
    for group, names in chosen.items():
        seeds = max(given.seeds // 3, 1) if group.startswith(SLOW) else given.seeds
        where = FRONTS if group.endswith("fronts") else (*PROBLEMS, *FRONTS) if group == REFERENCE else PROBLEMS
        for name in names:
            what = described(group, name)
            units[group, name] = [
                Unit(f"{group}: {name}", what, setting, seed, given.evaluations)
                for seed in range(3 * seeds if group == REFERENCE else seeds)
                for setting in where
            ]
    kept = opened(given, __file__)
    kept.complete([unit for each in units.values() for unit in each], search, given.processes)
    print(f"{versions()}\nregret after {', '.join(map(str, AT))} evaluations as a share of that of random search")
    reference = losses(kept, units.pop((REFERENCE, REFERENCE)))
    for group, names in chosen.items():
        if group == REFERENCE:
            continue
        own = reference[len(PROBLEMS) :] if group.endswith("fronts") else reference[: len(PROBLEMS)]
        shares = {name: (losses(kept, units[group, name]) / own).mean(axis=0) for name in names}
        best = min(names, key=lambda name: float(shares[name].mean()))
        seeds = len({unit.seed for unit in units[group, best]})
        print(f"\n{group}, seeds 0 to {seeds - 1}\n{'':<68}{'50':>8}{'100':>8}{'300':>8}{'mean':>8}{'CPU s':>8}")
        for name in names:
            seconds = np.mean([kept[unit].cpu_s for unit in units[group, name]])
            cells = "".join(f"{value:>8.3f}" for value in (*shares[name], shares[name].mean()))
            print(f"{'>' if name == best else ' '} {name:<66}{cells}{seconds:>8.2f}")


if __name__ == "__main__":
    main()
