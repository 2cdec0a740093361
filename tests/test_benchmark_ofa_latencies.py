"""The published latencies of once-for-all networks are read as what they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasmw.profilers import LookupTableProfiler
from nasmw.spaces import ofa_mobilenetv3

BENCHMARKS = str(Path(__file__).parent.parent / "benchmarks")
DATA = Path(os.environ.get("NASMW_DATA") or "no folder")


@pytest.fixture(scope="module")
def latencies() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import tables.ofa_latencies

        yield tables.ofa_latencies
        for name in [name for name in sys.modules if name.split(".")[0] == "tables"]:
            del sys.modules[name]


def test_files_become_candidates(latencies: Any) -> None:
    space = ofa_mobilenetv3(resolutions=(160, 224))
    file = {
        "ks": np.full((1, 20), 5, dtype=np.uint8),
        "e": np.full((1, 20), 4, dtype=np.uint8),
        "d": np.array([[2, 3, 4, 2, 3]], dtype=np.uint8),
        "r": np.array([224], dtype=np.uint16),
    }
    (architecture,) = latencies.ofa_candidates(space, file)
    assert architecture["resolution"] == 224 and architecture["stage2.block3.kernel"] == 5
    assert "stage0.block2.kernel" not in architecture and architecture["stage1.block2.expand"] == 4
    with pytest.raises(ValueError, match="'resolution' of .* has no option 192"):
        latencies.ofa_candidates(space, {**file, "r": np.array([192])})


@pytest.mark.skipif(not (DATA / "ofa").is_dir(), reason="NASMW_DATA names no folder with ofa")
def test_the_paired_set_is_that_of_the_table(latencies: Any) -> None:
    found = latencies.paired_latencies(DATA)
    table = LookupTableProfiler(ofa_mobilenetv3(1.2, range(160, 225, 16)), DATA / "ofa/note10_lut_raw.json")
    assert len(found.candidates) == 10_000
    assert np.abs(table.table.evaluate(found.candidates.codes) - found.milliseconds["note10"]).max() < 1e-4
    assert found.milliseconds["rtx2080ti"].mean() == pytest.approx(17.81, abs=0.01)
    assert found.milliseconds["p40"].max() == pytest.approx(102.80, abs=0.01)


@pytest.mark.skipif(not (DATA / "ofa").is_dir(), reason="NASMW_DATA names no folder with ofa")
def test_help_has_twelve_tables(latencies: Any) -> None:
    found = latencies.help_latencies(DATA)
    assert len(found.milliseconds) == 12 and len(found.candidates) == 5000
    assert found.milliseconds["titan_rtx_64"].mean() == pytest.approx(25.71, abs=0.1)
