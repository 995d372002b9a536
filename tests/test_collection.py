"""Garbage collection: what is dropped is cleaned up, calls may come from it, and nothing of ours needs it."""

import asyncio
import gc
import logging
import os
import sys
import threading
import weakref

import anyio
import pytest
import scripts
from loops import current_task, shielded, this_loop, trio
from pytest_marks import dies_at_once, on_both
from scripts import PYPY, collect_dropped, in_loop, raised, script

import anysync
from anysync._core import running

both_places = pytest.mark.parametrize("place", ["plainly", "in_loop"])


def places(test):
    """Run a scenario plainly and in a loop, on both backends."""
    return on_both(both_places(test))


@anysync.coroutine
async def works():
    await anyio.sleep(0)
    return 1


@anysync.generator
async def numbers(log=None):
    task = current_task()
    try:
        yield 1
        await anyio.sleep(0)
        yield 2
    finally:
        await shielded(anyio.sleep, 0)
        if log is not None:
            log.append(current_task() is task)


@anysync.contextmanager
async def manager():
    await anyio.sleep(0)
    yield 1
    await anyio.sleep(0)


results = []


def collect_often():
    if not PYPY:  # which is told by `allocate`
        gc.set_threshold(3)


def collect_seldom():
    if not PYPY:
        gc.set_threshold(700)


def allocate():
    """Have garbage collected, after `collect_often`."""
    [[] for _ in range(10)]
    collect_dropped()


class Cycle:
    """Garbage for the collector."""

    def __init__(self):
        self.me = self


class CallsWhenCollected(Cycle):
    def __del__(self):
        results.append(works().run())


class CallsInLoopWhenCollected(CallsWhenCollected):
    def __del__(self):
        # trio is about to run, or has run, a moment longer than code there can tell
        if not running() and (scripts.backend() == "asyncio" or not trio().lowlevel.in_trio_run()):
            results.append(in_loop(works().run))


class StepsWhenCollected(CallsWhenCollected):
    def __del__(self):
        with manager() as value:
            results.append(value)
        assert list(numbers()) == [1, 2]


@on_both
@pytest.mark.parametrize("garbage", ["CallsWhenCollected", "CallsInLoopWhenCollected", "StepsWhenCollected"])
@script
def test_destructors_may_call_wherever_garbage_is_collected(garbage):
    make = globals()[garbage]

    @anysync.coroutine
    async def litters():
        for _ in range(3):
            make()
            await anyio.sleep(0)
            allocate()
        return works().run()

    @anysync.generator
    async def litters_and_yields():
        for number in range(3):
            make()
            yield number
            allocate()

    def use():
        for _ in range(3):
            make()
            allocate()
            assert litters().run() == 1
            assert list(litters_and_yields()) == [0, 1, 2]
            with manager():
                make()
                assert litters().run() == 1

    in_loop(works().run)
    collect_often()
    use()
    in_loop(use)
    collect_seldom()
    gc.collect()
    assert results
    assert set(results) == {1}


@on_both
@script
def test_weakref_callbacks_may_call_wherever_garbage_is_collected():
    references = []

    async def litters():
        for _ in range(20):
            litter()
            await anyio.sleep(0)
            allocate()

    def litter():
        references.append(weakref.ref(Cycle(), lambda _: results.append(works().run())))

    in_loop(works().run)
    collect_often()
    anysync.run(litters())
    in_loop(lambda: anysync.run(litters()))
    collect_seldom()
    gc.collect()
    assert results == [1] * 40


@places
@script
def test_a_destructor_that_takes_the_lock_that_the_caller_holds(place):
    lock = threading.RLock()

    class TakesLock(Cycle):
        def __del__(self):
            if not lock.acquire(timeout=0.01 if place == "in_loop" else -1):
                return
            try:
                results.append(works().run())
            finally:
                lock.release()

    async def litters():
        TakesLock()
        await anyio.sleep(0)
        gc.collect()
        return 1

    def call():
        with lock:
            assert anysync.run(litters()) == 1

    works().run()  # whose imports hold a lock too
    getattr(scripts, place)(call)
    assert results == ([1] if place == "plainly" else [])


@places
@script
def test_a_generator_that_is_dropped_is_closed_in_its_own_task(place):
    def call():
        log = []
        for number in numbers(log):
            assert number == 1
            break
        collect_dropped()
        works().run()  # the loop of a generator dropped in a running loop is on another thread
        assert log == [True]

    getattr(scripts, place)(call)


@places
@script
def test_a_generator_that_is_dropped_in_another_thread_is_closed_in_its_own_task(place):
    def call():
        done = threading.Event()

        class Log(list):
            def append(self, entry):
                super().append(entry)
                done.set()

        log = Log()
        box = [numbers(log)]
        assert next(box[0]) == 1
        thread = threading.Thread(target=box.clear)
        thread.start()
        thread.join()
        collect_dropped()
        assert done.wait(scripts.WATCHDOG)
        assert log == [True]
        assert works().run() == 1

    getattr(scripts, place)(call)


@places
@script
def test_a_generator_that_is_dropped_during_a_call_is_closed(place):
    log = []

    async def drops():
        box.clear()
        gc.collect()
        await anyio.sleep(0)

    def call():
        assert next(box[0]) == 1
        anysync.run(drops())
        anysync.run(anyio.sleep(0.001))
        works().run()
        assert log == [True]

    box = [numbers(log)]
    getattr(scripts, place)(call)


@on_both
@script
def test_an_error_in_the_clean_up_of_a_dropped_generator_is_told_to_the_loop():
    told, heard = [], threading.Event()

    def tell(error):
        told.append(error)
        heard.set()

    class Told(logging.Handler):
        def emit(self, record):
            tell(record.exc_info[1])

    @anysync.generator
    async def fails():
        if scripts.backend() == "asyncio":
            this_loop().set_exception_handler(lambda _, context: tell(context["exception"]))
        try:
            yield 1
        finally:
            await shielded(anyio.sleep, 0)
            raise ValueError

    logging.getLogger("anysync").addHandler(Told())  # which is told what trio has no handler for
    generator = fails()
    next(generator)
    del generator
    collect_dropped()
    assert heard.wait(scripts.WATCHDOG)
    assert [type(error) for error in told] == [ValueError]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts in /proc")
@places
@script
def test_abandoned_generators_leave_nothing(place):
    async def count_tasks():
        if scripts.backend() == "asyncio":
            return len(asyncio.all_tasks())
        # in a kept loop there are trio's own, ours that keeps it, and this one
        return trio().lowlevel.current_statistics().tasks_living - 3

    def abandon(count):
        for _ in range(count):
            next(numbers())
        collect_dropped()

    def count():
        works().run()
        while (tasks := anysync.run(count_tasks())) > 1:  # may still be closing on another thread
            pass
        return tasks, threading.active_count(), len(os.listdir("/proc/self/fd"))

    def call():
        abandon(10)
        before = count()
        abandon(1000)
        assert count() == before

    getattr(scripts, place)(call)


# Objects and errors must go at once, without the garbage collector.


class Large:
    """Something in a coroutine's frame, and of which the death is seen."""


@dies_at_once
@places
@pytest.mark.parametrize("turns", [0, 1])
@script
def test_what_a_failed_call_had_in_its_frames_dies_with_the_exception(place, turns):
    references = []

    async def fails():
        large = Large()
        references.append(weakref.ref(large))
        for _ in range(turns):
            await anyio.sleep(0)
        raise ValueError

    def call():
        error = raised(lambda: anysync.run(fails()))
        assert isinstance(error, ValueError)
        del error
        assert references.pop()() is None

    anysync.run(anyio.sleep(0))
    gc.disable()
    getattr(scripts, place)(call)


@dies_at_once
@places
@pytest.mark.parametrize("turns", [0, 1])
@script
def test_what_a_call_returned_dies_with_its_last_use(place, turns):
    async def returns():
        for _ in range(turns):
            await anyio.sleep(0)
        return Large()

    def call():
        reference = weakref.ref(anysync.run(returns()))
        assert reference() is None

    gc.disable()
    getattr(scripts, place)(call)


@dies_at_once
@places
@script
def test_what_a_cancelled_call_had_in_its_frames_dies_with_it(place):
    references = []

    async def waits():
        large = Large()
        references.append(weakref.ref(large))
        await anyio.sleep_forever()

    def call():
        for timeout in 0, 0.001:
            error = raised(lambda: anysync.run(waits(), timeout=timeout))  # noqa: B023
            assert isinstance(error, TimeoutError)
            del error
            assert references.pop()() is None

    gc.disable()
    getattr(scripts, place)(call)


@dies_at_once
@places
@script
def test_what_a_generator_and_a_with_had_in_their_frames_dies_with_them(place):
    references = []

    def large():
        thing = Large()
        references.append(weakref.ref(thing))
        return thing

    @anysync.generator
    async def things():
        kept = large()
        yield large()
        await anyio.sleep(0)
        raise ValueError(kept)

    @anysync.contextmanager
    async def thing():
        kept = large()
        yield large()
        raise ValueError(kept)

    def steps():
        for _ in things():
            pass

    def body():
        with thing():
            pass

    def call():
        for use in steps, body:
            error = raised(use)
            assert isinstance(error, ValueError)
            del error
            assert [reference() for reference in references] == [None, None]
            references.clear()

    works().run()  # the first call imports its backend, which keeps frames
    gc.disable()
    getattr(scripts, place)(call)


@dies_at_once
@places
@script
def test_no_use_leaves_garbage_in_cycles(place):
    async def fails(turns):
        for _ in range(turns):
            await anyio.sleep(0)
        raise ValueError

    @anysync.generator
    async def fails_in_a_step():
        yield 1
        await anyio.sleep(0)
        raise ValueError

    @anysync.contextmanager
    async def fails_to_enter():
        await anyio.sleep(0)
        raise ValueError
        yield

    @anysync.contextmanager
    async def fails_to_exit():
        yield
        await anyio.sleep(0)
        raise ValueError

    def enter(manager):
        with manager:
            pass

    def enter_and_raise():
        with manager():
            raise ValueError

    def drop():
        next(numbers())

    def close():
        generator = numbers()
        next(generator)
        generator.close()

    def call():
        works().run()
        list(numbers())
        with manager():
            pass
        drop()
        close()
        for failing in (
            lambda: anysync.run(fails(0)),
            lambda: anysync.run(fails(1)),
            lambda: anysync.run(anyio.sleep(3600), timeout=0),
            lambda: list(fails_in_a_step()),
            lambda: enter(fails_to_enter()),
            lambda: enter(fails_to_exit()),
            enter_and_raise,
        ):
            raised(failing)

    def ours(thing):
        """Whether garbage is of anysync, or of what was given to it."""
        if isinstance(thing, type(sys._getframe())):
            return True
        return isinstance(thing, (BaseException, asyncio.Future)) or type(thing).__module__.startswith(
            "anysync"
        )

    def use_and_look():
        call()
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        call()
        works().run()
        gc.collect()
        gc.set_debug(0)
        garbage = [thing for thing in gc.garbage if ours(thing)]
        assert not garbage, garbage

    gc.disable()
    getattr(scripts, place)(use_and_look)
    gc.garbage.clear()


@dies_at_once
@on_both
@script
def test_a_submitted_call_that_nobody_waits_for_leaves_nothing():
    references, done = [], threading.Event()

    async def returns():
        large = Large()
        references.append(weakref.ref(large))
        await anyio.sleep(0)
        return large

    gc.disable()
    anysync.wrap_coroutine(returns()).submit().add_done_callback(lambda _: done.set())
    assert done.wait(scripts.WATCHDOG)
    works().run()
    assert references[0]() is None
