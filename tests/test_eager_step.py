"""The first step of a coroutine is taken without a turn of the loop, and finds all that a loop gives."""

import asyncio
import gc
import sys

import anyio
import pytest
from places import in_loop, in_thread, in_with, plain
from pytest_marks import every_place as everywhere

import anysync
from anysync import generator

#: places where the next call has the same loop
kept = pytest.mark.parametrize("place", [plain, in_with, in_loop])


async def never_suspends():
    """Use what needs a loop and a task, in one step."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert loop.is_running()
    assert task in asyncio.all_tasks()
    assert task.get_loop() is loop
    assert not task.done()
    async with asyncio.timeout(60), asyncio.TaskGroup():
        with anyio.move_on_after(60) as scope:
            assert asyncio.current_task() is task
    assert not scope.cancelled_caught
    return task


@everywhere
def test_it_finds_a_running_loop_and_a_task_of_its_own(place):
    first, second = place(lambda: (anysync.run(never_suspends()), anysync.run(never_suspends())))
    assert first.done()
    assert first.result() is first
    assert first is not second


@everywhere
def test_what_it_begins_goes_on_after_it_has_suspended(place):
    async def times_out():
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    async def has_children():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0, number)) for number in range(3)]
        return [task.result() for task in tasks]

    async def is_left_by_its_scope():
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep_forever()
        return scope.cancelled_caught

    with pytest.raises(TimeoutError):
        place(lambda: anysync.run(times_out()))
    assert place(lambda: anysync.run(has_children())) == [0, 1, 2]
    assert place(lambda: anysync.run(is_left_by_its_scope()))


@kept
def test_async_generators_that_it_begins_belong_to_the_loop(place):
    closed = []

    async def numbers():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(asyncio.get_running_loop())

    async def drops():
        async for _ in numbers():
            break
        gc.collect()
        return asyncio.get_running_loop()

    async def waits():
        while not closed:
            await asyncio.sleep(0)

    def call():
        loop = anysync.run(drops())
        anysync.run(waits())
        return loop

    loop = place(call)
    assert closed == [loop]


def test_the_thread_is_left_as_it_was_found():
    def firstiter(generator):
        raise AssertionError("not the loop's")

    async def sets_other_hooks():
        sys.set_asyncgen_hooks(None, None)
        return sys.get_asyncgen_hooks()

    async def fails():
        raise KeyError

    def call():
        sys.set_asyncgen_hooks(firstiter, None)
        for function in never_suspends, sets_other_hooks, fails:
            try:
                anysync.run(function())
                anysync.AnySyncCoroutine(function()).run()
            except KeyError:
                pass
            assert sys.get_asyncgen_hooks() == (firstiter, None)
            assert asyncio._get_running_loop() is None
        loop = anysync.run(running_loop())
        assert not loop.is_running()

    in_thread(call)


async def running_loop():
    return asyncio.get_running_loop()


@pytest.mark.parametrize("change", ["debug", "task factory"])
@kept
def test_a_loop_that_must_see_each_step_gets_a_turn(place, change):
    made = []

    def factory(loop, coro, **options):
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    async def changes(undo):
        loop = asyncio.get_running_loop()
        if change == "debug":
            loop.set_debug(not undo)
        else:
            loop.set_task_factory(None if undo else factory)

    def call():
        anysync.run(changes(undo=False))
        try:
            task = anysync.run(never_suspends())
            assert list(items()) == [0, 1, 2]
        finally:
            anysync.run(changes(undo=True))
        return task

    @generator
    async def items():
        for number in range(3):
            yield number

    assert place(call).done()
    assert bool(made) == (change == "task factory")


def test_a_step_goes_on_at_once_unless_something_has_waited_longer():
    turns = []

    @generator
    async def items():
        loop = asyncio.get_running_loop()
        yield loop
        turns.append("first")
        yield
        loop.call_soon(turns.append, "callback")
        yield
        turns.append("third")
        yield

    def call():
        steps = items()
        loop = next(steps)
        loop.set_debug(False)
        loop._run_once = lambda: turns.append("turn") or type(loop)._run_once(loop)
        next(steps)
        assert turns == ["first"]
        next(steps)
        next(steps)

    in_thread(call)
    assert turns.index("callback") < turns.index("third")
