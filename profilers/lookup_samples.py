"""Samplers: which networks of a space are measured, to learn from."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from nasmw.candidates import Candidates, Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.flops import FlopsProfiler
from nasmw.profilers.inputs import ExampleLike
from nasmw.space import Space

__all__ = ["SAMPLERS", "Sampler", "draw"]

Sampler = Literal["random", "stratified by MACs"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
POOL = 50
"""How many architectures are drawn for each one that a stratified sample keeps."""
MOST = 100_000


def draw(
    space: Space,
    n: int,
    sampler: Sampler,
    example_input: ExampleLike,
    rng: np.random.Generator,
    *,
    resolution: str | None = "resolution",
) -> Candidates:
    """Return distinct architectures of a space.

    Args:
        space: The space.
        n: How many; all of them where the space has no more.
        sampler: ``"random"``: uniform over the architectures. ``"stratified by MACs"``: of many random ones, sorted by
            multiply-adds, one at random from each of `n` equal parts of the range from the least to the greatest, and
            random ones in place of empty parts. Random architectures are much alike in size, those of a stratified
            sample are not.
        example_input: What multiply-adds are counted on.
        rng: The generator to draw from.
        resolution: The choice whose option is the height and width of the input, where the space has it.

    Raises:
        ProfilerError: If there is no such sampler.
    """
    if sampler not in SAMPLERS:
        raise ProfilerError(f"a sampler is one of {SAMPLERS}, got {sampler!r}")
    if space.size <= n:
        return space.at(range(space.size))
    if sampler == "random":
        return _distinct(space, n, rng)
    pool = _distinct(space, min(POOL * n, max(MOST, n), space.size), rng)
    counted = FlopsProfiler(space, example_input, resolution=resolution, uncounted="ignore", progress=False)
    macs = counted.profile_batch(pool)
    return pool[_stratified(macs, n, rng)]


def _distinct(space: Space, n: int, rng: np.random.Generator) -> Candidates:
    found: dict[bytes, None] = {}
    if 2 * n > space.size:
        return space.at(np.sort(rng.permutation(space.size)[:n]).tolist())
    while len(found) < n:
        found.update(dict.fromkeys(np.ascontiguousarray(row).tobytes() for row in space.sample(n, rng).codes))
    codes = np.frombuffer(b"".join(list(found)[:n]), dtype=space.dtype).reshape(n, len(space))
    return Candidates.of(space, codes)


def _stratified(values: Floats, n: int, rng: np.random.Generator) -> list[int]:
    edges = np.linspace(values.min(), values.max(), n + 1)
    part = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, n - 1)
    rows = [int(rng.choice(np.flatnonzero(part == number))) for number in range(n) if (part == number).any()]
    rest = np.setdiff1d(np.arange(len(values)), rows)
    return sorted([*rows, *rng.choice(rest, n - len(rows), replace=False).tolist()])
