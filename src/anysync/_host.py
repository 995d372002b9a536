"""A host: one event loop, and who drives it. What the kinds of hosts share."""

import asyncio
import atexit
import os
import sys
import threading
import weakref
from _thread import get_ident
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from functools import partial
from importlib import import_module
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from ._calls import Call, Session, keep_for_good, see_through
from ._core import (
    BaseCall,
    Latch,
    be_direct,
    default_backend,
    drop_frame,
    importing,
    load,
    spin_seconds,
    thread,
)
from ._on_asyncio import Loop
from ._stalls import watch

if TYPE_CHECKING:
    from ._kept_host import KeptHost
    from ._pyloop import Coro
    from ._thread_host import ThreadHost


class Process:
    """What this process has of ours. A forked child starts afresh, with the same defaults."""

    def __init__(self) -> None:
        #: where plain sync code runs its coroutines
        self.backend = default_backend
        #: whether worker threads of anyio's are served by the loop that waits for them
        self.go_home = True
        #: how loops of each backend are made: as `asyncio.Runner` takes it, and as `trio.run`
        self.defaults: dict[str, dict[str, Any]] = {"asyncio": {}, "trio": {}}
        #: whether `exit` has been called, or never will be
        self.exiting: bool = getattr(threading, "_SHUTTING_DOWN", False)
        #: until when `exit` waits for a daemon thread to end its call
        self.patience = 0.0
        self.start_afresh()

    def start_afresh(self) -> None:
        self.pid = os.getpid()
        self.hosts: weakref.WeakSet[Host] = weakref.WeakSet()
        #: those of threads that Python has buried in a child, before `forked`
        self.orphans: list[Host] = []
        #: those of a subinterpreter, whose end is fatal before theirs
        self.threads: set[threading.Thread] = set()
        #: those of all hosts, by the thread that is about to fork
        self.tasks: dict[int, set[asyncio.Task[Any]]] = {}
        vars(thread).clear()
        self.main_thread = threading.main_thread().ident
        #: the background threads, one for each backend
        self.background: dict[str, ThreadHost] = {}
        #: loops of nested calls, to be used again: to make one takes as long as the rest of such a call
        self.spare: list[Loop] = []
        #: hosts whose thread has been made, and has not begun to serve
        self.newborn: set[ThreadHost] = set()
        #: held to start a thread; reentrant, since garbage collection may come back here
        self.starting = threading.RLock()

    def busy(self) -> "KeptHost | None":
        """Return the kept host that this thread is driving; forget one that an interrupt left marked."""
        if thread.busy is None:
            return None
        host, driving = thread.busy
        frame: FrameType | None = sys._getframe()  # pyright: ignore[reportPrivateUsage]
        while frame is not None and frame is not driving:
            frame = frame.f_back
        if frame is not None:
            return host
        host.recover()
        thread.busy = None
        return None

    def newborn_here(self) -> "ThreadHost | None":
        """Return the host whose thread this is, if it does not serve yet: garbage is collected there too."""
        here = get_ident()
        for host in self.newborn.copy():
            ident = host.thread.ident
            if ident == here or (ident is None and here not in (t.ident for t in threading.enumerate())):
                return host
        return None

    def about_to_fork(self) -> None:
        """Note which tasks there are, which since Python 3.14 the child cannot be told."""
        here = get_ident()
        while here not in self.tasks:
            with suppress(RuntimeError):  # another thread has just made a host
                self.tasks[here] = {task for host in self.hosts for task in asyncio.all_tasks(host.loop)}

    def has_forked(self) -> None:
        """In the parent: forget the tasks."""
        del self.tasks[get_ident()]

    def is_not_ours(self) -> bool:
        """Whether this process is a child in which `forked` has yet to be called."""
        return os.getpid() != self.pid

    def forked(self) -> None:
        """In the child: give up the parent's hosts, whose threads are not here."""
        for host in list(self.hosts):
            with suppress(AttributeError):  # another thread's garbage collection was taking it apart
                host.give_up("this object lives in the process that forked this one: make a new one here")
        for task in self.tasks.get(get_ident(), ()):
            _keep_task(task)
        for loop in self.spare:
            loop.shut()
        self.start_afresh()

    def exit(self) -> None:
        """Close all hosts: kept loops first, since their clean-up may still call into the background."""
        self.exiting = True
        self.patience = monotonic() + 1
        for host in sorted(self.hosts, key=lambda host: host.exit_order):
            host.close()
        for ours in self.threads:
            ours.join()


def _keep_task(task: "asyncio.Task[Any]") -> None:
    """Never let a task be collected, nor complain that it is pending."""
    keep_for_good(task)
    cast("Any", task)._log_destroy_pending = False


load(spin_seconds, watch)
be_direct(default_backend == "asyncio")
process = Process()
atexit.register(process.exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=process.forked)
    if sys.version_info >= (3, 14):
        os.register_at_fork(before=process.about_to_fork, after_in_parent=process.has_forked)


def on_trio() -> Any:
    """Return the module of what only trio needs, which is imported once: destructors cannot when all ends."""
    global _on_trio
    if _on_trio is None:
        with importing:
            import_module("trio.from_thread")  # anyio's way in: two ways can meet half-way, in two threads
            from . import _on_trio
    return _on_trio


_on_trio: Any = None


def new_loop(
    backend: str,
    make_loop: Callable[[], asyncio.AbstractEventLoop],
    options: dict[str, Any] | None = None,
    *,
    mailbox: bool = False,
) -> tuple[asyncio.AbstractEventLoop, Callable[[], object]]:
    """Return a new loop, and what closes it: what the options say, or what `make_loop` returns on asyncio."""
    options = process.defaults[backend] | (options or {})
    if backend == "trio":
        loop: Any = on_trio().TrioLoop(options, mailbox=mailbox)
        return loop, loop.close
    runner = asyncio.Runner(loop_factory=options.get("loop_factory") or make_loop, debug=options.get("debug"))
    return runner.get_loop(), runner.close


class Host:
    """One event loop, and who drives it.

    `open` holds what lives on the loop between calls: sessions, and calls that were submitted. `gone`
    is None until the loop serves no longer, and then says why.
    """

    exit_order: int
    #: whether the loop is turned only while somebody waits, or something is open
    keeps = False

    def __init__(self, backend: str, loop: asyncio.AbstractEventLoop, end_loop: Callable[[], object]) -> None:
        self.backend = backend
        self.loop = loop
        self._end_loop = end_loop
        self._call_type = Call
        self._session_type = Session
        if backend == "trio":
            self._session_type = on_trio().TrioSession
        self.open: set[object] = set()
        #: what was submitted, until its future has been told the outcome
        self.futures: dict[BaseCall, Future[Any]] = {}
        self.gone: str | None = None
        self.given_up = False
        process.hosts.add(self)

    def run(self, coro: "Coro", timeout: float | None, context: Context | None) -> Callable[[], Any]:
        """Run `coro` to its end; return what returns or raises its outcome."""
        call = self._call_type(self.loop, coro, timeout, context)
        self.perform(call)
        return call.take()

    def submit(self, coro: "Coro", context: Context | None) -> "Future[Any]":
        """Start `coro`; return a future of its outcome, whose `cancel()` cancels it."""
        future: Future[Any] = Future()
        call = self._call_type(self.loop, coro, None, context)
        call.on_done = partial(self._resolve, call, future)
        future.add_done_callback(partial(self._pass_cancel, call))
        self.futures[call] = future
        self.open.add(call)
        self.post(call)
        return future

    def _resolve(self, call: Call, future: "Future[Any]") -> None:
        """Tell `future` the outcome, and wait for nobody who is in it.

        That may be a thread into which a signal handler has broken, which may wait for this loop.
        """
        self.closed(call)
        ours: Any = future
        callbacks: list[Any] = []
        held = ours._condition.acquire(blocking=False)
        try:
            if not held or ours._waiters:  # which have locks of their own
                with suppress(RuntimeError):  # no thread can start
                    start(new_thread("anysync teller", partial(self._tell, call, future)))
                    return
            if held and not future.cancelled():  # else who has cancelled it calls back
                callbacks, ours._done_callbacks = ours._done_callbacks, callbacks
            self._tell(call, future)
        finally:
            if held:
                ours._condition.release()
        if callbacks:
            ours._done_callbacks = callbacks
            ours._invoke_callbacks()

    def _tell(self, call: Call, future: "Future[Any]") -> None:
        try:
            value = call.take()()
        except asyncio.CancelledError as error:
            drop_frame(error)
            future.cancel()
            future.set_running_or_notify_cancel()
        except BaseException as error:
            drop_frame(error)
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(value)
        finally:
            self.futures.pop(call, None)

    def _pass_cancel(self, call: Call, future: "Future[Any]") -> None:
        # who is being told is not asked: a signal handler may have its lock, and wait for this thread
        if call in self.open and future.cancelled():
            self.post(call, call.cancel)

    def session(self, context: Context | None = None, **options: Any) -> Session:
        """Return a new session on this host."""
        return self._session_type(self, context, **options)

    def wake(self) -> None:
        """Have the loop turned if there is something to turn it for."""

    def forget(self, session: Session) -> None:
        """Hear that a session has ended, or will never begin."""

    def perform(self, call: BaseCall) -> None:
        """Take `call` to its end."""
        raise NotImplementedError

    def perform_elsewhere(self, call: BaseCall) -> None:
        """Have another thread, which drives the loop, take `call` to its end."""
        try:
            self._post_and_wait(call)
        except BaseException as error:
            see_through(call, self._post_and_wait, error)

    def _post_and_wait(self, call: BaseCall, job: Callable[[], object] | None = None) -> None:
        latch = Latch() if call.on_done is None and call.result is None else call.on_done
        if isinstance(latch, Latch):  # else it has ended meanwhile
            call.on_done = latch
            self.post(call, job)
            latch.wait(call if job is None else None)

    def perform_sometime(self, call: BaseCall) -> bool:
        """Take `call` to its end without waiting, wherever garbage collection runs; true if it has ended."""
        if self.gone is None:
            self.post(call)
        return False

    def post(self, call: BaseCall, job: Callable[[], object] | None = None) -> None:
        """Have who drives the loop begin `call`, or do `job` for it; fail it if the loop serves no longer."""
        raise NotImplementedError

    def closed(self, thing: object) -> None:
        """Hear, from who drives the loop, that something `open` is no longer."""
        self.open.discard(thing)

    def _close_loop(self) -> None:
        try:
            if isinstance(self.loop, Loop) and self.loop.spent:
                # without a turn: before Python 3.13, one at the end of a thread leaves a dictionary for good
                self.loop.close()
            else:
                self._end_loop()
        except RuntimeError as error:
            # at exit no thread can start to wait for the executor's, which Python joins by itself, before
            # it calls our `exit`: the loops of those threads close in between
            if not process.exiting and "interpreter shutdown" not in str(error):
                raise
        finally:
            for thing in self.open.copy():
                if isinstance(thing, BaseCall):  # posted too late
                    thing.abort(RuntimeError(self.gone))

    def reason_to_stop(self, call: BaseCall) -> BaseException:
        """Return what `call` raises when its loop is closed before its end.

        At exit, it is a daemon thread that waits for it, which ends without a word.
        """
        return (SystemExit if process.exiting and call not in self.futures else RuntimeError)(self.gone)

    def close(self) -> None:
        """Cancel what is left on the loop, wait for it, and close the loop."""
        raise NotImplementedError

    def give_up(self, reason: str) -> None:
        """Serve no longer, without another turn of the loop, and never let its tasks be collected.

        A forked child shares the kernel's selector with its parent: to close the loop there would
        unregister the parent's descriptors, and to collect its tasks would run the parent's `finally`.
        """
        self.gone = reason
        self.given_up = True
        keep_for_good(self)
        for task in asyncio.all_tasks(self.loop):
            _keep_task(task)
        for call, future in list(self.futures.items()):
            if process.is_not_ours():  # a thread that is not here may hold its lock
                Future[Any].__init__(future)
                future.set_exception(RuntimeError(reason))
            else:
                call.fail(RuntimeError(reason))
        shut = getattr(self.loop, "shut", None)
        if shut is not None:
            shut()


class _NoDaemon(threading.Thread):
    """Does what our daemons do, where there are none: it serves the others to their end; `exit` joins it."""

    daemon = True  # to `start`, which would have Python join it before

    def start(self) -> None:
        if process.exiting:  # Python 3.13 would start it, and die of it
            raise RuntimeError("can't create new thread at interpreter shutdown")
        super().start()
        process.threads.difference_update([other for other in process.threads.copy() if not other.is_alive()])
        process.threads.add(self)

    def run(self) -> None:
        self.daemon = False  # to threads that it starts
        super().run()


def start(thread: threading.Thread) -> None:
    """Start a thread, but none that would never get to run by itself.

    That is so when the interpreter ends, before Python 3.12, and where gevent has patched `threading`.
    """
    if sys.is_finalizing():
        raise RuntimeError("can't create new thread at interpreter shutdown")
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):  # it would share this one's running loop
        raise RuntimeError("gevent has put greenlets in the place of threads")
    thread.start()


def new_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Return a thread that begins with an empty context, also where threads inherit their starter's."""
    try:
        return threading.Thread(target=Context().run, args=(target,), name=name, daemon=True)
    except RuntimeError:  # in a subinterpreter
        return _NoDaemon(target=Context().run, args=(target,), name=name, daemon=False)
