"""A forked child shares descriptors and memory with its parent, and has none of its threads."""

import asyncio
import os
import socket
import sys
import threading

import pytest
import scripts
from scripts import FORKS, check, exit_code, fork, in_loop, raised, run_source, script, suspended

import anysync

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

places = pytest.mark.parametrize("place", ["plainly", "in_loop"])


@anysync.coroutine
async def works():
    await asyncio.sleep(0)
    return 1


@anysync.generator
async def numbers():
    try:
        yield 1
        await asyncio.sleep(0)
        yield 2
    finally:
        await asyncio.sleep(0)
        say("generator")


@anysync.contextmanager
async def manager():
    task = asyncio.create_task(pending("background task"))
    await asyncio.sleep(0)
    try:
        yield 1
    finally:
        task.cancel()
        await asyncio.wait([task])
        say("manager")


async def pending(name):
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await asyncio.sleep(0)
        say(name)


parent = os.getpid()


def say(what):
    """Print what is said and which process says it, whatever is left of it."""
    os.write(1, f"{what} in the {'parent' if os.getpid() == parent else 'child'}\n".encode())


def everything_works():
    assert works().run() == 1
    assert [number * 2 for number in wrapped()] == [2, 4]
    with quiet_manager() as value:
        assert value == 1
        assert works().run() == 1


@anysync.generator
async def wrapped():
    yield 1
    await asyncio.sleep(0)
    yield 2


@anysync.contextmanager
async def quiet_manager():
    await asyncio.sleep(0)
    yield 1


def is_foreign(step):
    """Check that a step of a parent's object says what is wrong in the child."""
    error = raised(step)
    assert isinstance(error, RuntimeError), error
    assert "fork" in str(error)


def everything_works_everywhere():
    everything_works()
    in_loop(everything_works)
    thread = threading.Thread(target=everything_works)
    thread.start()
    thread.join()


@script(options=FORKS)
def test_calls_work_in_a_child_that_was_forked_between_calls():
    everything_works_everywhere()
    assert fork(everything_works_everywhere) == 0
    everything_works_everywhere()


@script(options=FORKS)
def test_a_grandchild_works_too():
    everything_works_everywhere()
    assert fork(lambda: (everything_works_everywhere(), os._exit(fork(everything_works_everywhere)))) == 0


@places
@script(options=FORKS)
def test_calls_work_in_a_child_that_was_forked_while_another_thread_was_inside_a_call(place):
    async def waits():
        nonlocal wake
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        wake = lambda: loop.call_soon_threadsafe(future.set_result, 1)  # noqa: E731
        loop.call_soon(event.set)
        return await future

    everything_works_everywhere()
    wake, results, event = None, [], threading.Event()
    call = lambda: results.append(anysync.run(waits()))  # noqa: E731
    thread = threading.Thread(target=lambda: getattr(scripts, place)(call))
    thread.start()
    event.wait()
    assert fork(everything_works_everywhere) == 0
    wake()
    thread.join()
    assert results == [1]


@script(options=FORKS)
def test_calls_work_in_a_child_that_was_forked_while_another_thread_started_the_background_one():
    def slow_loop():
        if threading.current_thread() is thread:
            event.set()
            go_on.wait()
        return asyncio.SelectorEventLoop()

    anysync.configure(backend_options={"loop_factory": slow_loop})
    event, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=in_loop, args=(everything_works,))
    thread.start()
    event.wait()
    assert fork(everything_works_everywhere) == 0
    go_on.set()
    thread.join()


@places
@script(options=FORKS, out="generator in the parent\nbackground task in the parent\nmanager in the parent\n")
def test_what_is_open_says_in_the_child_that_it_was_forked(place):
    def call():
        generator = numbers()
        assert next(generator) == 1
        with manager():
            assert fork(lambda: use(generator)) == 0
            assert list(generator) == [2]

    def use(generator):
        is_foreign(lambda: next(generator))
        is_foreign(generator.close)
        is_foreign(lambda: entered.__exit__(None, None, None))

    entered = anysync.wrap_async_context_manager(quiet_manager())
    entered.__enter__()
    getattr(scripts, place)(call)
    entered.__exit__(None, None, None)


@places
@script(options=FORKS, out="task in the parent\nbackground task in the parent\nmanager in the parent\n")
def test_what_is_open_is_collected_in_the_child_without_a_word(place):
    async def leaves_a_task():
        tasks.append(asyncio.create_task(pending("task")))
        await asyncio.sleep(0)

    def call():
        nonlocal generator, entered
        anysync.run(leaves_a_task())
        generator = wrapped()
        next(generator)
        entered = manager()
        entered.__enter__()
        assert fork(drop) == 0
        anysync.run(cancel_and_wait(tasks.pop()))
        generator.close()
        entered.__exit__(None, None, None)

    def drop():
        nonlocal generator, entered
        generator = entered = None
        tasks.clear()
        for _ in range(3):
            gc.collect()
        everything_works()

    import gc

    tasks = []
    generator = entered = None
    getattr(scripts, place)(call)


@script(
    options=FORKS,
    out="child exits in the child\nkept in the parent\ngenerator in the parent\nbackground in the parent\n",
)
def test_no_finally_of_the_parent_runs_in_a_child_that_exits_normally():
    async def leaves_a_task(name):
        tasks.append(asyncio.create_task(pending(name)))
        await asyncio.sleep(0)

    tasks = []
    anysync.run(leaves_a_task("kept"))
    in_loop(lambda: anysync.run(leaves_a_task("background")))
    generator = numbers()
    next(generator)
    pid = os.fork()
    if not pid:
        everything_works_everywhere()
        say("child exits")
        sys.exit(7)
    assert exit_code(pid) == 7
    anysync.run(cancel_and_wait(tasks[0]))
    generator.close()


async def cancel_and_wait(task):
    task.cancel()
    await asyncio.wait([task])


@script(options=FORKS)
def test_the_loop_of_the_parent_is_woken_as_before_when_the_child_is_gone():
    async def this_loop():
        return asyncio.get_running_loop()

    async def waits():
        future = loop.create_future()
        loop.call_soon(event.set)
        threading.Thread(
            target=lambda: (event.wait(), loop.call_soon_threadsafe(future.set_result, 1))
        ).start()
        return await future

    for place in scripts.plainly, in_loop:
        loop = place(lambda: anysync.run(this_loop()))
        pid = os.fork()
        if not pid:
            everything_works_everywhere()
            sys.exit()
        assert exit_code(pid) == 0
        event = threading.Event()
        assert place(lambda: anysync.run(waits())) == 1


@places
@script(options=FORKS)
def test_a_server_of_the_parent_goes_on_when_the_child_is_gone(place):
    @anysync.contextmanager
    async def server():
        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()

    def ask(address):
        with socket.create_connection(address) as client:
            client.sendall(b"hello\n")
            return client.makefile("rb").readline()

    def call():
        with server() as address:
            assert ask(address) == b"hello\n"
            pid = os.fork()
            if not pid:
                everything_works_everywhere()
                os._exit(0)
            assert exit_code(pid) == 0
            assert ask(address) == b"hello\n"

    getattr(scripts, place)(call)


@script(options=FORKS)
def test_a_runner_works_anew_in_the_child():
    def use():
        assert runner.run(works()) == 1
        assert list(runner.iterate(wrapped())) == [1, 2]
        thread = [thread for thread in threading.enumerate() if thread.name == "mine"]
        assert len(thread) == 1
        runner.close()
        assert not thread[0].is_alive()

    with anysync.Runner("mine") as runner:
        assert runner.run(works()) == 1
        generator = runner.iterate(wrapped())
        next(generator)
        assert fork(use) == 0
        assert fork(runner.close) == 0
        assert fork(lambda: is_foreign(lambda: next(generator))) == 0
        assert next(generator) == 2
        assert runner.run(works()) == 1


@pytest.mark.parametrize("turns", [0, 1])
@places
@script(options=FORKS)
def test_calls_work_in_a_child_that_a_coroutine_forks(place, turns):
    async def forks():
        for _ in range(turns):
            await asyncio.sleep(0)
        return fork(everything_works_everywhere)

    def call():
        assert anysync.run(forks()) == 0
        everything_works()

    getattr(scripts, place)(call)


@script(options=FORKS)
def test_a_child_that_is_forked_in_the_body_of_a_for_or_with_works():
    for _ in wrapped():
        with quiet_manager():
            assert fork(everything_works_everywhere) == 0
    assert works().run() == 1


@script(options=FORKS)
def test_ctrl_c_works_in_the_child():
    def child():
        event = threading.Event()
        thread = scripts.send_after(event)
        assert isinstance(raised(lambda: anysync.run(suspended(event))), KeyboardInterrupt)
        thread.join()
        assert works().run() == 1

    assert works().run() == 1
    assert fork(child) == 0


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_calls_work_in_the_processes_of_multiprocessing(method, tmp_path):
    source = f"""
import asyncio, multiprocessing, anysync

@anysync.coroutine
async def double(number):
    await asyncio.sleep(0)
    return number * 2

def work(number):
    return double(number).run(), scripts.in_loop(lambda: double(number).run())

if __name__ == "__main__":
    scripts.watch()
    assert work(1) == (2, 2)
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        print(pool.map(work, range(3)))
        pool.close()
        pool.join()
    assert work(1) == (2, 2)
"""
    check(run_source(source, tmp_path, options=FORKS), "[(0, 0), (2, 2), (4, 4)]\n")
