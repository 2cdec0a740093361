from __future__ import annotations

import signal

import pytest
from hypothesis import settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("nasmw", deadline=None)
settings.load_profile("nasmw")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory):
    """Keep what profilers find out in a folder of this run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASMW_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
