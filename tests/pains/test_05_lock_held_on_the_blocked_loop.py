"""A sync call inside a loop waits for a lock that the blocked loop holds.

PrefectHQ/prefect#23055: the server accepts connections, and never answers again. Such a call cannot succeed;
what it can do is end in time, leave nothing behind, and let everything go on.
"""

import asyncio
import time
from functools import partial

from scripts import raised, script

import anysync

log = []


def background_loop(coro):
    async def main():
        return anysync.run(coro)

    return asyncio.run(main())


def runner_loop(coro):
    with anysync.Runner() as runner:
        return runner.run(coro)


hosts = asyncio.run, anysync.run, background_loop, runner_loop


@anysync.coroutine
async def uses(lock):
    try:
        async with lock:
            log.append("locked")
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        log.append("cancelled")
        raise


@anysync.coroutine
async def one():
    await asyncio.sleep(0)
    return 1


async def contend(lock):
    """Have the lock waited for, by which it learns its loop."""
    async with lock:
        waiter = asyncio.create_task(lock.acquire())
        await asyncio.sleep(0)
    await waiter
    lock.release()


@script
def test_05_a_call_that_wants_the_lock_of_the_blocked_loop_ends_in_time():
    async def main():
        beside = asyncio.create_task(one())
        for run in lambda coro, **options: coro.run(**options), anysync.run:
            lock = asyncio.Lock()
            async with lock:
                start = time.monotonic()
                error = raised(partial(run, uses(lock), timeout=0.3))
                assert time.monotonic() - start < 5
            assert type(error) is TimeoutError
            assert log.pop() == "cancelled"
        assert not lock.locked()
        assert one().run() == await beside == await one() == 1
        async with lock:
            assert one().run() == 1

    for host in hosts:
        host(main())
    assert one().run() == 1


@script
def test_05_a_lock_that_knows_its_loop_says_at_once_that_it_cannot_be_had():
    async def main():
        lock = asyncio.Lock()
        await contend(lock)
        async with lock:
            error = raised(lambda: uses(lock).run(timeout=10))
        assert type(error) is RuntimeError
        assert "is bound to a different event loop" in str(error)
        await contend(lock)
        assert one().run() == 1

    for host in hosts:
        host(main())


@script
def test_05_a_generator_and_a_with_that_want_the_lock_end_in_time_too():
    @anysync.generator
    async def items(lock):
        yield 1
        async with asyncio.timeout(0.2):
            await uses(lock)

    @anysync.contextmanager
    async def entered(lock):
        async with asyncio.timeout(0.2):
            await uses(lock)
        yield

    async def main():
        for use in lambda lock: list(items(lock)), lambda lock: entered(lock).__enter__():
            lock = asyncio.Lock()
            async with lock:
                assert type(raised(lambda use=use, lock=lock: use(lock))) is TimeoutError
            assert one().run() == await one() == 1
        assert [log.pop(), log.pop()] == ["cancelled"] * 2

    for host in hosts:
        host(main())
