"""Sync code that calls async code that calls sync code, and so on, waits for itself in the end.

django/asgiref#492 (Zulip), #348, #249, #491 and #525: one thread, chosen by context, has to serve two levels
of the nest at once.
"""

import asyncio
import threading
from contextvars import ContextVar, copy_context

from scripts import in_loop, script

import anysync

DEPTH = 6
var = ContextVar("var")


# from sync code into async code: each is given a function that returns a coroutine


def run(step):
    return anysync.run(step())


def run_with_timeout(step):
    return anysync.run(step(), timeout=60)


def submit(step):
    return anysync.wrap_coroutine(step()).submit().result()


def loop_over(step):
    @anysync.generator
    async def generator():
        yield await step()

    return max(generator())


def enter(step):
    @anysync.contextmanager
    async def manager():
        yield await step()

    with manager() as value:
        return value


# within async code


async def plain(step):
    return await step()


async def create_task(step):
    return await asyncio.create_task(step())


async def gather(step):
    return (await asyncio.gather(step(), asyncio.sleep(0)))[0]


async def wait_for(step):
    return await asyncio.wait_for(step(), 60)


async def task_group(step):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(step())
    return task.result()


async def call_later(step):
    tasks = asyncio.Queue()
    asyncio.get_running_loop().call_later(0, lambda: tasks.put_nowait(asyncio.ensure_future(step())))
    return await (await tasks.get())


# from async code into sync code


async def directly(function):
    return function()


async def after_a_turn(function):
    await asyncio.sleep(0)
    return function()


async def in_thread(function):
    return await asyncio.to_thread(function)


async def in_callback(function):
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: future.set_result(function()))
    return await future


INTO_ASYNC = run, run_with_timeout, submit, loop_over, enter
WITHIN_ASYNC = plain, create_task, gather, wait_for, task_group, call_later
INTO_SYNC = directly, after_a_turn, in_thread, in_callback


def nest(levels):
    """Go down all levels, and come back with how many there were and what the last one saw of the context."""
    if not levels:
        return 0, var.get()
    (into_async, within_async, into_sync), *deeper = levels

    async def leave():
        depth, seen = await into_sync(lambda: nest(deeper))
        return depth + 1, seen

    return into_async(lambda: within_async(leave))


@script
def test_07_the_nest_of_a_task_that_calls_sync_code_ends():
    var.set("caller's")
    levels = [(run, create_task, directly), (run, plain, directly)] * 3
    assert nest(levels) == in_loop(lambda: nest(levels)) == (DEPTH, "caller's")


@script
def test_07_every_nest_of_calls_ends():
    from hypothesis import given, settings, strategies as st

    level = st.tuples(*[st.sampled_from(ways) for ways in (INTO_ASYNC, WITHIN_ASYNC, INTO_SYNC)])

    @settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(["in_loop", "plain"]), st.lists(level, min_size=DEPTH, max_size=DEPTH))
    def every_nest_ends(place, levels):
        call = lambda: nest(levels)  # noqa: E731
        assert (in_loop(call) if place == "in_loop" else call()) == (DEPTH, "caller's")

    var.set("caller's")
    every_nest_ends()


@script
def test_07_every_pair_of_neighbours_in_a_nest_ends():
    var.set("caller's")
    for into_async in INTO_ASYNC:
        for within_async in WITHIN_ASYNC:
            for into_sync in INTO_SYNC:
                levels = [(into_async, within_async, into_sync)] * 2
                assert nest(levels) == in_loop(lambda levels=levels: nest(levels)) == (2, "caller's")


@script
def test_07_a_thread_in_a_nest_does_not_wait_for_the_one_that_waits_for_the_nest():
    async def place():
        return asyncio.get_running_loop(), threading.current_thread()

    async def in_worker():
        with entered() as opened_in:
            assert anysync.run(place()) == opened_in
            await asyncio.sleep(0)
            assert anysync.run(place()) == opened_in
        return threading.current_thread(), opened_in[1], anysync.run(place())[1]

    @anysync.contextmanager
    async def entered():
        yield await place()

    async def nested():
        return await asyncio.to_thread(anysync.run, in_worker())

    async def in_background(nested_call):
        return threading.current_thread(), *nested_call()

    for nested_call in (
        lambda: anysync.run(nested()),
        lambda: anysync.run(nested(), timeout=60),
        lambda: anysync.run(nested(), context=copy_context()),
        lambda: anysync.wrap_coroutine(nested()).submit().result(),
        lambda: loop_over(nested),
        lambda: enter(nested),
    ):
        background, *others = in_loop(lambda call=nested_call: anysync.run(in_background(call)))
        assert len({background, *others}) == 4
        for thread in others:
            thread.join()
        assert in_loop(lambda: anysync.run(place()))[1] is background
