"""A sync call made on the very loop that would have to serve it waits for itself.

langchain-ai/langgraph#7857 (four of six methods were guarded), modal-labs/synchronicity#37, and
aden-hive/hive#638 (a loop that is there and does not run): `run_coroutine_threadsafe(...).result()` on its
own loop, or on one that has stopped.
"""

import asyncio
import threading

import pytest
import scripts
from scripts import raised, script

import anysync

places = pytest.mark.parametrize("place", ["plainly", "in_loop"])


def background_loop(coro):
    return scripts.in_loop(lambda: anysync.run(coro))


def nested_loop(coro):
    async def main():
        return anysync.run(coro)

    return background_loop(main())


def runner_loop(coro):
    with anysync.Runner() as runner:
        return runner.run(coro)


hosts = anysync.run, background_loop, nested_loop, runner_loop


@anysync.coroutine
async def one():
    await asyncio.sleep(0)
    return 1


@anysync.generator
async def ones():
    yield await one()
    yield await one()


@anysync.iterator
async def more_ones():
    yield await one()


@anysync.contextmanager
async def entered():
    task = asyncio.create_task(one().coro)
    yield await one()
    await task


def enter():
    with entered() as value:
        return value


METHODS = {
    "run": lambda: one().run(),
    "run with a timeout": lambda: one().run(timeout=10),
    "the function run": lambda: anysync.run(one()),
    "submit": lambda: one().submit().result(),
    "for": lambda: max(ones()),
    "next": lambda: next(ones()),
    "send": lambda: ones().send(None),
    "close": lambda: ones().close() or 1,
    "an iterator": lambda: next(more_ones()),
    "with": enter,
}


@script
def test_06_no_method_waits_for_itself_on_the_bridges_own_loop():
    async def main():
        loop = asyncio.get_running_loop()
        immediate = {name: method() for name, method in METHODS.items()}
        in_callback = loop.create_future()
        loop.call_soon(lambda: in_callback.set_result({name: method() for name, method in METHODS.items()}))
        return immediate, await in_callback

    expected = dict.fromkeys(METHODS, 1)
    for host in hosts:
        assert host(main()) == (expected, expected)


@places
@script
def test_06_objects_that_live_on_the_loop_that_runs_here_say_so(place):
    async def main(generator, manager):
        return [
            raised(lambda: next(generator)),
            raised(lambda: generator.send(None)),
            raised(lambda: generator.throw(KeyError())),
            raised(generator.close),
            raised(lambda: manager.__exit__(None, None, None)),
        ]

    def call():
        generator, manager = ones(), entered()
        next(generator)
        manager.__enter__()
        for error in anysync.run(main(generator, manager)):
            assert type(error) is RuntimeError
            assert "would wait for itself" in str(error)
        assert next(generator) == 1
        generator.close()
        manager.__exit__(None, None, None)

    getattr(scripts, place)(call)


@places
@script
def test_06_a_runner_that_is_used_on_its_own_loop_says_so(place):
    def enter_and_leave():
        with runner.enter(entered()):
            pass

    async def main():
        return [
            raised(lambda: runner.run(one())),
            raised(lambda: runner.run(one(), timeout=10)),
            raised(lambda: next(runner.iterate(ones()))),
            raised(enter_and_leave),
        ]

    def call():
        for error in runner.run(main()):
            assert type(error) is RuntimeError
            assert "would wait for itself" in str(error)
        assert runner.run(one()) == 1

    with anysync.Runner() as runner:
        getattr(scripts, place)(call)


@script
def test_06_a_runner_that_is_closed_on_its_own_loop_does_not_wait_for_its_thread():
    async def main():
        runner.close()
        await asyncio.get_running_loop().create_future()

    runner = anysync.Runner()
    assert isinstance(raised(lambda: runner.run(main())), RuntimeError)
    runner.close()


@script
def test_06_a_loop_of_ours_that_a_coroutine_stops_goes_on():
    async def stops():
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        asyncio.get_running_loop().stop()
        return await one()

    async def leaves_a_task_that_stops():
        asyncio.create_task(stops())

    for host in hosts * 2:
        assert host(stops()) == 1
        host(leaves_a_task_that_stops())
        assert host(one()) == 1


@places
@script
def test_06_a_loop_that_is_open_and_does_not_run_is_not_waited_for(place):
    def call():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            assert {name: method() for name, method in METHODS.items()} == dict.fromkeys(METHODS, 1)
            assert loop.run_until_complete(one().coro) == 1
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def call_in_a_thread():
        call()
        done.append(True)

    done = []
    if place == "plainly":
        call()
    thread = threading.Thread(target=call_in_a_thread)
    thread.start()
    thread.join()
    assert done
