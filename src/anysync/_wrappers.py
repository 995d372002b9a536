"""Objects of both worlds made of others' objects, and `run` for anything that can be awaited."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from types import TracebackType
from typing import Any, TypeVar, cast

from ._objects import (
    AnySyncContextManager,
    AnySyncCoroutine,
    AnySyncGenerator,
    AnySyncIterator,
    as_exception,
    checked,
    host_for,
)

R = TypeVar("R")
S = TypeVar("S")
Y = TypeVar("Y")


class WrappedIterator(AnySyncIterator[Y]):
    def __init__(self, iterator: AsyncIterator[Y]) -> None:
        self._iterator = iterator

    @property
    def _source(self) -> Any:
        return self._iterator

    def __aiter__(self) -> AsyncIterator[Y]:
        self._enter("async")
        return self._iterator

    def __anext__(self) -> Any:
        self._enter("async")
        return self._iterator.__anext__()


class WrappedGenerator(AnySyncGenerator[Y, S]):
    def __init__(self, generator: AsyncGenerator[Y, S]) -> None:
        self._generator = generator

    @property
    def _source(self) -> Any:
        return self._generator

    def __aiter__(self) -> AsyncGenerator[Y, S]:
        self._enter("async")
        return self._generator

    def __anext__(self) -> Any:
        self._enter("async")
        return self._generator.__anext__()

    def asend(self, value: S, /) -> Any:
        self._enter("async")
        return self._generator.asend(value)

    def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> Any:
        self._enter("async")
        return self._generator.athrow(as_exception(typ, val, tb))

    def aclose(self) -> Any:
        self._enter("async")
        return self._generator.aclose()


class WrappedContextManager(AnySyncContextManager[Y]):
    def __init__(self, manager: AbstractAsyncContextManager[Y, bool | None]) -> None:
        self._manager = manager

    async def __aenter__(self) -> Y:
        return await self._manager.__aenter__()

    async def __aexit__(
        self,
        typ: type[BaseException] | None = None,
        val: BaseException | None = None,
        tb: TracebackType | None = None,
        /,
    ) -> bool | None:
        return await self._manager.__aexit__(typ, val, tb)


def wrap_coroutine(coroutine: Coroutine[Y, S, R]) -> AnySyncCoroutine[R, Y, S]:
    """Make a coroutine usable from both worlds."""
    if isinstance(coroutine, AnySyncCoroutine):
        return coroutine
    if not isinstance(coroutine, Coroutine):
        raise TypeError(f"expected a coroutine, not {coroutine!r}: anysync.run() takes any awaitable")
    return AnySyncCoroutine(coroutine)


def wrap_async_iterator(iterator: AsyncIterator[Y]) -> AnySyncIterator[Y]:
    """Make an async iterator usable from both worlds."""
    if isinstance(iterator, AnySyncIterator):
        return iterator
    if not isinstance(iterator, AsyncIterator):
        raise TypeError(f"expected an async iterator, not {iterator!r}{_remedy(iterator)}")
    return WrappedIterator(iterator)


def wrap_async_generator(generator: AsyncGenerator[Y, S]) -> AnySyncGenerator[Y, S]:
    """Make an async generator usable from both worlds."""
    if isinstance(generator, AnySyncGenerator):
        return generator
    if not isinstance(generator, AsyncGenerator):
        raise TypeError(f"expected an async generator, not {generator!r}{_remedy(generator)}")
    return WrappedGenerator(generator)


def wrap_async_context_manager(manager: AbstractAsyncContextManager[R, Any]) -> AnySyncContextManager[R]:
    """Make an async context manager usable from both worlds."""
    if isinstance(manager, AnySyncContextManager):
        return manager
    if not isinstance(manager, AbstractAsyncContextManager):
        raise TypeError(f"expected an async context manager, not {manager!r}{_remedy(manager)}")
    return WrappedContextManager(manager)


def _remedy(thing: object) -> str:
    """Say what to do with `thing`, which was given in place of something else."""
    if isinstance(thing, Coroutine):
        thing.close()
        return ": it must be awaited first"
    if isinstance(thing, AsyncGenerator):
        return ": use wrap_async_generator, or make a context manager of its function with `contextmanager`"
    if hasattr(thing, "__aiter__"):
        return ": use aiter() on it first"
    if callable(thing):
        return ": call it first"
    return ""


async def _wait_for(awaitable: Awaitable[R]) -> R:
    return await awaitable


def as_coroutine(awaitable: Awaitable[R]) -> Coroutine[Any, Any, R]:
    """Return the coroutine in `awaitable`, or one that awaits it."""
    if isinstance(awaitable, AnySyncCoroutine):
        awaitable = cast("AnySyncCoroutine[R]", awaitable).coro
    if isinstance(awaitable, Coroutine):
        return cast("Coroutine[Any, Any, R]", awaitable)
    if not isinstance(awaitable, Awaitable):
        raise TypeError(f"expected an awaitable, not {awaitable!r}{_remedy(awaitable)}")
    return _wait_for(awaitable)


def run(awaitable: Awaitable[R], timeout: float | None = None, *, context: Context | None = None) -> R:
    """Run any awaitable from sync code and return its result, as `AnySyncCoroutine.run` does."""
    coro = as_coroutine(awaitable)
    timeout = checked(coro, timeout, context)
    return cast("R", host_for(coro).run(coro, timeout, context).result())
