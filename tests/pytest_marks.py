"""Marks that several modules share, apart from what scenarios import: see `scripts.py`."""

import sys

import pytest
from places import in_loop, in_thread, in_with, inline, nested, nested_in_with, plain
from scripts import PYPY
from steps import ROWS, STEPS

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
#: Elsewhere, what one thread made, and another let go of, dies when the first gets to it, or is collected.
dies_at_once = pytest.mark.skipif(
    PYPY or not GIL,
    reason="PyPy counts no references, and free-threaded Python those of other threads later",
)

#: for what asks for the way that CPython lets go of things: at the last reference, and at exit
of_cpython = pytest.mark.skipif(PYPY, reason="PyPy counts no references, and runs no destructors at exit")

on_both = pytest.mark.usefixtures("backend")
#: for a test that is about asyncio, of those that would be on both
on_asyncio = pytest.mark.parametrize("backend", ["asyncio"], indirect=True)
every_place = pytest.mark.parametrize(
    "place", [plain, in_with, in_loop, inline, nested, nested_in_with, in_thread]
)


def everywhere(test):
    """Run a test in every place, on both backends."""
    return on_both(every_place(test))


every_row = pytest.mark.parametrize("row", ROWS)
every_step = pytest.mark.parametrize("step", STEPS)
