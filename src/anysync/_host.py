"""A host: one event loop, and who drives it. What the kinds of hosts share."""

import asyncio
import atexit
import os
import sys
import threading
import weakref
from _thread import allocate_lock
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from ._core import Call, drop_frame, keep_for_good, wait
from ._on_asyncio import Loop, Session

if TYPE_CHECKING:
    from ._kept_host import Keeper, KeptHost
    from ._thread_host import ThreadHost


Coro = Coroutine[Any, Any, Any]


class ThreadState(threading.local):
    """What a thread has of ours."""

    kept: "KeptHost | None" = None
    keeper: "Keeper | None" = None
    #: the kept host that this thread drives, or is about to, and the frame that does it
    busy: "KeptHost | None" = None
    frame: FrameType | None = None
    #: the host whose own thread this is
    server: "ThreadHost | None" = None


class Process:
    """What this process has of ours. A forked child starts afresh, with the same defaults."""

    def __init__(self) -> None:
        #: how loops are made: `loop_factory` and `debug`, as `asyncio.Runner` takes them
        self.defaults: dict[str, Any] = {}
        self.exiting = False
        self.start_afresh()

    def start_afresh(self) -> None:
        self.hosts: weakref.WeakSet[Host] = weakref.WeakSet()
        self.thread = ThreadState()
        self.background: ThreadHost | None = None
        #: held to start a thread; reentrant, since garbage collection may come back here
        self.starting = threading.RLock()

    def busy(self) -> "KeptHost | None":
        """Return the kept host that this thread is driving; forget one that an interrupt left marked."""
        thread = self.thread
        if thread.busy is not None:
            frame: FrameType | None = sys._getframe()  # pyright: ignore[reportPrivateUsage]
            while frame is not None and frame is not thread.frame:
                frame = frame.f_back
            if frame is None:
                thread.busy.recover()
                thread.busy = thread.frame = None
        return thread.busy

    def forked(self) -> None:
        """In the child: give up the parent's hosts, whose threads are not here."""
        for host in list(self.hosts):
            host.give_up("this object lives in the process that forked this one: make a new one here")
        self.start_afresh()

    def exit(self) -> None:
        """Close all hosts: kept loops first, since their clean-up may still call into the background."""
        self.exiting = True
        for host in sorted(self.hosts, key=lambda host: host.exit_order):
            host.close()


process = Process()
atexit.register(process.exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=process.forked)


class Host:
    """One event loop, and who drives it.

    `open` holds what lives on the loop between calls: sessions, and calls that were submitted. `gone`
    is None until the loop serves no longer, and then says why.
    """

    exit_order: int

    def __init__(
        self, make_loop: Callable[[], asyncio.AbstractEventLoop], options: dict[str, Any] | None = None
    ) -> None:
        options = process.defaults | (options or {})
        self._runner = asyncio.Runner(
            loop_factory=options.get("loop_factory") or make_loop, debug=options.get("debug")
        )
        self.loop = self._runner.get_loop()
        self.open: set[object] = set()
        self.gone: str | None = None
        process.hosts.add(self)

    def run(self, coro: Coro, timeout: float | None, context: Context | None) -> Callable[[], Any]:
        """Run `coro` to its end; return what returns or raises its outcome."""
        call = Call(self.loop, coro, timeout, context)
        self.perform(call)
        return call.take()

    def submit(self, coro: Coro, context: Context | None) -> "Future[Any]":
        """Start `coro`; return a future of its outcome, whose `cancel()` cancels it."""
        future: Future[Any] = Future()
        call = Call(self.loop, coro, None, context)
        call.on_done = partial(self._resolve, call, future)
        future.add_done_callback(partial(self._pass_cancel, call))
        self.open.add(call)
        self.post(call.begin, call)
        return future

    def _resolve(self, call: Call, future: "Future[Any]") -> None:
        self.closed(call)
        try:
            value = call.take()()
        except asyncio.CancelledError:
            future.cancel()
            future.set_running_or_notify_cancel()
        except BaseException as error:
            drop_frame(error)
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(value)

    def _pass_cancel(self, call: Call, future: "Future[Any]") -> None:
        if future.cancelled():
            self.post(call.cancel, call)

    def session(self, context: Context | None = None, **options: Any) -> Session:
        """Return a new session on this host."""
        return Session(self, context, **options)

    def perform(self, call: Call) -> None:
        """Take `call` to its end."""
        raise NotImplementedError

    def perform_sometime(self, call: Call) -> bool:
        """Take `call` to its end without waiting, wherever garbage collection runs; true if it has ended."""
        if self.gone is None:
            self.post(call.begin, call)
        return False

    def post(self, job: Callable[[], object], call: Call) -> None:
        """Have whoever drives the loop do `job`, for `call`, which fails if the loop serves no longer."""
        raise NotImplementedError

    def _do(self, job: Callable[[], object], call: Call) -> None:
        """Do what was posted, unless it would begin `call` while the host ends."""
        if self.gone is not None and job == call.begin:
            call.abort(RuntimeError(self.gone))
        else:
            job()

    def closed(self, thing: object) -> None:
        """Hear, from who drives the loop, that something `open` is no longer."""
        self.open.discard(thing)

    def _close_loop(self) -> None:
        try:
            self._runner.close()
        except RuntimeError:  # at exit no thread can start to wait for the executor's, which are gone by then
            if not process.exiting:
                raise
        finally:
            for thing in tuple(self.open):
                if isinstance(thing, Call):  # posted too late
                    thing.abort(RuntimeError(self.gone))

    def close(self) -> None:
        """Cancel what is left on the loop, wait for it, and close the loop."""
        raise NotImplementedError

    def _post_and_wait(self, call: Call) -> None:
        """Have `call` done by whoever drives the loop. An interrupt cancels it; a second one leaves."""
        done = allocate_lock()
        done.acquire()
        call.on_done = done.release
        job = call.begin
        interrupt: BaseException | None = None
        try:
            while call.result is None:
                try:
                    self.post(job, call)
                    wait(done)
                except BaseException as error:
                    if interrupt is not None:
                        raise
                    interrupt, job = error, call.cancel
            if interrupt is not None:
                raise interrupted(call, interrupt)
        finally:
            del interrupt

    def give_up(self, reason: str) -> None:
        """Serve no longer, without another turn of the loop, and never let its tasks be collected.

        A forked child shares the kernel's selector with its parent: to close the loop there would
        unregister the parent's descriptors, and to collect its tasks would run the parent's `finally`.
        """
        self.gone = reason
        keep_for_good(self)
        for task in asyncio.all_tasks(self.loop):
            keep_for_good(task)
            cast("Any", task)._log_destroy_pending = False
        if isinstance(self.loop, Loop):
            self.loop.shut()


def interrupted(call: Call, interrupt: BaseException) -> BaseException:
    """Return `interrupt`, which cancelled `call`, with what the clean-up raised as its cause."""
    try:
        call.take()()
    except asyncio.CancelledError:
        pass
    except BaseException as error:
        interrupt.__cause__ = None if error is interrupt else error
    return interrupt


def start_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a thread that begins with an empty context, also where threads inherit their starter's."""
    thread = threading.Thread(target=Context().run, args=(target,), name=name, daemon=True)
    thread.start()
    return thread
