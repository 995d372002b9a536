"""What a step used dies with the last reference, without the garbage collector, and nothing piles up."""

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
import weakref
from contextvars import ContextVar

import anyio
import loops
import pytest
from places import in_loop, nested, plain  # noqa: F401
from pytest_marks import dies_at_once, every_row, on_both
from scripts import script
from steps import ROWS, STEPS, Oops, Stop

import anysync
from anysync import AnySyncContextManager, AnySyncCoroutine, AnySyncIterator
from anysync._core import BaseCall, BaseSession
from anysync._process import process


class Thing:
    pass


class Deaths:
    """Of objects that were watched: they may die in another thread, a moment after a call has returned."""

    def __init__(self):
        self.awaited = []

    def watch(self, thing):
        died = threading.Event()
        weakref.finalize(thing, died.set)
        self.awaited.append((type(thing).__name__, died))
        return thing

    def live(self):
        """Return the types of those that do not die."""
        deadline = time.monotonic() + 5
        return [name for name, died in self.awaited if not died.wait(max(0, deadline - time.monotonic()))]


class WatchedApi:
    """An `api` all of whose objects are watched, and what they are made of."""

    def __init__(self, api, watch):
        self.api, self.watch = api, watch

    def run(self, coro):
        return self.api.run(self.watch(coro))

    def submit(self, coro):
        return self.watch(self.api.submit(self.watch(coro)))

    def iterate(self, iterator):
        return self.watch(self.api.iterate(self.watch(iterator)))

    def enter(self, manager):
        return self.watch(self.api.enter(self.watch(manager)))


held = ContextVar("held")
IN_DEBUG_MODE = bool(os.environ.get("PYTHONASYNCIODEBUG"))


async def succeeds():
    await anyio.sleep(0)


async def succeeds_at_once(): ...


async def fails(watch):
    await anyio.sleep(0)
    raise watch(Oops())


async def fails_at_once(watch):
    raise watch(Oops())


async def exits(watch):
    await anyio.sleep(0)
    raise watch(Stop())


async def is_cancelled():
    asyncio.current_task().cancel()
    await anyio.sleep(0)


async def is_out_of_time():
    async with asyncio.timeout(0):
        await asyncio.Event().wait()


async def fails_to_clean_up(watch):
    try:
        await is_cancelled()
    finally:
        raise watch(Oops())


async def is_cancelled_by_its_scope():
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep(0)


async def is_out_of_time_by_its_scope():
    with anyio.move_on_after(0):
        await anyio.sleep_forever()


async def fails_to_clean_up_in_its_scope(watch):
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(0)
        finally:
            raise watch(Oops())


def ends(watch):
    of_asyncio = process.backend == "asyncio"
    quiet = [succeeds_at_once, succeeds, is_cancelled_by_its_scope, is_out_of_time_by_its_scope]
    loud = [fails_at_once, fails, exits, fails_to_clean_up_in_its_scope, *[fails_to_clean_up] * of_asyncio]
    return [
        *quiet,
        *[is_cancelled, is_out_of_time] * of_asyncio,  # that of trio is always a cycle
        *(lambda end=end: end(watch) for end in loud),
    ]


# `asyncio.timeout` holds its task, and so the error of that
NOT_FOR = {step: [is_out_of_time] for step in ("run", "result_of_submit", "body")}


OURS = BaseCall, BaseSession, AnySyncCoroutine, AnySyncIterator, AnySyncContextManager


def ours(thing):
    """Whether garbage is of a call: a closed event loop is always a cycle."""
    return isinstance(thing, (BaseException, asyncio.Future, type(sys._getframe()), *OURS))


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@dies_at_once
@on_both
@every_row
def test_what_a_step_used_dies_with_it_and_leaves_no_cycle(row, no_collector):
    async def work(argument, end, watch):
        held.set(watch(Thing()))
        local = watch(Thing())
        await end()
        return watch(Thing()), local, argument

    def make(step, api, watch):
        for end in ends(watch):
            if end not in NOT_FOR.get(step, ()):
                with contextlib.suppress(BaseException):
                    STEPS[step](WatchedApi(api, watch), lambda: work(watch(Thing()), end, watch))  # noqa: B023

    def call(api):
        for step in deaths:  # first uses keep what they make
            make(step, api, lambda thing: thing)
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        for step, watched in deaths.items():
            make(step, api, watched.watch)
        if IN_DEBUG_MODE:  # where no step is eager, what the last one has left takes a turn of the loop
            api.run(succeeds())
        live = {step: watched.live() for step, watched in deaths.items() if watched.live()}
        gc.collect()
        return live, [thing for thing in gc.garbage if ours(thing)]

    # where the frames of a step lead back to those of a later one, which hold its error
    cycles = "item_of_iterator", "throw"
    deaths = {step: Deaths() for step in STEPS if step not in cycles}
    assert ROWS[row](call) == ({}, [])
    assert all(len(watched.awaited) > 20 for watched in deaths.values())


# many times: programs of their own


def figures():
    """Return how many descriptors, threads, tasks and hosts there are."""

    async def count_tasks():
        if process.backend == "asyncio":
            return len(asyncio.all_tasks())
        await anyio.wait_all_tasks_blocked()  # what was abandoned last may take another turn
        return loops.trio().lowlevel.current_statistics().tasks_living

    tasks = anysync.run(count_tasks())  # first: it may be this thread's first call
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    hosts = sum(host.gone is None for host in process.hosts())
    return descriptors, threading.active_count(), tasks, hosts


def check_flat(use, times, collected=False):
    """Check that nothing grows while something is done so many times, without the garbage collector."""
    import tracemalloc  # which PyPy has not

    def use_it(times):
        for _ in range(times):
            use()
        if collected:
            gc.collect()

    def memory():
        return tracemalloc.get_traced_memory()[0]

    use_it(times // 20)
    gc.collect()
    gc.disable()
    before, blocks = figures(), sys.getallocatedblocks()
    use_it(times)
    grown = sys.getallocatedblocks() - blocks
    assert grown < 500, f"{grown} blocks more"
    tracemalloc.start()
    use_it(times // 20)
    traced = memory()
    use_it(times // 20)
    assert memory() - traced < 20_000
    assert (after := figures()) == before, (before, after)


async def fail(turns):
    for _ in range(turns):
        await anyio.sleep(0)
    raise Oops


def catch(function):
    with contextlib.suppress(Oops):
        function()


@dies_at_once
@on_both
@script
def test_many_short_threads_leave_nothing():
    def call():
        anysync.run(anyio.sleep(0))
        catch(lambda: anysync.run(fail(1)))

    def use():
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    check_flat(use, 2000 if process.backend == "asyncio" else 500, collected=True)  # a closed loop is a cycle


@dies_at_once
@on_both
@script
def test_many_re_entrant_calls_leave_nothing():
    def call():
        anysync.run(anyio.sleep(0))
        catch(lambda: anysync.run(fail(1)))

    # each makes two; on trio and in debug mode with a new loop each time, and a closed one is a cycle
    new_loops = IN_DEBUG_MODE or process.backend == "trio"
    nested(lambda: check_flat(call, 100 if process.backend == "trio" else 500, collected=new_loops))


@dies_at_once
@pytest.mark.parametrize(
    ("backend", "place", "times"),
    [
        *(("asyncio", "plain", 100_000), ("asyncio", "in_loop", 10_000)),
        *(("trio", "plain", 5_000), ("trio", "in_loop", 5_000)),
    ],
    indirect=["backend"],
)
@script
def test_failing_calls_leave_nothing(backend, place, times):
    if IN_DEBUG_MODE:  # where a task takes ten times as long
        times //= 10
    globals()[place](lambda: check_flat(lambda: catch(lambda: anysync.run(fail(0))), times))


@anysync.generator
async def numbers():
    try:
        yield 1
        yield 2
    finally:
        await anyio.sleep(0)


@dies_at_once
@on_both
@pytest.mark.parametrize("place", ["plain", "in_loop"])
@script
def test_thousands_of_abandoned_generators_leave_nothing(place):
    times = 10_000 if process.backend == "asyncio" else 2_000
    globals()[place](lambda: check_flat(lambda: next(numbers()), times))
