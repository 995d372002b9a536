"""A sync callback in a worker thread waits for ever, or loses its context, when it calls async code.

pydantic/pydantic-ai#3899, #7098 and #7277: a "tool" that an async framework runs in a thread starts a second
loop while the first one owns what it needs. Here a worker thread that anyio waits for uses
that first loop; any other has a loop of its own, which is kept.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial

import pytest
from scripts import in_loop, raised, script

import anysync

var = ContextVar("var")


class Oops(Exception):
    pass


async def with_to_thread(function):
    return await asyncio.to_thread(function)


async def with_executor(function):
    with ThreadPoolExecutor(1) as pool:
        run = copy_context().run
        return await asyncio.get_running_loop().run_in_executor(pool, run, function)


async def with_anyio(function):
    from anyio import to_thread

    return await to_thread.run_sync(function)


ways = pytest.mark.parametrize("way", ["with_to_thread", "with_executor", "with_anyio"])


def run_in_loop(coro):
    return in_loop(lambda: anysync.run(coro))


hosts = asyncio.run, anysync.run, run_in_loop


@anysync.coroutine
async def who():
    await asyncio.sleep(0)
    return asyncio.get_running_loop(), threading.current_thread(), var.get()


@ways
@script
def test_04_a_tool_in_a_worker_thread_calls_async_code(way):
    def tool():
        mine = threading.current_thread()
        (loop, thread, seen), (again, *_) = who().run(), who().run()
        return loop is again, loop, thread is mine, seen

    async def main():
        var.set("caller's")
        lock = asyncio.Lock()
        async with lock:
            for _ in range(2):
                same, loop, mine, seen = await globals()[way](tool)
                assert same
                assert seen == "caller's"
                at_home = loop is asyncio.get_running_loop()
                assert (at_home, mine) == ((True, False) if way == "with_anyio" else (False, True))

    for host in hosts:
        host(main())


@ways
@script
def test_04_what_async_code_raises_passes_through_the_tool(way):
    async def fails(error):
        await asyncio.sleep(0)
        raise error

    def tool(error):
        inner.append(raised(lambda: anysync.run(fails(error))))
        raise inner[-1]

    async def main(error):
        try:
            await globals()[way](partial(tool, error))
        except BaseException as caught:
            return caught

    inner = []
    for host in hosts:
        error, cancelled = Oops("reason"), asyncio.CancelledError("reason")
        assert host(main(error)) is error
        assert type(host(main(cancelled))) is asyncio.CancelledError
        assert inner[-2:] == [error, cancelled]


@ways
@script
def test_04_a_cancel_of_the_tools_future_reaches_its_coroutine_and_the_tool(way):
    @anysync.coroutine
    async def endless():
        loop = asyncio.get_running_loop()
        loop.call_soon(begun.set)
        try:
            await loop.create_future()
        finally:
            await asyncio.sleep(0)
            cleaned_up.set()

    def tool():
        futures.append(endless().submit())
        submitted.set()
        error = raised(futures[0].result)
        cleaned_up.wait()  # which a loop that is closed with its thread would break off
        return error

    async def cancel_when_begun():
        await asyncio.to_thread(begun.wait)
        await asyncio.to_thread(submitted.wait)
        futures[0].cancel()

    async def main():
        error, _ = await asyncio.gather(globals()[way](tool), cancel_when_begun())
        return type(error).__name__

    for host in hosts:
        begun, submitted, cleaned_up = threading.Event(), threading.Event(), threading.Event()
        futures = []
        assert host(main()) == "CancelledError"


@ways
@script
def test_04_a_tool_that_wants_its_parents_lock_is_told_instead_of_freezing(way):
    async def uses(lock):
        async with lock:
            raise AssertionError

    def tool(lock):
        return raised(lambda: anysync.run(uses(lock), timeout=0.5 if at_home else 10))

    async def main():
        lock = asyncio.Lock()
        async with lock:
            waiter = asyncio.create_task(lock.acquire())
            await asyncio.sleep(0)
            error = await globals()[way](partial(tool, lock))
        await waiter
        return type(error), str(error)

    at_home = way == "with_anyio"  # where the lock can be waited for, and had if the parent let go of it
    for host in hosts:
        kind, text = host(main())
        assert kind is (TimeoutError if at_home else RuntimeError)
        assert at_home or "is bound to a different event loop" in text


@ways
@script
def test_04_many_tools_at_once_and_tools_of_tools_end(way):
    def tool(depth):
        return 1 + anysync.run(parent(depth - 1)) if depth else 1

    async def parent(depth):
        return sum(await asyncio.gather(*[globals()[way](partial(tool, depth)) for _ in range(2)]))

    assert asyncio.run(parent(3)) == 2 + 4 + 8 + 16


@script
def test_04_a_tool_in_a_worker_thread_of_trio_calls_async_code():
    import trio

    @anysync.coroutine
    async def on_trio():
        await trio.sleep(0)
        return threading.current_thread(), var.get()

    def tool():
        return on_trio().run(), who().run(backend="asyncio")[1:]

    async def main():
        var.set("caller's")
        for _ in range(2):
            (home, seen), (other, seen_there) = await trio.to_thread.run_sync(tool)
            assert home is threading.current_thread() is not other
            assert seen == seen_there == "caller's"

    trio.run(main)
