"""Read by mypy and pyright, never run: what the types of the public names must come out as.

A line with both ignore comments must be rejected by both checkers, which complain of unused ones.
"""

from asyncio import AbstractEventLoop, gather
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, assert_type, overload

import anysync as package
from anysync import (
    AnySyncContextManager,
    AnySyncCoroutine,
    AnySyncGenerator,
    AnySyncIterator,
    Runner,
    anysync,
    configure,
    contextmanager,
    coroutine,
    generator,
    iterator,
    run,
    wrap_async_context_manager,
    wrap_async_generator,
    wrap_async_iterator,
    wrap_coroutine,
)

T = TypeVar("T")


@anysync
async def fetch(url: str, *, retries: int = 0) -> bytes:
    return url.encode()


@coroutine
async def nothing() -> None: ...


@anysync
async def numbers(n: int) -> AsyncGenerator[int, str]:
    got = yield n
    assert_type(got, str)


@generator
async def letters() -> AsyncGenerator[str]:
    yield "a"


@anysync
async def annotated_as_iterator() -> AsyncIterator[float]:
    yield 1.0


class Ticks(AsyncIterator[int]):
    async def __anext__(self) -> int:
        return 1


@iterator
def ticks() -> Ticks:
    return Ticks()


@contextmanager
async def opened(path: str) -> AsyncGenerator[list[str]]:
    yield [path]


@contextmanager
async def opened_as_iterator(path: str) -> AsyncIterator[list[str]]:
    yield [path]


async def awaited() -> None:
    assert_type(await fetch("x"), bytes)
    assert_type([x async for x in numbers(1)], list[int])
    assert_type(await gather(fetch("x"), nothing()), tuple[bytes, None])
    assert_type(await anext(numbers(1)), int)
    assert_type(await numbers(1).asend("x"), int)
    assert_type([x async for x in ticks()], list[int])
    async with opened("x") as lines:
        assert_type(lines, list[str])


@overload
def parse(raw: str) -> AnySyncCoroutine[int]: ...
@overload
def parse(raw: bytes) -> AnySyncCoroutine[float]: ...
@anysync
async def parse(raw: str | bytes) -> int | float:
    return len(raw)


@anysync
async def first(items: list[T]) -> T:
    return items[0]


def in_any_world(context: Context, optional: str | None, items: list[bytes]) -> None:
    assert_type(parse("1").run(), int)
    assert_type(parse(b"1").run(), float)
    assert_type(first(items).run(), bytes)
    assert_type(first([1]).submit(), Future[int])
    fetch(optional)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    numbers(optional)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    opened(optional)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def in_any_world_too(context: Context) -> None:
    assert_type(await parse("1"), int)
    assert_type(await first([1]), int)


def functions(context: Context) -> None:
    assert_type(fetch("x"), AnySyncCoroutine[bytes])
    assert_type(fetch("x").run(), bytes)
    assert_type(fetch("x", retries=1).run(1.5, context=context), bytes)
    assert_type(fetch("x").submit(), Future[bytes])
    assert_type(nothing().run(), None)
    fetch("x").hex()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    fetch(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    fetch("x", tries=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    fetch("x").run("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    fetch("x").run(context={})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def generators() -> None:
    assert_type(numbers(1), AnySyncGenerator[int, str])
    assert_type(list(numbers(1)), list[int])
    assert_type(next(numbers(1)), int)
    assert_type(numbers(1).send("x"), int)
    assert_type(numbers(1).throw(ValueError()), int)
    assert_type(numbers(1).close(), None)
    assert_type(letters(), AnySyncGenerator[str, None])
    assert_type(annotated_as_iterator(), AnySyncIterator[float])
    assert_type(list(ticks()), list[int])
    numbers(1).send(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    numbers("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    items: Iterator[int] = numbers(1)
    list(items)


def managers() -> None:
    assert_type(opened("x"), AnySyncContextManager[list[str]])
    with opened("x") as lines:
        assert_type(lines, list[str])
    with opened_as_iterator("x") as lines:
        assert_type(lines, list[str])
    opened(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Client(Generic[T]):
    def __init__(self, item: T) -> None:
        self.item = item

    @anysync
    async def get(self, key: str) -> T:
        return self.item

    @classmethod
    @anysync
    async def make(cls, item: T) -> "Client[T]":
        return cls(item)

    @staticmethod
    @anysync
    async def ping() -> bool:
        return True

    @anysync
    async def items(self) -> AsyncGenerator[T]:
        yield self.item

    @contextmanager
    async def transaction(self) -> AsyncGenerator[T]:
        yield self.item

    @overload
    def read(self, raw: None = None) -> AnySyncCoroutine[str]: ...
    @overload
    def read(self, raw: int) -> AnySyncCoroutine[bytes]: ...
    def read(self, raw: int | None = None) -> AnySyncCoroutine[str] | AnySyncCoroutine[bytes]:
        return wrap_coroutine(self._read()) if raw is None else fetch("x")

    async def _read(self) -> str:
        return ""


def methods(client: Client[int]) -> None:
    assert_type(client.get("x").run(), int)
    assert_type(Client[int].make(1).run(), Client[int])
    assert_type(Client.ping().run(), bool)
    assert_type(list(client.items()), list[int])
    with client.transaction() as item:
        assert_type(item, int)
    assert_type(client.read().run(), str)
    assert_type(client.read(1).run(), bytes)
    client.get(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Session(AnySyncContextManager[int]):
    async def __aenter__(self) -> int:
        return 1

    async def __aexit__(
        self, typ: type[BaseException] | None, val: BaseException | None, tb: TracebackType | None, /
    ) -> None: ...


def subclassed() -> None:
    with Session() as number:
        assert_type(number, int)


class Suppressor(AnySyncContextManager[None, bool]):
    async def __aenter__(self) -> None: ...

    async def __aexit__(
        self, typ: type[BaseException] | None, val: BaseException | None, tb: TracebackType | None, /
    ) -> bool:
        return True


def may_end_early() -> int:  # type: ignore[return]  # pyright: ignore[reportReturnType]
    with wrap_async_context_manager(Suppressor()):
        return int("1")


def suppression(runner: Runner, manager: AbstractAsyncContextManager[int, None]) -> int:
    assert_type(wrap_async_context_manager(Suppressor()), AnySyncContextManager[None, bool])
    assert_type(runner.enter(Suppressor()), AnySyncContextManager[None, bool])
    assert_type(runner.enter(manager), AnySyncContextManager[int, None])
    with wrap_async_context_manager(manager), opened("x"), Session():
        return int("1")


def wrapped(
    coro: Coroutine[Any, Any, int],
    agen: AsyncGenerator[int, str],
    aiter_: AsyncIterator[int],
    manager: AbstractAsyncContextManager[int],
    make: Callable[[], Coroutine[Any, Any, str]],
) -> None:
    assert_type(wrap_coroutine(coro).run(), int)
    assert_type(wrap_async_generator(agen), AnySyncGenerator[int, str])
    assert_type(wrap_async_iterator(aiter_), AnySyncIterator[int])
    assert_type(wrap_async_context_manager(manager), AnySyncContextManager[int])
    assert_type(run(make()), str)
    assert_type(run(fetch("x"), 1), bytes)
    run(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wrap_coroutine(aiter_)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wrap_async_iterator(coro)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def on_a_backend() -> None:
    @anysync(backend="trio")
    async def function(x: int) -> str:
        return str(x)

    @coroutine(backend="trio")
    async def coroutine_function(x: int) -> str:
        return str(x)

    @anysync(backend="trio")
    async def generator_function() -> AsyncGenerator[int, str]:
        yield 1

    @generator(backend="asyncio")
    async def other_generator_function() -> AsyncGenerator[int, str]:
        yield 1

    @iterator(backend="trio")
    def ticks() -> AsyncIterator[int]:
        return Ticks()

    @contextmanager(backend="trio")
    async def entered() -> AsyncIterator[int]:
        yield 1

    assert_type(function(1).run(backend="asyncio"), str)
    assert_type(coroutine_function(1).submit(backend="asyncio"), Future[str])
    assert_type(generator_function(), AnySyncGenerator[int, str])
    assert_type(other_generator_function(), AnySyncGenerator[int, str])
    assert_type(ticks(), AnySyncIterator[int])
    assert_type(entered(), AnySyncContextManager[int])
    assert_type(run(fetch("x"), backend="trio"), bytes)
    Runner(backend="trio", backend_options={"strict_exception_groups": True})
    configure(backend="trio")
    function("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    anysync(backend=1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def misused() -> None:
    @coroutine  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    def sync() -> int:
        return 1

    @generator  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def no_yield() -> int:
        return 1

    @contextmanager  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def no_yield_either() -> int:
        return 1

    print(sync, no_yield, no_yield_either)


def runners(agen: AsyncGenerator[int, str], manager: AbstractAsyncContextManager[int]) -> None:
    with Runner(name="mine", backend_options={"debug": True}) as runner:
        assert_type(runner, Runner)
        assert_type(runner.run(fetch("x"), timeout=1), bytes)
        assert_type(runner.submit(fetch("x")), Future[bytes])
        assert_type(runner.iterate(agen), AnySyncGenerator[int, str])
        assert_type(runner.iterate(Ticks()), AnySyncIterator[int])
        assert_type(runner.loop, AbstractEventLoop)
        with runner.enter(manager) as number:
            assert_type(number, int)
    configure(backend="asyncio", backend_options={"use_uvloop": True})
    configure(stall_warning=5, go_home=False)
    configure(stall_warning="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    configure(backend=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(package.core.name, Literal["pure", "compiled"])
    assert_type(package.__version__, str)
