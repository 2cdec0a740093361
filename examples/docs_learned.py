import numpy as np

from nasmw import Chain, Filter, Refit, Search
from nasmw.profilers import LearnedProfiler, PredictorStore, from_config
from nasmw.profilers.learned import learning_curve, tune
from nasmw.strategies import Evolution
from nasmw.testing import TableProfiler, toy_space

space = toy_space()
device = TableProfiler(space)  # stands for a device that is measured


def measure(architectures):
    return [1.2 * device.profile(architecture) + 3.0 for architecture in architectures]


# Part 1: architectures whose latency is known, and a profiler that learns from them.
known = space.sample(100, np.random.default_rng(0))
latency = LearnedProfiler(space, "ridge", "slots", device="phone", metric="measured_ms")
latency.fit(known, measure(known))

new = space.sample(3, np.random.default_rng(1))
low, high = latency.interval(new, coverage=0.9)
print([f"{value:.1f} ms" for value in latency.profile_batch(new)])

# Part 2: predictor, hyper-parameters and encoding chosen on inner splits of what is known.
found = tune(
    LearnedProfiler(space, "gp"),
    known,
    measure(known),
    encodings=["one_hot", "slots + counts"],
    grid={"curved": (True, False)},
)
print(found.best.encoding, found.best.parameters)
curve = learning_curve(latency, (known, measure(known)), (new, measure(new)), sizes=(10, 30, 100))

# Part 3: kept in a folder by space and device, and used by name.
store = PredictorStore("predictors")
store.save(latency)
profilers = from_config(
    space,
    {
        "profilers": {
            "latency_ms": {"kind": "learned", "store": "predictors", "device": "phone"},
            "macs": {"kind": "flops", "input": [1, 3, 8, 8]},
            "weights": {"kind": "params"},
        }
    },
)


# Part 4: what trials measure refines the prediction while the search goes on.
def evaluate(trial):
    (milliseconds,) = measure([trial.architecture])
    return {"accuracy": milliseconds / (50 + milliseconds), "measured_ms": milliseconds}


latency = profilers["latency_ms"]
chain = Chain(Evolution(population=10), Filter(latency <= 60, profilers["macs"] <= 300_000), Refit(latency, every=10))
result = Search(space, chain, evaluate, profilers=[profilers["weights"]]).run(trials=40)
print(latency.version, len(latency.samples))

# Part 5: one that learns no more; as a table, limits on it are met by construction.
limit = latency.freeze() <= 60
