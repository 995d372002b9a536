"""A forked child hangs in its first call.

django/asgiref#194, fsspec/gcsfs#379, fsspec/s3fs#914 and #889: the child finds a loop that "runs" and whose
thread it has not, or a lock that another thread held at the fork. Servers that load the app before they fork
do this.
"""

import asyncio
import os
import threading
import time

import pytest
import scripts
from scripts import FORKS, fork, in_loop, script

import anysync

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

places = pytest.mark.parametrize("place", ["plainly", "in_loop"])


@anysync.coroutine
async def one():
    await asyncio.sleep(0)
    return 1


def both_work_soon():
    start = time.monotonic()
    assert one().run() == 1
    assert in_loop(one().run) == 1
    assert time.monotonic() - start < 2


@script(options=FORKS)
def test_12_a_child_of_an_idle_process_works():
    both_work_soon()
    assert fork(both_work_soon) == 0
    both_work_soon()


@places
@script(options=FORKS)
def test_12_a_child_that_is_forked_while_another_thread_is_in_a_call_works(place):
    @anysync.coroutine
    async def waits():
        go_on = asyncio.Event()
        asyncio.get_running_loop().call_soon(begun.append, (asyncio.get_running_loop(), go_on))
        asyncio.get_running_loop().call_soon(in_call.set)
        await go_on.wait()
        return "value"

    def call():
        results.append(getattr(scripts, place)(waits().run))

    both_work_soon()
    begun, in_call, results = [], threading.Event(), []
    thread = threading.Thread(target=call)
    thread.start()
    in_call.wait()
    assert fork(both_work_soon) == 0
    loop, go_on = begun[0]
    loop.call_soon_threadsafe(go_on.set)
    thread.join()
    assert results == ["value"]
    both_work_soon()


@pytest.mark.parametrize("warm", [False, True])
@script(options=FORKS)
def test_12_a_child_that_is_forked_while_another_thread_holds_the_start_up_lock_works(warm):
    from anysync._process import process

    def hold():
        with process.starting:
            held.set()
            forked.wait()

    if warm:
        both_work_soon()
    held, forked = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert fork(both_work_soon) == 0
    forked.set()
    thread.join()
    both_work_soon()
