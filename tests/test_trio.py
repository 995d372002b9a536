"""What is trio's alone, in processes of their own, and the choice by the environment."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import scripts
import sniffio
import trio
from loops import call_soon, shielded
from pytest_marks import of_cpython
from scripts import raised, script

import anysync


@anysync.coroutine
async def works():
    await trio.sleep(0)
    return sniffio.current_async_library()


async def clean_up(log):
    await shielded(trio.sleep, 0)
    log.append("clean")


async def waits(event, log):
    try:
        call_soon(event.set)
        await trio.sleep_forever()
    except trio.Cancelled:
        log.append("cancelled")
        raise
    finally:
        await clean_up(log)


@anysync.generator
async def items(event, log):
    try:
        yield 1
        await waits(event, log)
        yield 2
    finally:
        await clean_up(log)


@anysync.contextmanager
async def manager(log):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            yield
        finally:
            await clean_up(log)
            nursery.cancel_scope.cancel()


class Alarm(Exception):
    pass


@script(within=3)
def test_what_a_signal_handler_raises_comes_up_and_calls_go_on():
    """Wherever it breaks into: in trio's own code it is the end of that run."""

    def handler(*_):
        raise Alarm

    async def busy():
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        while True:
            await trio.sleep(0)

    anysync.configure(backend="trio")
    signal.signal(signal.SIGALRM, handler)
    works().run()
    for _ in range(30):
        assert type(raised(lambda: anysync.run(busy()))) is Alarm
        assert works().run() == "trio"
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


@pytest.mark.parametrize("number", range(5))
@script(code=3, within=3)
def test_an_exit_out_of_a_signal_handler_ends_the_process(number):
    async def serve():
        signal.setitimer(signal.ITIMER_REAL, (number + 1) / 1000)
        while True:
            await trio.sleep(0)

    signal.signal(signal.SIGALRM, lambda *_: sys.exit(3))
    anysync.run(serve(), backend="trio")


@pytest.mark.parametrize("kind", ["background", "runner"])
@script
def test_a_run_that_fails_is_told_to_its_callers_and_replaced(kind):
    async def breaks():
        def abort(_):
            raise ValueError("bug")

        with trio.move_on_after(0.01):
            await trio.lowlevel.wait_task_rescheduled(abort)

    async def main():
        return call()

    def call():
        run = runner.run if kind == "runner" else anysync.run
        error = raised(lambda: run(breaks()))
        return type(error), "has failed" in str(error), run(works())

    runner = anysync.Runner(backend="trio")
    assert trio.run(main) == (RuntimeError, True, "trio")
    runner.close()


@script
def test_a_runner_that_is_closed_during_a_step_says_so():
    @anysync.generator
    async def endless():
        yield 1
        call_soon(begun.set)
        await trio.sleep_forever()

    def steps():
        generator = runner.iterate(endless())
        next(generator)
        errors.append(raised(lambda: next(generator)))

    begun, errors = threading.Event(), []
    runner = anysync.Runner(backend="trio")
    thread = threading.Thread(target=steps)
    thread.start()
    begun.wait()
    runner.close()
    thread.join()
    assert (type(errors[0]), str(errors[0])) == (RuntimeError, "the runner has been closed")


@of_cpython
@script(out="called\n")
def test_a_destructor_may_choose_trio_when_the_interpreter_ends():
    class Calls:
        def __init__(self):
            self.run, self.print = anysync.run, print

        def __del__(self):
            self.print(self.run(called(), backend="trio"))

    async def called():
        return "called"

    import builtins

    anysync.run(called(), backend="trio")
    builtins.holder = Calls()


@script
def test_a_guest_of_asyncio_is_trio():
    import asyncio

    async def guest():
        return works().run()

    async def host():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        return (await done).unwrap()

    assert asyncio.run(host()) == "trio"


@script(within=3)
def test_open_objects_of_a_runner_do_not_disturb_the_exit():
    global kept
    kept, log, event = [], [], threading.Event()
    runner = anysync.Runner(backend="trio")
    assert runner.run(works()) == "trio"
    left, generator = runner.enter(manager(log)), runner.iterate(items(threading.Event(), log))
    left.__enter__()
    next(generator)
    kept.extend([left, generator, runner.submit(waits(event, log))])
    event.wait()


def python(code, **environment):
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)


def test_the_environment_chooses_the_backend():
    code = "import anysync, sniffio\nasync def library(): return sniffio.current_async_library()\n"
    code += "print(anysync.run(library()), anysync.run(library(), backend='asyncio'))"
    for chosen in "trio", "asyncio", "":
        done = python(code, ANYSYNC_BACKEND=chosen)
        assert (done.stdout, done.stderr) == (f"{chosen or 'asyncio'} asyncio\n", "")


def test_an_unknown_backend_in_the_environment_is_an_import_error():
    done = python("import anysync", ANYSYNC_BACKEND="curio")
    last = done.stderr.splitlines()[-1]
    assert last == "ImportError: ANYSYNC_BACKEND must be asyncio, trio or unset, not 'curio'"


def test_the_first_imports_of_trio_in_two_threads_do_not_meet_half_way():
    """anyio comes in by `trio.from_thread`, whose lock it holds while it waits for that of `trio`."""
    scripts.python("""
        import sys, threading, time
        import anyio, anysync

        ours = threading.Thread(target=anysync.run, args=[anyio.sleep(0)], kwargs={"backend": "trio"})
        ours.start()
        while "trio" not in sys.modules:
            time.sleep(0)
        anyio.run(anyio.sleep, 0, backend="trio")
        ours.join()
    """)


def test_neither_the_package_nor_asyncio_code_imports_trio():
    code = "import anysync, asyncio, sys\nanysync.run(asyncio.sleep(0))\nprint('trio' in sys.modules)"
    assert python(code).stdout == "False\n"
