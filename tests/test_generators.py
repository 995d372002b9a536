"""`for x in g()` is the same as `async for x in g()`, and so are `next`, `send`, `throw` and `close`."""

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from contextvars import Context, ContextVar, Token
from functools import partial
from traceback import extract_tb
from types import TracebackType
from typing import Any

import anyio
import pytest
from loops import TIMEOUTS, call_soon, current_task, enter_either, own_group, own_timeout, start, this_loop
from places import error_of, in_loop, plain
from pytest_marks import on_asyncio, on_both
from scripts import PYPY, collect_dropped
from worlds import both_worlds

from anysync import (
    AnySyncGenerator,
    AnySyncIterator,
    Runner,
    anysync,
    coroutine,
    generator,
    iterator,
    run,
    wrap_async_generator,
    wrap_async_iterator,
)

WATCHDOG = 20
var: ContextVar[str] = ContextVar("var", default="unset")


def errors_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what the loops' exception handlers reported: debug mode logs slow callbacks too."""
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


class Kept:
    """An async iterator that its maker goes on with."""

    def __init__(self) -> None:
        self.number = 0

    def __aiter__(self) -> "Kept":
        return self

    async def __anext__(self) -> int:
        self.number += 1
        if self.number > 4:
            raise StopAsyncIteration
        return self.number

    async def aclose(self) -> None:
        self.number = 4


@both_worlds
@pytest.mark.parametrize("wrap", [wrap_async_iterator, iterator(lambda kept: kept), Runner.iterate])
def test_what_is_no_generator_is_left_open_at_a_break_as_in_async_code(wrap: Any) -> None:
    with Runner() as runner:
        wrapped = partial(wrap, runner) if wrap is Runner.iterate else wrap
        kept = Kept()
        for first in wrapped(kept):
            assert first == 1
            break
        gc.collect()
        assert list(wrapped(kept)) == [2, 3, 4]
        kept.number = 0
        steps = wrapped(kept)
        next(steps)
        steps.close()
        assert list(wrapped(kept)) == []


@both_worlds
@pytest.mark.parametrize("end", ["close", "drop"])
def test_a_task_group_around_a_yield_is_no_error_when_nobody_asked(
    end: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = []

    @generator
    async def items() -> AsyncGenerator[int, None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            try:
                yield 1
            finally:
                tasks.cancel_scope.cancel()
                log.append("closed")

    steps = items()
    next(steps)
    if end == "close":  # as `aclose` of the bare one
        with pytest.raises(BaseExceptionGroup) as caught:
            steps.close()
        assert caught.value.split(GeneratorExit)[1] is None
        caught.value.__traceback__ = None
    del steps
    gc.collect()
    run(anyio.sleep(0))  # what is dropped in a loop is closed elsewhere, some time before that
    assert log == ["closed"]
    assert errors_in(caplog) == []


class Closing:
    """Says when a generator's clean-up, with awaits in it, is through, and how it went."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.tasks: list[object] = []
        self.same_context = False

    @generator
    async def items(self) -> AsyncGenerator[int, None]:
        token = var.set("inside")
        try:
            for n in range(3):
                self.tasks.append(current_task())
                yield n
                await anyio.sleep(0)
        finally:
            await anyio.sleep(0)
            self.tasks.append(current_task())
            with suppress(ValueError):
                var.reset(token)
                self.same_context = True
            self.done.set()

    def assert_closed_in_own_task(self) -> None:
        collect_dropped()
        assert self.done.wait(WATCHDOG)
        assert self.same_context
        assert len(self.tasks) > 1
        assert len(set(self.tasks)) == 1
        assert self.tasks[0] is not None


@generator
async def echo(first: str = "ready") -> AsyncGenerator[str, str]:
    """Yield what is sent, or the name of what is thrown."""
    reply = first
    while reply != "stop":
        try:
            sent = yield reply
        except LookupError as error:
            reply = repr(error)
        else:
            await anyio.sleep(0)
            reply = sent
        if reply is None:
            return


class Countdown:
    """An async iterator of a library that knows nothing of ours."""

    def __init__(self, start: int) -> None:
        self.left = start
        self.tasks: set[object] = set()

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        await anyio.sleep(0)
        self.tasks.add(current_task())
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left


class ClosableCountdown(Countdown):
    closed_in: object = None

    async def aclose(self) -> None:
        await anyio.sleep(0)
        self.closed_in = current_task()


# iteration, in both worlds


def test_async_for(backend: str) -> None:
    async def main() -> list[str]:
        return [item async for item in echo("only")]

    assert anyio.run(main, backend=backend) == ["only"]


def test_async_steps(backend: str) -> None:
    async def main() -> None:
        it = echo()
        assert await anext(it) == "ready"
        assert await it.asend("a") == "a"
        assert await it.athrow(KeyError("b")) == "KeyError('b')"
        assert await it.athrow(KeyError, KeyError("c"), None) == "KeyError('c')"
        assert await it.athrow(KeyError, "d") == "KeyError('d')"
        assert await it.athrow(KeyError) == "KeyError()"
        await it.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(it)

    anyio.run(main, backend=backend)


def test_in_async_code_the_generator_runs_in_the_task_of_its_caller(backend: str) -> None:
    @generator
    async def tasks() -> AsyncGenerator[object, None]:
        yield current_task()

    async def main() -> None:
        assert [task async for task in tasks()] == [current_task()]
        async with aclosing(tasks()) as it:  # trio warns of one that nobody closes
            assert await anext(it.__aiter__()) is current_task()

    anyio.run(main, backend=backend)


@both_worlds
def test_for() -> None:
    assert list(echo("only")) == ["only"]


@both_worlds
def test_for_over_a_long_generator_keeps_the_order() -> None:
    @anysync
    async def count() -> AsyncGenerator[int, None]:
        for n in range(300):
            if n % 3:
                await anyio.sleep(0)
            yield n

    assert [*count()] == [*range(300)]


@both_worlds
def test_sync_steps() -> None:
    it = echo()
    assert next(it) == "ready"
    assert it.send("a") == "a"
    assert it.throw(KeyError("b")) == "KeyError('b')"
    it.close()
    with pytest.raises(StopIteration):
        next(it)


@both_worlds
def test_throw_takes_three_arguments() -> None:
    it = echo()
    next(it)
    assert it.throw(KeyError, KeyError("a"), None) == "KeyError('a')"
    assert it.throw(KeyError, "b") == "KeyError('b')"
    assert it.throw(KeyError, ("c", "d")) == "KeyError('c', 'd')"
    assert it.throw(KeyError) == "KeyError()"
    with pytest.raises(TypeError, match="leave out 'f', or pass the class"):
        it.throw(KeyError("e"), "f")  # type: ignore[call-overload]
    assert it.send("g") == "g"
    it.close()


@both_worlds
def test_throw_takes_a_traceback() -> None:
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        fail()
    it = echo()
    next(it)
    with pytest.raises(ValueError) as thrown:  # noqa: PT011
        it.throw(ValueError, ValueError(), caught.tb)
    assert "fail" in [frame.name for frame in extract_tb(thrown.tb)]


@both_worlds
def test_throw_of_something_else_is_a_type_error_and_changes_nothing() -> None:
    it = echo()
    next(it)
    with pytest.raises(TypeError, match="BaseException"):
        it.throw("no exception")  # type: ignore[arg-type]
    assert it.send("a") == "a"
    it.close()


@both_worlds
def test_send_of_a_value_to_a_fresh_generator_is_a_type_error() -> None:
    it = echo()
    with pytest.raises(TypeError, match="just-started"):
        it.send("too early")
    it.close()  # else trio warns of it, as in async code


@both_worlds
def test_throw_into_a_fresh_generator_raises_it() -> None:
    error = LookupError()
    it = echo()
    with pytest.raises(LookupError) as caught:
        it.throw(error)
    assert caught.value is error
    assert [*it] == []


@both_worlds
@pytest.mark.parametrize("step", [next, lambda it: it.send("x"), lambda it: it.send(None)])
def test_exhausted_stays_exhausted(step: Callable[[Any], object]) -> None:
    it = echo("only")
    assert next(it) == "only"
    for _ in range(2):
        with pytest.raises(StopIteration) as stop:
            it.send("stop")
        assert stop.value.value is None
        assert stop.value.__cause__ is None
    with pytest.raises(StopIteration):
        step(it)


@both_worlds
def test_closed_again_and_closed_fresh() -> None:
    it = echo()
    it.close()
    it.close()
    assert [*it] == []


@both_worlds
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # which PyPy has trio give
def test_close_of_one_that_goes_on_is_a_runtime_error() -> None:
    @generator
    async def stubborn() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            yield 2

    it = stubborn()
    next(it)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        it.close()
    del it
    collect_dropped()


@both_worlds
def test_stop_iteration_inside_is_a_runtime_error() -> None:
    @generator
    async def stopping() -> AsyncGenerator[int, None]:
        yield 1
        raise StopIteration

    it = stopping()
    next(it)
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        next(it)
    assert isinstance(caught.value.__cause__, StopIteration)


# one world for each object


@both_worlds
@pytest.mark.parametrize(
    "step",
    [
        anext,
        lambda it: it.asend(None),
        lambda it: it.athrow(KeyError()),
        lambda it: it.aclose(),
        lambda it: aiter(it),
    ],
)
def test_begun_in_sync_code_it_cannot_go_on_in_async_code(step: Callable[[Any], Any]) -> None:
    async def main() -> None:
        await step(it)

    it = echo()
    next(it)
    with pytest.raises(RuntimeError, match="begun in sync code"):
        run(main())
    assert it.send("unharmed") == "unharmed"
    it.close()


@pytest.mark.parametrize(
    "step", [next, lambda it: it.send(None), lambda it: it.throw(KeyError()), lambda it: it.close(), list]
)
def test_begun_in_async_code_it_cannot_go_on_in_sync_code(step: Callable[[Any], Any], backend: str) -> None:
    async def main() -> None:
        it = echo()
        await anext(it)
        with pytest.raises(RuntimeError, match="begun in async code"):
            step(it)
        assert await it.asend("unharmed") == "unharmed"
        await it.aclose()

    anyio.run(main, backend=backend)


def test_the_worlds_of_an_iterator_do_not_mix(backend: str) -> None:
    async def main() -> None:
        begun_in_sync = wrap_async_iterator(Countdown(3))
        next(begun_in_sync)
        with pytest.raises(RuntimeError, match="begun in sync code"):
            await anext(begun_in_sync)
        with pytest.raises(RuntimeError, match="begun in sync code"):
            aiter(begun_in_sync)
        begun_in_async = wrap_async_iterator(Countdown(3))
        async for _ in begun_in_async:
            with pytest.raises(RuntimeError, match="begun in async code"):
                next(begun_in_async)
        begun_in_sync.close()

    anyio.run(main, backend=backend)


def test_the_worlds_of_a_subclass_do_not_mix(backend: str) -> None:
    class Three(AnySyncIterator[int]):
        async def __anext__(self) -> int:
            return 3

    async def main() -> None:
        begun_in_sync = Three()
        next(begun_in_sync)
        with pytest.raises(RuntimeError, match="begun in sync code"):
            aiter(begun_in_sync)
        begun_in_async = Three()
        async for _ in begun_in_async:
            with pytest.raises(RuntimeError, match="begun in async code"):
                next(begun_in_async)
            break
        begun_in_sync.close()

    anyio.run(main, backend=backend)


# what can be iterated: subclasses, the functions' own iterators, other libraries' objects


class Squares(AnySyncIterator[int]):
    def __init__(self, end: int) -> None:
        self.n, self.end = -1, end
        self.tasks: set[object] = set()

    async def __anext__(self) -> int:
        await anyio.sleep(0)
        self.tasks.add(current_task())
        self.n += 1
        if self.n == self.end:
            raise StopAsyncIteration
        return self.n**2


class Reversing(AnySyncGenerator[str, str]):
    """A generator written as a class; `None` ends it."""

    def __init__(self) -> None:
        self.thrown: list[str] = []

    async def asend(self, value: str | None, /) -> str:
        await anyio.sleep(0)
        if value == "end":
            raise StopAsyncIteration
        return "ready" if value is None else value[::-1]

    async def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> str:
        await anyio.sleep(0)
        error = typ() if isinstance(typ, type) else typ
        self.thrown.append(type(error).__name__)
        if isinstance(error, KeyError):
            return "caught"
        raise error


@both_worlds
def test_subclass_of_iterator_in_sync_code() -> None:
    it = Squares(3)
    assert iter(it) is it
    assert [*it] == [0, 1, 4]
    assert len(it.tasks) == 1
    it.close()


def test_subclass_of_iterator_in_async_code(backend: str) -> None:
    async def main() -> list[int]:
        return [n async for n in Squares(3)]

    assert anyio.run(main, backend=backend) == [0, 1, 4]


@both_worlds
def test_subclass_of_generator_in_sync_code() -> None:
    it = Reversing()
    assert next(it) == "ready"
    assert it.send("ab") == "ba"
    assert it.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration):
        it.send("end")
    it.close()
    assert it.thrown == ["KeyError", "GeneratorExit"]


def test_subclass_of_generator_in_async_code(backend: str) -> None:
    async def main() -> None:
        it = Reversing()
        assert await anext(it) == "ready"
        assert await it.asend("ab") == "ba"
        assert await it.athrow(KeyError()) == "caught"
        await it.aclose()
        assert it.thrown == ["KeyError", "GeneratorExit"]

    anyio.run(main, backend=backend)


class Rows(AnySyncIterator[int]):
    """Hands its iteration over to another iterator, a new one each time."""

    async def __aiter__(self) -> AsyncIterator[int]:  # type: ignore[override]
        for n in range(3):
            await anyio.sleep(0)
            yield n

    async def __anext__(self) -> int:
        raise NotImplementedError


@both_worlds
def test_subclass_whose_own_aiter_returns_itself() -> None:
    class Beats(AnySyncIterator[str]):
        def __aiter__(self) -> "Beats":
            return self

        async def __anext__(self) -> str:
            return "beat"

    beats = Beats()
    assert iter(beats) is beats
    assert next(beats) == "beat"


@both_worlds
def test_subclass_with_another_iterator_in_sync_code() -> None:
    rows = Rows()
    assert [*rows] == [*rows] == [0, 1, 2]


def test_subclass_with_another_iterator_in_async_code(backend: str) -> None:
    async def main() -> list[int]:
        return [n async for n in Rows()]

    assert anyio.run(main, backend=backend) == [0, 1, 2]


@pytest.mark.parametrize(("cls", "missing"), [(AnySyncIterator, "__anext__"), (AnySyncGenerator, "asend")])
def test_subclass_without_its_methods_cannot_be_made(cls: type, missing: str) -> None:
    with pytest.raises(TypeError, match=missing):
        type("Incomplete", (cls,), {})()


@both_worlds
def test_iterator_decorates_a_function_that_returns_an_async_iterator() -> None:
    made: list[Countdown] = []

    @iterator
    def countdown(start: int) -> AsyncIterator[int]:
        made.append(Countdown(start))
        return made[-1]

    assert [*countdown(3)] == [2, 1, 0]
    assert len(made[0].tasks) == 1
    assert isinstance(countdown(1), AnySyncIterator)
    assert not isinstance(countdown(1), AnySyncGenerator)


def test_iterator_in_async_code(backend: str) -> None:
    @iterator
    def countdown(start: int) -> AsyncIterator[int]:
        return Countdown(start)

    async def main() -> None:
        assert [n async for n in countdown(3)] == [2, 1, 0]
        assert await anext(countdown(3)) == 2

    anyio.run(main, backend=backend)


@both_worlds
def test_wrapped_iterator() -> None:
    foreign = Countdown(3)
    it = wrap_async_iterator(foreign)
    assert next(it) == 2
    assert [*it] == [1, 0]
    assert [*it] == []
    it.close()


@both_worlds
def test_wrapped_iterator_is_closed_in_its_task_if_it_can_be() -> None:
    foreign = ClosableCountdown(3)
    it = wrap_async_iterator(foreign)
    next(it)
    it.close()
    assert {foreign.closed_in} == foreign.tasks


@both_worlds
def test_iterator_goes_on_in_its_task_after_an_error() -> None:
    class Flaky(Countdown):
        async def __anext__(self) -> int:
            n = await super().__anext__()
            if n == 1:
                raise ConnectionError
            return n

    foreign = Flaky(3)
    it = wrap_async_iterator(foreign)
    assert next(it) == 2
    with pytest.raises(ConnectionError):
        next(it)
    assert next(it) == 0
    assert len(foreign.tasks) == 1
    it.close()


@both_worlds
def test_wrapped_generator() -> None:
    async def numbers() -> AsyncGenerator[int, int]:
        sent = 0
        while True:
            sent = yield sent * 2

    it = wrap_async_generator(numbers())
    assert next(it) == 0
    assert it.send(21) == 42
    it.close()


@pytest.mark.parametrize("make", [lambda: wrap_async_generator(echo()), lambda: wrap_async_iterator(echo())])
def test_ours_are_not_wrapped_again(make: Callable[[], Any]) -> None:
    assert type(make()) is type(echo())


@pytest.mark.parametrize(
    ("wrap", "thing", "message"),
    [
        (wrap_async_generator, Countdown(1), "expected an async generator"),
        (wrap_async_iterator, echo, "call it first"),
        (wrap_async_iterator, [1, 2], "expected an async iterator"),
        (wrap_async_generator, 7, "expected an async generator"),
    ],
)
def test_wrap_of_something_else_is_a_type_error(wrap: Any, thing: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        wrap(thing)


# one task and one context for all steps


@both_worlds
@pytest.mark.parametrize("end", ["exhaustion", "break", "throw", "close", "collection"])
@pytest.mark.parametrize(
    "scope",
    [
        lambda: own_timeout(60),
        own_group,
        anyio.create_task_group,
        lambda: anyio.fail_after(60),
        lambda: anyio.move_on_after(60),
        lambda: VarSet(),
    ],
    ids=[
        "own timeout",
        "own task group",
        "anyio task group",
        "fail_after",
        "move_on_after",
        "context variable",
    ],
)
def test_scopes_around_the_yields(scope: Any, end: str, caplog: pytest.LogCaptureFixture) -> None:
    left = threading.Event()
    tasks: set[object] = set()

    @generator
    async def items() -> AsyncGenerator[int, None]:
        async with enter_either(scope()), aclosing(steps()) as inner:
            async for n in inner:
                try:
                    yield n
                except (GeneratorExit, LookupError):  # a task group would make a group of it
                    break
        await anyio.sleep(0)
        tasks.add(current_task())
        left.set()

    async def steps() -> AsyncGenerator[int, None]:
        for n in range(3):
            tasks.add(current_task())
            await anyio.sleep(0)
            yield n

    if end == "exhaustion":
        assert [*items()] == [0, 1, 2]
    elif end == "break":
        for n in items():
            if n == 1:
                break
    else:
        it = items()
        assert next(it) == 0
        if end == "throw":
            with pytest.raises(StopIteration):
                it.throw(LookupError())
        elif end == "close":
            it.close()
        del it
        gc.collect()
    collect_dropped()
    assert left.wait(WATCHDOG)
    assert len(tasks) == 1
    assert not errors_in(caplog)


class VarSet:
    """Sets the variable, and resets it, which works in the same context only."""

    def __enter__(self) -> None:
        self.token: Token[str] = var.set("inside")

    def __exit__(self, *_: object) -> None:
        assert var.get() == "inside"
        var.reset(self.token)


@both_worlds
@pytest.mark.parametrize("make_group", [own_group, anyio.create_task_group])
def test_close_raises_what_aclose_raises(make_group: Callable[[], Any], backend: str) -> None:
    async def items() -> AsyncGenerator[int, None]:
        async with make_group():
            yield 1

    async def bare() -> None:
        async with aclosing(items()) as agen:
            await anext(agen)

    def raised(function: Callable[[], object]) -> list[type[BaseException]]:
        try:
            function()
        except BaseExceptionGroup as group:
            return [*map(type, group.exceptions)]
        return []

    it = generator(items)()
    next(it)
    # since Python 3.15, asyncio's own lets a GeneratorExit through as it is
    grouped = (make_group, backend) != (own_group, "asyncio") or sys.version_info < (3, 15)
    assert raised(it.close) == raised(lambda: run(bare())) == [GeneratorExit] * grouped


@both_worlds
def test_tasks_of_the_generator_go_on_between_its_steps() -> None:
    ticked = threading.Event()

    @generator
    async def items() -> AsyncGenerator[None, None]:
        async def tick() -> None:
            for _ in range(3):
                await anyio.sleep(0.001)
            ticked.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            yield

    for _ in items():
        assert ticked.wait(WATCHDOG)


@both_worlds
def test_context_variables_flow_in_and_changes_do_not_flow_out() -> None:
    @generator
    async def items() -> AsyncGenerator[str, None]:
        yield var.get()
        var.set("inside")
        await anyio.sleep(0)
        yield var.get()
        yield var.get()

    token = var.set("outside")
    try:
        it = items()
        assert next(it) == "outside"
        assert next(it) == "inside"
        assert var.get() == "outside"
        var.set("changed outside")
        assert next(it) == "inside"
        it.close()
    finally:
        var.reset(token)


@both_worlds
def test_a_given_context_can_be_looked_into() -> None:
    async def items() -> AsyncGenerator[None, None]:
        var.set("inside")
        yield

    context = Context()
    with Runner() as runner:
        for _ in runner.iterate(items(), context=context):
            assert context[var] == "inside"
    assert var.get() == "unset"


@both_worlds
def test_a_given_context_that_is_entered_is_an_error() -> None:
    context = Context()
    with Runner() as runner:
        it = runner.iterate(Countdown(3), context=context)
        with pytest.raises(RuntimeError, match="entered already"):
            context.run(next, it)
        assert next(it) == 2
        it.close()


# errors


@both_worlds
@pytest.mark.parametrize("suspend", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("bare"),
        ExceptionGroup("its own", [ValueError(), KeyError()]),
        BaseExceptionGroup("its own", [KeyboardInterrupt()]),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        asyncio.CancelledError("its own"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_generator_arrives_as_it_is(error: BaseException, suspend: bool) -> None:
    @coroutine
    async def look() -> object:
        return this_loop()

    @generator
    async def failing() -> AsyncGenerator[object, None]:
        yield this_loop()
        if suspend:
            await anyio.sleep(0)
        raise error

    error.__traceback__ = None
    it = failing()
    loop = next(it)
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        next(it)
    assert caught.value is error
    assert "failing" in [frame.name for frame in extract_tb(caught.tb)]
    assert error.__cause__ is None
    assert error.__context__ is None
    assert [*it] == []
    assert look().run() is loop


@both_worlds
def test_an_error_thrown_in_comes_out_as_the_same_object() -> None:
    error = ValueError()
    it = echo()
    next(it)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        it.throw(error)
    assert caught.value is error


@both_worlds
def test_an_interrupt_thrown_in_comes_out_and_the_loop_lives_on() -> None:
    it = echo()
    next(it)
    with pytest.raises(KeyboardInterrupt):
        it.throw(KeyboardInterrupt())
    assert [*echo("still served")] == ["still served"]


# the end: clean-up with awaits in it runs in the generator's own task


@both_worlds
def test_close_waits_for_the_clean_up() -> None:
    closing = Closing()
    it = closing.items()
    next(it)
    it.close()
    assert closing.done.is_set()
    closing.assert_closed_in_own_task()


@both_worlds
def test_break_closes() -> None:
    closing = Closing()
    for _ in closing.items():
        break
    closing.assert_closed_in_own_task()


def test_break_in_plain_code_waits_for_the_clean_up() -> None:
    """Where no helper turns the loop meanwhile, as it does on trio."""
    closing = Closing()
    for _ in closing.items():
        break
    collect_dropped()
    assert closing.done.is_set()


@both_worlds
def test_an_error_in_the_body_closes() -> None:
    def body() -> None:
        for _ in closing.items():
            raise error

    closing, error = Closing(), LookupError()
    assert error_of(body) is error
    if PYPY:
        error.with_traceback(None)  # whose frame holds the generator there
    closing.assert_closed_in_own_task()


@both_worlds
def test_the_last_reference_closes() -> None:
    closing = Closing()
    it = closing.items()
    next(it)
    next(it)
    del it
    closing.assert_closed_in_own_task()


@both_worlds
def test_collection_of_a_cycle_closes() -> None:
    closing = Closing()
    it: Any = closing.items()
    next(it)
    it.myself = it
    del it
    assert not closing.done.is_set()
    gc.collect()
    closing.assert_closed_in_own_task()


def clear(held: list[Any]) -> None:
    held.clear()
    collect_dropped()


@both_worlds
@pytest.mark.parametrize("collecting_world", [plain, in_loop])
def test_collected_in_another_thread(collecting_world: Callable[[Callable[[], Any]], Any]) -> None:
    closing = Closing()
    held = [closing.items()]
    next(held[0])
    thread = threading.Thread(target=collecting_world, args=(lambda: clear(held),))
    thread.start()
    thread.join()
    assert not held
    closing.assert_closed_in_own_task()


@on_both
def test_collected_while_a_loop_runs_in_its_own_thread() -> None:
    closing = Closing()
    held = [closing.items()]
    next(held[0])
    in_loop(lambda: clear(held))
    closing.assert_closed_in_own_task()


@on_both
def test_collected_inside_its_own_loop() -> None:
    closing = Closing()
    held = [closing.items()]
    next(held[0])

    @coroutine
    async def clears() -> None:
        clear(held)

    clears().run()
    closing.assert_closed_in_own_task()


@both_worlds
def test_a_collected_subclass_is_closed_in_its_task() -> None:
    closed = threading.Event()

    class Closable(Squares):
        async def aclose(self) -> None:
            await anyio.sleep(0)
            self.tasks.add(current_task())
            closed.set()

    it = Closable(3)
    tasks = it.tasks
    next(it)
    del it
    gc.collect()
    assert closed.wait(WATCHDOG)
    assert len(tasks) == 1


@both_worlds
@pytest.mark.parametrize("begun", [False, True])
def test_nothing_is_left_to_close_of_one_that_is_exhausted_or_fresh(
    begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    it = echo("only")
    if begun:
        assert [*it] == ["only"]
    del it
    gc.collect()
    assert not errors_in(caplog)


@both_worlds
@pytest.mark.parametrize("suspend", [False, True])
def test_an_error_in_the_clean_up_of_a_collected_generator_is_reported(suspend: bool, backend: str) -> None:
    error = ValueError("in the clean-up")
    records: list[logging.LogRecord] = []
    reported = threading.Event()

    @generator
    async def failing() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if suspend:
                await anyio.sleep(0)
            raise error

    class Reports(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)
            reported.set()

    logger = logging.getLogger({"asyncio": "asyncio", "trio": "anysync"}[backend])
    logger.addHandler(handler := Reports(logging.ERROR))
    try:
        for _ in failing():
            break
        collect_dropped()
        assert reported.wait(WATCHDOG)
    finally:
        logger.removeHandler(handler)
    (record,) = records
    assert record.exc_info is not None
    assert record.exc_info[1] is error


# a cancel that comes between two steps is not lost


class BetweenSteps:
    """Has something happen after the generator has yielded, and waits until its task has heard of it."""

    def __init__(self) -> None:
        self.heard = threading.Event()

    def tell(self, *_: object) -> None:
        """Say so once what is ready now has run, and what that makes ready."""
        call_soon(call_soon, self.heard.set)

    async def fail(self) -> None:
        raise ConnectionError

    def wait(self) -> None:
        assert self.heard.wait(WATCHDOG)


@both_worlds
@pytest.mark.parametrize("make_group", [own_group, anyio.create_task_group])
def test_the_next_step_gets_the_failure_of_a_child(make_group: Callable[[], Any]) -> None:
    between = BetweenSteps()
    reached: list[str] = []

    @generator
    async def items() -> AsyncGenerator[None, None]:
        async with make_group() as group:
            start(group, between.fail)
            call_soon(between.tell)
            yield
            reached.append("after the yield")
            await anyio.Event().wait()

    it = items()
    next(it)
    between.wait()
    with pytest.raises(ExceptionGroup) as caught:
        next(it)
    assert [*map(type, caught.value.exceptions)] == [ConnectionError]
    assert reached == ["after the yield"]
    assert [*it] == []


@both_worlds
@pytest.mark.parametrize("make_scope", [own_timeout, anyio.fail_after])
def test_the_next_step_gets_the_expired_timeout(make_scope: Callable[[float], Any]) -> None:
    between = BetweenSteps()

    @generator
    async def items() -> AsyncGenerator[int, None]:
        async with enter_either(make_scope(0)):
            between.tell()
            yield 1
            await anyio.Event().wait()

    it = items()
    assert next(it) == 1
    between.wait()
    with pytest.raises(TIMEOUTS):
        next(it)
    assert [*it] == []


@both_worlds
def test_a_scope_that_swallows_its_cancel_lets_the_generator_go_on() -> None:
    between = BetweenSteps()
    cancelling: list[int] = []

    @generator
    async def items() -> AsyncGenerator[int, None]:
        with anyio.move_on_after(0):
            between.tell()
            yield 1
            yield 2
            await anyio.sleep(0)
            yield -1
        await anyio.sleep(0)
        cancelling.append(getattr(current_task(), "cancelling", int)())
        yield 3

    it = items()
    assert next(it) == 1
    between.wait()
    assert [*it] == [2, 3]
    assert cancelling == [0]


@both_worlds
@on_asyncio
def test_a_cancel_between_steps_waits_for_the_first_await() -> None:
    between = BetweenSteps()

    @generator
    async def items() -> AsyncGenerator[int, None]:
        task = current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        loop.call_soon(task.cancel, "its own")
        between.tell()
        yield 1
        yield 2
        try:
            await anyio.sleep(0)
        except asyncio.CancelledError as error:
            yield error.args[0]

    it: Any = items()
    assert next(it) == 1
    between.wait()
    assert [*it] == [2, "its own"]


@both_worlds
def test_a_cancel_between_steps_reaches_the_clean_up_of_close() -> None:
    between = BetweenSteps()
    cleaned = threading.Event()

    @generator
    async def items() -> AsyncGenerator[int, None]:
        try:
            async with enter_either(own_timeout(0)):
                between.tell()
                try:
                    yield 1
                finally:
                    await anyio.Event().wait()
        except TIMEOUTS:
            cleaned.set()

    it = items()
    next(it)
    between.wait()
    it.close()
    assert cleaned.is_set()


# where it runs


@on_both
def test_in_plain_code_every_step_runs_on_the_caller() -> None:
    @generator
    async def threads() -> AsyncGenerator[int, None]:
        for _ in range(3):
            yield threading.get_ident()
            await anyio.sleep(0)

    assert set(threads()) == {threading.get_ident()}


@on_both
def test_in_a_loop_every_step_runs_on_the_one_background_thread() -> None:
    @generator
    async def threads() -> AsyncGenerator[str, None]:
        for _ in range(3):
            yield threading.current_thread().name
            await anyio.sleep(0)

    assert in_loop(lambda: {*threads(), *threads()}) == {"anysync background"}


@both_worlds
def test_many_generators_side_by_side() -> None:
    iterators = [wrap_async_iterator(Countdown(n)) for n in range(20)]
    with ThreadPoolExecutor(4) as pool:
        in_pool = [*pool.map(lambda n: [*wrap_async_iterator(Countdown(n))], range(20))]
    assert [[*it] for it in iterators] == in_pool == [[*range(n)][::-1] for n in range(20)]


@both_worlds
def test_an_iterator_may_iterate_itself_to_its_end() -> None:
    class Drained(AnySyncIterator[int]):
        n = 0

        async def __anext__(self) -> int:
            self.n += 1
            if self.n > 3:
                raise StopAsyncIteration
            return self.n

        async def aclose(self) -> None:
            async for _ in self:
                pass

    it = Drained()
    assert next(it) == 1
    it.close()
    assert it.n == 4


def test_what_a_function_returns_can_be_closed_in_async_code_too(backend: str) -> None:
    @iterator
    def items() -> AsyncGenerator[int, None]:
        async def inner() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                closed.append(True)

        return inner()

    async def main() -> None:
        async with aclosing(items()) as it:  # type: ignore[type-var]
            assert await anext(it) == 1

    closed: list[bool] = []
    anyio.run(main, backend=backend)
    assert closed == [True]
