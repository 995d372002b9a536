"""The objects of both worlds: coroutines, iterators, generators and context managers."""

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
from types import GenericAlias, TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, cast

if TYPE_CHECKING:
    from concurrent.futures import Future

    from typing_extensions import TypeVar

    from ._host import Host
    from ._on_asyncio import Session, Step

    ReturnT_co = TypeVar("ReturnT_co", covariant=True)
    YieldT_co = TypeVar("YieldT_co", covariant=True, default=Any)
    SendT_contra = TypeVar("SendT_contra", contravariant=True, default=Any)
    ItemT_co = TypeVar("ItemT_co", covariant=True)
    ItemSendT_contra = TypeVar("ItemSendT_contra", contravariant=True, default=None)
else:  # defaults came with Python 3.13, and these classes are subscripted as builtins are
    from typing import TypeVar

    ReturnT_co, YieldT_co, SendT_contra, ItemT_co, ItemSendT_contra = map(TypeVar, "RYSTU")


def here() -> "Host":  # noqa: F811
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


class AnySyncCoroutine(
    Coroutine[YieldT_co, SendT_contra, ReturnT_co], Generic[ReturnT_co, YieldT_co, SendT_contra]
):
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
        coro: Coroutine[Any, Any, ReturnT_co] = self.coro
        if timeout is not None or context is not None:
            timeout = checked(coro, timeout, context)
        if getattr(coro, "cr_await", None) is not None:
            raise RuntimeError("coroutine is being awaited already")
        return cast("ReturnT_co", host_for(coro).run(coro, timeout, context).result())

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

    def bind(self, choose_host: "Callable[[], Host]", context: Context | None) -> Self:
        """Have the steps run where `choose_host` says, in `context`."""
        if self._session is not None:
            raise RuntimeError("begun already, on another loop")
        check_context(context)
        self._choose_host, self._context = choose_host, context
        return self

    def _step(
        self, session: "Session", function: Callable[..., Awaitable[Any]], *args: Any, last: bool = False
    ) -> "Step":
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

    def __aiter__(self) -> AsyncIterator[ItemT_co]:  # noqa: PYI034  # a subclass may return another
        return self

    @abstractmethod
    async def __anext__(self) -> ItemT_co:
        raise NotImplementedError

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT_co:
        try:
            return cast("ItemT_co", self._in_task(self._source.__anext__).result())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the iteration, and close the async iterator if it can be closed; waits for its clean-up."""
        self._in_task(self._closer, last=True).result()

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
                raise RuntimeError(
                    f"begun in {self._world} code, cannot go on in {world} code: use one or the other"
                )
            self._world = world

    def __del__(self) -> None:
        session = self._session
        if session is not None and not session.ended:
            session.abandon(self._closer)


class AnySyncGenerator(
    AnySyncIterator[ItemT_co],
    AsyncGenerator[ItemT_co, ItemSendT_contra],
    Generator[ItemT_co, ItemSendT_contra, None],
):
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
            return cast("ItemT_co", self._in_task(self._source.asend, value).result())
        except StopAsyncIteration:
            raise StopIteration from None

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> ItemT_co:
        """Raise an exception where the generator stands; return the next item, as `generator.throw` does."""
        error = as_exception(typ, val, tb)
        try:
            return cast("ItemT_co", self._in_task(self._source.athrow, error).result())
        except StopAsyncIteration:
            raise StopIteration from None


class AnySyncContextManager(
    _Stepped,
    AbstractContextManager[ItemT_co, "bool | None"],
    AbstractAsyncContextManager[ItemT_co, "bool | None"],
):
    """An async context manager for both worlds: `async with` in async code, `with` in sync code.

    Subclass it with `__aenter__` and `__aexit__`, or get one from `contextmanager` or
    `wrap_async_context_manager`. In sync code both run in one task and one context, and what they
    started goes on during the body.
    """

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def __enter__(self) -> ItemT_co:
        if self._session is not None:
            raise RuntimeError(
                "this context manager is entered already: it must be left before it is entered again"
            )
        session = self._new_session(on_cancel=self.__aexit__)
        try:
            step = self._step(session, self.__aenter__)
        except BaseException as error:
            if session.task is not None:  # entered just before the interrupt: nobody else would leave
                self._step(session, self.__aexit__, type(error), error, error.__traceback__, last=True)
            self._session = None
            raise
        return cast("ItemT_co", step.result())

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
        return cast("bool | None", self._step(session, self.__aexit__, typ, val, tb, last=True).result())


async def _nothing() -> None:
    """Close what needs no closing."""


def as_exception(typ: Any, val: Any, tb: TracebackType | None) -> BaseException:
    """Return the exception that `throw(typ, val, tb)` means, in its old form of three arguments too."""
    if isinstance(typ, BaseException):
        error = typ
    elif isinstance(typ, type) and issubclass(typ, BaseException):
        error = val if isinstance(val, typ) else typ() if val is None else typ(val)
    else:
        raise TypeError(f"exceptions must be classes or instances deriving from BaseException, not {typ!r}")
    return error if tb is None else error.with_traceback(tb)
