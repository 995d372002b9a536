"""Iterators and generators of both worlds."""

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from types import GenericAlias, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from ._objects import Stepped, remedy

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    S_contra = TypeVarWithDefault("S_contra", contravariant=True, default=None)
else:
    S_contra = TypeVar("S_contra", contravariant=True)

Y_co = TypeVar("Y_co", covariant=True)
S = TypeVar("S")
Y = TypeVar("Y")


class AnySyncIterator(Stepped, AsyncIterator[Y_co], Iterator[Y_co]):
    """An async iterator for both worlds: `async for` in async code, `for` in sync code.

    Subclass it with `__anext__` (and `aclose`, if there is something to close), or get one from
    `iterator` or `wrap_async_iterator`. From its first step in sync code it lives in one task and one
    context; then stepping it in async code raises `RuntimeError`, and the other way round.
    """

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    _world: str | None = None
    _ends: type[BaseException] = StopAsyncIteration

    def __aiter__(self) -> AsyncIterator[Y_co]:  # noqa: PYI034  # a subclass may return another
        self._enter("async")
        return self

    @abstractmethod
    async def __anext__(self) -> Y_co:
        raise NotImplementedError

    def __iter__(self) -> Self:
        if cast("Any", type(self)).__aiter__ is cast("Any", AnySyncIterator).__aiter__:
            return self
        iterator = self.__aiter__()
        return self if iterator is self else cast("Self", wrap_async_iterator(iterator))

    def __next__(self) -> Y_co:
        try:
            return cast("Y_co", self._in_task(self._source.__anext__)())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the iteration, and close the async iterator if it can be closed; waits for its clean-up."""
        self._in_task(self._closer, last=True)()

    @property
    def _source(self) -> Any:
        return self

    @property
    def _closer(self) -> Callable[[], Awaitable[object]]:
        return getattr(self._source, "aclose", _nothing)

    def _in_task(
        self, function: Callable[..., Awaitable[Any]], *args: Any, last: bool = False
    ) -> Callable[[], Any]:
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
    AnySyncIterator[Y_co],
    AsyncGenerator[Y_co, S_contra],
    Generator[Y_co, S_contra, None],
):
    """An async generator for both worlds: `async for` in async code, `for` in sync code.

    `asend`, `athrow` and `aclose` are for async code; `send`, `throw` and `close` do the same for sync code.
    """

    _ends = BaseException

    @abstractmethod
    async def asend(self, value: S_contra) -> Y_co:
        raise NotImplementedError

    @abstractmethod
    async def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> Y_co:
        raise NotImplementedError

    async def __anext__(self) -> Y_co:
        return await self.asend(cast("S_contra", None))

    def send(self, value: S_contra) -> Y_co:
        """Resume the generator with `value`, and return the next item, as `generator.send` does."""
        try:
            return cast("Y_co", self._in_task(self._source.asend, value)())
        except StopAsyncIteration:
            raise StopIteration from None

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> Y_co:
        """Raise an exception where the generator stands; return the next item, as `generator.throw` does."""
        error = as_exception(typ, val, tb)
        try:
            return cast("Y_co", self._in_task(self._source.athrow, error)())
        except StopAsyncIteration:
            raise StopIteration from None


class WrappedIterator(AnySyncIterator[Y]):
    def __init__(self, iterator: AsyncIterator[Y]) -> None:
        self._iterator = iterator

    @property
    def _source(self) -> Any:
        return self._iterator

    def __aiter__(self) -> AsyncIterator[Y]:  # noqa: PYI034
        self._enter("async")
        return self._iterator

    def __iter__(self) -> Self:
        return self

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

    def __iter__(self) -> Self:
        return self

    def __anext__(self) -> Any:
        self._enter("async")
        return self._generator.__anext__()

    def asend(self, value: S) -> Any:
        self._enter("async")
        return self._generator.asend(value)

    def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> Any:
        self._enter("async")
        return self._generator.athrow(as_exception(typ, val, tb))

    def aclose(self) -> Any:
        self._enter("async")
        return self._generator.aclose()


def wrap_async_iterator(iterator: AsyncIterator[Y]) -> AnySyncIterator[Y]:
    """Make an async iterator usable from both worlds."""
    if isinstance(iterator, AnySyncIterator):
        return iterator
    if not isinstance(iterator, AsyncIterator):
        raise TypeError(f"expected an async iterator, not {iterator!r}: {remedy(iterator)}")
    return WrappedIterator(iterator)


def wrap_async_generator(generator: AsyncGenerator[Y, S]) -> AnySyncGenerator[Y, S]:
    """Make an async generator usable from both worlds."""
    if isinstance(generator, AnySyncGenerator):
        return generator
    if not isinstance(generator, AsyncGenerator):
        raise TypeError(f"expected an async generator, not {generator!r}: {remedy(generator)}")
    return WrappedGenerator(generator)


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
