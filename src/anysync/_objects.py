"""The objects of both worlds: what a decorated function returns, and what `wrap_*` makes of others' objects."""

from abc import abstractmethod
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import Context
from math import isnan
from types import CoroutineType, GenericAlias, TracebackType
from typing import TYPE_CHECKING, Any, Generic, cast

if TYPE_CHECKING:
    from concurrent.futures import Future

    from typing_extensions import Self, TypeVar

    from ._hosts import Host
    from ._on_asyncio import Session, Step

    ReturnT_co = TypeVar("ReturnT_co", covariant=True)
    YieldT_co = TypeVar("YieldT_co", covariant=True, default=Any)
    SendT_contra = TypeVar("SendT_contra", contravariant=True, default=Any)
    ItemT_co = TypeVar("ItemT_co", covariant=True)
    ItemSendT_contra = TypeVar("ItemSendT_contra", contravariant=True, default=None)
else:  # defaults came with Python 3.13, and these classes are subscripted as builtins are
    from typing import TypeVar

    ReturnT_co, YieldT_co, SendT_contra, ItemT_co, ItemSendT_contra = map(TypeVar, "RYSTU")

ReturnT = TypeVar("ReturnT")
YieldT = TypeVar("YieldT")
SendT = TypeVar("SendT")


def here() -> "Host":
    """Return the host that serves a call made here."""
    # asyncio is imported with the first call, not with anysync: this replaces itself
    global here
    from ._hosts import here

    return here()


def check_context(context: object) -> None:
    if context is not None and not isinstance(context, Context):
        raise TypeError(f"context must be a contextvars.Context or None, not {context!r}")


def checked(coro: Coroutine[Any, Any, Any], timeout: float | None, context: Context | None) -> float | None:
    """Return `timeout` as the hosts want it; bad arguments raise, and close `coro`, which will not run."""
    try:
        check_context(context)
        if timeout is None or timeout == float("inf"):
            return None
        try:
            if isnan(timeout):
                raise ValueError("timeout must be a number of seconds, not nan")
        except TypeError:
            raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}") from None
        return float(timeout)
    except BaseException:
        coro.close()
        raise


class AnySyncCoroutine(Coroutine[YieldT_co, SendT_contra, ReturnT_co], Generic[ReturnT_co, YieldT_co, SendT_contra]):
    """A coroutine for both worlds: `await` it in async code, or `run()` it in sync code.

    It takes the place of the coroutine `coro` everywhere: it can be awaited, given to
    `asyncio.create_task`, run once, and warns if it was never run.
    """

    __slots__ = ("__weakref__", "coro")
    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, coro: Coroutine[YieldT_co, SendT_contra, ReturnT_co]) -> None:
        self.coro = coro

    def __await__(self) -> Generator[Any, Any, ReturnT_co]:
        return self.coro.__await__()

    def run(self, timeout: float | None = None, *, context: Context | None = None) -> ReturnT_co:
        """Run the coroutine from sync code and return its result: the same as `await` in async code.

        `timeout`, in seconds, cancels the coroutine when it has passed, as `asyncio.wait_for` does: the
        clean-up is waited for, and `TimeoutError` raised, with what the clean-up raised as its cause;
        a value that the coroutine returns all the same is returned. Zero or less cancels at the first
        suspension.

        The coroutine sees the caller's context variables, and changes a copy of them; or `context`, if
        given, in which the caller can then look for the changes. A context that is entered raises
        `RuntimeError`.

        Where it runs is told in the documentation's table: in this thread if no event loop runs here, on
        a background thread otherwise, which blocks the loop that runs here. Ctrl-C cancels the
        coroutine, waits for its clean-up and raises `KeyboardInterrupt`; a second one does not wait.
        """
        coro = self.coro
        if timeout is not None or context is not None:
            timeout = checked(coro, timeout, context)
        if type(coro) is CoroutineType and coro.cr_await is not None:
            raise RuntimeError("coroutine is being awaited already")
        return cast("ReturnT_co", host_for(coro).run(coro, timeout, context).result())  # type: ignore[misc]

    def submit(self, *, context: Context | None = None) -> "Future[ReturnT_co]":
        """Start the coroutine and return a `concurrent.futures.Future` of its outcome.

        Cancelling the future cancels the coroutine. `context` is as in `run`. In plain sync code the
        coroutine goes on while the calling thread does other things, on a helper thread.
        """
        coro = self.coro
        checked(coro, None, context)
        return host_for(coro).submit(coro, context)

    def send(self, value: SendT_contra, /) -> YieldT_co:
        """Resume the coroutine, as `coroutine.send` does."""
        return self.coro.send(value)

    def throw(self, *args: Any) -> YieldT_co:
        """Raise an exception in the coroutine, as `coroutine.throw` does."""
        return self.coro.throw(*args)

    def close(self) -> None:
        """End the coroutine, as `coroutine.close` does."""
        self.coro.close()

    def __getattr__(self, name: str) -> Any:
        # cr_frame, cr_code and the like, which debuggers and asyncio's repr look at
        if name.startswith("cr_"):
            return getattr(self.coro, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.coro!r}>"


def host_for(coro: Coroutine[Any, Any, Any]) -> "Host":
    try:
        return here()
    except BaseException:  # no thread can start
        coro.close()
        raise


class _Stepped:
    """What is driven from sync code step by step, in a session of its own."""

    _session: "Session | None" = None
    _choose_host: "Callable[[], Host] | None" = None
    _context: Context | None = None

    def _new_session(self, **options: Any) -> "Session":
        host = here() if self._choose_host is None else self._choose_host()
        self._session = session = host.session(self._context, **options)
        return session

    def bind(self, choose_host: "Callable[[], Host]", context: Context | None) -> "Self":
        """Have the steps run where `choose_host` says, in `context`."""
        if self._session is not None:
            raise RuntimeError("begun already, on another loop")
        check_context(context)
        self._choose_host, self._context = choose_host, context
        return self

    def _step(self, session: "Session", function: Callable[..., Awaitable[Any]], *args: Any, last: bool = False) -> "Step":
        try:
            return session.step(function, *args, last=last)
        finally:
            if session.ended:
                self._session = None


class AnySyncIterator(_Stepped, AsyncIterator[ItemT_co], Iterator[ItemT_co]):
    """An async iterator for both worlds: `async for` in async code, `for` in sync code.

    Subclass it with `__anext__` (and `aclose`, if there is something to close), or get one from
    `iterator` or `wrap_async_iterator`. From its first step in sync code it lives in one task and one
    context; then stepping it in async code raises `RuntimeError`, and the other way round.
    """

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    _world: str | None = None
    _ends: type[BaseException] = StopAsyncIteration

    def __aiter__(self) -> AsyncIterator[ItemT_co]:
        return self

    @abstractmethod
    async def __anext__(self) -> ItemT_co:
        raise NotImplementedError

    def __iter__(self) -> "Self":
        return self

    def __next__(self) -> ItemT_co:
        try:
            return cast("ItemT_co", self._in_task(self._source.__anext__).result())  # type: ignore[misc]
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the iteration, and close the async iterator if it can be closed; waits for its clean-up."""
        self._in_task(self._closer, last=True).result()  # type: ignore[misc]

    @property
    def _source(self) -> Any:
        return self

    @property
    def _closer(self) -> Callable[[], Awaitable[object]]:
        return getattr(self._source, "aclose", _nothing)

    def _in_task(self, function: Callable[..., Awaitable[Any]], *args: Any, last: bool = False) -> "Step":
        self._enter("sync")
        session = self._session
        if session is None:
            # a session must not hold the object that sync code sees: its end would never come
            on_close = None if self._source is self else self._closer
            session = self._new_session(ends=self._ends, on_close=on_close)
        return self._step(session, function, *args, last=last)

    def _enter(self, world: str) -> None:
        if self._world != world:
            if self._world is not None:
                raise RuntimeError(f"begun in {self._world} code, cannot go on in {world} code: use one or the other")
            self._world = world

    def __del__(self) -> None:
        session = self._session
        if session is not None and not session.ended:
            session.abandon(self._closer)


class AnySyncGenerator(AnySyncIterator[ItemT_co], AsyncGenerator[ItemT_co, ItemSendT_contra], Generator[ItemT_co, ItemSendT_contra, None]):
    """An async generator for both worlds: `async for` in async code, `for` in sync code.

    `asend`, `athrow` and `aclose` are for async code; `send`, `throw` and `close` do the same for sync code.
    """

    _ends = BaseException

    @abstractmethod
    async def asend(self, value: ItemSendT_contra, /) -> ItemT_co:
        raise NotImplementedError

    @abstractmethod
    async def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> ItemT_co:
        raise NotImplementedError

    async def __anext__(self) -> ItemT_co:
        return await self.asend(cast("ItemSendT_contra", None))

    def send(self, value: ItemSendT_contra, /) -> ItemT_co:
        """Resume the generator with `value`, and return the next item, as `generator.send` does."""
        try:
            return cast("ItemT_co", self._in_task(self._source.asend, value).result())  # type: ignore[misc]
        except StopAsyncIteration:
            raise StopIteration from None

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> ItemT_co:
        """Raise an exception where the generator stands, and return the next item, as `generator.throw` does."""
        error = _as_exception(typ, val, tb)
        try:
            return cast("ItemT_co", self._in_task(self._source.athrow, error).result())  # type: ignore[misc]
        except StopAsyncIteration:
            raise StopIteration from None


class AnySyncContextManager(_Stepped, AbstractContextManager[ItemT_co, "bool | None"], AbstractAsyncContextManager[ItemT_co, "bool | None"]):
    """An async context manager for both worlds: `async with` in async code, `with` in sync code.

    Subclass it with `__aenter__` and `__aexit__`, or get one from `contextmanager` or
    `wrap_async_context_manager`. In sync code both run in one task and one context, and what they
    started goes on during the body.
    """

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def __enter__(self) -> ItemT_co:
        if self._session is not None:
            raise RuntimeError("this context manager is entered already: it must be left before it is entered again")
        session = self._new_session(on_cancel=self.__aexit__)
        try:
            step = self._step(session, self.__aenter__)
        except BaseException as error:
            if session.task is not None:  # entered just before the interrupt: nobody else would leave
                self._step(session, self.__aexit__, type(error), error, error.__traceback__, last=True)
            self._session = None
            raise
        return cast("ItemT_co", step.result())  # type: ignore[misc]

    def __exit__(
        self,
        typ: type[BaseException] | None = None,
        val: BaseException | None = None,
        tb: TracebackType | None = None,
        /,
    ) -> bool | None:
        session = self._session
        if session is None:
            raise RuntimeError("this context manager is not entered")
        return cast("bool | None", self._step(session, self.__aexit__, typ, val, tb, last=True).result())  # type: ignore[misc]


async def _nothing() -> None:
    """Close what needs no closing."""


def _as_exception(typ: Any, val: Any, tb: TracebackType | None) -> BaseException:
    """Return the exception that `throw(typ, val, tb)` means, in its old form of three arguments too."""
    if isinstance(typ, BaseException):
        error = typ
    elif isinstance(typ, type) and issubclass(typ, BaseException):
        error = val if isinstance(val, typ) else typ() if val is None else typ(val)
    else:
        raise TypeError(f"exceptions must be classes or instances deriving from BaseException, not {typ!r}")
    return error if tb is None else error.with_traceback(tb)


class WrappedIterator(AnySyncIterator[ItemT_co]):
    def __init__(self, iterator: AsyncIterator[ItemT_co]) -> None:
        self._iterator = iterator

    @property
    def _source(self) -> Any:
        return self._iterator

    def __aiter__(self) -> AsyncIterator[ItemT_co]:
        self._enter("async")
        return self._iterator

    def __anext__(self) -> Any:
        self._enter("async")
        return self._iterator.__anext__()


class WrappedGenerator(AnySyncGenerator[ItemT_co, ItemSendT_contra]):
    def __init__(self, generator: AsyncGenerator[ItemT_co, ItemSendT_contra]) -> None:
        self._generator = generator

    @property
    def _source(self) -> Any:
        return self._generator

    def __aiter__(self) -> AsyncGenerator[ItemT_co, ItemSendT_contra]:
        self._enter("async")
        return self._generator

    def __anext__(self) -> Any:
        self._enter("async")
        return self._generator.__anext__()

    def asend(self, value: ItemSendT_contra, /) -> Any:
        self._enter("async")
        return self._generator.asend(value)

    def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> Any:
        self._enter("async")
        return self._generator.athrow(_as_exception(typ, val, tb))

    def aclose(self) -> Any:
        self._enter("async")
        return self._generator.aclose()


class WrappedContextManager(AnySyncContextManager[ItemT_co]):
    def __init__(self, manager: AbstractAsyncContextManager[ItemT_co, bool | None]) -> None:
        self._manager = manager

    async def __aenter__(self) -> ItemT_co:
        return await self._manager.__aenter__()

    async def __aexit__(self, typ: Any = None, val: Any = None, tb: Any = None, /) -> bool | None:
        return await self._manager.__aexit__(typ, val, tb)


def wrap_coroutine(coroutine: Coroutine[YieldT, SendT, ReturnT]) -> AnySyncCoroutine[ReturnT, YieldT, SendT]:
    """Make a coroutine usable from both worlds."""
    if isinstance(coroutine, AnySyncCoroutine):
        return coroutine
    if not isinstance(coroutine, Coroutine):
        raise TypeError(f"expected a coroutine, not {coroutine!r}: anysync.run() takes any awaitable")
    return AnySyncCoroutine(coroutine)


def wrap_async_iterator(iterator: AsyncIterator[YieldT]) -> AnySyncIterator[YieldT]:
    """Make an async iterator usable from both worlds."""
    if isinstance(iterator, AnySyncIterator):
        return iterator
    if not isinstance(iterator, AsyncIterator):
        raise TypeError(f"expected an async iterator, not {iterator!r}{_remedy(iterator)}")
    return WrappedIterator(iterator)


def wrap_async_generator(generator: AsyncGenerator[YieldT, SendT]) -> AnySyncGenerator[YieldT, SendT]:
    """Make an async generator usable from both worlds."""
    if isinstance(generator, AnySyncGenerator):
        return generator
    if not isinstance(generator, AsyncGenerator):
        raise TypeError(f"expected an async generator, not {generator!r}{_remedy(generator)}")
    return WrappedGenerator(generator)


def wrap_async_context_manager(manager: AbstractAsyncContextManager[ReturnT, Any]) -> AnySyncContextManager[ReturnT]:
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


async def _wait_for(awaitable: Awaitable[ReturnT]) -> ReturnT:
    return await awaitable


def as_coroutine(awaitable: Awaitable[ReturnT]) -> Coroutine[Any, Any, ReturnT]:
    """Return the coroutine in `awaitable`, or one that awaits it."""
    if isinstance(awaitable, AnySyncCoroutine):
        return cast("Coroutine[Any, Any, ReturnT]", awaitable.coro)
    if isinstance(awaitable, Coroutine):
        return awaitable
    if not isinstance(awaitable, Awaitable):
        raise TypeError(f"expected an awaitable, not {awaitable!r}{_remedy(awaitable)}")
    return _wait_for(awaitable)


def run(awaitable: Awaitable[ReturnT], timeout: float | None = None, *, context: Context | None = None) -> ReturnT:
    """Run any awaitable from sync code and return its result, as `AnySyncCoroutine.run` does."""
    coro = as_coroutine(awaitable)
    timeout = checked(coro, timeout, context)
    return cast("ReturnT", host_for(coro).run(coro, timeout, context).result())  # type: ignore[misc]
