"""The caller gets its TimeoutError, and the work goes on behind its back."""

import asyncio
import threading
import time

import pytest
import scripts
from scripts import raised, run_source, script

import anysync

places = pytest.mark.parametrize("place", ["plainly", "in_loop"])


@places
@pytest.mark.parametrize("timeout", [0.01, 0])
@script
def test_17_timeout_that_does_not_stop_the_work(place, timeout):
    """zarr-developers/zarr-python#3997, fsspec/filesystem_spec#644, crewAIInc/crewAI#6743."""
    log, tasks = [], []

    async def work():
        tasks.append(asyncio.current_task())
        try:
            await asyncio.sleep(3600)
            log.append("completed after the timeout")
        finally:
            await asyncio.sleep(0)
            log.append("clean")

    def call():
        anysync.run(asyncio.sleep(0))
        threads = threading.enumerate()
        error = raised(lambda: anysync.run(work(), timeout=timeout))
        assert type(error) is TimeoutError
        assert log == ["clean"]
        assert tasks[0].cancelled()
        assert threading.enumerate() == threads

    getattr(scripts, place)(call)


@places
@script(out="shielded\n")
def test_17_a_timeout_of_what_shields(place):
    """crewAIInc/crewAI#6743: what is shielded lives on because the user says so, until the process ends."""
    kept = []

    async def shielded():
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            print("shielded", flush=True)

    async def work():
        kept.append(asyncio.ensure_future(shielded()))
        await asyncio.shield(kept[0])

    async def settled():
        return kept[0].done()

    def call():
        assert type(raised(lambda: anysync.run(work(), timeout=0.01))) is TimeoutError
        assert anysync.run(settled()) is False

    getattr(scripts, place)(call)


EXIT = """
import asyncio, time, anysync

scripts.watch()

async def work():
    await asyncio.sleep(3600)

def call():
    try:
        anysync.run(work(), timeout=0.01)
    except TimeoutError:
        print(time.monotonic())

scripts.PLACE(call)
"""


@places
def test_17_a_process_that_timed_out_exits_at_once(place, tmp_path):
    """crewAIInc/crewAI#6743: the interpreter's exit waited for the thread that went on."""
    done = run_source(EXIT.replace("PLACE", place), tmp_path)
    took = time.monotonic() - float(done.stdout)
    assert (scripts.complaints(done), done.returncode) == ([], 0)
    assert took < 3
