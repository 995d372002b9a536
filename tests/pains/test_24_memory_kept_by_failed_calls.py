"""Cycles of exceptions, frames and futures keep what a call had until garbage is collected."""

import asyncio
import gc
import threading
import weakref

import pytest
import scripts
from pytest_marks import dies_at_once
from scripts import collect_dropped, raised, script

import anysync

places = pytest.mark.parametrize("place", ["plainly", "in_loop"])
references = []


class Payload(bytearray):
    """A large local variable, whose death is seen."""

    def __init__(self):
        super().__init__(1 << 20)
        references.append(weakref.ref(self))


async def nothing():
    pass


def alive():
    anysync.run(nothing())  # when this is served, the thread that served the last call has let go of it
    collect_dropped()
    return [reference for reference in references if reference() is not None]


@anysync.coroutine
async def fails(turns):
    payload = Payload()
    for _ in range(turns):
        await asyncio.sleep(0)
    raise ValueError(len(payload))


@anysync.coroutine
async def returns(turns):
    payload = Payload()
    for _ in range(turns):
        await asyncio.sleep(0)
    return payload


@anysync.coroutine
async def waits():
    payload = Payload()
    await asyncio.get_running_loop().create_future()
    return payload


@places
@pytest.mark.parametrize("turns", [0, 1])
@script
def test_24_memory_kept_by_failed_calls(place, turns):
    """django/asgiref#386, agronholm/apscheduler#406, python/cpython#88863."""

    def call():
        for _ in range(3):
            try:
                fails(turns).run()
            except ValueError:
                assert len(alive()) == 1  # which the exception needs
            assert alive() == []

    gc.disable()
    getattr(scripts, place)(call)
    assert len(references) == 3


@places
@pytest.mark.parametrize("turns", [0, 1])
@script
def test_24_memory_kept_by_calls_that_return(place, turns):
    """django/asgiref#487: what is returned goes with the caller's last use of it."""

    def call():
        for _ in range(3):
            assert len(returns(turns).run()) == 1 << 20
            assert alive() == []

    gc.disable()
    getattr(scripts, place)(call)


@places
@script
def test_24_memory_kept_by_cancelled_calls(place):
    """django/asgiref#508, python/cpython#88863: a call that a timeout cancels."""

    def call():
        for _ in range(3):
            assert type(raised(lambda: waits().run(timeout=0))) is TimeoutError
            assert alive() == []

    gc.disable()
    getattr(scripts, place)(call)
    assert len(references) == 3


@dies_at_once
@places
@pytest.mark.parametrize("function", ["fails", "returns"])
@script
def test_24_memory_kept_by_abandoned_futures(place, function):
    """agronholm/apscheduler#406: a future that nobody asks for its outcome."""

    def call():
        for _ in range(3):
            done = threading.Event()
            globals()[function](1).submit().add_done_callback(lambda _, done=done: done.set())
            assert done.wait(scripts.WATCHDOG)
        anysync.run(asyncio.sleep(0))  # the thread that did it has gone on
        assert len(references) == 3
        assert alive() == []

    gc.disable()
    getattr(scripts, place)(call)
