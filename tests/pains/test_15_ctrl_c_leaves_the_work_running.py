"""Ctrl-C ends the wait, and nobody tells the coroutine."""

import asyncio
import sys
import threading
import time

import pytest
import scripts
from scripts import raised, script, send_after, suspended

import anysync

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="os.kill sends no SIGINT on Windows")
places = pytest.mark.parametrize("place", ["plainly", "in_loop"])


async def one():
    await asyncio.sleep(0)
    return 1


@places
@script
def test_15_ctrl_c_leaves_the_work_running(place):
    """fsspec/filesystem_spec#1667, pydantic/pydantic-ai#5975, PrefectHQ/prefect#14013."""
    log, times = [], []

    async def download(event):
        try:
            await suspended(event)
        except asyncio.CancelledError:
            times.append(time.monotonic())
            log.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            log.append("clean")

    def call():
        event = threading.Event()
        thread = send_after(event)
        error = raised(lambda: anysync.run(download(event)))
        times.append(time.monotonic())
        log.append(type(error))
        thread.join()
        assert anysync.run(one()) == 1

    getattr(scripts, place)(call)
    assert log == ["cancelled", "clean", KeyboardInterrupt]
    assert times[1] - times[0] < 0.5


@places
@script
def test_15_the_call_after_ctrl_c_hangs(place):
    """jupyter/jupyter_client#696, dask/distributed#5722: the client cannot be used again."""

    @anysync.coroutine
    async def ask(event=None):
        async with lock:
            if event is not None:
                await suspended(event)
            return id(asyncio.get_running_loop())

    def call():
        loop = ask().run()
        event = threading.Event()
        thread = send_after(event)
        assert type(raised(lambda: ask(event).run())) is KeyboardInterrupt
        thread.join()
        assert ask().run() == loop

    lock = asyncio.Lock()
    getattr(scripts, place)(call)


@places
@script
def test_15_a_second_ctrl_c_does_not_break_out(place):
    """Cadair/parfive#60, modal-labs/synchronicity#166: one that waits for a clean-up that never ends."""

    async def never_ends(event, cleaning):
        try:
            await suspended(event)
        finally:
            await suspended(cleaning)

    def call():
        event, cleaning = threading.Event(), threading.Event()
        thread = send_after(event, cleaning)
        assert type(raised(lambda: anysync.run(never_ends(event, cleaning)))) is KeyboardInterrupt
        thread.join()
        assert anysync.run(one()) == 1

    getattr(scripts, place)(call)
