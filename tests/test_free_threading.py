"""Many threads on every path at once: each gets what is its own, also where no GIL keeps them apart."""

import sys
import sysconfig
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from itertools import chain

import anyio
import pytest
import scripts
from loops import current_task, this_loop
from pytest_marks import on_both
from scripts import collect_dropped, in_loop, python, raised, script

import anysync

THREADS = 8
places = pytest.mark.parametrize("place", ["plainly", "in_loop"])
var = ContextVar("var", default=None)


class Oops(Exception):
    pass


@anysync.coroutine
async def give(value):
    return value, var.get()


@anysync.coroutine
async def give_later(value):
    await anyio.sleep(0)
    return value, var.get()


@anysync.coroutine
async def fail(error, turns):
    for _ in range(turns):
        await anyio.sleep(0)
    raise error


@anysync.generator
async def numbers(first, turns):
    number = first
    while True:
        for _ in range(turns):
            await anyio.sleep(0)
        yield number
        number += 1


@anysync.contextmanager
async def manager(value, turns):
    for _ in range(turns):
        await anyio.sleep(0)
    yield value


def at_once(functions, crowd=None):
    """Call each function in a thread of its own, all at the same time; return what they return, in order.

    The threads of a crowd, an executor with as many of them, live on.
    """
    barrier = threading.Barrier(len(functions))

    def call(function):
        barrier.wait()
        return function()

    if crowd is not None:
        return list(crowd.map(call, functions))
    with ThreadPoolExecutor(len(functions)) as crowd:
        return list(crowd.map(call, functions))


def call_all_ways(me, runner):
    """Make calls of all kinds, and check that each result is this caller's own."""
    var.set(me)
    mine = me, me
    assert give(me).run() == give_later(me).run() == runner.run(give_later(me)) == mine
    assert give(me).run(timeout=60) == give_later(me).run(timeout=60) == mine
    for turns in 0, 1:
        error = Oops(me)
        assert raised(fail(error, turns).run) is error
        generator = numbers(me, turns)
        assert [next(generator) for _ in range(3)] == [me, me + 1, me + 2]
        generator.close()
        with manager(me, turns) as entered:
            assert entered == me
            assert give_later(me).run() == mine
        with runner.enter(manager(me, turns)) as entered:
            assert entered == me
    futures = [give_later(me).submit(), runner.submit(give(me))]
    assert [future.result() for future in futures] == [mine, mine]


@on_both
@script
def test_all_paths_at_once():
    def call(place, me):
        for _ in range(10):
            getattr(scripts, place)(partial(call_all_ways, me, runner))

    def nested(me):
        async def calls():
            call_all_ways(me, runner)

        in_loop(lambda: anysync.run(calls()))

    with anysync.Runner() as runner:
        callers = [partial(call, ["plainly", "in_loop"][me % 2], me) for me in range(THREADS)]
        at_once(callers + [partial(nested, me) for me in range(THREADS, THREADS + 2)])


@on_both
@places
@script
def test_calls_of_many_threads_return_to_their_callers(place):
    def calls(me):
        var.set(me)
        results = [call(n).run() for n in range(200) for call in (give, give_later)]
        assert results == [(n, me) for n in range(200) for _ in range(2)]

    at_once([partial(getattr(scripts, place), partial(calls, me)) for me in range(THREADS)])


@on_both
@script
def test_first_calls_from_many_threads_start_one_background_thread():
    @anysync.coroutine
    async def where():
        return threading.get_ident(), this_loop()

    assert len(set(at_once([partial(in_loop, lambda: where().run())] * 32))) == 1
    assert [thread.name for thread in threading.enumerate()].count("anysync background") == 1


@on_both
@places
@script
def test_one_of_many_threads_steps_a_generator_and_the_others_are_told(place):
    refused = threading.Semaphore(0)

    @anysync.generator
    async def steps():
        for number in range(10):
            for _ in range(THREADS - 1):  # which stay out while this thread is in here
                refused.acquire()
            yield number

    def step():
        try:
            return next(generator)
        except RuntimeError as error:
            refused.release()
            return str(error).partition(":")[0]

    with ThreadPoolExecutor(THREADS) as crowd:
        for _ in range(10):
            generator = steps()
            for number in range(10):
                outcomes = at_once([partial(getattr(scripts, place), step)] * THREADS, crowd)
                assert Counter(outcomes) == {number: 1, "already running": THREADS - 1}


@on_both
@places
@script
def test_many_threads_share_one_generator_which_lives_in_one_task(place):
    tasks = []

    @anysync.generator
    async def steps():
        for number in range(30):
            tasks.append(current_task())
            if number % 3:
                await anyio.sleep(0)
            yield number

    def step_to_the_end():
        taken = []
        while True:
            try:
                taken.append(next(generator))
            except StopIteration:
                return taken
            except RuntimeError as error:
                if not str(error).startswith("already running"):
                    raise
                time.sleep(0)  # or nobody else gets the GIL for a while

    with ThreadPoolExecutor(THREADS) as crowd:
        for _ in range(10):
            generator = steps()
            taken = at_once([partial(getattr(scripts, place), step_to_the_end)] * THREADS, crowd)
            assert sorted(chain(*taken)) == list(range(30))
            assert len(set(tasks)) == 1
            tasks.clear()


@on_both
@places
@script
def test_one_of_many_threads_enters_a_with_and_the_others_are_told(place):
    refused, log = threading.Semaphore(0), []

    @anysync.contextmanager
    async def opened():
        log.append("entered")
        for _ in range(THREADS - 1):
            refused.acquire()
        yield current_task()
        log.append(current_task())

    def enter():
        try:
            return shared.__enter__()
        except RuntimeError:
            refused.release()
            return None

    with ThreadPoolExecutor(THREADS) as crowd:
        for _ in range(50):
            shared = opened()
            outcomes = at_once([partial(getattr(scripts, place), enter)] * THREADS, crowd)
            shared.__exit__(None, None, None)
            assert log == ["entered", *filter(None, outcomes)]
            log.clear()


@on_both
@places
@script
def test_objects_are_stepped_by_other_threads_than_their_owners(place):
    """In each round a thread steps its neighbour's generator, and leaves the next neighbour's `with`."""
    generators, managers = [None] * THREADS, [None] * THREADS
    barrier = threading.Barrier(THREADS)

    def rounds(me):
        generators[me] = numbers(100 * me, me % 2)
        assert next(generators[me]) == 100 * me
        for number in range(1, 20):
            managers[me] = manager(me, number % 2)
            assert managers[me].__enter__() == me
            barrier.wait()
            whose = (me + number) % THREADS
            assert next(generators[whose]) == 100 * whose + number
            assert give_later(me).run() == (me, None)  # while others turn this thread's loop
            managers[whose].__exit__(None, None, None)
            barrier.wait()
        generators[me].close()

    at_once([partial(getattr(scripts, place), partial(rounds, me)) for me in range(THREADS)])


@on_both
@places
@script
def test_a_future_that_many_threads_cancel_is_cancelled_or_has_its_own_value(place):
    @anysync.coroutine
    async def works(value, turns):
        for _ in range(turns):
            await anyio.sleep(0)
        return value

    def calls(me):
        futures = [works((me, n), n % 5).submit() for n in range(50)]
        with ThreadPoolExecutor(2) as pool:
            cancelled = list(pool.map(lambda future: future.cancel(), futures))
        for n, (future, cancel) in enumerate(zip(futures, cancelled, strict=True)):
            try:
                assert future.result() == (me, n)
                assert not cancel
            except CancelledError:
                assert cancel
        endless = [anysync.wrap_coroutine(anyio.sleep_forever()).submit() for _ in range(10)]
        assert [future.cancel() for future in endless] == [True] * 10
        assert works(me, 1).run() == me

    at_once([partial(getattr(scripts, place), partial(calls, me)) for me in range(THREADS)])


@on_both
@script
def test_a_runner_that_is_closed_during_calls_answers_each():
    def calls(me):
        begun.release(2)  # once for each who closes
        while True:
            for call in give, give_later:
                try:
                    assert runner.run(call(me)) == (me, None)
                except RuntimeError as error:
                    return str(error)

    def close():
        for _ in range(THREADS):
            begun.acquire()
        runner.close()

    before = threading.active_count()
    for _ in range(20):
        begun, runner = threading.Semaphore(0), anysync.Runner()
        answers = at_once([partial(calls, me) for me in range(THREADS)] + [close] * 2)
        assert answers == ["the runner has been closed"] * THREADS + [None] * 2
        assert threading.active_count() == before


@on_both
@places
@script
def test_threads_come_and_go(place):
    """Each ends with a generator of its own open, which another thread then finds ended, or goes on with."""

    def call(me):
        generator = numbers(me, 1)
        assert next(generator) == me
        assert give(me).run() == (me, None)
        return generator

    for _ in range(10):
        generators = at_once([partial(getattr(scripts, place), partial(call, me)) for me in range(THREADS)])
        collect_dropped()
        for me, generator in enumerate(generators):
            if place == "plainly":
                assert "has ended" in str(raised(lambda generator=generator: next(generator)))
            else:
                assert next(generator) == me + 1


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="not a free-threaded build")
@pytest.mark.skipif(getattr(sys, "_is_gil_enabled", bool)(), reason="the GIL was asked for")
def test_the_gil_stays_off():
    program = """
        import asyncio
        import sys
        import anysync

        print(sys._is_gil_enabled())
        anysync.run(asyncio.sleep(0))
        asyncio.run(asyncio.to_thread(lambda: anysync.run(asyncio.sleep(0))))
        print(sys._is_gil_enabled())
    """
    assert python(program) == ["False", "False"]
