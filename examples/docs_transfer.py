"""From one device to another with ten measurements; the documentation shows it."""

from __future__ import annotations

import numpy as np

from nasmw import Candidates
from nasmw.candidates import Floats
from nasmw.profilers.learned import GPUS, DeviceMeasurements, HardwareModel, LearnedProfiler, TransferProfiler
from nasmw.spaces import compofa

space = compofa("elastic", resolutions=(160, 192, 224))
rng = np.random.default_rng(0)
macs, params = (space.tables[name](space, None) for name in ("macs", "params"))


def measure(networks: Candidates, first: float = 5e-8, second: float = 0.0) -> Floats:
    """Stands in for measurements on a device."""
    values = 1.0 + first * macs.evaluate(networks) + second * params.evaluate(networks)
    return np.asarray(values * rng.normal(1.0, 0.01, len(networks)))


known = space.sample(300, rng)
phone = LearnedProfiler(space, "ridge", "work + layers", device="phone").fit(known, measure(known))

# What is known of the phone, corrected by ten networks that are measured on the board.
board = TransferProfiler(space, phone, device="board")
pool = space.sample(500, rng)
chosen = pool[board.to_measure(pool, 10)]
board.fit(chosen, measure(chosen, 3e-8, 1e-6))

new = space.sample(200, rng)
error = np.mean(np.abs(board.profile_batch(new) / measure(new, 3e-8, 1e-6) - 1.0))
print(f"{100 * error:.0f} % off on the board, {board.chosen.partition(' ')[0] or 'nothing'} kept")

# A device that was never measured, from others and from what its maker publishes.
tables = [
    DeviceMeasurements(GPUS[name], 64, known, measure(known, 5e-5 / GPUS[name].bandwidth_gbs))
    for name in ("V100", "Titan RTX", "P40")
]
unknown = HardwareModel(space).fit(tables, calibrate=False).on(GPUS["RTX 2080 Ti"], batch=64)
