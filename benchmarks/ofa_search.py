"""Search of once-for-all networks under a latency limit, beside the genetic algorithm published for it.

    OMP_NUM_THREADS=1 python benchmarks/ofa_search.py --data FOLDER [--only SECTION ...] [--seeds N] [--limits MS ...]

A network's accuracy is what once-for-all's published predictor says (of held-out training images: some five points
above that on validation images), its latency on a Note10 the sum of the published table. FOLDER holds
``ofa/acc_predictor.npz`` and ``ofa/note10_lut_raw.json``. Sections:

- search: the best predicted accuracy within each limit, at equal numbers of evaluations and at equal CPU time, the
  evaluations' own time included. The clock begins before a search has set anything up. Seconds are CPU seconds of one
  thread.
- compofa: the exact optimum of the 1,215 networks of CompOFA with fixed kernels, by enumeration.
- certificate: an additive model of accuracy is fitted on random networks within the limit; its best network within the
  limit is proved by tables.

The numbers of the islands were chosen by ``--choose``, under limits on MACs instead of latency. What was found there
stands in ``benchmarks/results/ofa_search_choices.txt``.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sys
from collections.abc import Mapping, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import attrs
import numpy as np
from kept_runs import positive
from ofa_searches.additive import certified
from ofa_searches.genetic import Genetic
from ofa_searches.meter import Meter
from ofa_searches.methods import CHOICES, METHODS, PUBLISHED, Method
from table_search import band
from tables import AccuracyPredictor, MissingDataError, OnceForAll

from nasmw import Candidates, Constraint, FeasibleSet, TabledProfiler

LIMITS = (15.0, 20.0, 25.0, 30.0, 35.0)
SECTIONS = ("search", "compofa", "certificate")
EVALUATIONS = (300, 1_000, 3_000, 10_000, Genetic().evaluations)
SECONDS = (0.5, 1.0, 2.0, 3.0)
MODEL_SAMPLES = 4_000
ORIGINAL: Mapping[float, float] = {15.0: 78.52, 20.0: 80.58, 25.0: 81.78, 30.0: 82.58, 35.0: 83.02}
"""What one run of the program that once-for-all's authors published gave, in 4 to 7.5 CPU seconds a limit."""


@attrs.frozen(eq=False)
class Best:
    """A network.

    Attributes:
        accuracy: Its predicted accuracy in percent.
        network: One row.
    """

    accuracy: float
    network: Candidates


@attrs.frozen(eq=False)
class Found:
    """What one search found within a limit.

    Attributes:
        meter: What it evaluated.
        cpu_s: The CPU seconds that it took.
        violations: How many of the networks that it evaluated are beyond the limit.
        distinct: The share of its evaluations that were of a network not evaluated before.
    """

    meter: Meter
    cpu_s: float
    violations: int
    distinct: float

    @property
    def best(self) -> Best:
        """The best network."""
        row = int(self.meter.scores.argmax())
        return Best(float(self.meter.scores[row]), self.meter.candidates[row])


def found(method: Method, limit: Constraint, predictor: AccuracyPredictor, seed: int, seconds: float) -> Found:
    """Search once."""
    gc.collect()  # so that no feasible set of the search before is at hand
    meter = Meter(predictor, seconds=seconds)
    method.run(limit, meter, seed)
    cpu_s = meter.elapsed
    every = meter.candidates
    beyond = int((~limit.holds(limit.profiler.profile_batch(every))).sum())
    return Found(meter, cpu_s, beyond, len(set(every.row_keys())) / len(every))


def print_found(name: str, runs: Sequence[Found]) -> None:
    """Print a line of medians and bands over seeds."""
    middle, low, high = band([run.best.accuracy for run in runs])
    at_evaluations = [np.median([run.meter.best_of_first(number) for run in runs]) for number in EVALUATIONS]
    in_seconds = [np.median([run.meter.best_within(number) for run in runs]) for number in SECONDS]
    cells = [f"{value:8.2f}" if np.isfinite(value) else f"{'-':>8}" for value in (*at_evaluations, *in_seconds)]
    evaluated, seconds, own, distinct = (
        float(np.median(values))
        for values in zip(
            *((run.meter.evaluated, run.cpu_s, run.meter.evaluation_s, run.distinct) for run in runs), strict=True
        )
    )
    violations = sum(run.violations for run in runs)
    print(
        f"{name:<34}{''.join(cells)}{middle:>9.2f} ({low:.2f} to {high:.2f}){evaluated:>9.0f}{100 * distinct:>6.0f} %"
        f"{seconds:>7.2f}{own:>6.2f}{violations:>5}",
        flush=True,
    )


def print_heading() -> None:
    """Print what the columns of `print_found` are."""
    evaluations = "".join(f"{number:>8,}" for number in EVALUATIONS)
    seconds = "".join(f"{f'{number:g} s':>8}" for number in SECONDS)
    print(f"{'best % after':<34}{evaluations}{seconds}{'at the end (90 % band)':>26}{'evals':>8}{'new':>8}{'CPU':>7}")


def search(
    predictor: AccuracyPredictor,
    limits: Sequence[Constraint],
    methods: Mapping[str, Method],
    seeds: Sequence[int],
    seconds: float,
) -> dict[float, Best]:
    """Print what each method finds; return the best of all, by limit."""
    print(f"\n{len(seeds)} seeds, {seconds:g} CPU seconds a search, and so many trials of a Search; medians. The last")
    print("columns: evaluations, the share of them that were of new networks, CPU seconds, those of evaluations among")
    print("them, networks beyond the limit.")
    for name, method in methods.items():
        print(f"- {name}: {method.about}")
    best: dict[float, Best] = {}
    for limit in limits:
        print(f"\n{limit}")
        if limit.high < (least := limit.profiler.bounds().low):
            print(f"no network is within it; the least is {least:g}")
            continue
        print_heading()
        for name, method in methods.items():
            runs = [found(method, limit, predictor, seed, seconds) for seed in seeds]
            print_found(name, runs)
            known = [best[limit.high]] if limit.high in best else []
            best[limit.high] = max([*known, *(run.best for run in runs)], key=lambda found: found.accuracy)
            if name == PUBLISHED:
                whole = [run.meter.seconds_of_first(Genetic().evaluations) for run in runs]
                print(f"{'':<34}its 500 generations took {np.median(whole):.2f} CPU s", end="")
                original = ORIGINAL.get(limit.high)
                print(f"; one run of the original program gave {original}" if original else "")
    return best


def compofa(folder: str | None, limits: Sequence[float]) -> None:
    """Print the best of the 1,215 networks within each limit."""
    benchmark = OnceForAll("fixed", folder)
    print(f"\nCompOFA with fixed kernels: the best of {benchmark.space.size} networks, by enumeration")
    print(f"{'limit ms':>8}{'networks':>10}{'best %':>9}{'ms':>9}")
    for limit in limits:
        within = FeasibleSet(benchmark.space, benchmark.latency <= limit)
        number, best, milliseconds = 0, -np.inf, np.nan
        for batch in within.enumerate():
            accuracies = benchmark.evaluate.predict_batch(batch)
            number += len(batch)
            if accuracies.max() > best:
                best = float(accuracies.max())
                milliseconds = float(benchmark.latency.profile_batch(batch)[accuracies.argmax()])
        print(f"{limit:>8g}{number:>10}{best:>9.2f}{milliseconds:>9.3f}")


def certificates(benchmark: OnceForAll, limits: Sequence[float], best: Mapping[float, Best], seed: int) -> None:
    """Print the certified optima of additive models, and what they are beside the best networks that were found."""
    print(
        f"\nan additive model of accuracy, fitted on {MODEL_SAMPLES} random networks within the limit; R2 and error on"
    )
    print("as many others. Model: its optimum within the limit. Bound: what nothing within it exceeds. Predicted: what")
    print("the predictor says of that network. Found: the best of all searches, by the predictor and by the model.")
    print(
        f"{'limit ms':>8}{'R2':>7}{'error':>7}{'model':>9}{'bound':>8}{'proved':>8}{'predicted':>11}{'ms':>8}"
        f"{'found':>8}{'by model':>10}{'CPU s':>7}"
    )
    for limit in limits:
        certificate = certified(benchmark.evaluate, benchmark.latency <= limit, samples=MODEL_SAMPLES, seed=seed)
        model, optimum = certificate.model, certificate.optimum
        other = f"{'-':>8}{'-':>10}"
        if limit in best:
            by_model = float(model.profiler.profile_batch(best[limit].network)[0])
            other = f"{best[limit].accuracy:>8.2f}{by_model:>10.2f}"
        print(
            f"{limit:>8g}{model.explained:>7.3f}{model.error:>7.3f}{optimum.value:>9.3f}{optimum.bound:>8.3f}"
            f"{'yes' if optimum.exact else 'no':>8}{certificate.accuracy:>11.2f}"
            f"{benchmark.latency.profile(optimum.architecture):>8.2f}{other}{certificate.cpu_s:>7.2f}",
            flush=True,
        )


def choose(folder: str | None, seeds: Sequence[int], seconds: float) -> None:
    """Print what other numbers of our strategies find under limits that are not those of the comparison."""
    every = OnceForAll(folder=folder)
    macs = TabledProfiler(every.space.tables["macs"](every.space, None), "macs")
    search(every.evaluate, [macs <= limit for limit in (200e6, 275e6, 350e6)], CHOICES, seeds, seconds)


def main() -> None:
    """Run the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of the data; what NASMW_DATA names without it")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--seeds", type=positive, default=20)
    parser.add_argument("--limits", type=float, nargs="+", default=LIMITS, help="milliseconds")
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU seconds of a search")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--choose", action="store_true", help="compare numbers of our strategies, on other limits")
    given = parser.parse_args()
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, "
        f"{platform.machine()}, {sys.platform}, OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"
    )
    try:
        if given.choose:
            choose(given.data, range(1000, 1000 + given.seeds), given.seconds)
            return
        benchmark = OnceForAll(folder=given.data)
        best: dict[float, Best] = {}
        if "search" in given.only:
            methods = {name: METHODS[name] for name in given.methods}
            limits = [benchmark.latency <= limit for limit in given.limits]
            best = search(benchmark.evaluate, limits, methods, range(given.seeds), given.seconds)
        if "compofa" in given.only:
            compofa(given.data, given.limits)
        if "certificate" in given.only:
            certificates(benchmark, given.limits, best, seed=0)
    except MissingDataError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
