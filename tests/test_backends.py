"""asyncio and trio alike: in each place, by each choice, every failure, and what a thread is left with."""

import gc
import signal
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from functools import cache, partial

import anyio
import pytest
import sniffio
from anyio import from_thread, to_thread
from loops import current_task, shielded
from places import error_of, in_loop, inline, opened
from pytest_marks import every_step, everywhere
from scripts import collect_dropped, python
from steps import KINDS, STEPS, Here, after_a_turn, at_once, bare, outcome

import anysync

var = ContextVar("var", default="unset")


class Oops(Exception):
    pass


# what is called


@anysync.coroutine
async def library():
    await anyio.sleep(0)
    return sniffio.current_async_library()


@anysync.coroutine
async def thread():
    await anyio.sleep(0)
    return threading.current_thread()


@anysync.generator
async def numbers(log):
    task, token = current_task(), var.set("inside")
    try:
        with anyio.CancelScope():
            for number in range(3):
                yield number
                await anyio.sleep(0)
    finally:
        log.append(current_task() is task)
        var.reset(token)


# calls


@everywhere
def test_a_call_runs_on_the_backend(place, backend):
    assert place(lambda: library().run()) == backend
    assert place(lambda: anysync.run(library())) == backend
    assert place(lambda: library().submit().result(30)) == backend


def outcomes(take):
    """Return what `take` says of each kind of error, raised in each way."""
    return [take(make("message"), way) for make in KINDS.values() for way in (at_once, after_a_turn)]


@cache
def expected(step, backend):
    async def in_async_code(error, way):
        try:
            await getattr(bare, step)(lambda: way(error))
        except BaseException as raised:  # not through anyio, which would change some

            def raise_it(_, raised=raised):
                raise raised

            return outcome(raise_it, error, way)
        return outcome(lambda _: None, error, way)

    return outcomes(lambda error, way: anyio.run(in_async_code, error, way, backend=backend))


@everywhere
@every_step
def test_every_failure_of_every_step_is_what_it_is_in_async_code(place, backend, step):
    found = outcomes(lambda error, way: place(lambda: outcome(partial(STEPS[step], Here), error, way)))
    assert found == expected(step, backend)


@everywhere
def test_cancel_scopes_and_task_groups_work(place):
    async def child(number, *, task_status=anyio.TASK_STATUS_IGNORED):
        task_status.started(number)
        await anyio.sleep_forever()

    async def main():
        async with anyio.create_task_group() as tasks:
            started = [await tasks.start(child, number) for number in range(3)]
            tasks.cancel_scope.cancel()
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        return started, scope.cancelled_caught

    assert place(lambda: anysync.run(main())) == ([0, 1, 2], True)


@everywhere
def test_a_task_that_fails_cancels_its_group(place):
    async def fails():
        raise Oops

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fails)
            await anyio.sleep_forever()

    error = place(lambda: error_of(lambda: anysync.run(main())))
    assert type(error) is ExceptionGroup
    assert [type(one) for one in error.exceptions] == [Oops]


@everywhere
def test_threads_are_called_and_call_back(place, backend):
    def work():
        return from_thread.run(library), from_thread.run_sync(sniffio.current_async_library)

    async def main():
        return await to_thread.run_sync(work)

    assert place(lambda: anysync.run(main())) == (backend, backend)


# generators


@everywhere
def test_a_generator_lives_in_one_task_and_one_context(place):
    log = []
    assert place(lambda: list(numbers(log))) == [0, 1, 2]
    assert log == [True]


def close(generator):
    generator.close()
    with pytest.raises(StopIteration):
        next(generator)


def close_in_another_thread(generator):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(generator.close).result(30)


def throw(generator):
    error = Oops()
    raised = error_of(lambda: generator.throw(error))
    assert error in (raised, *getattr(raised, "exceptions", ()))


def leave(generator):
    for _ in generator:
        break


@everywhere
@pytest.mark.parametrize("end", [close, close_in_another_thread, throw, leave])
def test_a_generator_that_is_ended_early_cleans_up_in_its_task(place, end):
    def steps():
        generator = numbers(log)
        next(generator)
        end(generator)
        generator.close()

    log = []
    place(steps)
    assert log == [True]


@everywhere
def test_a_dropped_generator_cleans_up(place):
    @anysync.generator
    async def items():
        try:
            yield 1
        finally:
            await shielded(anyio.sleep, 0)
            cleaned_up.set()

    cleaned_up = threading.Event()
    place(lambda: next(items()))
    gc.collect()
    assert cleaned_up.wait(30)


# context managers


@everywhere
def test_background_work_goes_on_during_the_body(place):
    async def beat(beats):
        while True:
            await anyio.sleep(0.001)
            beats.release()

    @anysync.contextmanager
    async def heart():
        async with anyio.create_task_group() as tasks:
            beats = threading.Semaphore(0)
            tasks.start_soon(beat, beats)
            yield beats
            tasks.cancel_scope.cancel()

    def body():
        with heart() as beats:
            return [beats.acquire(timeout=30) for _ in range(3)]

    assert place(body) == [True] * 3


# where it runs


def test_code_in_a_loop_runs_on_the_background_thread_of_that_library(backend):
    async def main():
        return thread().run()

    used = {in_loop(lambda: thread().run()) for _ in range(2)}
    used |= set(inline(lambda: [thread().run(), thread().run()]))
    assert [one.name for one in used] == ["anysync background"]
    assert in_loop(lambda: library().run()) == backend
    anysync.configure(backend=other(backend))  # which is for plain code
    assert anyio.run(main, backend=backend) in used
    assert not used & {in_loop(lambda: thread().run())}


# the choice


def other(backend):
    return {"asyncio": "trio", "trio": "asyncio"}[backend]


@everywhere
def test_a_call_chooses_the_backend(place, backend):
    assert place(lambda: library().run(backend=other(backend))) == other(backend)
    assert place(lambda: anysync.run(library(), backend=other(backend))) == other(backend)
    assert place(lambda: library().submit(backend=other(backend)).result(30)) == other(backend)


def test_a_runner_chooses_the_backend(backend):
    for chosen in None, backend, other(backend):
        with anysync.Runner(backend=chosen) as runner:
            assert runner.run(library()) == (chosen or backend)


@everywhere
def test_a_decorator_chooses_the_backend(place, backend):
    async def function():
        await anyio.sleep(0)
        return sniffio.current_async_library()

    async def generator_function():
        await anyio.sleep(0)
        yield sniffio.current_async_library()

    class Items:
        def __aiter__(self):
            return self

        async def __anext__(self):
            return await function()

    def entered(manager):
        with manager as value:
            return value

    chosen = other(backend)
    decorated = {
        anysync.anysync(backend=chosen)(function): lambda coro: coro.run(),
        anysync.coroutine(backend=chosen)(function): anysync.run,
        anysync.anysync(backend=chosen)(generator_function): next,
        anysync.generator(backend=chosen)(generator_function): next,
        anysync.iterator(backend=chosen)(lambda: Items()): next,
        anysync.contextmanager(backend=chosen)(generator_function): entered,
    }
    for make, use in decorated.items():
        assert place(lambda make=make, use=use: use(make())) == chosen
    call = anysync.coroutine(backend=chosen)(function)
    assert place(lambda: call().run(backend=backend)) == backend


def test_a_decorator_with_a_backend_is_awaited_as_ever(backend):
    @anysync.anysync(backend=other(backend))
    async def function():
        return sniffio.current_async_library()

    async def main():
        return await function()

    assert anyio.run(main, backend=backend) == backend


uses_of_a_backend = pytest.mark.parametrize(
    "use",
    [
        lambda backend: anysync.configure(backend=backend),
        lambda backend: anysync.Runner(backend=backend),
        lambda backend: anysync.anysync(backend=backend),
        lambda backend: anysync.coroutine(backend=backend),
        lambda backend: anysync.generator(backend=backend),
        lambda backend: anysync.iterator(backend=backend),
        lambda backend: anysync.contextmanager(backend=backend),
        lambda backend: library().run(backend=backend),
        lambda backend: library().submit(backend=backend),
        lambda backend: anysync.run(library(), backend=backend),
    ],
)


@uses_of_a_backend
def test_an_unknown_backend_is_refused(use):
    with pytest.raises(ValueError, match="unknown backend 'curio': there are 'asyncio' and 'trio'"):
        use("curio")


@uses_of_a_backend
def test_a_backend_that_is_not_installed_is_refused(use, monkeypatch):
    monkeypatch.delitem(sys.modules, "trio", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"the backend 'trio' needs trio: pip install 'anysync\[trio\]'"):
        use("trio")


def test_a_backend_of_the_environment_that_is_not_installed_is_refused(monkeypatch):
    code = "import importlib.util as util; util.find_spec = lambda name: None; import anysync"
    monkeypatch.setenv("ANYSYNC_BACKEND", "trio")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    message = "ImportError: ANYSYNC_BACKEND=trio needs trio: pip install 'anysync[trio]'"
    assert done.stderr.splitlines()[-1] == message


def test_options_are_those_of_the_backend():
    for backend, wrong, known in [
        ("trio", "use_uvloop", "'clock', 'instruments' and 'strict_exception_groups'"),
        ("asyncio", "clock", "'debug', 'loop_factory' and 'use_uvloop'"),
    ]:
        for take in anysync.configure, anysync.Runner:
            with pytest.raises(TypeError) as caught:
                take(backend=backend, backend_options={wrong: None, 5: None})
            assert str(caught.value) == f"unknown backend options '{wrong}', 5: {backend} has {known}"


@pytest.mark.parametrize("take", [anysync.configure, anysync.Runner])
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("clock", "clock must be a trio.abc.Clock or None, not 3"),
        ("instruments", "instruments must be some trio.abc.Instrument, not 3"),
    ],
)
def test_options_of_trio_are_checked(take, option, message):
    with pytest.raises(TypeError) as caught:
        take(backend="trio", backend_options={option: 3})
    assert str(caught.value) == message


def test_an_empty_backend_is_no_backend(backend):
    for use in library().run, library().submit, partial(anysync.run, library()):
        with pytest.raises(ValueError, match="unknown backend ''"):
            use(backend="")


def test_a_runner_stays_on_the_backend_that_its_options_are_of():
    with anysync.Runner(backend_options={"debug": False}) as runner:
        anysync.configure(backend="trio")
        try:
            assert runner.run(library()) == "asyncio"
        finally:
            anysync.configure(backend="asyncio")


def call_nested():
    async def calls():
        await anyio.sleep(0)
        return anysync.run(library())

    return anysync.run(calls(), backend="asyncio")


def call_a_runner():
    with anysync.Runner(backend="asyncio") as runner:
        return runner.run(library())


@pytest.mark.parametrize("call", [call_nested, call_a_runner])
def test_asyncio_runs_what_is_called_from_trio_by_way_of_another_thread(call):
    """Its context says otherwise, which anyio and others ask by way of sniffio."""

    async def main():
        return call()

    assert anyio.run(main, backend="trio") == "asyncio"


def test_a_runner_that_is_older_than_trio_runs_what_is_called_from_it():
    code = """
    import sys
    import anyio, anysync

    async def sleep():
        await anyio.sleep(0)
        return "well"

    async def main():
        print(runner.run(sleep()))

    with anysync.Runner(backend="asyncio") as runner:
        runner.run(sleep())
        print("trio" in sys.modules)
        anyio.run(main, backend="trio")
    """
    assert python(code) == ["False", "well"]


def test_a_runner_on_trio_has_no_loop_to_show():
    with (
        anysync.Runner(backend="trio") as runner,
        pytest.raises(RuntimeError, match=r"no event loop to show: use run\(\) and submit\(\)"),
    ):
        _ = runner.loop


def test_options_of_trio_are_trios():
    class Instrument:
        ran = 0

        def before_task_step(self, task):
            self.ran += 1

    instrument = Instrument()
    with anysync.Runner(backend="trio", backend_options={"instruments": [instrument]}) as runner:
        runner.run(library())
    assert instrument.ran


# what trio and we do to a thread


def state_of_the_thread():
    return (
        sys.get_asyncgen_hooks(),
        getattr(sniffio.thread_local, "name", None),
        signal.getsignal(signal.SIGINT),
        signal.set_wakeup_fd(-1),
    )


def test_a_thread_is_left_as_it_was_found(backend):
    before = state_of_the_thread()
    library().run()
    with opened():
        assert state_of_the_thread() == before
    assert state_of_the_thread() == before


def test_a_loop_of_ones_own_runs_beside_the_kept_one(backend):
    async def main():
        await anyio.sleep(0)
        return sniffio.current_async_library(), library().run()

    library().run()
    assert anyio.run(main, backend="trio") == ("trio", "trio")
    with opened():
        assert anyio.run(main, backend="trio") == ("trio", "trio")
        assert anyio.run(main, backend="asyncio") == ("asyncio", "asyncio")
    assert library().run() == backend


def test_the_private_names_of_trio_are_what_they_were():
    from inspect import signature

    from trio._core import _run

    assert [*signature(_run.setup_runner).parameters] == [
        "clock",
        "instruments",
        "restrict_keyboard_interrupt_to_checkpoints",
        "strict_exception_groups",
    ]
    assert [*signature(_run.unrolled_run).parameters] == [
        "runner",
        "async_fn",
        "args",
        "host_uses_signal_set_wakeup_fd",
    ]
    assert isinstance(_run.GLOBAL_RUN_CONTEXT, threading.local)
    assert "_schedule_points" in dir(_run.Task)


def test_what_a_call_used_dies_with_it(backend):
    class Thing:
        pass

    async def uses(argument, fails):
        await anyio.sleep(0)
        result = Thing()
        things.append(weakref.ref(result))
        if fails:
            raise Oops(result)
        return result

    def use(fails):
        thing = Thing()
        things.append(weakref.ref(thing))
        with suppress(Oops):
            anysync.run(uses(thing, fails))

    things = []
    library().run()
    gc.collect()
    gc.disable()
    try:
        for fails in False, True:
            use(fails)
        library().run()  # trio keeps the last task's outcome until its next turn
        collect_dropped()
        assert [reference() for reference in things] == [None] * 4
    finally:
        gc.enable()
