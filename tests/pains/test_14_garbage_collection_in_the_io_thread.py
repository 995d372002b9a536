"""Garbage is collected on the loop's thread, and a foreign destructor wants a lock that the caller holds."""

import asyncio
import gc
import threading

from scripts import script

import anysync

lock = threading.RLock()
log = []


class File:
    """Closed by the garbage collector, under the library's lock."""

    def __init__(self):
        self.cycle = self

    def __del__(self):
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
