import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest
from scripts import threads_since

import anysync
from anysync import core
from anysync._process import process


def pytest_report_header() -> str:
    return f"anysync: {core.name} core, {os.path.dirname(core.__file__)}, Python {sys.version.split()[0]}"


def pytest_configure() -> None:
    wanted = {"0": "pure", "1": "compiled"}.get(os.environ.get("ANYSYNC_EXTENSION", ""))
    if wanted not in (None, core.name):
        pytest.exit(f"this run is for the {wanted} core, and the {core.name} one was imported", returncode=3)
    # a shell starts what it runs in the background without Ctrl-C, and so would be the processes of tests
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish() -> None:
    if hasattr(gc, "unfreeze"):
        gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def quick_collections() -> None:
    """Freeze what there is before each module: no test that collects garbage need go through it again."""
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy has none
        gc.freeze()


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """What plain code uses, as `configure` says, and what the loops of a test are of."""
    before = process.backend
    anysync.configure(backend=request.param)
    yield request.param
    anysync.configure(backend=before)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a thread behind, but for the background ones and those that trio keeps."""
    before = threading.enumerate()
    yield
    kept = "anysync background", "anysync helper", "Trio thread"
    before += [thread for thread in threading.enumerate() if thread.name.startswith(kept)]
    assert threads_since(before) == []
