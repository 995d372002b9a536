"""Marks that several modules share, apart from what scenarios import: see `scripts.py`."""

import sys

import pytest
from places import in_loop, in_thread, in_with, inline, nested, nested_in_with, plain
from steps import ROWS, STEPS

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
#: Where what one thread made, and another let go of, dies when the first gets to it, and no sooner.
dies_at_once = pytest.mark.skipif(
    not GIL, reason="free-threaded Python counts other threads' references later"
)

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
