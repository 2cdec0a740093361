"""One supernet for handwritten digits, searched in five ways, beside networks that are trained one by one.

The supernet holds 5.4 million networks for the digits of examples/mnist_cpu.py: three stages, each with a width, of
inverted residual blocks, each with a kernel and an expansion; all but the first of a stage may be skipped. All sizes
are slices of one tensor. The parts:

- search: single-path one-shot, ENAS, DARTS, GumbelDARTS and ProxylessNAS, each alone, under a limit on multiply-adds
  and under one on the latency of this machine, by a table that is built on it. The network that is derived is trained
  from scratch with several seeds, and tested. Beside them: the best of the random networks within the limit that could
  be trained in the seconds of the search, and the largest network within the limit. For each, the number of blocks that
  are skipped, and for those that learn by gradients in the course of the training.
- rank: how the accuracy by weights that are inherited ranks networks that are trained by themselves (Kendall's tau),
  and how their number of parameters does; networks are stratified over their multiply-adds.
- expectation: the exact expectation beside the mean of 100,000 samples, its gradient beside finite differences, and
  what one step of a penalty takes on once-for-all's space of 10^19 networks.
- limits: twenty limits between the least and the greatest multiply-adds of the space.

Seconds are CPU seconds of one thread. What was done stands in the folder, and is not done again.

    python benchmarks/oneshot_mnist.py                       (two hours and a half on one core)
    python benchmarks/oneshot_mnist.py --parts rank --networks 100
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasmw import Chain, Constraint, FeasibleSet, Filter, Profiler, Search, Space
from nasmw.context import Context
from nasmw.nn import BatchNorm2d, Conv2d, LayerChoice, ModelSpace, choice
from nasmw.oneshot import Recipe, SupernetEvaluator, TensorData
from nasmw.profilers import DeviceProfiler, FlopsProfiler, LookupTableProfiler, ParamsProfiler, build_latency_table
from nasmw.spaces import ofa_mobilenetv3
from nasmw.strategies import Evolution, PolicyGradient
from nasmw.strategies.oneshot import DARTS, GumbelDARTS, ProxylessNAS

PARTS = ("expectation", "limits", "rank", "search")
WIDTHS = ((3, 6, 12), (4, 8, 16), (6, 12, 24))
BLOCKS = (2, 3, 3)
SETTINGS = ("no limit", "macs", "latency")
SEED = 1
"""Of the supernets that are sampled from; recipes were chosen with others, by validation on other networks."""
METHODS = ("SPOS", "ENAS", "DARTS", "GumbelDARTS", "ProxylessNAS")

# -- the supernet -----------------------------------------------------------------------------------------------------


class Inverted(nn.Module):
    """An inverted residual block whose widths, kernel and expansion may be chosen."""

    def __init__(self, inputs: Any, outputs: Any, kernel: Any, expansion: Any, stride: int, residual: bool) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.layers = nn.Sequential(
            Conv2d(inputs, hidden, 1, bias=False),
            BatchNorm2d(hidden),
            nn.ReLU(),
            Conv2d(hidden, hidden, kernel, stride, padding=kernel // 2, groups=hidden, bias=False),
            BatchNorm2d(hidden),
            nn.ReLU(),
            Conv2d(hidden, outputs, 1, bias=False),
            BatchNorm2d(outputs),
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class Digits(ModelSpace):
    """The supernet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        blocks: list[nn.Module] = []
        channels: Any = 8
        for stage, (widths, number) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
            width = choice(f"stage{stage}.width", widths)
            for block in range(number):
                name, first = f"stage{stage}.block{block}", block == 0
                form = choice(f"{name}.kernel", (3, 5)), choice(f"{name}.expansion", (1, 3))
                made = Inverted(channels if first else width, width, *form, 2 if first and stage else 1, not first)
                blocks.append(made if first else LayerChoice({"block": made, "skip": nn.Identity()}, label=name))
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.last = Conv2d(channels, 32, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.blocks(self.stem(x))).relu()
        return self.head(x.mean(dim=(2, 3)))


def digits(size: int, batch: int) -> tuple[TensorData, tuple[Tensor, Tensor]]:
    """Return the digits for training and validation, and those for testing."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    from mnist_cpu import split

    train, validation, test = (
        (images.contiguous(), labels.long())
        for images, labels in (split(n, size) for n in ("train", "validation", "test"))
    )
    return TensorData(train, validation, batch=batch), test


# -- one network by itself --------------------------------------------------------------------------------------------


def train(space: Space, architecture: Mapping[str, Any], data: TensorData, epochs: int, seed: int) -> nn.Module:
    """Return a network that was trained from scratch."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        model = space.build(dict(architecture))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    steps = epochs * data.steps("train")
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for images, labels in data.batches("train", generator):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((model(images).argmax(dim=1) == labels).float().mean())


# -- the benchmark ----------------------------------------------------------------------------------------------------


class Bench:
    """What all parts need, and the file that keeps what was done."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.space = Digits()
        self.data, self.test = digits(given.size, given.batch)
        self.example = torch.zeros(1, 1, given.size, given.size)
        self.macs = FlopsProfiler(self.space, self.example)
        self.params = ParamsProfiler(self.space)
        given.folder.mkdir(parents=True, exist_ok=True)
        self.path = given.folder / "results.json"
        self.results: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}
        settings = {key: value for key, value in vars(given).items() if key not in ("parts", "settings", "folder")}
        if self.results.setdefault("settings", settings) != settings:
            sys.exit(f"{self.path} was written with other arguments, {self.results['settings']}; give another --folder")

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return what was computed before under a name, or compute and keep it."""
        if name not in self.results:
            self.results[name] = compute()
            unfinished = self.path.with_suffix(".tmp")
            unfinished.write_text(json.dumps(self.results, indent=1))
            unfinished.replace(self.path)
        return self.results[name]

    def stand_alone(self, architecture: Mapping[str, Any], seed: int) -> dict[str, float]:
        """Train a network; return its accuracies and what that took."""
        begin = time.process_time()
        model = train(self.space, architecture, self.data, self.given.epochs, seed)
        seconds = time.process_time() - begin
        images, labels = (torch.cat(parts) for parts in zip(*self.data.batches("validation"), strict=True))
        return {
            "validation": accuracy(model, images, labels),
            "test": accuracy(model, *self.test),
            "seconds": seconds,
        }

    def latency(self) -> LookupTableProfiler:
        path = self.given.folder / "latency.json"
        if not path.exists():
            print(f"building a table of latencies on {self.given.device}", flush=True)
            table = build_latency_table(
                self.space,
                self.given.device,
                self.example,
                networks=self.given.measured,
                store=self.given.folder / "measurements.db",
                progress=False,
            )
            table.save(path)
        return LookupTableProfiler(self.space, path)

    def measured(self, architecture: Mapping[str, Any]) -> float:
        """Return the latency of a network itself."""
        store = self.given.folder / "measurements.db"
        profiler = DeviceProfiler(self.space, self.given.device, self.example, store=store)
        with contextlib.closing(profiler):
            return profiler.profile(architecture)


def adamw(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)


def of_recipe(epochs: int) -> Recipe:
    return Recipe(epochs=epochs, rate=0.004, optimizer=adamw)


def skips(architecture: Mapping[str, Any]) -> int:
    return sum(option == "skip" for option in architecture.values())


# -- search -----------------------------------------------------------------------------------------------------------


def limits_of(bench: Bench) -> dict[str, tuple[Profiler, Constraint | None]]:
    """Return for each setting by what the largest network is told, and the limit."""
    found: dict[str, tuple[Profiler, Constraint | None]] = {"no limit": (bench.macs, None)}
    for name in SETTINGS[1:]:
        if name not in bench.given.settings:
            continue
        profiler: Profiler = bench.macs if name == "macs" else bench.latency()
        values = profiler.profile_batch(bench.space.sample(4096, np.random.default_rng(0)))
        found[name] = bench.macs, profiler <= float(np.quantile(values, bench.given.share))
    return found


def sampled(bench: Bench, limit: Constraint | None) -> dict[str, dict[str, Any]]:
    """Search by inherited weights; return what each method derived."""
    limits = () if limit is None else (limit,)
    evaluate = SupernetEvaluator(
        bench.space, bench.data, of_recipe(bench.given.supernet_epochs), within=limits, calibration=10
    )
    begin = time.process_time()
    evaluate.prepare(Context(bench.space, seed=SEED))
    trained = time.process_time() - begin
    found = {}
    for name, strategy in (("SPOS", Evolution(population=20)), ("ENAS", PolicyGradient(batch=8))):
        begin = time.process_time()
        chain = Chain(strategy, *(Filter(limit) for limit in limits))
        result = Search(bench.space, chain, lambda trial: evaluate.score(trial.architecture), progress=False)
        best = result.run(trials=bench.given.trials).best
        seconds = trained + time.process_time() - begin
        found[name] = {"architecture": best.architecture, "seconds": seconds, "score": best.metrics["accuracy"]}
    return found


def differentiable(bench: Bench, name: str, limit: Constraint | None) -> dict[str, Any]:
    """Search by gradients; return what was derived."""
    kind = {"DARTS": DARTS, "GumbelDARTS": GumbelDARTS, "ProxylessNAS": ProxylessNAS}[name]
    strategy = kind(
        bench.data,
        of_recipe(bench.given.supernet_epochs),
        architecture_rate=bench.given.architecture_rate,
        warmup=bench.given.warmup,
    )
    chain = strategy if limit is None else Chain(strategy, Filter(limit))
    begin = time.process_time()
    result = Search(bench.space, chain, lambda trial: 0.0, progress=False).run(trials=1)
    return {
        "architecture": result.best.architecture,
        "seconds": time.process_time() - begin,
        "skips": [skips(record["likeliest"]) for record in strategy.history],
        "entropy": strategy.history[-1]["entropy"],
    }


def random_networks(bench: Bench, limit: Constraint | None, seconds: float) -> list[dict[str, Any]]:
    """Train random networks within a limit until the seconds are spent; return all, in order."""
    rng = np.random.default_rng(0)
    feasible = FeasibleSet(bench.space, *([] if limit is None else [limit]))
    done: list[dict[str, Any]] = []
    spent = 0.0
    while spent < seconds:
        (architecture,) = feasible.sample(1, rng)
        made = bench.stand_alone(architecture, seed=1000 + len(done))
        spent += made["seconds"]
        done.append({"architecture": architecture, "validation": made["validation"], "spent": spent})
    return done


def retrained(bench: Bench, architecture: Mapping[str, Any]) -> list[float]:
    """Return the test accuracies of a network, trained from scratch with several seeds."""
    key = json.dumps(architecture, sort_keys=True)
    return [
        bench.once(f"{key} {seed}", lambda s=seed: bench.stand_alone(architecture, s))["test"]
        for seed in range(bench.given.seeds)
    ]


def search(bench: Bench) -> None:
    """Print what each method derives in each setting, beside random and largest networks."""
    better: dict[str, list[bool]] = {name: [] for name in METHODS}
    for setting, (size, limit) in limits_of(bench).items():
        if setting not in bench.given.settings:
            continue
        found = dict(bench.once(f"sampled {setting}", lambda limit=limit: sampled(bench, limit)))
        for name in METHODS[2:]:
            key = f"{name} {setting}"
            found[name] = bench.once(key, lambda name=name, limit=limit: differentiable(bench, name, limit))
        longest = max(one["seconds"] for one in found.values())
        randoms = bench.once(f"random {setting}", lambda limit=limit, s=longest: random_networks(bench, limit, s))
        largest = FeasibleSet(bench.space, *([] if limit is None else [limit])).maximum(size).architecture
        print(f"\n{setting}{'' if limit is None else f': {limit}'}")
        print("method         test accuracy     random, same time     limit met  seconds     MACs  params  skips")
        rows: list[tuple[str, Mapping[str, Any], float]] = [
            *((name, found[name]["architecture"], found[name]["seconds"]) for name in METHODS),
            ("largest", largest, 0.0),
        ]
        for name, architecture, seconds in rows:
            own = retrained(bench, architecture)
            beside = ""
            if name in better:
                tried = [one for one in randoms if one["spent"] <= seconds] or randoms[:1]
                best = max(tried, key=lambda one: one["validation"])
                others = retrained(bench, best["architecture"])
                better[name].append(float(np.mean(own)) > float(np.mean(others)))
                beside = f"{np.mean(others):.2%} ({len(tried)} trained)"
            met = "" if limit is None else str(bool(limit.holds(np.array([limit.profiler.profile(architecture)]))[0]))
            spread = np.std(own, ddof=1) if len(own) > 1 else 0.0
            costs = f"{bench.macs.profile(architecture):>7,.0f}  {bench.params.profile(architecture):>6,.0f}"
            print(
                f"{name:<13}  {np.mean(own):.2%} ± {spread:.2%}   {beside:<20}  {met:<9}  {seconds:>7.0f}  {costs}"
                f"  {skips(architecture):>5}",
                flush=True,
            )
        if setting == "latency":
            measured = ", ".join(f"{name} {bench.measured(architecture):.2f}" for name, architecture, _ in rows)
            print(f"  measured themselves, in ms: {measured}")
            print(f"  the table is off by {bench.latency().relative_error:.1%} on networks left out (root mean square)")
        for name in METHODS[2:]:
            print(f"  skipped blocks of {name}'s likeliest network, by epoch: {found[name]['skips']}")
    ahead = [sum(values) > len(values) / 2 for values in better.values()]
    print("\nahead of random search of equal time, by setting:")
    for name, values in better.items():
        print(f"  {name:<13} {', '.join('yes' if value else 'no' for value in values)}")
    print(f"ahead in most settings: {sum(ahead)} of {len(ahead)} methods")


# -- rank -------------------------------------------------------------------------------------------------------------


def kendall(first: np.ndarray, second: np.ndarray) -> float:
    """Return Kendall's tau-b, which makes allowance for ties."""
    pairs = np.triu_indices(len(first), 1)
    x, y = np.sign(first[:, None] - first)[pairs], np.sign(second[:, None] - second)[pairs]
    return float((x * y).sum() / math.sqrt((x != 0).sum() * (y != 0).sum()))


def rank(bench: Bench) -> None:
    """Print how inherited accuracy, and the number of parameters, rank networks that were trained by themselves."""
    rng = np.random.default_rng(0)
    pool = bench.space.sample(50 * bench.given.networks, rng)
    order = np.argsort(bench.macs.profile_batch(pool), kind="stable")
    chosen = list(pool[[int(rng.choice(part)) for part in np.array_split(order, bench.given.networks)]])

    def inherited() -> dict[str, Any]:
        evaluate = SupernetEvaluator(
            bench.space,
            bench.data,
            of_recipe(bench.given.supernet_epochs),
            sandwich=bench.macs if bench.given.sandwich else None,
            distill=bench.given.sandwich,
            calibration=10,
        )
        begin = time.process_time()
        evaluate.prepare(Context(bench.space, seed=SEED))
        trained = time.process_time() - begin
        return {"scores": [evaluate.score(one) for one in chosen], "seconds": trained}

    scores = bench.once("inherited", inherited)
    alone = []
    for number, architecture in enumerate(chosen):
        key = f"rank {number} {{}}"
        runs = [
            bench.once(key.format(seed), lambda a=architecture, s=seed: bench.stand_alone(a, s))
            for seed in range(bench.given.rank_seeds)
        ]
        alone.append([one["validation"] / 2 + one["test"] / 2 for one in runs])
    trained = np.array(alone)
    own, size = trained.mean(axis=1), np.array([bench.params.profile(one) for one in chosen])
    macs = np.array([bench.macs.profile(one) for one in chosen])
    print(f"\n{len(chosen)} networks, stratified over MACs; accuracy alone from {own.min():.2%} to {own.max():.2%}")
    print(f"the supernet was trained in {scores['seconds']:.0f} s")
    ranked = {"accuracy by inherited weights": np.array(scores["scores"]), "parameters": size, "MACs": macs}
    for what, values in ranked.items():
        print(f"  Kendall's tau of {what:<30} {kendall(values, own):.3f}")
    pairs = [kendall(trained[:, a], trained[:, b]) for a, b in itertools.combinations(range(trained.shape[1]), 2)]
    if pairs:
        print(f"  two trainings of the same networks agree by {np.mean(pairs):.3f}")


# -- expectation ------------------------------------------------------------------------------------------------------


def expectation(bench: Bench) -> None:
    """Print how exact the expectation and its gradient are, and what one step of a penalty takes."""
    rng = np.random.default_rng(0)
    space, table = bench.space, bench.macs.table
    scores = {c.name: torch.tensor(rng.normal(size=len(c.options)), requires_grad=True) for c in space.choices}

    def expected(given: Mapping[str, Tensor]) -> Tensor:
        return table.expectation({name: torch.softmax(score, dim=0) for name, score in given.items()})

    value = expected(scores)
    value.backward()
    mean = float(value.detach())
    shares = {name: torch.softmax(score, dim=0).detach().numpy() for name, score in scores.items()}
    drawn = np.stack([rng.choice(len(p), size=100_000, p=p) for p in shares.values()], axis=1).astype(space.dtype)
    costs = table.evaluate(space.canonical(drawn))
    error = costs.std() / math.sqrt(len(costs))
    print(f"\nexpected MACs {mean:,.1f}; mean of 100,000 samples {costs.mean():,.1f} ± {error:,.1f}")
    worst = 0.0
    for name, score in scores.items():
        for option in range(len(score)):
            ends = []
            for step in (1e-5, -1e-5):
                moved = {key: each.detach().clone() for key, each in scores.items()}
                moved[name][option] += step
                ends.append(expected(moved).item())
            assert score.grad is not None
            worst = max(worst, abs((ends[0] - ends[1]) / 2e-5 - float(score.grad[option])) / mean)
    print(f"largest difference of the gradient and finite differences, as a share of the expectation: {worst:.1e}")

    ofa = ofa_mobilenetv3(width=1.2, resolutions=(224,))
    big = FlopsProfiler(ofa, torch.zeros(1, 3, 224, 224)).table
    many = {c.name: torch.zeros(len(c.options), requires_grad=True) for c in ofa.choices}
    times = []
    for _ in range(300):
        begin = time.process_time()
        big.expectation({name: torch.softmax(score, dim=0) for name, score in many.items()}).backward()
        times.append(1000 * (time.process_time() - begin))
    print(f"one step of a penalty on {len(ofa.choices)} choices of once-for-all: {np.median(times):.2f} ms")


# -- limits -----------------------------------------------------------------------------------------------------------


def limits(bench: Bench) -> None:
    """Print whether networks that are derived under twenty limits keep them."""
    bounds = bench.macs.bounds()
    print("\nlimit on MACs    of the network   likeliest regardless of the limit")
    kept = 0
    for limit in np.linspace(bounds.low, bounds.high, 20):
        strategy = GumbelDARTS(
            bench.data,
            of_recipe(bench.given.limit_epochs),
            architecture_rate=10 * bench.given.architecture_rate,
        )

        def derive(strategy: GumbelDARTS = strategy, limit: float = limit) -> list[float]:
            chain = Chain(strategy, Filter(bench.macs <= limit))
            best = Search(bench.space, chain, lambda trial: 0.0, progress=False).run(trials=1).best
            codes = np.array([[int(p.argmax()) for p in strategy.probabilities.values()]], dtype=bench.space.dtype)
            likeliest = bench.space.candidates(bench.space.canonical(codes))
            return [bench.macs.profile(best.architecture), float(bench.macs.profile_batch(likeliest)[0])]

        own, likeliest = bench.once(f"limit {limit}", derive)
        kept += own <= limit
        print(f"{limit:>13,.0f}  {own:>15,.0f}   {likeliest:>15,.0f}", flush=True)
    print(f"{kept} of 20 limits are kept")


# -- the rest ---------------------------------------------------------------------------------------------------------


def estimate(given: argparse.Namespace) -> str:
    """Return how long the parts take, by what one core of 2020 needs."""
    alone = 1.7 * given.epochs
    mixed, path = 6.5, 1.6  # seconds of an epoch of mixtures, and of single paths
    longest = given.supernet_epochs * 1.8 * mixed  # as long as random networks are trained
    gradients = given.supernet_epochs * (4 * mixed + path)
    times = {
        "expectation": 60,
        "limits": 20 * given.limit_epochs * 2 * mixed,
        "rank": given.networks * given.rank_seeds * alone + given.supernet_epochs * path,
        "search": 3
        * (gradients + given.supernet_epochs * path + 0.15 * given.trials + longest + 8 * given.seeds * alone),
    }
    parts = ", ".join(f"{name} {times[name] / 60:.0f} min" for name in given.parts)
    return f"{parts}; {sum(times[name] for name in given.parts) / 60:.0f} min in all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="of the part search")
    parser.add_argument("--folder", type=Path, default=Path("runs/oneshot_mnist"), help="where results are kept")
    parser.add_argument("--size", type=int, default=16, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=60)
    parser.add_argument("--supernet-epochs", type=int, default=40, help="epochs of every supernet")
    parser.add_argument("--warmup", type=int, default=10, help="epochs of weights alone, before scores are learnt")
    parser.add_argument("--architecture-rate", type=float, default=0.02)
    parser.add_argument("--trials", type=int, default=150, help="networks that SPOS and ENAS score")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of a network by itself")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of every network that is derived")
    parser.add_argument("--share", type=float, default=0.2, help="of random networks that keep a limit")
    parser.add_argument("--networks", type=int, default=100, help="networks of the rank")
    parser.add_argument("--rank-seeds", type=int, default=3, help="trainings of each of them")
    parser.add_argument("--sandwich", action="store_true", help="train the supernet of the rank by the sandwich rule")
    parser.add_argument("--limit-epochs", type=int, default=1, help="epochs under each of the twenty limits")
    parser.add_argument("--device", default="torch", help="the device whose latency is limited")
    parser.add_argument("--measured", type=int, default=100, help="whole networks that the latency table is fitted to")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, 1 thread")
    print(f"expected: {estimate(given)}", flush=True)
    bench = Bench(given)
    print(repr(bench.space), flush=True)
    begin = time.process_time()
    for name, part in (("expectation", expectation), ("limits", limits), ("rank", rank), ("search", search)):
        if name in given.parts:
            part(bench)
    print(f"\n{time.process_time() - begin:.0f} CPU seconds")


if __name__ == "__main__":
    main()
