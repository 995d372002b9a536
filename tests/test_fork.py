"""A forked child shares descriptors and memory with its parent, and has none of its threads."""

import asyncio
import concurrent.futures.thread  # noqa: F401  # not to be imported during a fork
import gc
import os
import socket
import sys
import threading
from contextlib import nullcontext
from functools import partial

import anyio
import pytest
import scripts
from anyio.abc import SocketAttribute
from loops import call_soon, leave_behind, post, shielded, this_loop
from pytest_marks import on_asyncio, on_both
from scripts import (
    FORKS,
    PYPY,
    backend,
    check,
    collect_dropped,
    exit_code,
    fork,
    raised,
    run_source,
    script,
    suspended,
)

import anysync

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"), on_both]

#: asyncio makes its loop not the running one in a child, and since Python 3.14 a task cannot end without it
returns_in_the_child = pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="no coroutine that forks returns in the child, in asyncio's own loop either",
)
places = pytest.mark.parametrize("place", ["plainly", "in_loop"])


@anysync.coroutine
async def works():
    await anyio.sleep(0)
    return 1


@anysync.generator
async def numbers():
    try:
        yield 1
        await anyio.sleep(0)
        yield 2
    finally:
        await shielded(anyio.sleep, 0)
        say("generator")


@anysync.contextmanager
async def manager():
    async with anyio.create_task_group() as group:
        group.start_soon(pending, "background task")
        await anyio.sleep(0)
        yield 1
        group.cancel_scope.cancel()
    say("manager")


async def pending(name):
    try:
        await anyio.Event().wait()
    finally:
        await shielded(anyio.sleep, 0)
        say(name)


async def leaves_a_task(name):
    """Leave a task behind, and return what cancels it and waits for that."""
    scope, ended = anyio.CancelScope(), anyio.Event()

    async def task():
        with scope:
            await pending(name)
        ended.set()

    async def cancel():
        scope.cancel()
        await ended.wait()

    leave_behind(task)
    await anyio.sleep(0)
    return cancel


async def until_let_go(how, event):
    """Put into a list what lets this go on, from any thread; set the event once it waits, and return 1."""
    go_on = anyio.Event()
    how.append(partial(post, this_loop(), go_on.set))
    call_soon(event.set)
    await go_on.wait()
    return 1


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
    await anyio.sleep(0)
    yield 2


@anysync.contextmanager
async def quiet_manager():
    await anyio.sleep(0)
    yield 1


def is_foreign(step):
    """Check that a step of a parent's object says what is wrong in the child."""
    error = raised(step)
    assert isinstance(error, RuntimeError), error
    assert "fork" in str(error)


def in_loop(function):
    """Call inside a running loop, in another thread if this is a child in which trio's run goes on."""
    if backend() == "trio":
        import trio

        if trio.lowlevel.in_trio_run():
            return in_thread(scripts.in_loop, function)
    return scripts.in_loop(function)


def in_thread(function, *args):
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*args)))
    thread.start()
    thread.join()
    return results[0]


def nested(function):
    async def calls():
        return function()

    return in_loop(lambda: anysync.run(calls()))


def submitted():
    assert works().submit().result() == 1


def everything_works_everywhere():
    everything_works()
    in_loop(everything_works)
    nested(everything_works)
    in_thread(everything_works)
    submitted()
    in_loop(submitted)
    with anysync.Runner() as runner:
        assert runner.run(works()) == 1


class Pausing:
    """Stands for a lock, and has a thread that takes it wait there until it may go on."""

    def __init__(self, lock):
        self.lock, self.taken, self.go_on = lock, threading.Event(), threading.Event()
        self.pauses = True

    def __getattr__(self, name):
        return getattr(self.lock, name)

    def __enter__(self):
        self.lock.__enter__()
        # not current_thread(), which would register a thread that is about to end again
        if threading.get_ident() != threading.main_thread().ident and self.pauses:
            self.pauses = False
            self.taken.set()
            self.go_on.wait()

    def __exit__(self, *error):
        self.lock.__exit__(*error)


def fork_while_paused(pausing, target, child):
    """Fork while a thread that does `target` pauses, and have that thread go on; return what it returns."""
    results = []
    thread = threading.Thread(target=lambda: results.append(target()))
    thread.start()
    pausing.taken.wait()
    assert fork(child) == 0
    pausing.go_on.set()
    thread.join()
    everything_works_everywhere()
    return results


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
    everything_works_everywhere()
    wake, results, event = [], [], threading.Event()
    call = lambda: results.append(anysync.run(until_let_go(wake, event)))  # noqa: E731
    thread = threading.Thread(target=lambda: getattr(scripts, place)(call))
    thread.start()
    event.wait()
    assert fork(everything_works_everywhere) == 0
    wake[0]()
    thread.join()
    assert results == [1]


@on_asyncio  # trio has no loop factory
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
    def call():
        nonlocal generator, entered
        tasks.append(anysync.run(leaves_a_task("task")))
        generator = wrapped()
        next(generator)
        entered = manager()
        entered.__enter__()
        assert fork(drop) == 0
        anysync.run(tasks.pop()())
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
    cancel = anysync.run(leaves_a_task("kept"))
    in_loop(lambda: anysync.run(leaves_a_task("background")))
    generator = numbers()
    next(generator)
    pid = os.fork()
    if not pid:
        everything_works_everywhere()
        say("child exits")
        sys.exit(7)
    assert exit_code(pid) == 7
    anysync.run(cancel())
    generator.close()


@script(options=FORKS)
def test_the_loop_of_the_parent_is_woken_as_before_when_the_child_is_gone():
    async def loop_here():
        return this_loop()

    async def waits():
        assert this_loop() is loop
        threading.Thread(target=lambda: (event.wait(), let_go[0]())).start()
        return await until_let_go(let_go, event)

    for place in scripts.plainly, in_loop:
        loop, let_go = place(lambda: anysync.run(loop_here())), []
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
        async def echo(stream):
            async with stream:
                await stream.send(await stream.receive())

        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as server,
            anyio.create_task_group() as group,
        ):
            group.start_soon(server.serve, echo)
            yield server.extra(SocketAttribute.local_address)
            group.cancel_scope.cancel()

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
            await anyio.sleep(0)
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


def starts_the_background_thread():
    return in_loop(works().run)


shared = anysync.Runner()


def starts_a_runner():
    with shared:
        return shared.run(works())


def closes_a_runner():
    shared.close()
    return 1


@anysync.contextmanager
async def manager_with_work():
    with anyio.fail_after(100):
        yield 1


@pytest.mark.parametrize("work", ["starts_the_background_thread", "starts_a_runner", "closes_a_runner"])
@script(options=FORKS)
def test_a_fork_while_another_thread_holds_the_lock_that_threads_are_started_under(work):
    def child():
        everything_works_everywhere()
        assert starts_a_runner() == 1

    works().run()
    from anysync._process import process

    shared._locks[os.getpid()] = process.starting = pausing = Pausing(process.starting)
    assert fork_while_paused(pausing, globals()[work], child) == [1]


@pytest.mark.parametrize("kind", ["generator", "manager"])
@places
@script(options=FORKS)
def test_a_fork_while_another_thread_begins_an_object(place, kind):
    def begin():
        call = (lambda: next(thing)) if kind == "generator" else thing.__enter__
        return getattr(scripts, place)(call)

    def slow_session(host, *args, **options):
        with pausing:
            return session(host, *args, **options)

    def child():
        assert begin() == 1
        everything_works_everywhere()

    everything_works_everywhere()
    from anysync._host import Host

    pausing, session = Pausing(nullcontext()), Host.session
    Host.session = slow_session
    thing = wrapped() if kind == "generator" else quiet_manager()
    assert fork_while_paused(pausing, begin, child) == [1]
    if kind == "manager":
        collect_dropped()
        leave = lambda: thing.__exit__(None, None, None)  # noqa: E731
        assert "thread" in str(raised(leave)) if place == "plainly" else not getattr(scripts, place)(leave)


@pytest.mark.parametrize("kind", ["generator", "manager"])
@places
@script(options=FORKS)
def test_what_another_thread_is_stepping_says_in_the_child_that_it_was_forked(place, kind):
    @anysync.generator
    async def slow_generator():
        yield 0
        with pausing:
            yield 1

    @anysync.contextmanager
    async def slow_manager():
        with pausing:
            yield 1

    def begin():
        return getattr(scripts, place)((lambda: next(thing)) if kind == "generator" else thing.__enter__)

    def step():
        if kind == "generator":
            return begin()
        begin()
        return thing.__exit__(None, None, None)

    def child():
        is_foreign(begin)
        is_foreign(thing.close if kind == "generator" else lambda: thing.__exit__(None, None, None))
        everything_works_everywhere()

    class PausingAnywhere(Pausing):
        def __enter__(self):
            self.taken.set()
            self.go_on.wait()

    everything_works_everywhere()
    pausing = PausingAnywhere(nullcontext())
    thing = slow_generator() if kind == "generator" else slow_manager()
    if kind == "generator":
        assert begin() == 0
    assert fork_while_paused(pausing, step, child) == [1 if kind == "generator" else False]
    if kind == "generator":
        thing.close()


@script(options=FORKS)
def test_a_fork_while_another_thread_drives_the_loop_of_this_one_and_a_third_waits_for_it():
    @anysync.generator
    async def slow():
        yield 0
        inside.set()
        go_on.wait()
        yield 1

    def waits_in_the_queue(*args):
        queue_up(*args)
        queued.set()

    everything_works_everywhere()
    from anysync._kept_host import KeptHost

    inside, queued, go_on = threading.Event(), threading.Event(), threading.Event()
    queue_up, KeptHost._queue_up = KeptHost._queue_up, waits_in_the_queue
    first, second = slow(), wrapped()
    assert (next(first), next(second)) == (0, 1)
    results = []
    threads = [
        threading.Thread(target=lambda step=step: results.append(next(step))) for step in (first, second)
    ]
    for thread, event in zip(threads, (inside, queued), strict=True):
        thread.start()
        event.wait()
    assert fork(lambda: (is_foreign(lambda: next(second)), everything_works_everywhere())) == 0
    go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(results) == [1, 2]
    first.close()
    second.close()
    everything_works_everywhere()


@script(options=FORKS, out="task in the parent\n")
def test_a_fork_while_the_helper_closes_the_loop_of_a_thread_that_has_ended():
    async def ends_slowly():
        try:
            await anyio.Event().wait()
        finally:
            closing.set()
            go_on.wait()
            await shielded(anyio.sleep, 0)
            say("task")

    async def leaves_it():
        tasks.append(leave_behind(ends_slowly))
        await anyio.sleep(0)

    tasks, closing, go_on = [], threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: anysync.run(leaves_it()))
    thread.start()
    if PYPY:  # where the loop is closed when it is collected
        thread.join()
        gc.collect()
    closing.wait()
    assert fork(everything_works_everywhere) == 0
    go_on.set()
    thread.join()
    everything_works_everywhere()


@places
@script(options=FORKS)
def test_a_submitted_future_says_in_the_child_that_it_was_forked_while_another_thread_holds_its_lock(place):
    async def waits():
        event.set()
        if backend() == "trio":
            return await anyio.to_thread.run_sync(go_on.wait)
        return await asyncio.get_running_loop().run_in_executor(None, go_on.wait)

    def child():
        is_foreign(lambda: future.result(5))
        assert not future.cancel()
        everything_works_everywhere()

    def wait():
        with pausing:
            pass
        return future.result()

    event, go_on = threading.Event(), threading.Event()
    future = getattr(scripts, place)(anysync.wrap_coroutine(waits()).submit)
    event.wait()
    pausing = Pausing(future._condition)
    pausing.go_on = go_on
    assert fork_while_paused(pausing, wait, child) == [True]


@on_asyncio  # whose exception handler logs
@script(options=FORKS)
def test_a_fork_while_the_background_thread_logs():
    import logging

    class Slow(logging.Handler):
        def emit(self, record):
            with pausing:
                records.append(record)

    async def complains():
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "to be logged"})
        return 1

    def child():
        everything_works_everywhere()
        logging.getLogger("asyncio").critical("from the child")
        assert len(records) == 1

    everything_works_everywhere()
    records, pausing = [], Pausing(nullcontext())
    log = logging.getLogger("asyncio")
    log.propagate = False
    log.addHandler(Slow())
    assert fork_while_paused(pausing, lambda: in_loop(lambda: anysync.run(complains())), child) == [1]
    assert len(records) == 1


@script(
    options=FORKS,
    out="generator in the parent\nbackground task in the parent\nmanager in the parent\ntask in the parent\n",
)
def test_no_finally_of_another_thread_runs_in_a_child_that_exits_normally():
    def idles():
        cancel = anysync.run(leaves_a_task("task"))
        local.generator, entered = numbers(), manager()
        next(local.generator)
        with entered:
            ready.set()
            stop.wait()
            local.generator.close()
        anysync.run(cancel())

    local = threading.local()
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=idles)
    thread.start()
    ready.wait()
    pid = os.fork()
    if not pid:
        everything_works_everywhere()
        sys.exit(7)
    assert exit_code(pid) == 7
    stop.set()
    thread.join()


@returns_in_the_child
@pytest.mark.parametrize("turns", [0, 1])
@script(options=FORKS)
def test_a_coroutine_that_forks_returns_in_the_child_too_unless_it_suspends_there(turns):
    async def forks(turns_after):
        for _ in range(turns):
            await anyio.sleep(0)
        pid = os.fork()
        for _ in range(turns_after):
            await (asyncio if backend() == "asyncio" else anyio).sleep(
                0
            )  # anyio knows of no loop in the child
        return pid

    def child():
        everything_works_everywhere()
        sys.exit(7)

    for turns_after in 0, 1:
        try:
            pid = anysync.run(forks(turns_after))
        except RuntimeError as raised:
            error = raised
            break
        if not pid:
            child()
        assert exit_code(pid) == 7
        everything_works_everywhere()
    if os.getpid() != parent:
        assert "fork" in str(error)
        assert turns_after == 1
        child()


@returns_in_the_child
@pytest.mark.parametrize("turns", [0, 1])
@script(options=FORKS, out="generator in the parent\nmanager in the parent\n")
def test_a_step_that_forks_has_its_value_in_the_child_too_and_the_next_says_that_it_was_forked(turns):
    async def forks(name):
        try:
            for _ in range(turns):
                await anyio.sleep(0)
            yield os.fork()
        finally:
            say(name)

    def child(step):
        is_foreign(step)
        everything_works_everywhere()
        sys.exit(7)

    generator = anysync.wrap_async_generator(forks("generator"))
    entered = anysync.contextmanager(forks)("manager")
    if not (pid := next(generator)):
        child(lambda: next(generator))
    assert exit_code(pid) == 7
    generator.close()
    if not (pid := entered.__enter__()):
        child(lambda: entered.__exit__(None, None, None))
    assert exit_code(pid) == 7
    entered.__exit__(None, None, None)


@returns_in_the_child
@pytest.mark.parametrize("turns", [0, 1])
@script(options=FORKS, out="background in the parent\nparent ends in the parent\n")
def test_the_child_of_a_coroutine_on_the_background_thread_ends_with_that_thread(turns):
    async def forks(turns_after):
        cancel = await leaves_a_task("background")
        for _ in range(turns):
            await anyio.sleep(0)
        pid = os.fork()
        for _ in range(turns_after):
            await anyio.sleep(0)
        if not turns_after:
            await anyio.sleep(0)
            await cancel()
        return pid

    everything_works_everywhere()
    assert exit_code(in_loop(lambda: anysync.run(forks(0)))) == 0
    everything_works_everywhere()
    say("parent ends")


@script(options=FORKS)
def test_ctrl_c_works_in_a_child_that_was_forked_while_the_main_thread_was_inside_a_call():
    def forks():
        ready.wait()
        try:
            assert fork(child) == 0
        finally:
            go_on[0]()

    def child():
        assert isinstance(
            raised(lambda: (os.kill(os.getpid(), signal.SIGINT), ready.wait())), KeyboardInterrupt
        )
        event = threading.Event()
        thread = scripts.send_after(event)
        assert isinstance(raised(lambda: anysync.run(suspended(event))), KeyboardInterrupt)
        thread.join()
        everything_works_everywhere()

    import signal

    go_on, ready = [], threading.Event()
    thread = threading.Thread(target=forks)
    thread.start()
    assert anysync.run(until_let_go(go_on, ready)) == 1
    thread.join()


@places
@script(options=FORKS)
def test_the_helper_turns_the_parents_loop_as_before_when_the_child_is_gone(place):
    def call():
        with manager_with_work(), quiet_manager():
            future = anysync.wrap_coroutine(until_let_go(let_go, event)).submit()
            event.wait()
            assert fork(everything_works_everywhere) == 0
            let_go[0]()
            assert future.result() == 1

    let_go, event = [], threading.Event()
    getattr(scripts, place)(call)


MULTIPROCESSING = """
import asyncio, concurrent.futures, multiprocessing, os, sys, anysync

@anysync.coroutine
async def double(number):
    await asyncio.sleep(0)
    return number * 2

@anysync.generator
async def numbers():
    yield 1
    try:
        yield 2
    finally:
        print("generator of", "parent" if __name__ == "__main__" and os.getpid() == parent else "child")

def work(number):
    async def nested():
        return double(number).run()

    return [
        double(number).run(),
        scripts.in_loop(lambda: double(number).run()),
        scripts.in_loop(lambda: anysync.run(nested())),
        double(number).submit().result(),
    ]

def child(number):
    assert work(number) == [2 * number] * 4
    sys.exit(number)

async def starts(context):
    process = context.Process(target=child, args=(5,))
    process.start()
    process.join()
    return process.exitcode

if __name__ == "__main__":
    scripts.watch()
    parent = os.getpid()
    context = multiprocessing.get_context("{method}")
    assert work(1) == [2] * 4
    generator = numbers()
    assert [next(generator), next(generator)] == [1, 2]
    process = context.Process(target=child, args=(3,))
    process.start()
    process.join()
    assert process.exitcode == 3
    assert anysync.run(starts(context)) == 5
    assert scripts.in_loop(lambda: anysync.run(starts(context))) == 5
    with context.Pool(2) as pool:
        assert pool.map(work, [1, 2, 3]) == [[2] * 4, [4] * 4, [6] * 4]
        pool.close()
        pool.join()
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(work, [1, 2, 3])) == [[2] * 4, [4] * 4, [6] * 4]
    assert work(1) == [2] * 4
    generator.close()
"""


@on_asyncio
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_calls_work_in_the_processes_of_multiprocessing(method, tmp_path):
    source = MULTIPROCESSING.format(method=method)
    check(run_source(source, tmp_path, options=FORKS), "generator of parent\n")


@script(options=FORKS)
def test_a_fork_while_another_thread_collects_a_host():
    """The collector of the compiled core has taken what it refers to, and the child finds it like that."""
    from anysync._hosts import here

    everything_works_everywhere()
    host = here()
    followers, host.followers = host.followers, None
    assert fork(everything_works_everywhere) == 0
    host.followers = followers
    everything_works_everywhere()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="nobody knows here when a thread sleeps")
@pytest.mark.parametrize(
    ("backend", "module", "first_use"),
    [
        ("asyncio", "_kept_host", "works().run()"),
        ("asyncio", "_kept_host", "anysync.Runner().loop"),
        ("asyncio", "_kept_host", "anysync.configure(backend='asyncio')"),
        ("trio", "_kept_host", "works().run()"),
        ("trio", "_on_trio", "works().run()"),
    ],
    indirect=["backend"],
)
def test_a_fork_while_another_thread_imports_what_the_first_call_needs(
    backend, module, first_use, tmp_path, monkeypatch
):
    monkeypatch.setenv("ANYSYNC_BACKEND", backend)
    source = f"""
import os, sys, threading, anysync

class Pausing:
    def find_spec(self, name, *_):
        if name == "anysync.{module}":
            paused.set()
            while not scripts.main_thread_sleeps():  # it waits for the import to end, or for its child
                pass

async def one():
    return 1

works = anysync.coroutine(one)
paused = threading.Event()
scripts.watch()
sys.meta_path.insert(0, Pausing())
thread = threading.Thread(target=lambda: {first_use})
thread.start()
paused.wait()
assert scripts.fork(lambda: works().run()) == 0
thread.join()
assert works().run() == 1
"""
    check(run_source(source, tmp_path, FORKS))
