"""`with cm() as x` is the same as `async with cm() as x`."""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from traceback import extract_tb
from typing import Any, Self

import anyio
import pytest
from anyio import to_thread
from loops import (
    CANCELS,
    TIMEOUTS,
    current_task,
    enter_either,
    own_group,
    own_timeout,
    post,
    start,
    this_loop,
)
from places import in_async_code, in_loop
from pytest_marks import on_asyncio, on_both
from worlds import both_worlds

from anysync import (
    AnySyncContextManager,
    AnySyncIterator,
    Runner,
    contextmanager,
    run,
    wrap_async_context_manager,
)

WATCHDOG = 20
var: ContextVar[str] = ContextVar("var", default="unset")


def outcome(function: Callable[[], object]) -> BaseException | None:
    """Return what `function` raises."""
    try:
        function()
    except BaseException as error:
        return error
    return None


def with_body(manager: Any, body: Callable[[], object] = lambda: None) -> None:
    with manager:
        body()


async def async_with_body(manager: Any, body: Callable[[], object] = lambda: None) -> None:
    async with manager:
        body()


def frames(error: BaseException) -> list[str]:
    return [frame.name for frame in extract_tb(error.__traceback__)]


@contextmanager
async def doubled(n: int) -> AsyncGenerator[int, None]:
    await anyio.sleep(0)
    yield n * 2
    await anyio.sleep(0)


@contextmanager
async def suppressing(*errors: type[BaseException]) -> AsyncGenerator[None, None]:
    try:
        yield
    except errors:
        await anyio.sleep(0)


class Recorder(AnySyncContextManager[Any]):
    """Written as a class, without a call of `super().__init__()`."""

    def __init__(self, suppress: bool = False) -> None:
        self.suppress = suppress
        self.seen: list[object] = []
        self.tasks: list[object] = []

    async def __aenter__(self) -> Self:
        await anyio.sleep(0)
        self.tasks.append(current_task())
        return self

    async def __aexit__(self, typ: object = None, val: object = None, tb: object = None, /) -> bool:
        await anyio.sleep(0)
        self.tasks.append(current_task())
        self.seen.append(val)
        return self.suppress


class Foreign:
    """An async context manager of a library that knows nothing of ours."""

    entered = exited = 0

    async def __aenter__(self) -> str:
        self.entered += 1
        return "resource"

    async def __aexit__(self, *_: object) -> None:
        self.exited += 1


def wrapped_foreign() -> AnySyncContextManager[str]:
    return wrap_async_context_manager(Foreign())


# enter and exit


@both_worlds
def test_with() -> None:
    with doubled(21) as n:
        assert n == 42


def test_async_with(backend: str) -> None:
    async def main() -> None:
        async with doubled(21) as n:
            assert n == 42

    anyio.run(main, backend=backend)


@both_worlds
def test_with_of_a_class() -> None:
    recorder = Recorder()
    with recorder as entered:
        assert entered is recorder
        assert recorder.seen == []
    assert recorder.seen == [None]


def test_async_with_of_a_class(backend: str) -> None:
    async def main() -> None:
        async with Recorder() as recorder:
            assert recorder.seen == []
        assert recorder.seen == [None]
        assert set(recorder.tasks) == {current_task()}

    anyio.run(main, backend=backend)


@both_worlds
def test_wrapped_manager() -> None:
    foreign = Foreign()
    with wrap_async_context_manager(foreign) as resource:
        assert (resource, foreign.entered, foreign.exited) == ("resource", 1, 0)
    assert foreign.exited == 1


def test_wrapped_manager_in_async_code(backend: str) -> None:
    async def main() -> None:
        foreign = Foreign()
        async with wrap_async_context_manager(foreign) as resource:
            assert (resource, foreign.entered, foreign.exited) == ("resource", 1, 0)
        assert foreign.exited == 1

    anyio.run(main, backend=backend)


def test_ours_are_not_wrapped_again() -> None:
    recorder = Recorder()
    assert wrap_async_context_manager(recorder) is recorder


@pytest.mark.parametrize(("thing", "message"), [(doubled, "call it first"), (7, "expected an async")])
def test_wrap_of_something_else_is_a_type_error(thing: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        wrap_async_context_manager(thing)


@both_worlds
def test_nested_withs() -> None:
    with doubled(1) as outer, doubled(outer) as middle, doubled(middle) as inner:
        assert (outer, middle, inner) == (2, 4, 8)


@both_worlds
def test_loop_objects_are_used_in_the_body_by_run() -> None:
    @contextmanager
    async def stream() -> AsyncGenerator[Any, None]:
        async def answer() -> None:
            await reply.send(await requests.receive() + 1)

        request, requests = anyio.create_memory_object_stream[int]()
        reply, replies = anyio.create_memory_object_stream[int]()
        async with request, requests, reply, replies, anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            yield request
            assert await replies.receive() == 42

    with stream() as request:
        run(request.send(41))


# errors


@both_worlds
@pytest.mark.parametrize("suspend", [False, True])
@pytest.mark.parametrize("exit_", [False, True], ids=["enter", "exit"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("bare"),
        ExceptionGroup("its own", [ValueError()]),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        asyncio.CancelledError("its own"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_enter_or_exit_arrives_as_it_is(error: BaseException, exit_: bool, suspend: bool) -> None:
    @contextmanager
    async def failing() -> AsyncGenerator[None, None]:
        if exit_:
            yield
        if suspend:
            await anyio.sleep(0)
        raise error
        yield

    error.__traceback__ = None
    manager = failing()
    raised = outcome(partial(with_body, manager))
    assert raised is error
    assert "failing" in frames(error)
    assert error.__cause__ is None
    assert error.__context__ is None
    with doubled(21) as n:  # the loop lives on
        assert n == 42


@both_worlds
def test_the_body_is_not_run_after_an_error_of_enter() -> None:
    @contextmanager
    async def failing() -> AsyncGenerator[None, None]:
        raise ValueError
        yield

    with pytest.raises(ValueError):  # noqa: PT011
        with_body(failing(), lambda: pytest.fail("the body ran"))


@both_worlds
def test_a_class_made_one_whose_enter_failed_can_be_entered_again() -> None:
    class Flaky(Recorder):
        fail = True

        async def __aenter__(self) -> Self:
            if self.fail:
                raise ConnectionError
            return await super().__aenter__()

    flaky = Flaky()
    with pytest.raises(ConnectionError):
        flaky.__enter__()
    with pytest.raises(RuntimeError, match="not entered"):
        flaky.__exit__()
    flaky.fail = False
    with_body(flaky)
    assert flaky.seen == [None]


@both_worlds
def test_an_error_of_the_body_passes_through_as_the_same_object() -> None:
    def body() -> None:
        raise error

    error, recorder = LookupError(), Recorder()
    assert outcome(partial(with_body, recorder, body)) is error
    assert recorder.seen == [error]
    assert error.__context__ is None
    with pytest.raises(LookupError) as caught:
        with_body(doubled(1), body)
    assert caught.value is error
    assert frames(error)[-2:] == ["with_body", "body"]


@both_worlds
@pytest.mark.parametrize("make", [lambda: suppressing(LookupError), lambda: Recorder(suppress=True)])
def test_an_error_of_the_body_can_be_suppressed(make: Callable[[], Any]) -> None:
    def body() -> None:
        raise KeyError

    with_body(make(), body)


@both_worlds
def test_only_what_is_named_is_suppressed() -> None:
    def body() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        with_body(suppressing(LookupError), body)


@both_worlds
@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        StopIteration(1),
        StopAsyncIteration(),
        GeneratorExit(),
        KeyboardInterrupt(),
        SystemExit(),
    ],
)
@pytest.mark.parametrize("kind", ["passes", "replaces", "suppresses"])
def test_errors_of_the_body_end_as_with_async_with(error: BaseException, kind: str) -> None:
    async def manager() -> AsyncGenerator[None, None]:
        try:
            yield
        except BaseException:
            await anyio.sleep(0)
            if kind == "passes":
                raise
            if kind == "replaces":
                raise replacement from None

    def body() -> None:
        raise error

    async def bare() -> BaseException | None:
        try:
            async with asynccontextmanager(manager)():
                body()
        except BaseException as raised:
            return raised
        return None

    replacement = ConnectionError()
    expected = run(bare())
    replacement.__context__ = None
    raised = outcome(partial(with_body, contextmanager(manager)(), body))
    assert raised is expected
    assert {"passes": error, "replaces": replacement, "suppresses": None}[kind] is raised


class FailingExit(AnySyncContextManager[None, None]):
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *error: object) -> None:
        await anyio.sleep(0)
        raise ConnectionError


@contextmanager
async def failing_exit() -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        raise ConnectionError


@both_worlds
@pytest.mark.parametrize("failing", [FailingExit, failing_exit])
def test_an_error_of_exit_has_that_of_the_body_as_its_context(
    failing: Callable[[], AnySyncContextManager[None, None]],
) -> None:
    def body() -> None:
        raise error

    error = LookupError()
    with pytest.raises(ConnectionError) as caught:
        with_body(failing(), body)
    assert caught.value.__context__ is error


@both_worlds
def test_the_error_of_a_body_is_not_the_context_of_a_group_that_it_is_in() -> None:
    @contextmanager
    async def failing() -> AsyncGenerator[None, None]:
        try:
            yield
        except LookupError as error:
            group = ExceptionGroup("group", [error])
            try:
                raise group from None
            finally:
                group.__context__ = None  # as trio does

    def body() -> None:
        raise LookupError

    with pytest.raises(ExceptionGroup) as caught:
        with_body(failing(), body)
    assert caught.value.__context__ is None


@on_both
def test_the_error_of_a_body_is_told_beside_that_of_a_task_which_has_ended_the_with_meanwhile() -> None:
    @contextmanager
    async def group() -> AsyncGenerator[None, None]:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fail)
                yield
        finally:
            left.set()

    async def fail() -> None:
        raise ConnectionError

    def body() -> None:
        assert left.wait(WATCHDOG)
        raise error

    error, left = LookupError(), threading.Event()
    with pytest.raises(ExceptionGroup) as caught, group():
        body()
    told: BaseException | None = caught.value
    while told is not None and told is not error:
        told = told.__context__
    assert told is error


@both_worlds
def test_a_task_group_makes_its_group_of_an_error_of_the_body() -> None:
    def body() -> None:
        raise error

    @asynccontextmanager
    async def group() -> AsyncGenerator[None, None]:
        async with own_group():
            yield

    error = LookupError()
    with pytest.raises(ExceptionGroup) as caught:
        with_body(wrap_async_context_manager(group()), body)
    assert caught.value.exceptions == (error,)


# how often


@both_worlds
def test_a_function_made_one_is_entered_once() -> None:
    manager = doubled(1)
    with_body(manager)
    with pytest.raises(RuntimeError, match="entered before"):
        with_body(manager)


def test_a_function_made_one_is_entered_once_in_async_code(backend: str) -> None:
    async def main() -> None:
        manager = doubled(1)
        await async_with_body(manager)
        with pytest.raises(RuntimeError, match="entered before"):
            await async_with_body(manager)

    anyio.run(main, backend=backend)


@on_both
@pytest.mark.parametrize("async_first", [False, True])
def test_a_function_made_one_is_entered_once_in_both_worlds_together(async_first: bool) -> None:
    manager = doubled(1)
    uses = [lambda: with_body(manager), lambda: in_async_code(async_with_body, manager)]
    first, second = reversed(uses) if async_first else uses
    first()
    with pytest.raises(RuntimeError, match="entered before"):
        second()


@both_worlds
def test_a_class_made_one_is_used_again_after_it_has_exited() -> None:
    recorder = Recorder()
    with recorder:
        pass
    with recorder:
        pass
    run(async_with_body(recorder))
    assert recorder.seen == [None, None, None]


@both_worlds
@pytest.mark.parametrize(
    "make", [Recorder, lambda: doubled(1), lambda: wrap_async_context_manager(Foreign())]
)
def test_entered_while_it_is_entered_is_an_error(make: Callable[[], Any]) -> None:
    manager = make()
    with manager, pytest.raises(RuntimeError, match="entered"):
        manager.__enter__()
    with pytest.raises(RuntimeError, match="not entered"):
        manager.__exit__(None, None, None)


@both_worlds
@pytest.mark.parametrize(
    "make", [Recorder, lambda: doubled(1), lambda: wrap_async_context_manager(Foreign())]
)
def test_exit_without_enter_is_an_error(make: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match="not entered"):
        make().__exit__(None, None, None)


@both_worlds
def test_exit_needs_no_arguments() -> None:
    recorder = Recorder()
    recorder.__enter__()
    assert not recorder.__exit__()
    assert recorder.seen == [None]


# one task and one context


@both_worlds
def test_enter_and_exit_run_in_one_task() -> None:
    recorder = Recorder()
    with recorder:
        pass
    first, last = recorder.tasks
    assert first is last is not None


@both_worlds
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "scope",
    [
        lambda: own_timeout(60),
        own_group,
        anyio.create_task_group,
        lambda: anyio.fail_after(60),
        lambda: anyio.move_on_after(60),
    ],
    ids=["own timeout", "own group", "anyio group", "fail_after", "move_on_after"],
)
def test_scopes_around_the_yield(scope: Callable[[], Any], fails: bool) -> None:
    @contextmanager
    async def scoped() -> AsyncGenerator[None, None]:
        async with enter_either(scope()), enter_either(own_timeout(60)):
            with suppress(LookupError):  # a task group would make a group of it
                yield
            await anyio.sleep(0)
        left.append(scope)

    def body() -> None:
        if fails:
            raise LookupError

    left: list[object] = []
    with_body(scoped(), body)
    assert left == [scope]


@both_worlds
def test_context_variables_flow_in_and_changes_do_not_flow_out() -> None:
    @contextmanager
    async def changing() -> AsyncGenerator[str, None]:
        seen = var.get()
        token = var.set("inside")
        yield seen
        await anyio.sleep(0)
        assert var.get() == "inside"
        var.reset(token)

    token = var.set("outside")
    try:
        with changing() as seen:
            assert seen == "outside"
            assert var.get() == "outside"
            var.set("changed outside")
        assert var.get() == "changed outside"
    finally:
        var.reset(token)


@both_worlds
def test_a_given_context_can_be_looked_into() -> None:
    @asynccontextmanager
    async def changing() -> AsyncGenerator[None, None]:
        var.set("inside")
        yield

    context = Context()
    with Runner() as runner, runner.enter(changing(), context=context):
        assert context[var] == "inside"
    assert var.get() == "unset"


@on_both
def test_in_plain_code_enter_and_exit_run_on_the_caller() -> None:
    @contextmanager
    async def threads() -> AsyncGenerator[int, None]:
        await anyio.sleep(0)
        yield threading.get_ident()
        await anyio.sleep(0)
        exited_in.append(threading.get_ident())

    exited_in: list[int] = []
    with threads() as entered_in:
        pass
    assert [entered_in] == exited_in == [threading.get_ident()]


@on_both
def test_in_a_loop_enter_and_exit_run_on_the_background_thread() -> None:
    @contextmanager
    async def threads() -> AsyncGenerator[str, None]:
        yield threading.current_thread().name
        exited_in.append(threading.current_thread().name)

    def use() -> None:
        with threads() as name:
            exited_in.append(name)

    exited_in: list[str] = []
    in_loop(use)
    assert exited_in == ["anysync background"] * 2


# what the manager has started goes on during the body


@contextmanager
async def background(job: Callable[[], Awaitable[object]]) -> AsyncGenerator[None, None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(job)
        yield
        tasks.cancel_scope.cancel()


@both_worlds
def test_a_server_answers_a_blocking_client_in_the_body() -> None:
    @contextmanager
    async def shouting_server() -> AsyncGenerator[tuple[str, int], None]:
        async def shout() -> None:
            await anyio.wait_readable(server)
            peer, _ = server.accept()
            with peer:
                await anyio.wait_readable(peer)
                while line := peer.recv(100):
                    peer.sendall(line.upper())
                    await anyio.wait_readable(peer)

        with socket.create_server(("127.0.0.1", 0)) as server:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(shout)
                yield server.getsockname()

    with shouting_server() as address, socket.create_connection(address, WATCHDOG) as client:
        for line in b"one\n", b"two\n":
            client.sendall(line)
            assert client.recv(100) == line.upper()


@both_worlds
def test_a_heart_beat_goes_on_in_the_body() -> None:
    async def beat() -> None:
        for _ in range(3):
            await anyio.sleep(0.001)
        beaten.set()

    beaten = threading.Event()
    with background(beat):
        assert beaten.wait(WATCHDOG)


@both_worlds
def test_what_is_ready_at_once_goes_on_in_the_body() -> None:
    async def spin() -> None:
        for _ in range(100):
            await anyio.sleep(0)
        spun.set()

    spun = threading.Event()
    with background(spin):
        assert spun.wait(WATCHDOG)


@both_worlds
def test_the_end_of_a_job_in_another_thread_is_served_in_the_body() -> None:
    async def job() -> None:
        for _ in range(3):
            waiting.set()
            await to_thread.run_sync(gate.acquire)
        finished.set()

    waiting, finished, gate = threading.Event(), threading.Event(), threading.Semaphore(0)
    with background(job):
        assert waiting.wait(WATCHDOG)
        gate.release(3)
        assert finished.wait(WATCHDOG)
    run(anyio.sleep(0))  # a turn, for anyio to end its thread


@both_worlds
def test_what_is_posted_to_the_loop_is_served_in_the_body() -> None:
    @contextmanager
    async def looking() -> AsyncGenerator[object, None]:
        yield this_loop()

    served = threading.Event()
    with looking() as loop:
        post(loop, served.set)
        assert served.wait(WATCHDOG)


@both_worlds
@on_asyncio
def test_an_interrupt_in_a_background_task_leaves_the_loop_serving() -> None:
    async def interrupted() -> None:
        await anyio.sleep(0)
        raise KeyboardInterrupt

    async def after(task: "asyncio.Task[object]") -> None:
        await asyncio.wait([task])
        served.set()

    @contextmanager
    async def two_tasks() -> AsyncGenerator[None, None]:
        first = asyncio.create_task(interrupted())
        second = asyncio.create_task(after(first))
        yield
        await second
        assert isinstance(first.exception(), KeyboardInterrupt)

    served = threading.Event()
    with two_tasks():
        assert served.wait(WATCHDOG)


# a cancel that comes during the body is thrown in at the yield, and exit answers with what came of it


class Cancelled:
    """What a manager tells its body of a cancel that came during it."""

    def __init__(self) -> None:
        self.left = threading.Event()
        self.seen: list[BaseException] = []

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[None, None]:
        try:
            yield
        except BaseException as error:
            self.seen.append(error)
            raise

    def wait(self) -> None:
        assert self.left.wait(WATCHDOG)
        (cancel,) = self.seen
        assert isinstance(cancel, CANCELS)


@contextmanager
async def failing_child(cancelled: Cancelled, make_group: Callable[[], Any]) -> AsyncGenerator[None, None]:
    async def fail() -> None:
        raise ConnectionError

    try:
        async with make_group() as group:
            start(group, fail)
            async with cancelled.watch():
                yield
    finally:
        await anyio.sleep(0)
        cancelled.left.set()


@contextmanager
async def expired(cancelled: Cancelled, scope: Callable[[float], Any]) -> AsyncGenerator[None, None]:
    try:
        async with enter_either(scope(0)), cancelled.watch():
            yield
    finally:
        await anyio.sleep(0)
        cancelled.left.set()


@both_worlds
@pytest.mark.parametrize("body_fails", [False, True])
@pytest.mark.parametrize("make_group", [own_group, anyio.create_task_group])
def test_exit_raises_the_group_of_a_child_that_failed_in_the_body(make_group: Any, body_fails: bool) -> None:
    def body() -> None:
        cancelled.wait()
        if body_fails:
            raise error

    cancelled, error = Cancelled(), LookupError()
    with pytest.raises(ExceptionGroup) as caught:
        with_body(failing_child(cancelled, make_group), body)
    assert [*map(type, caught.value.exceptions)] == [ConnectionError]


@both_worlds
@pytest.mark.parametrize("scope", [own_timeout, anyio.fail_after])
def test_exit_raises_the_timeout_that_came_during_the_body(scope: Callable[[float], Any]) -> None:
    cancelled = Cancelled()
    with pytest.raises(TIMEOUTS):
        with_body(expired(cancelled, scope), cancelled.wait)


@both_worlds
def test_a_swallowed_cancel_leaves_no_error() -> None:
    cancelled = Cancelled()
    with_body(expired(cancelled, anyio.move_on_after), cancelled.wait)


@both_worlds
def test_after_a_swallowed_cancel_the_body_fails_on_its_own() -> None:
    def body() -> None:
        cancelled.wait()
        raise error

    cancelled, error = Cancelled(), LookupError()
    assert outcome(partial(with_body, expired(cancelled, anyio.move_on_after), body)) is error


@contextmanager
async def cancelling_itself(cancelled: Cancelled) -> AsyncGenerator[None, None]:
    task = current_task()
    assert task is not None
    try:
        async with cancelled.watch():
            asyncio.get_running_loop().call_soon(task.cancel, "its own")
            yield
    finally:
        await anyio.sleep(0)
        cancelled.left.set()


class CancellingItself(Recorder):
    def __init__(self, cancelled: Cancelled) -> None:
        super().__init__()
        self.cancelled = cancelled

    async def __aenter__(self) -> Self:
        task = current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel, "its own")
        return self

    async def __aexit__(self, typ: object = None, val: object = None, tb: object = None, /) -> bool:
        self.cancelled.seen.append(val)
        self.cancelled.left.set()
        return self.suppress


@both_worlds
@on_asyncio
@pytest.mark.parametrize("make", [cancelling_itself, CancellingItself], ids=["function", "class"])
def test_exit_raises_a_cancel_that_the_manager_lets_through(
    make: Callable[[Cancelled], Any],
) -> None:
    cancelled = Cancelled()
    error = outcome(partial(with_body, make(cancelled), cancelled.wait))
    assert type(error) is asyncio.CancelledError
    assert error is cancelled.seen[0]
    assert error.args == ("its own",)


class Empty(Exception):
    """Is false, as an error that is a collection of others may be."""

    def __len__(self) -> int:
        return 0


@both_worlds
@on_asyncio
def test_exit_raises_what_the_manager_makes_of_its_cancel_if_that_is_false_too() -> None:
    class Failing(CancellingItself):
        async def __aexit__(self, typ: object = None, val: object = None, tb: object = None, /) -> bool:
            await super().__aexit__(typ, val, tb)
            raise error

    error, cancelled = Empty(), Cancelled()
    assert outcome(partial(with_body, Failing(cancelled), cancelled.wait)) is error


@both_worlds
@on_asyncio
def test_exit_has_nothing_to_raise_if_the_manager_suppresses_the_cancel() -> None:
    cancelled = Cancelled()
    manager = CancellingItself(cancelled)
    manager.suppress = True
    with_body(manager, cancelled.wait)
    assert len(cancelled.seen) == 1


@both_worlds
def test_a_manager_that_was_cancelled_exits_once_and_can_be_used_again() -> None:
    class Once(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.cancelled = threading.Event()

        async def __aenter__(self) -> Self:
            self.scope = anyio.fail_after(0 if not self.seen else None)
            self.scope.__enter__()
            return self

        async def __aexit__(self, typ: object = None, val: object = None, tb: object = None, /) -> bool:
            self.seen.append(typ)
            self.cancelled.set()
            return bool(self.scope.__exit__(typ, val, tb))

    once = Once()
    with pytest.raises(TimeoutError):
        with_body(once, lambda: once.cancelled.wait(WATCHDOG))
    with_body(once)
    cancel, none = once.seen
    assert cancel in CANCELS
    assert none is None


@both_worlds
def test_a_cancel_leaves_no_trace_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    cancelled = Cancelled()
    with pytest.raises(TIMEOUTS):
        with_body(expired(cancelled, own_timeout), cancelled.wait)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_typed_as_both_kinds_of_context_manager() -> None:
    assert isinstance(doubled(1), AbstractAsyncContextManager)
    assert isinstance(doubled(1), AnySyncContextManager)


@on_both
def test_a_manager_that_was_refused_for_its_context_can_be_entered_later() -> None:
    @contextmanager
    async def one() -> AsyncGenerator[int, None]:
        yield 1

    context = copy_context()
    with Runner() as runner:
        manager = runner.enter(one(), context=context)
        with pytest.raises(RuntimeError, match="entered already"):
            context.run(manager.__enter__)
        with manager as value:
            assert value == 1


@both_worlds
def test_a_subclass_may_call_its_attributes_as_it_likes() -> None:
    class Client(AnySyncContextManager["Client"]):
        def __init__(self) -> None:
            self._session = self._context = self._step = self._steps = self._enter = object()

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None: ...

    with Client() as client:
        assert isinstance(client, Client)


@both_worlds
def test_a_frozen_dataclass_can_be_entered() -> None:
    @dataclass(frozen=True)
    class Lent(AnySyncContextManager[int]):
        value: int

        async def __aenter__(self) -> int:
            return self.value

        async def __aexit__(self, *_: object) -> None: ...

    with Lent(3) as value:
        assert value == 3


@both_worlds
def test_one_object_may_be_a_manager_and_an_iterator() -> None:
    class Stream(AnySyncContextManager["Stream"], AnySyncIterator[int]):
        n = 0
        left = False

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            self.left = True

        async def __anext__(self) -> int:
            self.n += 1
            if self.n > 3:
                raise StopAsyncIteration
            return self.n

    with Stream() as stream:
        assert [*stream] == [1, 2, 3]
    assert stream.left


@on_both
def test_a_signal_handler_of_the_loop_is_called_during_the_body() -> None:
    @contextmanager
    async def handled() -> AsyncGenerator[None, None]:
        async def hear() -> None:
            async for _ in signals:
                heard.set()

        with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hear)
                yield
                tasks.cancel_scope.cancel()

    heard = threading.Event()
    with handled():
        signal.raise_signal(signal.SIGUSR1)
        assert heard.wait(WATCHDOG)
    assert signal.set_wakeup_fd(-1) == -1
