"""Frames of five to ten internals between two lines of the user's, and a debugger that stops at the bridge.

The types are in tests/typing, which is read by type checkers.
"""

import io
import itertools
import os
import pdb
import re
import sys
import threading
import traceback

import anyio
import pytest
from places import error_of
from pytest_marks import everywhere
from scripts import COMPILED, script

import anysync

OURS = os.path.dirname(anysync.__file__), "anysync_ext"


@anysync.coroutine
async def fetch(turns, stopped_in=None):
    total = turns
    if stopped_in is not None:
        stopped_in.append(threading.get_ident())
    for _ in range(turns):
        await anyio.sleep(0)
    return total


@anysync.coroutine
async def fail(turns):
    await fetch(turns)
    raise LookupError


@anysync.generator
async def rows(turns):
    await fail(turns)
    yield


@anysync.contextmanager
async def opened(turns):
    await fail(turns)
    yield


def by_run(turns):
    fail(turns).run()


def by_for(turns):
    for _ in rows(turns):
        pass


def by_with(turns):
    with opened(turns):
        pass


@everywhere
@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("use", [by_run, by_for, by_with])
def test_25_tracebacks(place, turns, use):
    """PrefectHQ/prefect#15275, modal-labs/synchronicity#22: not five to ten frames of internals."""
    error = place(lambda: error_of(lambda: use(turns)))
    assert type(error) is LookupError
    frames = traceback.extract_tb(error.__traceback__)
    names = [frame.name for frame in frames]
    between = frames[names.index(use.__name__) + 1 : names.index("fail")]
    ours = [frame for frame in between if os.path.dirname(frame.filename) in OURS]
    assert len(ours) <= 1
    if use is by_run:
        assert [frame for frame in between if frame.filename not in COMPILED] == ours
    assert frames[-1].line == "raise LookupError"


@pytest.mark.parametrize("turns", [0, 1])
@script
def test_25_step_of_pdb_goes_from_the_call_into_the_coroutine(turns):
    """zarr-developers/zarr-python#3160: the work is in the caller's thread, where `step` can follow."""
    commands, output, threads = io.StringIO("step\n" * 8 + "continue\n"), io.StringIO(), []
    libraries = ["[!_]*", "_[!_]*"]  # all modules but `__main__`
    debugger = pdb.Pdb(stdin=commands, stdout=output, nosigint=True, readrc=False, skip=libraries)
    coro = fetch(turns, threads)
    debugger.set_trace()
    coro.run()
    sys.settrace(None)
    functions = re.findall(r"> \S+\(\d+\)(\w+)\(", output.getvalue())
    assert [name for name, _ in itertools.groupby(functions)][1] == "fetch", output.getvalue()
    assert threads == [threading.get_ident()]
