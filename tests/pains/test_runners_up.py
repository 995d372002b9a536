"""Complaints that are heard less often, or of some kinds of programs only."""

import asyncio
import sys
import threading
import types
from asyncio.events import _set_running_loop
from concurrent.futures import CancelledError
from contextvars import Context, ContextVar

import anyio
import pytest
import scripts
from places import error_of, plain
from pytest_marks import everywhere
from scripts import in_loop, python, raised, script

import anysync
from anysync._host import new_thread

var = ContextVar("var", default=None)


@anysync.coroutine
async def one(turns=1):
    for _ in range(turns):
        await anyio.sleep(0)
    return 1


@anysync.generator
async def ones():
    yield await one()
    yield await one()


@anysync.contextmanager
async def opened():
    yield await one()


@script
def test_where_there_are_no_threads_plain_code_works():
    """zarr-developers/zarr-python#1903, pydantic/pydantic-ai#6086: Pyodide has none."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    threading.Thread.start = start
    assert one().run() == one(0).run() == one().run(timeout=60) == 1
    assert list(ones()) == [1, 1]
    with opened() as value:
        assert value == 1
    error = raised(lambda: in_loop(one().run))
    assert "needs a thread of its own: can't start new thread" in str(error)
    assert one().run() == 1


@script(options=["-X", "thread_inherit_context=1"])
def test_our_threads_inherit_no_context():
    """agronholm/anyio#1224: as threads do by default in free-threaded Pythons since 3.14."""

    @anysync.coroutine
    async def look():
        await asyncio.sleep(0)
        return var.get()

    def first_call():
        var.set("of whoever came first")
        in_loop(look().run)

    def call():
        return in_loop(look().run)

    seen = []
    Context().run(first_call)
    assert Context().run(call) is None
    var.set("of whoever started the thread")
    thread = new_thread("new", lambda: seen.append(var.get()))
    thread.start()
    thread.join()
    assert seen == [None]


@everywhere
@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("message", ["no running event loop", "This event loop is already running"])
def test_a_runtime_error_of_the_user_is_not_taken_for_a_missing_loop(place, turns, message):
    """jupyter/jupyter_core#424, jupyter/jupyter_core#437: the probing `try` is around the call."""
    error, calls = RuntimeError(message), []

    async def fail():
        calls.append(1)
        await one(turns)
        raise error

    assert place(lambda: error_of(lambda: anysync.run(fail()))) is error
    assert calls == [1]
    assert error.__context__ is None


class ForeignLoop(asyncio.AbstractEventLoop):
    """A loop of a framework that replays: it is the running one, and nobody else can do anything with it."""

    def is_running(self):
        return True

    def get_debug(self):
        return False


def test_a_foreign_loop_that_cannot_be_driven_is_left_alone():
    """pydantic/pydantic-ai#8161: the loop of a Temporal workflow."""
    loop = ForeignLoop()
    _set_running_loop(loop)
    try:
        assert one().run() == one().submit().result(30) == 1
        assert list(ones()) == [1, 1]
        with opened() as value:
            assert value == 1
        assert asyncio.get_running_loop() is loop
    finally:
        _set_running_loop(None)


def test_the_loop_is_looked_for_at_the_call_and_not_at_the_decoration():
    """django/asgiref#545, django/asgiref#558: a loop that has stopped between two tests of pytest-asyncio."""

    async def decorate():
        @anysync.coroutine
        async def loop_of():
            await asyncio.sleep(0)
            return asyncio.get_running_loop()

        return loop_of, asyncio.get_running_loop(), loop_of()

    with asyncio.Runner() as runner:
        loop_of, loop, made_inside = runner.run(decorate())
        kept = made_inside.run()  # it is open, and runs no longer
        assert kept is not loop
        assert runner.run(loop_of().coro) is loop
    assert loop_of().run() is kept
    assert in_loop(loop_of().run) not in (loop, kept)


@script
def test_a_loop_factory_sees_every_task():
    """django/asgiref#572: a monitor patches internals where it is given nothing to hook into."""
    seen = []

    def watch(loop, coro, **options):
        seen.append(coro.__name__)
        return asyncio.Task(coro, loop=loop, **options)

    def make_loop():
        loop = asyncio.new_event_loop()
        loop.set_task_factory(watch)
        return loop

    anysync.configure(backend_options={"loop_factory": make_loop})
    for place in scripts.plainly, in_loop:
        assert place(one().run) == 1
        assert seen.pop() == "one"
        assert place(one().submit().result) == 1
        assert seen.pop() == "one"
    assert seen == []


@pytest.mark.parametrize("first", ["cancel", "completion"])
@pytest.mark.parametrize("place", [plain, scripts.in_loop])
def test_a_cancel_races_with_completion(place, first):
    """modal-labs/synchronicity#205, modal-labs/synchronicity#208, agronholm/anyio#1011."""
    futures, answers, cleaned_up = [], [], []
    begun, done = threading.Event(), threading.Event()
    go_on = []

    async def work():
        try:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            go_on.append(lambda: loop.call_soon_threadsafe(future.set_result, None))
            loop.call_soon(begun.set)
            await future
            if first == "cancel":  # in the very step in which it returns
                thread = threading.Thread(target=cancel)
                thread.start()
                thread.join()
            return 1
        finally:
            cleaned_up.append(1)

    def cancel():
        answers.append(futures[0].cancel())

    def call():
        future = anysync.wrap_coroutine(work()).submit()
        futures.append(future)
        future.add_done_callback(lambda _: done.set())
        assert begun.wait(30)
        go_on[0]()
        assert done.wait(30)
        if first == "cancel":
            assert type(error_of(future.result)) is CancelledError
        else:
            cancel()
            assert future.result() == 1
        return one().run()

    assert place(call) == 1
    assert answers == [first == "cancel"]
    assert cleaned_up == [1]


@everywhere
@pytest.mark.parametrize("turns", [0, 1])
def test_stop_iteration_out_of_a_coroutine(place, turns):
    """A portal of anyio once hung, its future refusing it; here it is what a bare await makes of it."""

    async def fail(error):
        await one(turns)
        raise error

    stop = StopIteration(1)
    error = place(lambda: error_of(lambda: anysync.run(fail(stop))))
    assert type(error) is RuntimeError
    assert error.__cause__ is stop
    stop_async = StopAsyncIteration(1)
    assert place(lambda: error_of(lambda: anysync.run(fail(stop_async)))) is stop_async


@everywhere
@pytest.mark.parametrize("stop", [StopIteration, StopAsyncIteration])
def test_stop_iteration_out_of_a_generator_does_not_end_the_for(place, stop):
    """A bridge made StopAsyncIteration a StopIteration, which ends the `for` in silence."""

    @anysync.generator
    async def rows():
        yield 1
        raise stop

    error = place(lambda: error_of(lambda: list(rows())))
    assert type(error) is RuntimeError
    assert type(error.__cause__) is stop


GEVENT = """
from gevent import monkey
monkey.patch_all()
import asyncio, faulthandler
import anysync
faulthandler.dump_traceback_later(20, exit=True)

async def one():
    await asyncio.sleep(0.01)
    return 1

def call():
    try:
        return anysync.run(one())
    except RuntimeError as error:
        return "greenlets" if "greenlets in the place of threads" in str(error) else error

async def calls():
    return call()
"""


@pytest.mark.parametrize(
    ("use", "printed"),
    [
        ("print(call(), call())", ["1", "1"]),
        ("print(asyncio.run(calls()), call())", ["greenlets", "1"]),
    ],
    ids=["plain code", "in a loop"],
)
def test_gevent(use, printed):
    """django/asgiref#443, modal-labs/synchronicity#66, gevent/gevent#2213: greenlets share a running loop."""
    pytest.importorskip("gevent")
    assert python(GEVENT + use) == printed


@script
def test_where_threads_are_greenlets_what_needs_a_thread_says_so():
    """django/asgiref#443: without gevent, of which only the module is looked for that patches."""
    sys.modules["gevent.monkey"] = types.SimpleNamespace(is_module_patched="threading".__eq__)
    assert one().run() == 1
    assert list(ones()) == [1, 1]
    error = raised(lambda: in_loop(one().run))
    assert "needs a thread of its own: gevent has put greenlets in the place of threads" in str(error)
    assert one().run() == 1
