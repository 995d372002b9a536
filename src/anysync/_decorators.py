"""The decorators: they look at the function once, and wrap what it returns at each call."""

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial, wraps
from types import CodeType, CoroutineType
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from ._iterators import AnySyncGenerator, AnySyncIterator, bind, wrap_async_generator, wrap_async_iterator
from ._managers import AnySyncContextManager, WrappedContextManager
from ._objects import AnySyncCoroutine, check_backend, here, wrap_coroutine

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")
S = TypeVar("S")
Y = TypeVar("Y")

_PLAIN: Any = CoroutineType
_NOT_YET: Any = object()  # in place of the function, where a decorator is given its backend first


class AnySync(Protocol):
    """What `anysync(backend=...)` returns: a decorator."""

    @overload
    def __call__(self, func: Callable[P, AsyncGenerator[Y, S]], /) -> Callable[P, AnySyncGenerator[Y, S]]: ...
    @overload
    def __call__(self, func: Callable[P, AsyncIterator[Y]], /) -> Callable[P, AnySyncIterator[Y]]: ...
    @overload
    def __call__(self, func: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, AnySyncCoroutine[R]]: ...


class CoroutineDecorator(Protocol):
    """What `coroutine(backend=...)` returns: a decorator."""

    def __call__(self, func: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, AnySyncCoroutine[R]]: ...


class GeneratorDecorator(Protocol):
    """What `generator(backend=...)` returns: a decorator."""

    def __call__(self, func: Callable[P, AsyncGenerator[Y, S]], /) -> Callable[P, AnySyncGenerator[Y, S]]: ...


class IteratorDecorator(Protocol):
    """What `iterator(backend=...)` returns: a decorator."""

    def __call__(self, func: Callable[P, AsyncIterator[Y]], /) -> Callable[P, AnySyncIterator[Y]]: ...


class ContextManagerDecorator(Protocol):
    """What `contextmanager(backend=...)` returns: a decorator."""

    def __call__(self, func: Callable[P, AsyncIterator[R]], /) -> Callable[P, AnySyncContextManager[R]]: ...


_COROUTINE = "a coroutine function (`async def`)"
_GENERATOR = "an async generator function (`async def` with `yield`)"

#: Which decorator made a function: its code tells, where an attribute would be copied by `functools.wraps`.
_made_by: dict[CodeType, Callable[..., Any]] = {}


@overload
def anysync(func: Callable[P, AsyncGenerator[Y, S]]) -> Callable[P, AnySyncGenerator[Y, S]]: ...
@overload
def anysync(func: Callable[P, AsyncIterator[Y]]) -> Callable[P, AnySyncIterator[Y]]: ...
@overload
def anysync(func: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, AnySyncCoroutine[R]]: ...
@overload
def anysync(*, backend: str | None = None) -> AnySync: ...
def anysync(func: Any = _NOT_YET, *, backend: str | None = None) -> Any:
    """Make an async function callable from both worlds.

    An `async def` is decorated as by `coroutine`, one with `yield` as by `generator`. Anything else
    raises `TypeError`; what is decorated already is returned as it is, unless a backend is given.

    All decorators can be called with the `backend`, `"asyncio"` or `"trio"`, on which sync code is to run
    what the function returns; `ValueError` is raised for another one, `ImportError` if trio is not installed.
    """
    if func is _NOT_YET:
        return _with_backend(anysync, backend)
    made_by = _made_by.get(_code(func))
    if made_by is not None:
        return _with_backend(made_by, backend)(func)
    if _is_coroutine_function(func):
        return _with_backend(coroutine, backend)(func)
    if _is_generator_function(func):
        return _with_backend(generator, backend)(func)
    raise _misuse("anysync", func, "an `async def` function, with or without `yield`")


@overload
def coroutine(func: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, AnySyncCoroutine[R]]: ...
@overload
def coroutine(*, backend: str | None = None) -> CoroutineDecorator: ...
def coroutine(func: Any = _NOT_YET, *, backend: str | None = None) -> Any:
    """Make a coroutine function callable from both worlds: `await f()`, and `f().run()`."""
    if func is _NOT_YET:
        return _with_backend(coroutine, backend)
    if backend is None and _made_by.get(_code(func)) is coroutine:
        return func
    if not _is_coroutine_function(func):
        raise _misuse("coroutine", func, _COROUTINE)

    if backend is None:

        @wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            coro = func(*args, **kwargs)
            return AnySyncCoroutine(coro) if type(coro) is _PLAIN else wrap_coroutine(coro)

    else:

        @wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return AnySyncCoroutine(wrap_coroutine(func(*args, **kwargs)).coro, backend)

    _mark_as_coroutine_function(wrapper)
    return _made(wrapper, coroutine)


@overload
def generator(func: Callable[P, AsyncGenerator[Y, S]]) -> Callable[P, AnySyncGenerator[Y, S]]: ...
@overload
def generator(*, backend: str | None = None) -> GeneratorDecorator: ...
def generator(func: Any = _NOT_YET, *, backend: str | None = None) -> Any:
    """Make an async generator function callable from both worlds: `async for x in g()`, `for x in g()`."""
    if func is _NOT_YET:
        return _with_backend(generator, backend)
    if _made_by.get(_code(func)) is generator:
        if backend is None:
            return func
    elif not _is_generator_function(func):
        raise _misuse("generator", func, _GENERATOR)

    @wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        generator = wrap_async_generator(func(*args, **kwargs))
        if backend is not None:
            bind(generator, partial(here, backend))
        return generator

    return _made(wrapper, generator)


@overload
def iterator(func: Callable[P, AsyncIterator[Y]]) -> Callable[P, AnySyncIterator[Y]]: ...
@overload
def iterator(*, backend: str | None = None) -> IteratorDecorator: ...
def iterator(func: Any = _NOT_YET, *, backend: str | None = None) -> Any:
    """Make a function that returns an async iterator callable from both worlds: `async for`, and `for`."""
    if func is _NOT_YET:
        return _with_backend(iterator, backend)
    given: Any = func
    manager = isinstance(given, AbstractAsyncContextManager)  # some can be called, as decorators
    if _made_by.get(_code(func)) in (iterator, generator):
        if backend is None:
            return func
    elif _code(func) in _made_by or manager or not _is_plain_callable(func) or _is_coroutine_function(func):
        raise _misuse("iterator", func, "a function that returns an async iterator")

    @wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        iterator = wrap_async_iterator(func(*args, **kwargs))
        if backend is not None:
            bind(iterator, partial(here, backend))
        return iterator

    return _made(wrapper, iterator)


@overload
def contextmanager(func: Callable[P, AsyncIterator[R]]) -> Callable[P, AnySyncContextManager[R]]: ...
@overload
def contextmanager(*, backend: str | None = None) -> ContextManagerDecorator: ...
def contextmanager(func: Any = _NOT_YET, *, backend: str | None = None) -> Any:
    """Make an async generator function with one `yield` a context manager of both worlds.

    `contextlib.asynccontextmanager` for `async with cm()`, and for `with cm()` too. What the function returns
    can be entered once; a second time raises `RuntimeError`. It is no decorator.
    """
    if func is _NOT_YET:
        return _with_backend(contextmanager, backend)
    make: Any = func
    if _made_by.get(_code(func)) is not contextmanager:
        if not _is_generator_function(func):
            raise _misuse("contextmanager", func, _GENERATOR)
        make = asynccontextmanager(func)
    elif backend is None:
        return func

    @wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        manager = _OneShotContextManager[Any](make(*args, **kwargs))
        return manager if backend is None else manager.bind(partial(here, backend), None)

    return _made(wrapper, contextmanager)


def _with_backend(decorator: Callable[..., Any], backend: str | None) -> Any:
    check_backend(backend)
    return partial(decorator, backend=backend)


class _OneShotContextManager(WrappedContextManager[R, "bool | None"]):
    def __aenter__(self) -> Any:
        mine = object()
        if vars(self).setdefault("_entered", mine) is not mine:
            raise RuntimeError(
                "this context manager has been entered before: call its function again for a new one"
            )
        return super().__aenter__()


def _made(wrapper: F, decorator: Callable[..., Any]) -> F:
    _made_by[_code(wrapper)] = decorator
    return wrapper


def _code(func: object) -> Any:
    return getattr(func, "__code__", None)


def _is_coroutine_function(func: object) -> bool:
    # imported with the first decoration, not with anysync
    if sys.version_info >= (3, 12):
        from inspect import iscoroutinefunction
    else:  # before Python 3.12, where inspect does not know of marks
        from asyncio import iscoroutinefunction

    while isinstance(func, partial):
        func = cast("partial[object]", func).func
    return _is_plain_callable(func) and (
        iscoroutinefunction(func) or iscoroutinefunction(type(func).__call__)
    )


def _is_generator_function(func: object) -> bool:
    from inspect import isasyncgenfunction

    return _is_plain_callable(func) and (isasyncgenfunction(func) or isasyncgenfunction(type(func).__call__))


def _is_plain_callable(func: object) -> bool:
    """Whether `func` is called as a function is: it is no class and no descriptor."""
    return callable(func) and not isinstance(func, (type, classmethod, staticmethod))


def _mark_as_coroutine_function(wrapper: Any) -> None:
    """Have frameworks see a coroutine function, whose result they must await."""
    if sys.version_info >= (3, 12):
        import inspect

        inspect.markcoroutinefunction(wrapper)
    else:  # before Python 3.12
        from asyncio import coroutines

        wrapper._is_coroutine = coroutines._is_coroutine  # type: ignore[attr-defined]


def _misuse(decorator: str, func: object, expected: str) -> TypeError:
    """Return the error for a decorator on what it is not for: what came, and what to do about it."""
    made_by = _made_by.get(_code(func))
    kind = type(func).__name__
    if kind in ("classmethod", "staticmethod"):
        came, remedy = f"a {kind}", f"put @{kind} above @{decorator}"
    elif isinstance(func, type):
        came, remedy = f"the class {func.__name__}", "decorate its methods"
    elif isinstance(func, Coroutine):
        func.close()
        came, remedy = (
            "a coroutine",
            "decorate the function that makes it, or use anysync.run() or wrap_coroutine()",
        )
    elif isinstance(func, AsyncIterator):
        came, remedy = (
            "an async iterator",
            "decorate the function that makes it, or use a wrap_async_* function",
        )
    elif isinstance(func, AbstractAsyncContextManager):
        came, remedy = "an async context manager", "use wrap_async_context_manager()"
    elif made_by is not None:
        came, remedy = f"a function decorated with @{made_by.__name__}", "keep one of the two"
    elif _is_coroutine_function(func):
        came, remedy = "a coroutine function", "use @anysync.coroutine, or give it a `yield`"
    elif _is_generator_function(func):
        came, remedy = "an async generator function", "use @anysync.generator or @anysync.contextmanager"
    elif callable(func):
        came = "a sync function"
        remedy = (
            "make it `async def`; for one that returns an async object, decorate with @iterator or use wrap_*"
        )
    else:
        came, remedy = f"an object of type {kind}", "decorate a function"
    return TypeError(f"@{decorator} expects {expected}, not {came} ({func!r}): {remedy}")
