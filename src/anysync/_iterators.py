"""Iterators and generators of both worlds."""

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from types import GenericAlias, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast
from weakref import ref

from ._objects import Stepped, Steps, check_context, remedy

if TYPE_CHECKING:
    from contextvars import Context

    from typing_extensions import TypeVar as TypeVarWithDefault

    from ._host import Host

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

    __anysync_source__: Any = None
    __anysync_steps__: Any = None  # Steps

    def __aiter__(self) -> AsyncIterator[Y_co]:  # noqa: PYI034  # a subclass may return another
        _steps(self).enter("async")
        return self

    @abstractmethod
    async def __anext__(self) -> Y_co:
        raise NotImplementedError

    def __iter__(self) -> Self:
        if cast("Any", type(self)).__aiter__ is cast("Any", AnySyncIterator).__aiter__:
            return self
        iterator = self.__aiter__()
        if iterator is self:
            return self
        wrapped = wrap_async_iterator(iterator)
        if wrapped.__anysync_steps__ is None:
            vars(wrapped).setdefault("__anysync_steps__", _steps(self).anew())
        return cast("Self", wrapped)

    def __next__(self) -> Y_co:
        try:
            return cast("Y_co", _in_task(self, _source(self).__anext__)())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the iteration, and close the async iterator if it can be closed; waits for its clean-up."""
        _in_task(self, _closer(self), last=True)()

    def __del__(self) -> None:
        steps = self.__anysync_steps__
        if steps is not None and steps.session is not None and not steps.session.ended:
            steps.session.abandon(_last(self))


def _steps(iterator: AnySyncIterator[Any]) -> Steps:
    if iterator.__anysync_steps__ is None:  # also where attributes are frozen, and several threads come here
        vars(iterator).setdefault("__anysync_steps__", Steps())
    return cast("Steps", iterator.__anysync_steps__)


def _source(iterator: AnySyncIterator[Any]) -> Any:
    return iterator if iterator.__anysync_source__ is None else iterator.__anysync_source__


def _closer(iterator: AnySyncIterator[Any]) -> Callable[[], Awaitable[object]]:
    return getattr(_source(iterator), "aclose", _nothing)


def _last(iterator: AnySyncIterator[Any]) -> Callable[[], Awaitable[object]]:
    """Return what ends an iterator that is dropped: what it wraps may be in use, if that is no generator."""
    source = _source(iterator)
    return _closer(iterator) if source is iterator or hasattr(source, "asend") else _nothing


def _last_of_all(iterator: AnySyncIterator[Any]) -> Callable[[], Awaitable[object]]:
    """Return what `_last` does, without a reference to what sync code holds: its end would never come."""
    if iterator.__anysync_source__ is not None:
        return _last(iterator)
    reference = ref(iterator)

    async def close() -> None:
        iterator = reference()
        if iterator is not None:
            await _last(iterator)()

    return close


def _in_task(
    iterator: Any, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...] = (), last: bool = False
) -> Callable[[], Any]:
    """Await `function(*args)` in the iterator's session; return what returns or raises the outcome."""
    steps: Steps = iterator.__anysync_steps__ or _steps(iterator)
    if steps.world != "sync":
        steps.enter("sync")
    if steps.session is None:
        steps.begin(
            ends=BaseException if hasattr(iterator, "asend") else StopAsyncIteration,
            on_close=_last_of_all(iterator),
        )
    return steps.step(function, args, last)


class AnySyncGenerator(
    AnySyncIterator[Y_co],
    AsyncGenerator[Y_co, S_contra],
    Generator[Y_co, S_contra, None],
):
    """An async generator for both worlds: `async for` in async code, `for` in sync code.

    `asend`, `athrow` and `aclose` are for async code; `send`, `throw` and `close` do the same for sync code.
    """

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
            return cast("Y_co", _in_task(self, _source(self).asend, (value,))())
        except StopAsyncIteration:
            raise StopIteration from None

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> Y_co:
        """Raise an exception where the generator stands; return the next item, as `generator.throw` does."""
        error = as_exception(typ, val, tb)
        try:
            return cast("Y_co", _in_task(self, _source(self).athrow, (error,))())
        except StopAsyncIteration:
            raise StopIteration from None


class WrappedIterator(AnySyncIterator[Y]):
    def __init__(self, iterator: AsyncIterator[Y]) -> None:
        self.__anysync_source__ = iterator

    def __aiter__(self) -> AsyncIterator[Y]:  # noqa: PYI034
        _steps(self).enter("async")
        return cast("AsyncIterator[Y]", self.__anysync_source__)

    def __iter__(self) -> Self:
        return self

    def __anext__(self) -> Any:
        _steps(self).enter("async")
        return self.__anysync_source__.__anext__()

    def aclose(self) -> Any:
        _steps(self).enter("async")
        return _closer(self)()


class WrappedGenerator(WrappedIterator[Y], AnySyncGenerator[Y, S]):
    def __aiter__(self) -> AsyncGenerator[Y, S]:
        _steps(self).enter("async")
        return cast("AsyncGenerator[Y, S]", self.__anysync_source__)

    def asend(self, value: S) -> Any:
        _steps(self).enter("async")
        return self.__anysync_source__.asend(value)

    def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> Any:
        _steps(self).enter("async")
        return self.__anysync_source__.athrow(as_exception(typ, val, tb))


def wrap_async_iterator(iterator: AsyncIterator[Y]) -> AnySyncIterator[Y]:
    """Make an async iterator usable from both worlds; who drops it leaves it open, as `async for` does."""
    if isinstance(iterator, AnySyncIterator):
        return iterator
    if not isinstance(iterator, AsyncIterator):
        raise TypeError(f"expected an async iterator, not {iterator!r}: {remedy(iterator)}")
    return WrappedIterator(iterator)


def wrap_async_generator(generator: AsyncGenerator[Y, S]) -> AnySyncGenerator[Y, S]:
    """Make an async generator usable from both worlds. What is returned closes it when it is dropped."""
    if isinstance(generator, AnySyncGenerator):
        return generator
    if not isinstance(generator, AsyncGenerator):
        raise TypeError(f"expected an async generator, not {generator!r}: {remedy(generator)}")
    return WrappedGenerator(generator)


def bind(
    iterator: AnySyncIterator[Any], choose_host: "Callable[[], Host]", context: "Context | None" = None
) -> None:
    """Have the steps of an iterator run where `choose_host` says, in `context`."""
    check_context(context)
    steps = _steps(iterator)
    steps.choose_host, steps.context = choose_host, context


async def _nothing() -> None:
    """Close what needs no closing."""


def as_exception(typ: Any, val: Any, tb: TracebackType | None) -> BaseException:
    """Return the exception that `throw(typ, val, tb)` means, in its old form of three arguments too."""
    if isinstance(typ, BaseException):
        if val is not None:
            raise TypeError(f"{typ!r} is an exception already: leave out {val!r}, or pass the class")
        error = typ
    elif isinstance(typ, type) and issubclass(typ, BaseException):
        args: Any = () if val is None else cast("Any", val) if isinstance(val, tuple) else (val,)
        error = val if isinstance(val, typ) else typ(*args)
    else:
        raise TypeError(f"exceptions must be classes or instances deriving from BaseException, not {typ!r}")
    return error if tb is None else error.with_traceback(tb)
