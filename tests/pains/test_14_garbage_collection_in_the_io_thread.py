"""Garbage is collected on the loop's thread, and a foreign destructor wants a lock that the caller holds."""

import asyncio
import gc
import signal
import sys
import threading

import pytest
from scripts import in_loop, raised, script, send_after

import anysync

lock = threading.RLock()
log = []
blocked = threading.Event()


class File:
    """Closed by the garbage collector, under the library's lock."""

    def __init__(self):
        self.cycle = self

    def __del__(self):
        blocked.set()
        with lock:
            log.append("closed")


async def drops_a_file():
    File()
    await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)
    return 1


@script
def test_14_garbage_collection_in_the_io_thread_where_that_is_the_callers():
    """dask/dask#7547, h5py/h5py#2019, pangeo-forge/pangeo-forge-recipes#754."""
    gc.disable()
    with lock:
        assert anysync.run(drops_a_file()) == 1
        assert log == ["closed"]


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill sends no SIGINT on Windows")
@script
def test_14_garbage_collection_in_the_io_thread_can_be_left_by_ctrl_c():
    """dask/dask#7547: on another thread; the first Ctrl-C waits for its loop, the second does not."""

    def handler(signum, frame):
        interrupted.set()
        raise KeyboardInterrupt

    def call():
        with lock:
            assert type(raised(lambda: anysync.run(drops_a_file()))) is KeyboardInterrupt
            assert log == []
        assert anysync.run(asyncio.sleep(0, 1)) == 1
        assert log == ["closed"]

    gc.disable()
    interrupted = threading.Event()
    signal.signal(signal.SIGINT, handler)
    thread = send_after(blocked, interrupted)
    in_loop(call)
    thread.join()
