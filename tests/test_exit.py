"""The end of the process and of threads: nothing hangs, nothing is lost, nothing complains."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial

import anyio
import pytest
import scripts
from loops import call_soon, leave_behind, shielded
from places import in_thread
from pytest_marks import dies_at_once, of_cpython, on_asyncio, on_both
from scripts import PYPY, backend, check, collect_dropped, in_loop, raised, run_source, script, suspended

import anysync

pytestmark = on_both
places = pytest.mark.parametrize("place", ["plainly", "in_loop"])

if hasattr(gc, "unfreeze"):
    gc.unfreeze()  # the end is to be that of any process: see `forkserver`


@anysync.coroutine
async def works():
    await anyio.sleep(0)
    return 1


@anysync.coroutine
async def leaves_a_task(name):
    tasks.append(leave_behind(partial(pending, name)))
    await anyio.sleep(0)


async def pending(name):
    try:
        await anyio.Event().wait()
    finally:
        await shielded(anyio.sleep, 0.01)
        print(name, flush=True)


@anysync.generator
async def numbers():
    try:
        yield 1
        yield 2
    finally:
        await shielded(anyio.sleep, 0.01)
        print("generator", flush=True)


@anysync.contextmanager
async def manager():
    scope, ended = anyio.CancelScope(), anyio.Event()

    async def task():
        try:
            with scope:
                await pending("background task")
        finally:
            ended.set()

    leave_behind(task)
    await anyio.sleep(0)
    try:
        yield
    finally:
        scope.cancel()
        await shielded(ended.wait)
        print("manager", flush=True)


tasks = []
kept_alive = []


@places
@script(out="task\n")
def test_tasks_that_were_left_behind_clean_up_at_exit(place):
    getattr(scripts, place)(lambda: leaves_a_task("task").run())


@places
@script(out="task\n", code=3)
def test_the_exit_code_is_kept(place):
    getattr(scripts, place)(lambda: leaves_a_task("task").run())
    sys.exit(3)


@places
@script(out="clean\n", code=3)
def test_sys_exit_in_a_coroutine_ends_the_process(place):
    async def leave():
        try:
            await anyio.sleep(0)
            sys.exit(3)
        finally:
            await anyio.sleep(0)
            print("clean", flush=True)

    getattr(scripts, place)(lambda: anysync.run(leave()))


def leave_everything_open(place):
    """Leave a task, a generator, a `with` and a submitted call behind; print when each has cleaned up."""

    def call():
        leaves_a_task("task").run()
        generator, entered = numbers(), manager()
        next(generator)
        entered.__enter__()
        event = threading.Event()
        future = anysync.wrap_coroutine(pending_after(event)).submit()
        event.wait()
        kept_alive.extend([generator, entered, future])

    async def pending_after(event):
        call_soon(event.set)
        await pending("submitted")

    getattr(scripts, place)(call)


class InAnyOrder(str):
    """What a process printed, whatever the order of its lines."""

    def __eq__(self, other):
        return sorted(self.splitlines()) == sorted(other.splitlines())

    __hash__ = None


EVERYTHING = InAnyOrder("task\ngenerator\nbackground task\nmanager\nsubmitted\n")


@places
@script(out=EVERYTHING, within=3, code=1, raises="ZeroDivisionError: division by zero")
def test_what_is_open_cleans_up_after_an_error_that_nobody_catches(place):
    leave_everything_open(place)
    1 / 0  # noqa: B018


@pytest.mark.skipif(sys.platform == "win32", reason="there, no signal ends a process")
@places
@script(out=EVERYTHING, within=3, code=-signal.SIGINT, raises="KeyboardInterrupt")
def test_what_is_open_cleans_up_after_a_ctrl_c_that_nobody_catches(place):
    leave_everything_open(place)
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait()


@places
@script(out=EVERYTHING, within=3, code=3)
def test_what_is_open_cleans_up_after_sys_exit(place):
    leave_everything_open(place)
    sys.exit(3)


@places
@script(out=EVERYTHING, within=3)
def test_what_a_daemon_thread_that_idles_has_open_cleans_up_at_exit(place):
    def idles():
        leave_everything_open(place)
        event.set()
        threading.Event().wait()

    event = threading.Event()
    threading.Thread(target=idles, daemon=True).start()
    event.wait()


@places
@script(out="call\n", within=3)
def test_the_call_that_a_daemon_thread_is_inside_of_cleans_up_at_exit_and_the_thread_ends_without_a_word(
    place,
):
    async def waits():
        call_soon(event.set)
        await pending("call")

    event = threading.Event()
    call = lambda: anysync.run(waits())  # noqa: E731
    threading.Thread(target=getattr(scripts, place), args=(call,), daemon=True).start()
    event.wait()


@script(out="step\n", within=3)
def test_a_daemon_thread_inside_a_step_on_the_loop_of_another_thread_does_not_disturb_the_exit():
    @anysync.generator
    async def waits():
        yield 1
        call_soon(event.set)
        await pending("step")

    event, generator = threading.Event(), waits()
    kept_alive.append(generator)
    next(generator)
    threading.Thread(target=next, args=(generator,), daemon=True).start()
    event.wait()


@pytest.mark.parametrize("threads", [1, 3])
@script(within=3)
def test_daemon_threads_whose_calls_block_in_plain_code_do_not_hold_up_the_exit(threads):
    async def blocks(event):
        event.set()
        threading.Event().wait()

    for _ in range(threads):
        event = threading.Event()
        threading.Thread(target=lambda event=event: anysync.run(blocks(event)), daemon=True).start()
        event.wait()


@script(out="blocked\n")
def test_the_exit_waits_for_a_call_that_blocks_the_background_thread_as_for_a_thread_of_an_executor():
    async def blocks():
        begun.set()
        ends.wait()
        print("blocked", flush=True)

    def end():
        while not scripts.main_thread_sleeps():  # in the exit
            pass
        ends.set()

    begun, ends = threading.Event(), threading.Event()
    in_loop(anysync.wrap_coroutine(blocks()).submit)
    begun.wait()
    threading.Thread(target=end, daemon=True).start()


@script(out="task\n")
def test_a_weak_reference_may_make_calls_when_the_interpreter_ends():
    import weakref

    class Thing:
        pass

    def call():
        assert works().run() == 1
        assert list(wrapped()) == [1, 2]
        with quiet_manager():
            print("task", flush=True)

    works().run()
    kept_alive.append(Thing())
    weakref.finalize(kept_alive[0], call)


@anysync.generator
async def wrapped():
    yield 1
    await anyio.sleep(0)
    yield 2


@anysync.contextmanager
async def quiet_manager():
    await anyio.sleep(0)
    yield


FIRST_CALL = """
{imports}
import builtins, anysync

@anysync.anysync
async def call():
    {wait}
    return "called"

@anysync.generator
async def items():
    yield "item"

class Calls:
    def __del__(self, call=call, items=items, print=print, RuntimeError=RuntimeError):
        try:
            print(call().run(), *items())
        except RuntimeError as error:
            print(*str(error).split()[2:5])

builtins.kept_alive = Calls()
"""


@of_cpython
@on_asyncio
@pytest.mark.parametrize("wait", ["pass", "await asyncio.sleep(0.001)"])
def test_the_first_call_of_all_may_come_from_a_destructor_at_the_end_if_asyncio_is_there(wait):
    program = FIRST_CALL.format(imports="import asyncio", wait=wait)
    assert scripts.python(program) == ["called", "item"]


@of_cpython
@on_asyncio
def test_the_first_call_of_all_works_at_the_end_or_says_why_if_asyncio_would_have_to_be_imported():
    printed = scripts.python(FIRST_CALL.format(imports="", wait="pass"))
    assert printed in (["called", "item"], ["is", "shutting", "down,"])  # Python 3.11 can still import then


@places
@script(out="background task\nmanager\n", code=3)
def test_sys_exit_in_the_body_of_a_with_leaves_it(place):
    def call():
        with manager():
            sys.exit(3)

    getattr(scripts, place)(call)


@places
@script(out="generator\n")
def test_a_generator_that_is_open_at_exit_is_closed(place):
    def call():
        generator = numbers()
        kept_alive.append(generator)
        assert next(generator) == 1

    getattr(scripts, place)(call)


@places
@script(out="background task\nmanager\n")
def test_a_with_that_is_open_at_exit_is_left(place):
    def call():
        entered = manager()
        kept_alive.append(entered)
        entered.__enter__()

    getattr(scripts, place)(call)


@places
@script(out="submitted\n")
def test_what_was_submitted_cleans_up_at_exit(place):
    def call():
        event = threading.Event()
        kept_alive.append(anysync.wrap_coroutine(waits(event)).submit())
        event.wait()

    async def waits(event):
        try:
            await suspended(event)
        finally:
            await shielded(anyio.sleep, 0.01)
            print("submitted", flush=True)

    getattr(scripts, place)(call)


@pytest.mark.skipif(sys.platform != "linux", reason="looks whether the main thread sleeps")
@script(out="generator\n")
def test_a_generator_that_is_dropped_just_before_its_loop_closes_is_closed_without_a_word():
    async def blocks(event):
        event.wait()

    def release():
        while host.gone is None or not scripts.main_thread_sleeps():  # in `close`
            pass
        event.set()

    with anysync.Runner() as runner:
        generator = runner.iterate(numbers())
        next(generator)
        host, event = runner._host, threading.Event()
        runner.submit(blocks(event))
        del generator
        thread = threading.Thread(target=release)
        thread.start()
    thread.join()


@script(out="task\n")
def test_tasks_of_a_runner_clean_up_at_exit():
    runner = anysync.Runner()
    kept_alive.append(runner)
    runner.run(leaves_a_task("task"))


@script(out="1\n1\n")
def test_the_clean_up_at_exit_may_make_calls():
    async def calls_in_the_end():
        try:
            await anyio.Event().wait()
        finally:
            print(works().run(), flush=True)
            await shielded(anyio.sleep, 0)
            print(works().run(), flush=True)

    async def leaves():
        tasks.append(leave_behind(calls_in_the_end))
        await anyio.sleep(0)

    anysync.run(leaves())
    in_loop(works().run)  # once the interpreter ends, the thread for this cannot be started


async def to_thread(function, *args):
    """Call in a thread of the library's own: on asyncio one of the default executor."""
    if backend() == "asyncio":
        return await asyncio.to_thread(function, *args)
    return await anyio.to_thread.run_sync(function, *args)


@places
@script
def test_threads_of_the_default_executor_do_not_disturb_the_exit(place):
    async def uses_a_thread():
        return await to_thread(works().run)

    assert getattr(scripts, place)(lambda: anysync.run(uses_a_thread())) == 1


@script(out="task\n")
def test_tasks_clean_up_at_exit_where_the_default_executor_was_used():
    anysync.run(to_thread(int))
    leaves_a_task("task").run()


@places
@script
def test_a_thread_of_the_default_executor_with_a_loop_that_has_one_too_does_not_disturb_the_exit(place):
    async def work():
        return await to_thread(int)

    async def main():
        return await to_thread(anysync.run, work())

    getattr(scripts, place)(lambda: anysync.run(main()))


ATEXIT = """
import {backend}, atexit, sys

async def works():
    await {backend}.sleep(0)
    return 1

def call():
    import anysync
    print("call", anysync.run(works()), list(anysync.wrap_async_generator(numbers())), flush=True)

async def numbers():
    yield 1
    await {backend}.sleep(0)

before = {before}
if before:
    atexit.register(call)
import anysync
anysync.configure(backend="{backend}")
if {used}:
    anysync.run(works())
    scripts.in_loop(lambda: anysync.run(works()))
if not before:
    atexit.register(call)
"""


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("used", [True, False])
def test_atexit_callbacks_may_make_calls(before, used, backend, tmp_path):
    source = ATEXIT.format(before=before, used=used, backend=backend)
    check(run_source(source, tmp_path), "call 1 [1]\n")


@pytest.mark.parametrize("before", [True, False])
def test_atexit_callbacks_may_make_calls_in_a_loop_or_hear_why_not(before, backend, tmp_path):
    source = """
def in_loop_call():
    try:
        scripts.in_loop(call)
    except RuntimeError as error:
        assert "needs a thread of its own" in str(error), error
        print("call 1 [1]")

import atexit, scripts
"""
    script = (source + ATEXIT).replace("atexit.register(call)", "atexit.register(in_loop_call)")
    check(run_source(script.format(before=before, used=True, backend=backend), tmp_path), "call 1 [1]\n")


@of_cpython
@pytest.mark.parametrize(
    "where",
    # there, what modules hold is let go of when the globals of all modules are gone
    [
        pytest.param("holder", marks=dies_at_once),
        "builtins.holder",
        pytest.param("cycle.cycle", marks=dies_at_once),
    ],
)
def test_destructors_may_make_calls_when_the_interpreter_ends(where, backend, tmp_path):
    source = f"""
import {backend}, builtins, sys, anysync

async def called(sleep={backend}.sleep):
    await sleep(0)
    return "called"

class Calls:
    def __init__(self, anysync=anysync, called=called, print=print):
        self.run, self.called, self.print = anysync.run, called, print
    def __del__(self):
        self.print(self.run(self.called()), flush=True)

anysync.configure(backend="{backend}")
anysync.run(called())
scripts.in_loop(lambda: anysync.run(called()))
cycle = Calls()
{where} = {"Calls()" if where != "cycle.cycle" else "cycle"}
if "{where}" != "cycle.cycle":
    del cycle
"""
    check(run_source(source, tmp_path), "called\n" * (1 if where == "cycle.cycle" else 2))


@places
@script
def test_a_daemon_thread_inside_a_call_does_not_disturb_the_exit(place):
    def call():
        with suppress(RuntimeError):  # may come before the thread is stopped: its loop is closed
            anysync.run(suspended(event))

    event = threading.Event()
    threading.Thread(target=getattr(scripts, place), args=(call,), daemon=True).start()
    event.wait()
    assert works().run() == 1


@places
@script
def test_a_daemon_thread_that_makes_calls_all_the_time_does_not_disturb_the_exit(place):
    def calls():
        while True:
            try:
                works().run()
                event.set()
            except RuntimeError:  # the loop is closed, and no thread can start
                return

    event = threading.Event()
    threading.Thread(target=getattr(scripts, place), args=(calls,), daemon=True).start()
    event.wait()
    assert works().run() == 1


@places
@script(out="completed\n")
def test_a_thread_inside_a_call_completes_it_before_the_exit(place):
    async def waits():
        event.set()
        while threading.main_thread().is_alive():
            await anyio.sleep(0.001)
        for _ in range(3):
            await anyio.sleep(0.001)
        print("completed", flush=True)

    event = threading.Event()
    threading.Thread(target=getattr(scripts, place), args=(lambda: anysync.run(waits()),)).start()
    event.wait()


@script(out="task\ngenerator\nbackground task\nmanager\n")
def test_what_a_thread_has_open_on_its_loop_cleans_up_when_the_thread_ends():
    def steps():
        kept_alive.append(numbers())
        next(kept_alive[-1])

    def enters():
        kept_alive.append(manager())
        kept_alive[-1].__enter__()

    for target in leaves_a_task("task").run, steps, enters:
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
        collect_dropped()
    entered = kept_alive.pop()
    error = raised(lambda: entered.__exit__(None, None, None))
    assert "thread" in str(error), error
    error = raised(lambda: next(kept_alive.pop()))
    assert "thread" in str(error), error


class Errors(logging.Handler):
    """What is logged of errors: by asyncio, as of any task, and by us where that is trio's."""

    def __init__(self):
        super().__init__()
        self.all, self.one = [], threading.Event()
        logging.getLogger().addHandler(self)

    def emit(self, record):
        self.all.append(record.exc_info[1])
        self.one.set()


def with_loop(whose, function):
    """Call in a thread whose calls are served by that loop, which ends then."""
    if whose == "application's":
        anyio.run(anyio.to_thread.run_sync, function, backend=backend())
    else:
        in_thread(function)


@pytest.mark.parametrize("loop", ["thread's", "application's"])
@pytest.mark.parametrize("kind", ["generator", "with"])
@pytest.mark.parametrize("suspends", [True, False])
@script
def test_an_error_in_the_clean_up_of_what_ends_with_its_loop_is_logged(suspends, kind, loop):
    async def fails():
        try:
            yield 1
        finally:
            if suspends:
                await shielded(anyio.sleep, 0)
            raise error

    def begin():
        opened = anysync.generator(fails)() if kind == "generator" else anysync.contextmanager(fails)()
        kept_alive.append(opened)
        assert (next(opened) if kind == "generator" else opened.__enter__()) == 1

    error, logged = ValueError(), Errors()
    with_loop(loop, begin)
    assert logged.all == [error]


@dies_at_once
@pytest.mark.parametrize("loop", ["thread's", "application's"])
@script
def test_an_error_in_the_clean_up_of_a_dropped_generator_is_logged_where_its_loop_ends_meanwhile(loop):
    @anysync.generator
    async def fails():
        try:
            yield 1
        finally:
            cleans_up.set()
            with suppress(anyio.get_cancelled_exc_class()):
                await anyio.sleep_forever()
            raise error

    def drop():
        dropped = [fails()]
        assert next(dropped[0]) == 1
        in_thread(dropped.clear)
        cleans_up.wait()

    error, logged, cleans_up = ValueError(), Errors(), threading.Event()
    with_loop(loop, drop)
    assert logged.all == [error]


@pytest.mark.parametrize("loop", ["thread's", "application's"])
@script
def test_what_is_closed_if_it_is_dropped_is_closed_where_its_loop_ends(loop):
    class Items(anysync.AnySyncIterator):
        async def __anext__(self):
            return 1

        async def aclose(self):
            await shielded(anyio.sleep, 0)
            closed.append(self)

    def begin():
        kept_alive.append(Items())
        assert next(kept_alive[0]) == 1

    closed = []
    with_loop(loop, begin)
    assert closed == kept_alive


@places
@script
def test_an_error_in_the_clean_up_of_what_was_submitted_and_cancelled_is_logged(place):
    async def fails():
        try:
            await suspended(begun)
        finally:
            raise error

    def call():
        future = anysync.wrap_coroutine(fails()).submit()
        begun.wait()
        assert future.cancel()
        logged.one.wait()

    error, logged, begun = ValueError(), Errors(), threading.Event()
    getattr(scripts, place)(call)
    assert logged.all == [error]


@places
@script
def test_a_loop_lives_on_after_what_callbacks_of_futures_raise(place):
    async def waits(event):
        while not event.is_set():
            await anyio.sleep(0.001)
        return 1

    async def ends_in_one_step():
        added.wait()

    def call():
        other = anysync.wrap_coroutine(waits(over)).submit()
        for error in errors:
            for make in ends_in_one_step, partial(waits, added):
                added.clear()
                future = anysync.wrap_coroutine(make()).submit()
                future.add_done_callback(partial(fail, error))
                added.set()
                future.result()
        over.set()
        assert other.result() == 1

    def fail(error, _):
        raise error

    logged, added, over = Errors(), threading.Event(), threading.Event()
    errors = [asyncio.CancelledError(), GeneratorExit()]
    getattr(scripts, place)(call)
    assert logged.all == [errors[0], errors[0], errors[1], errors[1]]


@on_asyncio  # trio cancels no single task
@script
def test_an_error_in_the_clean_up_of_a_with_whose_task_was_cancelled_before_its_loop_ended_is_logged():
    @anysync.contextmanager
    async def fails():
        tasks.append(asyncio.current_task())
        try:
            yield
        finally:
            left.set()
            raise error

    async def application():
        kept_alive.append(fails())
        await anyio.to_thread.run_sync(kept_alive[0].__enter__)
        tasks[0].cancel()
        await left.wait()

    error, left, logged = ValueError(), anyio.Event(), Errors()
    anyio.run(application)
    assert logged.all == [error]


@pytest.mark.skipif(not PYPY, reason="elsewhere a thread closes its loop itself")
@script(out="task\n")
def test_who_collects_the_loop_of_a_thread_does_not_wait_for_its_clean_up_and_the_exit_does():
    async def ends_slowly():
        try:
            await anyio.Event().wait()
        finally:
            collected.wait()
            await shielded(anyio.sleep, 0.1)
            print("task", flush=True)

    async def leaves_it():
        tasks.append(leave_behind(ends_slowly))
        await anyio.sleep(0)

    collected = threading.Event()
    thread = threading.Thread(target=lambda: anysync.run(leaves_it()))
    thread.start()
    thread.join()
    for _ in range(3):
        gc.collect()
    collected.set()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts in /proc")
@script
def test_short_threads_leave_no_descriptors_and_no_threads():
    def work():
        assert works().run() == 1
        assert in_loop(works().run) == 1

    def batch(count):
        for _ in range(count // 20):
            threads = [threading.Thread(target=work) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def count():
        gc.collect()
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    def native_threads():
        return len(os.listdir("/proc/self/task"))

    batch(20)
    before, native = count(), native_threads()
    batch(400 if backend() == "asyncio" else 100)
    assert count() == before
    while native_threads() > native:  # the kernel may be the last to know that a thread has ended
        pass


@of_cpython
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts in /proc")
@script
def test_a_thread_returns_its_descriptors_at_once_without_the_garbage_collector():
    def work():
        assert works().run() == 1

    def count():
        return len(os.listdir("/proc/self/fd"))

    gc.disable()
    before = count()
    for _ in range(20):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert count() == before
