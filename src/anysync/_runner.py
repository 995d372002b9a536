"""`Runner`, a private loop on a thread of its own, and `configure`, the defaults for every loop."""

import sys
from _thread import RLock
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from importlib import import_module
from os import getpid
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, overload

from ._iterators import (
    AnySyncGenerator,
    AnySyncIterator,
    WrappedGenerator,
    WrappedIterator,
    bind,
    wrap_async_iterator,
)
from ._managers import AnySyncContextManager, WrappedContextManager, wrap_async_context_manager
from ._objects import as_coroutine, check_backend, checked, the_process

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from concurrent.futures import Future

    from ._thread_host import ThreadHost

E = TypeVar("E", bound=bool | None)
R = TypeVar("R")
S = TypeVar("S")
Y = TypeVar("Y")


class Runner:
    """One event loop on one thread of its own, for a library that wants a private one.

    The thread, called `name`, starts with the first use, and ends with `close` or with the process.
    All methods may be called from any thread but that one, also inside a running loop, which a call
    then blocks. After a fork, the child's runner starts anew. `backend` is `"asyncio"` or `"trio"`, and
    `backend_options` are those of `anyio.run` for it; what is not given is as `configure` says.
    """

    def __init__(
        self,
        name: str = "anysync runner",
        *,
        backend: str | None = None,
        backend_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        check_backend(backend)
        if backend_options and backend is None:
            backend = the_process().backend
        self._options = _loop_options(backend, backend_options or {})
        #: the one that the options are of; else the one that is configured when the thread starts
        self._backend = backend
        self._host: ThreadHost | None = None
        self._closed = False
        #: by process: after a fork, the parent's may be held for good
        self._locks: dict[int, RLock] = {}

    def run(
        self, awaitable: Awaitable[R], timeout: float | None = None, *, context: Context | None = None
    ) -> R:
        """Run an awaitable on the runner's loop; everything else is as in `AnySyncCoroutine.run`."""
        coro = as_coroutine(awaitable)
        timeout = checked(coro, timeout, context)
        return cast("R", self._host_for(coro).run(coro, timeout, context)())

    def submit(self, awaitable: Awaitable[R], *, context: Context | None = None) -> "Future[R]":
        """Start an awaitable on the runner's loop; return a future, whose `cancel()` cancels it."""
        coro = as_coroutine(awaitable)
        checked(coro, None, context)
        return self._host_for(coro).submit(coro, context)

    @overload
    def iterate(
        self, iterator: AsyncGenerator[Y, S], *, context: Context | None = None
    ) -> AnySyncGenerator[Y, S]: ...
    @overload
    def iterate(
        self, iterator: AsyncIterator[Y], *, context: Context | None = None
    ) -> AnySyncIterator[Y]: ...
    def iterate(self, iterator: Any, *, context: Context | None = None) -> Any:
        """Return an iterable whose steps run on the runner's loop: `for x in runner.iterate(g())`."""
        steps = wrap_async_iterator(iterator).__anysync_steps__  # refuses what is no iterator
        if steps is not None and steps.session is not None:
            raise RuntimeError("begun in sync code already, on another loop")
        wrapper: Any = WrappedGenerator if isinstance(iterator, AsyncGenerator) else WrappedIterator
        bound = wrapper(iterator)
        bind(bound, self._live, context)
        return bound

    def enter(
        self, manager: AbstractAsyncContextManager[R, E], *, context: Context | None = None
    ) -> AnySyncContextManager[R, E]:
        """Return a context manager that lives on the runner's loop: `with runner.enter(cm()) as x`."""
        wrap_async_context_manager(manager)  # refuses what is none
        return WrappedContextManager(manager).bind(self._live, context)

    @property
    def loop(self) -> "AbstractEventLoop":
        """The event loop; reading it starts the runner. On trio, which has none, it raises `RuntimeError`."""
        host = self._live()
        if host.backend == "trio":
            raise RuntimeError("a runner on trio has no event loop to show: use run() and submit()")
        return host.loop

    def close(self) -> None:
        """Cancel what is left on the loop, wait for its clean-up, and end the thread; again does nothing.

        Calls that are under way raise `RuntimeError`, and so does every later use.
        """
        with self._lock():  # who is starting the thread now, finishes first
            self._closed = True
            host = self._host
        if host is not None:
            host.close("the runner has been closed")

    def __enter__(self) -> Self:
        self._live()
        return self

    def __exit__(
        self, typ: type[BaseException] | None, val: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        self.close()

    def _host_for(self, coro: Any) -> "ThreadHost":
        try:
            return self._live()
        except BaseException:
            coro.close()
            raise

    def _lock(self) -> "RLock":
        # none for all runners: a signal handler that breaks in may wait for who wants another one
        return self._locks.setdefault(getpid(), RLock())

    def _live(self) -> "ThreadHost":
        process = the_process()
        from ._thread_host import ThreadHost

        host = self._host
        if host is not None and host.gone is None and not self._closed:
            if "trio" in sys.modules:  # imported perhaps since the thread started
                host.tell_library()
            return host  # without the lock: who holds it may be interrupted by a signal handler that waits
        with self._lock():
            if self._closed:
                raise RuntimeError("the runner has been closed")
            if self._host is None or self._host.gone is not None:  # gone with a fork
                self._host = ThreadHost(self.name, self._backend or process.backend, options=self._options)
            return self._host


def configure(
    *,
    backend: str | None = None,
    backend_options: Mapping[str, Any] | None = None,
    stall_warning: float | None = None,
    go_home: bool | None = None,
) -> None:
    """Set where this process's coroutines run, how loops are made, and when to warn of a blocked one.

    What is not given stays as it is, and so do loops that exist already. `backend` and `backend_options`
    are spelled as in `anyio.run`. `backend`, `"asyncio"` or `"trio"`, is where plain sync code runs its
    coroutines, and where a `Runner` does; inside a running loop, that loop's library is. `backend_options`
    are those of the backend, or of the one that is configured if none is given: for asyncio `debug`,
    `loop_factory` and `use_uvloop`, for trio `clock`, `instruments` and `strict_exception_groups`.

    When a sync call has blocked the event loop that it was made on for `stall_warning` seconds, the logger
    `"anysync"` is given a warning that shows the stacks of both, once for each call. That is looked for four
    times a second. Until this is set, loops in asyncio's debug mode are warned of after 5 seconds, and others
    never; `math.inf` is never.

    `go_home`, which is on until it is set to false, has sync code in a worker thread of anyio's or trio's,
    such as a sync endpoint of Starlette or FastAPI, run its coroutines on the loop that waits for the thread
    (`anyio.to_thread.run_sync`, `trio.to_thread.run_sync`). Else they run in the thread itself.

    Raises `ValueError` for an unknown backend or seconds that are not positive, `TypeError` for an unknown
    option or a value of the wrong type, `ImportError` if trio or uvloop is asked for and not installed. Then
    nothing is changed.
    """
    check_backend(backend)
    if go_home is not None and not isinstance(go_home, bool):
        raise TypeError(f"go_home must be True or False, not {go_home!r}")
    if stall_warning is not None:
        try:
            positive = stall_warning > 0
            if isinstance(stall_warning, bool):
                raise TypeError
        except TypeError:
            raise TypeError(f"stall_warning must be a number of seconds, not {stall_warning!r}") from None
        if not positive:  # or nan
            raise ValueError(
                f"stall_warning must be a number of seconds above 0, or math.inf, not {stall_warning!r}"
            )
    if backend is not None or backend_options is not None:
        from ._core import be_direct

        process = the_process()
        configured = backend or process.backend
        # before the backend: a thread may make its first call in between
        process.defaults[configured] |= _loop_options(configured, backend_options or {})
        if backend is not None:
            process.backend = backend
            be_direct(process.backend == "asyncio")
    if stall_warning is not None:
        from . import _stalls

        _stalls.limit = stall_warning
    if go_home is not None:
        from ._process import process

        process.go_home = go_home


_OPTIONS = {
    "asyncio": ("debug", "loop_factory", "use_uvloop"),
    "trio": ("clock", "instruments", "strict_exception_groups"),
}


def _loop_options(backend: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the backend options of `anyio.run` into those of `asyncio.Runner`, or of `trio.run`."""
    if not isinstance(options, Mapping):
        raise TypeError(f"backend_options must be a mapping, as for anyio.run, not {options!r}")
    if not options:
        return {}
    process = the_process()

    backend = backend or process.backend
    if unknown := set(options) - set(_OPTIONS[backend]):
        names = ", ".join(sorted(map(repr, unknown)))
        *known, last = map(repr, _OPTIONS[backend])
        raise TypeError(f"unknown backend options {names}: {backend} has {', '.join(known)} and {last}")
    if backend == "trio":
        clock, instruments = options.get("clock"), options.get("instruments", ())
        if clock is not None and not hasattr(clock, "deadline_to_sleep_time"):
            raise TypeError(f"clock must be a trio.abc.Clock or None, not {clock!r}")
        if not isinstance(instruments, Iterable):
            raise TypeError(f"instruments must be some trio.abc.Instrument, not {instruments!r}")
        return {**options, "instruments": [*cast("Iterable[object]", instruments)]}
    translated = {name: options[name] for name in ("debug", "loop_factory") if name in options}
    factory = translated.get("loop_factory")
    if factory is not None and not callable(factory):
        raise TypeError(f"loop_factory must be a function that returns an event loop, not {factory!r}")
    if factory is None and "use_uvloop" in options:
        translated["loop_factory"] = _uvloop_factory() if options["use_uvloop"] else None
    return translated


def _uvloop_factory() -> "Callable[[], AbstractEventLoop]":
    name, package = ("winloop", "winloop") if sys.platform == "win32" else ("uvloop", "'anysync[uvloop]'")
    try:
        factory: Callable[[], AbstractEventLoop] = import_module(name).new_event_loop
    except ImportError as error:
        raise ImportError(f"use_uvloop needs {name}: pip install {package}", name=name) from error
    return factory
