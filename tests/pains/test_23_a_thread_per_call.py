"""A thread and a loop for each call."""

import asyncio
import os
import sys
import threading

import pytest
import scripts
from scripts import PYPY, collect_dropped, script

import anysync

CALLS = 500 if os.environ.get("PYTHONASYNCIODEBUG") else 4000  # debug mode notes a stack for each

GROWTH = 20_000_000 if PYPY else 1_000_000  # PyPy compiles what is called often


@anysync.coroutine
async def suspends(turns):
    for _ in range(turns):
        await asyncio.sleep(0)


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("place", ["plainly", "in_loop"])
@script
def test_23_a_thread_per_call(place):
    """django/asgiref#370, kr8s-org/kr8s#184, mars-project/mars#2109, PrefectHQ/prefect#13573."""
    threads, loops = set(), set()

    @anysync.coroutine
    async def look():
        await asyncio.sleep(0)
        threads.add(threading.get_ident())
        loops.add(asyncio.get_running_loop())

    def count():
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    def call(calls):
        for turn in range(calls):
            suspends(turn % 2).run()
        look().run()

    def calls():
        call(CALLS // 8)
        before, memory = count(), resident()
        call(CALLS)
        assert count() == before
        collect_dropped()
        assert resident() - memory < GROWTH

    getattr(scripts, place)(calls)
    assert len(threads) == len(loops) == 1
