"""Coroutines of both worlds, and what all objects of both worlds share."""

import atexit
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
)
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from math import isnan
from sys import is_finalizing, modules
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._core import BaseCoroutine, importing

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ._calls import Session
    from ._host import Host
    from ._process import Process
    from ._pyloop import R_co
else:
    R_co = Any

R = TypeVar("R")


def the_process() -> "Process":
    """Return what this process has of ours; asyncio is imported with the first use, not with anysync."""
    global _process
    if _process is None:  # else without the lock: a signal handler that breaks in may wait for who wants it
        with importing:
            from ._hosts import process
        _process = process
    return _process


_process: "Process | None" = None


def here(backend: str | None = None) -> "Host":  # noqa: F811
    """Return the host that serves a call made here."""
    # asyncio is imported with the first call: this replaces itself
    global here
    try:
        with importing:
            from ._hosts import here
    except ImportError:
        if not is_finalizing():
            raise
        raise RuntimeError(
            "the interpreter is shutting down, and what the first call needs cannot be imported any more"
        ) from None

    return here(backend)


@atexit.register
def _prepare_for_destructors() -> None:
    """Make a first call possible in a destructor that runs when nothing can be imported any more."""
    global here
    if "asyncio" in modules and "anysync._hosts" not in modules:
        from ._hosts import here
        from ._process import process

        process.exit()


def check_backend(backend: str | None) -> None:
    """Raise `ValueError` for a backend that there is not, and `ImportError` for one that is not installed."""
    if backend not in (None, "asyncio", "trio"):
        raise ValueError(f"unknown backend {backend!r}: there are 'asyncio' and 'trio'")
    if backend == "trio" and not is_finalizing() and "trio" not in modules:
        from importlib.util import find_spec

        if find_spec("trio") is None:
            raise ImportError("the backend 'trio' needs trio: pip install 'anysync[trio]'", name="trio")


def check_context(context: object) -> None:
    if context is not None and not isinstance(context, Context):
        raise TypeError(f"context must be a contextvars.Context or None, not {context!r}")


def checked(coro: Coroutine[Any, Any, Any], timeout: float | None, context: Context | None) -> float | None:
    """Return `timeout` as the hosts want it. Bad arguments raise, and close `coro`, which will not run."""
    if getattr(coro, "cr_await", None) is not None:
        raise RuntimeError("coroutine is being awaited already")
    if timeout is None and context is None:
        return None
    try:
        check_context(context)
        if timeout is None or timeout == float("inf"):
            return None
        try:
            if isnan(timeout):
                raise ValueError("timeout must be a number of seconds, not nan")
        except TypeError:
            raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}") from None
        except OverflowError:  # longer than a float can tell
            return None if timeout > 0 else 0.0
        return float(timeout)
    except BaseException:
        coro.close()
        raise


class AnySyncCoroutine(BaseCoroutine[R_co]):
    """A coroutine for both worlds: `await` it in async code, or `run()` it in sync code.

    It takes the place of the coroutine `coro` everywhere: it can be awaited, given to
    `asyncio.create_task`, run once, and warns if it was never run.
    """

    __slots__ = ()

    def _check(self) -> None:
        if not isinstance(self.coro, Coroutine):
            raise TypeError(f"expected a coroutine, not {self.coro!r}: {remedy(self.coro)}")

    def _run(self, timeout: float | None, context: Context | None, backend: str | None) -> Callable[[], Any]:
        coro = self.coro
        timeout = checked(coro, timeout, context)
        return host_for(coro, self.backend if backend is None else backend).run(coro, timeout, context)

    def submit(self, *, context: Context | None = None, backend: str | None = None) -> "Future[R_co]":
        """Start the coroutine and return a `concurrent.futures.Future` of its outcome.

        Cancelling the future cancels the coroutine. `context` and `backend` are as in `run`. In plain sync
        code the coroutine goes on while the calling thread does other things, on a helper thread.
        """
        coro = self.coro
        checked(coro, None, context)
        return host_for(coro, self.backend if backend is None else backend).submit(coro, context)

    if not TYPE_CHECKING:  # where a name that is not there must be an error: a forgotten `run()`, for one

        def __getattr__(self, name: str) -> Any:
            # cr_frame, cr_code and the like, which debuggers and asyncio's repr look at
            if name.startswith("cr_"):
                return getattr(self.coro, name)
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.coro!r}>"


def wrap_coroutine(coroutine: Coroutine[Any, Any, R]) -> AnySyncCoroutine[R]:
    """Make a coroutine usable from both worlds."""
    if isinstance(coroutine, AnySyncCoroutine):
        return coroutine
    return AnySyncCoroutine(coroutine)


async def _wait_for(awaitable: Awaitable[R]) -> R:
    return await awaitable


def as_coroutine(awaitable: Awaitable[R]) -> Coroutine[Any, Any, R]:
    """Return the coroutine in `awaitable`, or one that awaits it."""
    if isinstance(awaitable, AnySyncCoroutine):
        awaitable = awaitable.coro
    if isinstance(awaitable, Coroutine):
        return cast("Coroutine[Any, Any, R]", awaitable)
    from inspect import isawaitable  # it also knows the coroutines that @types.coroutine makes

    if not isawaitable(awaitable):
        raise TypeError(f"expected an awaitable, not {awaitable!r}: {remedy(awaitable)}")
    return _wait_for(awaitable)


def backend_of(awaitable: object) -> str | None:
    """Return what a decorator was told of where `awaitable` runs."""
    return awaitable.backend if isinstance(awaitable, BaseCoroutine) else None


def run(
    awaitable: Awaitable[R],
    timeout: float | None = None,
    *,
    context: Context | None = None,
    backend: str | None = None,
) -> R:
    """Run any awaitable from sync code and return its result, as `AnySyncCoroutine.run` does."""
    backend = backend_of(awaitable) if backend is None else backend
    coro = as_coroutine(awaitable)
    timeout = checked(coro, timeout, context)
    return cast("R", host_for(coro, backend).run(coro, timeout, context)())


def host_for(coro: Coroutine[Any, Any, Any], backend: str | None) -> "Host":
    try:
        if backend is not None:
            check_backend(backend)
        return here(backend)
    except BaseException:  # no thread can start
        coro.close()
        raise


def remedy(thing: object) -> str:
    """Say what to do with `thing`, which was given in place of something else."""
    if isinstance(thing, Coroutine):
        thing.close()
        return "it must be awaited first"
    from concurrent.futures import Future
    from inspect import isawaitable

    if isinstance(thing, Future):
        return "call its result()"
    if isawaitable(thing):
        return "use anysync.run(), which takes any awaitable"
    if isinstance(thing, AsyncGenerator):
        return "use wrap_async_generator, or make its function a context manager with `contextmanager`"
    if isinstance(thing, AsyncIterator):
        return "use wrap_async_iterator"
    if isinstance(thing, AsyncIterable):
        return "use aiter() on it first"
    if isinstance(thing, AbstractAsyncContextManager):
        return "use wrap_async_context_manager"
    if callable(thing):
        return "call it first"
    return "nothing here takes one"


class Stepped:
    """What is stepped from sync code: a copy of it has yet to begin."""

    def __getstate__(self) -> Any:
        state: Any = super().__getstate__()
        own, *slots = cast("Any", state if isinstance(state, tuple) else (state,))
        own = dict(own or {})
        for name, value in own.items():
            if isinstance(value, Steps):
                own[name] = value.anew()
        return (own, *slots) if slots else own


class Steps:
    """How one object is stepped from sync code: in which world it was begun, where, and its session.

    Objects keep it under a name that a subclass will not take.
    """

    #: among the instance's own attributes while there is one: whoever puts it there first has begun
    session: "Session | None" = None
    #: likewise, from the first step on
    world: str | None = None

    def __init__(self) -> None:
        self.choose_host: Callable[[], Host] | None = None
        self.context: Context | None = None

    def anew(self) -> "Steps":
        """Return those of an object that has yet to begin, in the same place."""
        steps = Steps()
        steps.choose_host, steps.context = self.choose_host, self.context
        return steps

    def enter(self, world: str) -> None:
        """Raise if the object was begun in the other world, unless its own code in that world steps it."""
        own = vars(self).setdefault("world", world)
        session = self.session
        if own != world and (session is None or not session.is_here()):
            raise RuntimeError(f"begun in {own} code, cannot go on in {world} code: use one or the other")

    def begin(self, **options: Any) -> bool:
        """Begin a session, unless another thread has just done so; say whether it did."""
        host = here() if self.choose_host is None else self.choose_host()
        session = host.session(self.context, **options)
        begun = vars(self).setdefault("session", session) is session
        if not begun:
            host.forget(session)
        return begun

    def end(self) -> None:
        """Have no session any more."""
        vars(self).pop("session", None)

    def step(
        self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...] = (), last: bool = False
    ) -> Callable[[], Any]:
        """Await `function(*args)` in the session; return what returns or raises its outcome."""
        session = self.session
        if session is None:
            raise RuntimeError("already running: another thread has just ended this object")
        step, entered = object(), False
        try:  # before it enters: an interrupt may come as that returns
            session.enter(step)
            if self.session is not session:
                raise RuntimeError("already running: another thread has just ended this object")
            entered = True
            return session.step(function, args, last)
        finally:
            try:
                if entered and session.task is None and not session.lost:  # ended by a step, or never begun
                    self.end()
                    session.host.forget(session)
            finally:
                session.leave(step, None)
