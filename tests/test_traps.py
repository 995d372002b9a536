"""What goes wrong easily: exceptions that are not errors, the eager step, references, tracebacks, exit."""

import asyncio
import concurrent.futures
import contextlib
import gc
import logging
import os
import sys
import threading
import time
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial

import anyio
import pytest
import sniffio
import trio
from loops import (
    TIMEOUTS,
    current_task,
    enter_either,
    leave_behind,
    own_group,
    own_timeout,
    shielded,
    start,
    this_loop,
)
from places import error_of, in_async_code, in_loop, in_thread, nested, nested_in_with, plain
from pytest_marks import dies_at_once, every_place, everywhere, of_cpython, on_both
from scripts import COMPILED, collect_dropped, python, script

import anysync
from anysync import AnySyncCoroutine

kept = pytest.mark.parametrize("place", [plain, in_loop])
suspended_or_not = pytest.mark.parametrize("suspended", [False, True])


class Oops(Exception):
    pass


class Stop(BaseException):
    pass


def runs_one():
    async def nothing():
        pass

    anysync.run(nothing())


def steps_one():
    for _ in numbers():
        pass


def enters_one():
    with entered():
        pass


def steps_deeper():
    for _ in numbers():
        steps_deeper()


def enters_deeper():
    with entered():
        enters_deeper()


@anysync.anysync
async def numbers():
    yield 1


@anysync.contextmanager
async def entered():
    yield 1


@of_cpython  # whose stack has a limit of frames
@on_both
@pytest.mark.parametrize("use", ["runs_one", "steps_one", "enters_one", "steps_deeper", "enters_deeper"])
@script
def test_where_the_stack_is_too_deep_a_recursion_error_is_all_that_happens(use):
    def deeper(levels):
        return deeper(levels - 1) if levels else globals()[use]()

    steps_one()
    sys.setrecursionlimit(200)
    outcomes = set()
    sys.unraisablehook = lambda unraisable: None  # to print those takes ten times as long as all the rest
    with open(os.devnull, "w") as unread, contextlib.redirect_stderr(unread):  # Python's own complaints
        for levels in range(100, 200):
            try:
                deeper(levels)
            except RecursionError:
                outcomes.add("too deep")
            else:
                outcomes.add("went well")
        gc.collect()
    sys.setrecursionlimit(1000)
    sys.unraisablehook = sys.__unraisablehook__
    assert outcomes == ({"too deep"} if "deeper" in use else {"went well", "too deep"})
    runs_one()
    steps_one()
    enters_one()


@of_cpython
@on_both
@pytest.mark.parametrize("in_worker", [False, True])
@script
def test_where_the_stack_is_too_deep_what_has_begun_goes_on_to_its_end(in_worker):
    @anysync.anysync
    async def works():
        log.append("begun")
        try:
            await anyio.sleep(0)
        finally:
            log.append("ended")

    def deeper(levels):
        return deeper(levels - 1) if levels else works().run()

    def call():
        works().run()
        sys.setrecursionlimit(250)
        for levels in range(120, 250):
            log.clear()
            try:
                deeper(levels)
            except RecursionError:
                outcomes.add(tuple(log))
            else:
                outcomes.add("went well")
        sys.setrecursionlimit(1000)

    log, outcomes = [], set()
    sys.unraisablehook = lambda unraisable: None
    with open(os.devnull, "w") as unread, contextlib.redirect_stderr(unread):
        in_async_code(anyio.to_thread.run_sync, call) if in_worker else call()
        gc.collect()
    sys.unraisablehook = sys.__unraisablehook__
    assert {"went well", ()} <= outcomes <= {"went well", (), ("begun", "ended")}


async def current_thread():
    await anyio.sleep(0)
    return threading.current_thread()


async def fail(error, suspended=True):
    if suspended:
        await anyio.sleep(0)
    raise error


async def turn(times=5):
    for _ in range(times):
        await anyio.sleep(0)


@pytest.fixture
def nothing_logged(caplog):
    """Fail the test if a loop logs an error, such as an exception that was never retrieved."""
    yield
    for place in plain, in_loop:
        place(lambda: anysync.run(turn()))
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


# KeyboardInterrupt and SystemExit, raised by a coroutine

interrupts = pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])


@everywhere
@interrupts
@suspended_or_not
def test_an_interrupt_reaches_the_caller_and_the_next_call_works(place, kind, suspended, nothing_logged):
    interrupt = kind("reason")

    def call():
        error = error_of(lambda: anysync.run(fail(interrupt, suspended)))
        return error, anysync.run(current_thread())

    before = [anysync.run(current_thread()), in_loop(lambda: anysync.run(current_thread()))]
    error, thread = place(call)
    assert error is interrupt
    assert place in (nested, nested_in_with, in_thread) or thread in before
    assert before == [anysync.run(current_thread()), in_loop(lambda: anysync.run(current_thread()))]


@everywhere
@interrupts
@suspended_or_not
def test_an_interrupt_of_a_submitted_coroutine_is_in_its_future(place, kind, suspended, nothing_logged):
    interrupt = kind("reason")

    def call():
        return AnySyncCoroutine(fail(interrupt, suspended)).submit().exception(30)

    assert place(call) is interrupt


@every_place
@interrupts
def test_an_interrupt_of_an_awaited_child_task_reaches_the_caller(place, kind):
    interrupt = kind("reason")

    async def main():
        await asyncio.create_task(fail(interrupt))

    assert place(lambda: error_of(lambda: anysync.run(main()))) is interrupt
    assert place(lambda: anysync.run(asyncio.sleep(0, "value"))) == "value"


@everywhere
@interrupts
def test_an_interrupt_of_a_child_in_a_task_group_reaches_the_caller(place, kind, backend, nothing_logged):
    interrupt = kind("reason")

    async def main():
        async with own_group() as group:
            start(group, partial(fail, interrupt))

    error = place(lambda: error_of(lambda: anysync.run(main())))
    if backend == "trio":  # whose nurseries make no exception of it
        (error,) = error.exceptions
    assert error is interrupt
    assert place(lambda: anysync.run(current_thread()))


@on_both
@interrupts
@suspended_or_not
def test_an_interrupt_leaves_other_calls_on_the_background_thread_alone(kind, suspended, nothing_logged):
    interrupt, go, started = kind("reason"), anyio.Event(), threading.Event()

    async def patient():
        started.set()
        await go.wait()
        return threading.current_thread()

    async def release():
        go.set()
        return threading.current_thread()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(in_loop, lambda: anysync.run(patient()))
        assert started.wait(30)
        error = in_loop(lambda: error_of(lambda: anysync.run(fail(interrupt, suspended))))
        background = in_loop(lambda: anysync.run(release()))
        assert waiting.result(30) is background
    assert error is interrupt


@on_both
@interrupts
@suspended_or_not
def test_an_interrupt_leaves_tasks_of_a_kept_loop_alone(kind, suspended, nothing_logged):
    go, went_on, interrupt, kept = anyio.Event(), anyio.Event(), kind("reason"), []

    async def waits():
        await go.wait()
        went_on.set()

    async def leave():
        task = leave_behind(waits)
        await anyio.sleep(0)
        return task

    async def end():
        go.set()
        await went_on.wait()

    kept.append(anysync.run(leave()))
    assert error_of(lambda: anysync.run(fail(interrupt, suspended))) is interrupt
    anysync.run(end(), timeout=30)


# exceptions with a meaning of their own


@everywhere
@suspended_or_not
@pytest.mark.parametrize(
    "make",
    [
        Oops,
        Stop,
        GeneratorExit,
        StopAsyncIteration,
        TimeoutError,
        asyncio.CancelledError,
        concurrent.futures.CancelledError,
        concurrent.futures.InvalidStateError,
        asyncio.InvalidStateError,
        lambda message: ExceptionGroup(message, [Oops()]),
        lambda message: BaseExceptionGroup(message, [KeyboardInterrupt(), Oops()]),
    ],
)
def test_every_exception_arrives_as_itself(place, suspended, make, nothing_logged):
    error = make("message")
    args = error.args
    assert place(lambda: error_of(lambda: anysync.run(fail(error, suspended)))) is error
    assert error.args == args
    assert error.__cause__ is None


@everywhere
@suspended_or_not
def test_stop_iteration_is_made_a_runtime_error_as_by_a_bare_await(place, suspended):
    stop = StopIteration("value")
    bare = error_of(lambda: in_async_code(fail, stop, suspended))
    error = place(lambda: error_of(lambda: anysync.run(fail(stop, suspended))))
    assert type(error) is type(bare) is RuntimeError
    assert str(error) == str(bare)
    assert error.__cause__ is stop


@every_place
def test_a_coroutine_that_is_cancelled_from_within_raises_cancelled_error(place):
    async def cancel_itself():
        asyncio.current_task().cancel("message")
        await asyncio.sleep(0)

    async def await_what_is_cancelled():
        task = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        task.cancel("message")
        await task

    def call():
        return [error_of(lambda f=f: anysync.run(f())) for f in (cancel_itself, await_what_is_cancelled)]

    for error in place(call):
        assert type(error) is asyncio.CancelledError
        assert error.args == ("message",)


@every_place
def test_a_cancel_that_is_swallowed_and_uncancelled_leaves_no_trace(place):
    async def main():
        task = asyncio.current_task()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return task.uncancel()

    assert place(lambda: anysync.run(main())) == 0


# the eager step


async def surroundings(suspended):
    if suspended:
        await anyio.sleep(0)
    hooks = sys.get_asyncgen_hooks()
    return {
        "library": sniffio.current_async_library(),
        "hooks": hooks.firstiter is not None and hooks.finalizer is not None,
        **(surroundings_on_trio() if trio.lowlevel.in_trio_run() else surroundings_on_asyncio()),
    }


def surroundings_on_asyncio():
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    return {
        "is_running": loop.is_running(),
        "task": isinstance(task, asyncio.Task) and task.get_coro().__name__,
        "task's loop": task.get_loop() is loop,
        "in all_tasks": task in asyncio.all_tasks(),
        "not done": not task.done(),
    }


def surroundings_on_trio():
    task = trio.lowlevel.current_task()
    return {
        "in a task": trio.lowlevel.in_trio_task(),
        "task": task.name,
        "in a nursery": task in task.parent_nursery.child_tasks,
        "no deadline": trio.current_effective_deadline() == float("inf"),
    }


SURROUNDINGS = {
    "asyncio": {
        "is_running": True,
        "task": "surroundings",
        "task's loop": True,
        "in all_tasks": True,
        "not done": True,
    },
    "trio": {
        "in a task": True,
        "task": "surroundings",
        "in a nursery": True,
        "no deadline": True,
    },
}


@everywhere
@suspended_or_not
def test_each_step_has_all_that_a_loop_gives(place, suspended, backend):
    expected = {"library": backend, "hooks": True} | SURROUNDINGS[backend]
    assert place(lambda: anysync.run(surroundings(suspended))) == expected


@suspended_or_not
@pytest.mark.parametrize("end", [lambda: None, lambda: fail(Oops(), False).send(None), KeyboardInterrupt])
def test_a_call_leaves_the_thread_as_it_was(suspended, end, backend):
    loops = []

    async def main():
        if suspended:
            await anyio.sleep(0)
        loops.append(this_loop())
        if isinstance(ending := end(), BaseException):
            raise ending

    def mine(generator):
        raise AssertionError

    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(mine, mine)
    try:
        with contextlib.suppress(Oops, KeyboardInterrupt):
            anysync.run(main())
        assert sys.get_asyncgen_hooks() == (mine, mine)
    finally:
        sys.set_asyncgen_hooks(*before)
    assert type(error_of(sniffio.current_async_library)) is sniffio.AsyncLibraryNotFoundError
    assert type(error_of(asyncio.get_running_loop)) is RuntimeError
    assert not trio.lowlevel.in_trio_run()
    if backend == "asyncio":
        assert asyncio.current_task(loops[0]) is None
        assert asyncio.all_tasks(loops[0]) == set()
        assert not loops[0].is_running()


@on_both
@suspended_or_not
def test_a_call_inside_a_loop_leaves_the_current_task_as_it_was(suspended):
    async def main():
        task, loop = current_task(), this_loop()
        anysync.run(surroundings(suspended))
        same = task is current_task(), loop is this_loop()
        await anyio.sleep(0)
        return *same, task is current_task(), loop is this_loop()

    assert in_async_code(main) == (True,) * 4
    assert anysync.run(main()) == (True,) * 4
    assert in_loop(lambda: anysync.run(main())) == (True,) * 4


@on_both
@kept
@suspended_or_not
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # as trio calls it
def test_an_abandoned_async_generator_is_closed_by_the_loop(place, suspended):
    closed = []

    async def generator():
        try:
            yield
        finally:
            await shielded(anyio.sleep, 0)
            closed.append(this_loop())

    async def abandon():
        if suspended:
            await anyio.sleep(0)
        await anext(generator())
        return this_loop()

    loop = place(lambda: anysync.run(abandon()))
    collect_dropped()
    place(lambda: anysync.run(turn()))
    assert closed == [loop]


async def asyncio_wait_for():
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0.001)
    except TimeoutError:
        return True


async def asyncio_task_group():
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(Oops()))
            await asyncio.Event().wait()
    except* Oops:
        pass
    return asyncio.current_task().cancelling() == 0


async def trio_move_on_after():
    with trio.move_on_after(0.001) as scope:
        await trio.sleep_forever()
    return scope.cancelled_caught


async def trio_nursery():
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, Oops())
            await trio.sleep_forever()
    except* Oops:
        pass
    return trio.current_effective_deadline() == float("inf")


async def timeout_of_the_library():
    try:
        async with enter_either(own_timeout(0.001)) as scope:
            await anyio.sleep_forever()
    except TIMEOUTS:
        return scope.cancelled_caught if trio.lowlevel.in_trio_run() else scope.expired()


async def anyio_move_on_after():
    with anyio.move_on_after(0.001) as scope:
        await anyio.sleep_forever()
    return scope.cancelled_caught


async def anyio_fail_after():
    try:
        with anyio.fail_after(0.001):
            await anyio.sleep_forever()
    except TimeoutError:
        return True


async def anyio_task_group():
    seen = []

    async def child():
        seen.append(anyio.get_current_task().id)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(child)
        while not seen:
            await anyio.sleep(0)
        group.cancel_scope.cancel()
    return seen != [anyio.get_current_task().id]


async def anyio_scope_that_never_suspends():
    with anyio.CancelScope():
        return anyio.get_current_task().name is not None


ON_BOTH = [
    timeout_of_the_library,
    anyio_move_on_after,
    anyio_fail_after,
    anyio_task_group,
    anyio_scope_that_never_suspends,
]


@every_place
@pytest.mark.parametrize(
    ("backend", "use"),
    [
        *((backend, use) for backend in ("asyncio", "trio") for use in ON_BOTH),
        *(("asyncio", use) for use in (asyncio_wait_for, asyncio_task_group)),
        *(("trio", use) for use in (trio_move_on_after, trio_nursery)),
    ],
    indirect=["backend"],
)
def test_scopes_opened_in_the_first_step_work(place, backend, use):
    assert place(lambda: anysync.run(use())) is True
    assert place(lambda: AnySyncCoroutine(use()).submit().result(30)) is True


def try_everything(oops):
    """Return the outcome of each kind of call."""

    @anysync.generator
    async def numbers():
        yield 1
        await asyncio.sleep(0)
        yield 2

    @anysync.contextmanager
    async def manager():
        await asyncio.sleep(0)
        yield "entered"

    with manager() as entered:
        return [
            anysync.run(asyncio.sleep(0, "value")),
            error_of(lambda: anysync.run(fail(oops, False))),
            error_of(lambda: anysync.run(fail(oops, True))),
            type(error_of(lambda: anysync.run(asyncio.Event().wait(), timeout=0.001))),
            AnySyncCoroutine(asyncio.sleep(0, "value")).submit().result(30),
            list(numbers()),
            entered,
        ]


def everything(oops):
    return ["value", oops, oops, TimeoutError, "value", [1, 2], "entered"]


@kept
def test_a_loop_with_a_task_factory_works_and_uses_it(place):
    made, oops = [], Oops()

    def factory(loop, coro, **options):
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    async def use(factory):
        asyncio.get_running_loop().set_task_factory(factory)

    def call():
        place(lambda: anysync.run(use(factory)))
        try:
            return place(lambda: try_everything(oops))
        finally:
            place(lambda: anysync.run(use(None)))

    assert in_thread(call) == everything(oops)
    assert len(made) >= 7


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@kept
def test_a_loop_with_an_eager_task_factory_works(place):
    oops = Oops()

    async def use(factory):
        asyncio.get_running_loop().set_task_factory(factory)

    def call():
        place(lambda: anysync.run(use(asyncio.eager_task_factory)))
        try:
            return place(lambda: try_everything(oops))
        finally:
            place(lambda: anysync.run(use(None)))

    assert in_thread(call) == everything(oops)


@kept
@pytest.mark.parametrize("debug", [False, True])
def test_a_loop_may_change_its_debug_mode(place, debug):
    oops = Oops()

    async def set_debug(value):
        loop = asyncio.get_running_loop()
        before = loop.get_debug()
        loop.set_debug(value)
        return before

    def call():
        before = place(lambda: anysync.run(set_debug(debug)))
        try:
            return place(lambda: try_everything(oops))
        finally:
            assert place(lambda: anysync.run(set_debug(before))) is debug

    assert in_thread(call) == everything(oops)


# references


class Thing:
    pass


class Deaths:
    """Of objects that were watched: they may die in another thread, a moment after a call has returned."""

    def __init__(self):
        self.awaited = []

    def watch(self, thing):
        died = threading.Event()
        weakref.finalize(thing, died.set)
        self.awaited.append(died)
        return thing

    def count(self):
        deadline = time.monotonic() + 5
        return sum(died.wait(max(0, deadline - time.monotonic())) for died in self.awaited)


@pytest.fixture
def deaths():
    gc.disable()
    yield Deaths()
    gc.enable()


held = ContextVar("held")


async def succeed(deaths, suspended):
    held.set(deaths.watch(Thing()))
    local = deaths.watch(Thing())
    if suspended:
        await anyio.sleep(0)
    return deaths.watch(local if local is None else Thing())


async def fail_holding(deaths, suspended):
    held.set(deaths.watch(Thing()))
    local = deaths.watch(Thing())
    if suspended:
        await anyio.sleep(0)
    if local is not None:
        raise deaths.watch(Oops())


async def exit_holding(deaths, suspended):
    held.set(deaths.watch(Thing()))
    local = deaths.watch(Thing())
    if suspended:
        await anyio.sleep(0)
    if local is not None:
        raise deaths.watch(Stop())


async def time_out(deaths, suspended):
    held.set(deaths.watch(Thing()))
    local = deaths.watch(Thing())
    await anyio.sleep_forever()
    return local


def run_to_the_end(coro, deaths, **options):
    timeout = 0.001 if coro.__name__ == "time_out" else 30
    with contextlib.suppress(Oops, Stop, TimeoutError):
        anysync.run(coro, timeout=timeout, **options)


@dies_at_once
@everywhere
@suspended_or_not
@pytest.mark.parametrize("function", [succeed, fail_holding, exit_holding, time_out])
@pytest.mark.parametrize("own_context", [False, True])
def test_what_a_call_used_dies_with_the_callers_last_reference(
    place, suspended, function, own_context, deaths
):
    def call():
        options = {"context": deaths.watch(copy_context())} if own_context else {}
        run_to_the_end(deaths.watch(function(deaths, suspended)), deaths, **options)

    def count():
        call()
        return deaths.count()

    assert place(count) == len(deaths.awaited) >= 3


@dies_at_once
@everywhere
@pytest.mark.parametrize("function", [succeed, fail_holding, exit_holding])
def test_what_a_submitted_call_used_dies_with_the_future(place, function, deaths):
    def call():
        coro = AnySyncCoroutine(deaths.watch(function(deaths, True)))
        with contextlib.suppress(Oops, Stop):
            deaths.watch(coro.submit(context=deaths.watch(copy_context()))).result(30)

    def count():
        call()
        return deaths.count()

    assert place(count) == len(deaths.awaited) >= 6


@dies_at_once
@everywhere
def test_what_a_call_was_refused_dies(place, deaths):
    def call():
        context, coro = deaths.watch(copy_context()), deaths.watch(succeed(deaths, False))
        context.run(error_of, lambda: anysync.run(coro, context=context))

    def count():
        call()
        return deaths.count()

    assert place(count) == len(deaths.awaited) == 2


# tracebacks

OURS = os.path.dirname(anysync.__file__), "anysync_ext"  # where the compiled core says it is


def frames_of(error):
    """Return the names of the functions in the traceback, and how many of them are ours."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    codes = [code for code in codes if code.co_filename not in COMPILED]
    others = [code.co_name for code in codes if os.path.dirname(code.co_filename) not in OURS]
    return others, len(codes) - len(others)


async def outer(error, suspended):
    await fail(error, suspended)


@everywhere
@suspended_or_not
@pytest.mark.parametrize("kind", [Oops, Stop, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("run", [anysync.run, lambda coro: AnySyncCoroutine(coro).run()])
def test_a_traceback_has_the_callers_frames_and_the_coroutines_and_one_of_ours(place, suspended, kind, run):
    def call_it():
        run(outer(kind(), suspended))

    def call():
        names, ours = frames_of(error_of(call_it))
        return [name for name in names if name != "<lambda>"], ours

    names, ours = place(call)
    assert names == ["error_of", "call_it", "outer", "fail"]
    assert ours <= 1


@everywhere
def test_the_traceback_of_a_timeout_has_the_callers_frames_and_one_of_ours(place):
    def call_it():
        anysync.run(anyio.sleep_forever(), timeout=0.001)

    names, ours = place(lambda: frames_of(error_of(call_it)))
    assert names == ["error_of", "call_it"]
    assert ours <= 1


@everywhere
def test_the_traceback_of_a_future_has_none_of_our_frames_but_one(place):
    error = place(lambda: error_of(AnySyncCoroutine(outer(Oops(), True)).submit().result))
    names, ours = frames_of(error)
    assert names[-2:] == ["outer", "fail"]
    assert ours <= 1


@everywhere
@suspended_or_not
def test_an_exception_that_is_raised_again_and_again_does_not_grow(place, suspended):
    async def raise_afresh():
        await fail(error.with_traceback(None), suspended)

    error = Oops()
    lengths = {
        len(traceback.extract_tb(place(lambda: error_of(lambda: anysync.run(raise_afresh()))).__traceback__))
        for _ in range(3)
    }
    assert len(lengths) == 1


@everywhere
@suspended_or_not
def test_an_exception_that_grows_by_itself_grows_as_much_as_python_makes_it(place, suspended):
    error = Oops()
    counts = []
    for _ in range(3):
        place(lambda: error_of(lambda: anysync.run(outer(error, suspended))))
        names, ours = frames_of(error)
        counts.append((names.count("outer"), names.count("fail"), ours <= names.count("outer")))
    assert counts == [(1, 1, True), (2, 2, True), (3, 3, True)]


class Inner(Exception):
    pass


async def raise_from(suspended):
    try:
        await fail(Inner(), suspended)
    except Inner as inner:
        error = Oops()
        error.add_note("note")
        raise error from inner


async def raise_from_none(suspended):
    try:
        await fail(Inner(), suspended)
    except Inner:
        error = Oops()
        error.add_note("note")
        raise error from None


async def raise_in_context(suspended):
    try:
        await fail(Inner(), suspended)
    except Inner:
        error = Oops()
        error.add_note("note")
        raise error  # noqa: B904


@everywhere
@suspended_or_not
@pytest.mark.parametrize("function", [raise_from, raise_from_none, raise_in_context])
def test_cause_and_context_and_notes_survive_a_caller_that_handles_another_error(place, suspended, function):
    def call():
        try:
            raise KeyError("which the caller handles")
        except KeyError:
            return error_of(lambda: anysync.run(function(suspended)))

    error = place(call)
    assert type(error) is Oops
    assert type(error.__context__) is Inner
    assert type(error.__cause__) is (Inner if function is raise_from else type(None))
    assert error.__suppress_context__ is (function is not raise_in_context)
    assert error.__notes__ == ["note"]


@everywhere
def test_the_cause_of_a_timeout_survives_a_caller_that_handles_another_error(place):
    oops = Oops()

    async def main():
        try:
            await anyio.sleep_forever()
        finally:
            raise oops

    def call():
        try:
            raise KeyError("which the caller handles")
        except KeyError:
            return error_of(lambda: anysync.run(main(), timeout=0.001))

    assert place(call).__cause__ is oops


# the end of the process, and its beginning


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("registered_first", [False, True])
def test_calls_from_atexit_work(used_before, registered_first, backend):
    imports = ["import anysync", "atexit.register(late)"]
    program = f"""
import anyio, atexit

async def work(suspended):
    if suspended:
        await anyio.sleep(0.001)
    return "value"

async def fail():
    await anyio.sleep(0)
    raise KeyError

def late():
    print(anysync.run(work(False)), anysync.run(work(True)), anysync.run(work(True), timeout=30))
    try:
        anysync.run(fail())
    except KeyError:
        print("error")

{chr(10).join(reversed(imports) if registered_first else imports)}
anysync.configure(backend={backend!r})
if {used_before}:
    anysync.run(work(True))
"""
    assert python(program) == ["value", "value", "value", "error"]


@of_cpython
@pytest.mark.parametrize("kept_alive_by", ["builtins", "__main__", "anysync"])
def test_calls_from_a_destructor_at_the_end_of_the_process_work(kept_alive_by, backend):
    assert python(
        f"""
        import {backend}, {kept_alive_by}
        import anysync

        class Late:
            def __init__(self):
                self.run, self.work, self.print = anysync.run, work, print

            def __del__(self):
                self.print(self.run(self.work(0)), self.run(self.work(0.001)))

        async def work(seconds, sleep={backend}.sleep):
            await sleep(seconds)
            return "value"

        anysync.configure(backend="{backend}")
        anysync.run(work(0))  # the first call imports the backend, for which it would be too late then
        {kept_alive_by}.late = Late()
        """
    ) == ["value", "value"]


def test_importing_anysync_imports_neither_asyncio_nor_anyio():
    assert (
        python(
            """
        import sys
        before = set(sys.modules)  # a tool that watches the process may have imported some
        import anysync
        new = set(sys.modules) - before
        print(*{"asyncio", "anyio", "trio", "concurrent.futures", "threading"} & new)
        """
        )
        == []
    )


# the loop that other code left behind


def in_fresh_thread_with(loop, call):
    """Call in a thread whose current loop is `loop`; return the outcome, and the current loop then."""

    def main():
        asyncio.set_event_loop(loop)
        try:
            return call(), asyncio.get_event_loop()
        finally:
            asyncio.set_event_loop(None)

    return in_thread(main)


def test_a_closed_current_loop_does_no_harm_and_stays_current():
    loop = asyncio.new_event_loop()
    loop.close()
    assert in_fresh_thread_with(loop, lambda: anysync.run(asyncio.sleep(0, "value"))) == ("value", loop)
    assert in_fresh_thread_with(loop, lambda: anysync.run(asyncio.sleep(0, "value"), 30)) == ("value", loop)


def test_a_current_loop_that_does_not_run_is_left_alone():
    async def running_loop():
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    loop = asyncio.new_event_loop()
    try:
        used, current = in_fresh_thread_with(loop, lambda: anysync.run(running_loop()))
        assert current is loop is not used
        assert loop.run_until_complete(running_loop()) is loop
    finally:
        loop.close()


# what is private to asyncio, and what ours relies on


@pytest.fixture
def bare_loop():
    with asyncio.Runner(debug=False) as runner:
        yield runner.get_loop()


@pytest.mark.parametrize(
    "name",
    [
        "_asyncgen_finalizer_hook",
        "_asyncgen_firstiter_hook",
        "_closed",
        "_csock",
        "_debug",
        "_ready",
        "_scheduled",
        "_selector",
        "_signal_handlers",
        "_ssock",
        "_stopping",
        "_task_factory",
        "_thread_id",
        "_write_to_self",
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="a selector loop's")
def test_a_bare_loop_has_the_private_name(bare_loop, name):
    assert hasattr(bare_loop, name)


def test_the_private_names_of_a_running_loop_mean_what_they_did(bare_loop):
    async def main():
        hooks = bare_loop._asyncgen_firstiter_hook, bare_loop._asyncgen_finalizer_hook
        handle, timer = bare_loop.call_soon(print), bare_loop.call_later(1000, print)
        ready, scheduled = list(bare_loop._ready), list(bare_loop._scheduled)
        handle.cancel()
        timer.cancel()
        return [
            bare_loop._thread_id == threading.get_ident(),
            sys.get_asyncgen_hooks() == hooks,
            ready == [handle],
            scheduled == [timer],
            len(bare_loop._selector.get_map()) == 1,
            (bare_loop._debug, bare_loop._task_factory, bare_loop._stopping, bare_loop._closed),
        ]

    assert bare_loop.run_until_complete(main()) == [True] * 5 + [(False, None, False, False)]
    assert bare_loop._thread_id is None


def test_a_task_schedules_its_step_through_the_call_soon_of_the_instance(bare_loop):
    handles = []

    def catch(callback, *args, context=None):
        handles.append(asyncio.Handle(callback, args, bare_loop, context))
        return handles[-1]

    bare_loop.call_soon = catch
    context = copy_context()
    task = asyncio.Task(asyncio.sleep(0), loop=bare_loop, context=context)
    del bare_loop.call_soon
    (handle,) = handles
    assert handle._callback.__self__ is task
    assert handle._context is context
    assert task._log_destroy_pending is True
    bare_loop._ready.append(handle)
    assert bare_loop.run_until_complete(task) is None
