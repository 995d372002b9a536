"""A coroutine raises what asyncio lets out of its loop, and the thread that all others need is dead."""

import asyncio

import anyio
import pytest
from loops import this_loop
from places import error_of
from pytest_marks import everywhere

import anysync


class Killed(BaseException):
    """Neither asyncio nor we have heard of it."""


@anysync.coroutine
async def loop_of():
    await anyio.sleep(0)
    return this_loop()


@anysync.coroutine
async def fail(error, turns):
    for _ in range(turns):
        await anyio.sleep(0)
    raise error


@everywhere
@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), Killed()],
    ids=lambda error: type(error).__name__,
)
def test_18_base_exception_kills_the_loop_thread(place, turns, error):
    """agronholm/anyio#471: a portal that hangs, or is dead, after the first of them."""

    def call():
        before = loop_of().run()
        raised = error_of(lambda: fail(error, turns).run())
        return raised, before, loop_of().run()

    raised, before, after = place(call)
    assert raised is error
    if place.__name__ != "nested":  # where each call has a thread of its own
        assert before is after
