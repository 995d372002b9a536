"""Off the main thread: "There is no current event loop in thread".

streamlit/streamlit#744, pydantic/pydantic-ai#1004 (Flask, Celery), miyakogi/syncer#3: `get_event_loop` works
in the main thread only, and since Python 3.14 not even there.
"""

import asyncio
import gc
import os
import threading

import pytest
import scripts
from scripts import script

import anysync

places = pytest.mark.parametrize("place", ["plainly", "in_loop"])
WARNINGS_ARE_ERRORS = ("-W", "error")


@anysync.coroutine
async def one():
    await asyncio.sleep(0)
    return 1


@anysync.generator
async def ones():
    yield await one()
    yield await one()


@anysync.contextmanager
async def entered():
    yield await one()


def every_use():
    with entered() as value:
        return value, one().run(), one().run(timeout=60), one().submit().result(), next(ones())


def in_new_thread(call, **options):
    results = []
    thread = threading.Thread(target=lambda: results.append(call()), **options)
    thread.start()
    thread.join()
    return results


@places
@pytest.mark.parametrize("daemon", [False, True])
@script(options=WARNINGS_ARE_ERRORS)
def test_11_a_call_works_in_any_thread(place, daemon):
    call = lambda: getattr(scripts, place)(every_use)  # noqa: E731
    for _ in range(3):
        assert in_new_thread(call, daemon=daemon) == [(1,) * 5]


@script(options=WARNINGS_ARE_ERRORS)
def test_11_a_call_works_in_a_thread_that_threading_does_not_know():
    import _thread

    def call():
        results.append(every_use())
        done.release()

    results, done = [], threading.Semaphore(0)
    _thread.start_new_thread(call, ())
    done.acquire()
    assert results == [(1,) * 5]


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd" if os.path.exists("/proc/self/fd") else "/dev/fd"))


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="descriptors cannot be listed here")
@places
@script(options=WARNINGS_ARE_ERRORS)
def test_11_two_hundred_threads_leave_no_descriptor_and_no_warning(place):
    call = lambda: getattr(scripts, place)(one().run)  # noqa: E731
    in_new_thread(call)
    before = descriptors(), threading.active_count()
    for _ in range(200):
        assert in_new_thread(call) == [1]
    assert (descriptors(), threading.active_count()) == before
