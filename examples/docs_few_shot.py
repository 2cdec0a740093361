"""A new device from twenty measurements and a table of others; the documentation shows it."""

from __future__ import annotations

import numpy as np

from nasmw import Candidates
from nasmw.candidates import Floats
from nasmw.profilers.learned import LayerWork, MultiSourceProfiler, SourceDevices, split_devices
from nasmw.spaces import nasbench201

space = nasbench201()
rng = np.random.default_rng(0)
work = LayerWork()
SHARES = {"phone": {"macs": 20.0}, "gpu": {"number": 9.0, "macs": 2.0}, "tpu": {"elements": 12.0, "number": 1.0}}
BOARD = {"macs": 9.0, "AvgPool elements": 6.0, "number": 3.0}


def measure(networks: Candidates, shares: dict[str, float]) -> Floats:
    """Stands in for measurements on a device."""
    columns = np.array([shares.get(name, 0.0) for name in work.names(space)])
    return np.asarray((1.0 + work.encode(networks).values @ columns) * rng.normal(1.0, 0.02, len(networks)))


known = space.sample(300, rng)
values = np.stack([measure(known, shares) for shares in SHARES.values()], axis=1)

# Three devices learnt together, from a table of the same networks on each of them.
sources = SourceDevices(space, ["phone", "gpu", "tpu"], "structure + work + one_hot").fit(known, values)

# A fourth one from twenty measurements, of networks that tell most.
board = MultiSourceProfiler(space, sources, device="board")
pool = space.sample(600, rng)
chosen = pool[board.to_measure(pool, 20)]
board.fit(chosen, measure(chosen, BOARD))

# Kept for later: what is known of the sources, and of the new device.
sources.save("sources.npz")
board.save("board.npz")
board = MultiSourceProfiler.load("board.npz", space, SourceDevices.load("sources.npz", space))

new = space.sample(500, rng)
off = np.abs(board.profile_batch(new) / measure(new, BOARD) - 1.0)
print("nine of ten predictions within 10 %:", bool(np.mean(off <= 0.1) > 0.9))

# Which of the known devices say little of which others, to try methods on.
split = split_devices(values, sources=1, targets=2, rng=np.random.default_rng(0))
print(f"{sources.devices[split.sources[0]]} -> {[sources.devices[device] for device in split.targets]}")
