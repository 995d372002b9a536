"""A host: one event loop, and who drives it. What the kinds of hosts share."""

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._calls import Call, Session, keep_for_good, see_through
from ._core import BaseCall, Latch, drop_frame, importing
from ._on_asyncio import Loop
from ._process import keep_task, process

if TYPE_CHECKING:
    from ._pyloop import Coro


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
    make_loop = options.get("loop_factory") or make_loop
    made: Any = make_loop()
    if not hasattr(made, "run_forever"):
        raise TypeError(f"loop_factory must return an event loop, not {made!r}")
    runner = asyncio.Runner(loop_factory=lambda: made, debug=options.get("debug"))
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
        #: what other threads wait for, and have asked whoever drives to begin
        self.posted: set[BaseCall] = set()
        #: what was submitted, until its future has been told the outcome
        self.futures: dict[BaseCall, Future[Any]] = {}
        self.gone: str | None = None
        self.given_up = False
        process.add(self)

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
        self.opened(call)
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
                    start(new_thread("anysync teller", partial(self._tell_at_last, call, future)))
                    return
            if held and not future.cancelled():  # else who has cancelled it calls back
                callbacks, ours._done_callbacks = ours._done_callbacks, callbacks
            self._tell(call, future)
        finally:
            if held:
                ours._condition.release()
        self.futures.pop(call, None)  # not while the lock is held: a fork would leave it so in the child
        if callbacks:
            ours._done_callbacks = callbacks
            try:
                ours._invoke_callbacks()
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # which this loop is not to end with
                self._log("error in a callback of a future", error)

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
            else:  # and who cancelled it does not ask
                self._log_unless_cancelled(error)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(value)

    def _log_unless_cancelled(self, error: BaseException) -> None:
        ours = type(error) is RuntimeError and error.args == (self.gone,)
        told = error.__cause__ if ours else error
        if told is not None and not isinstance(told, self._session_type.cancels):
            self._log("error in what was submitted, whose future was cancelled", told)

    def _log(self, message: str, error: BaseException) -> None:
        self.loop.call_exception_handler({"message": message, "exception": error})

    def _tell_at_last(self, call: Call, future: "Future[Any]") -> None:
        try:
            self._tell(call, future)
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
        call.on_done = latch = call.on_done or Latch()
        if isinstance(latch, Latch) and call.result is None:  # else it has ended meanwhile
            self.posted.add(call)
            try:
                self.post(call, job)
                latch.wait(call if job is None else None)
            finally:
                self.posted.discard(call)

    def perform_sometime(self, call: BaseCall) -> bool:
        """Take `call` to its end without waiting, wherever garbage collection runs; true if it has ended."""
        if self.gone is None:
            self.post(call)
        return False

    def post(self, call: BaseCall, job: Callable[[], object] | None = None) -> None:
        """Have who drives the loop begin `call`, or do `job` for it; fail it if the loop serves no longer."""
        raise NotImplementedError

    def opened(self, thing: object) -> None:
        """Hear that something is `open`."""
        self.open.add(thing)

    def closed(self, thing: object) -> None:
        """Hear, from who drives the loop, that something `open` is no longer."""
        self.open.discard(thing)

    def _close_loop(self) -> None:
        try:
            if self.loop.is_closed():  # by somebody else
                pass
            elif isinstance(self.loop, Loop) and self.loop.spent:
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
            for thing in self.open | self.posted:
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
            keep_task(task)
        for call, future in list(self.futures.items()):
            if process.is_not_ours():  # a thread that is not here may hold its lock
                Future[Any].__init__(future)
                future.set_exception(RuntimeError(reason))
            else:
                call.fail(RuntimeError(reason))
        for call in self.posted.copy():
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


def lacks_room(call: BaseCall, frames: int) -> bool:
    """Whether that many frames do not fit on the stack: then `call` fails, which might get lost half-way."""
    try:
        _go_deep(frames)
    except RecursionError as error:
        call.abort(error)
        return True
    return False


def _go_deep(frames: int) -> None:
    if frames:
        _go_deep(frames - 1)


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
