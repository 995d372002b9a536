"""Hosts: each owns one event loop and knows who drives it; `here` chooses the one that serves a caller."""

import asyncio
import atexit
import os
import threading
import weakref
from _signal import SIGINT, default_int_handler, getsignal
from _signal import signal as set_handler
from _thread import allocate_lock, get_ident
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from functools import partial
from types import FrameType
from typing import Any

from ._core import Call, Mailbox, keep_for_good, running, wait
from ._on_asyncio import AsyncFunction, Loop, Session, mailbox_loop


class _Here(threading.local):
    """What a thread has of ours."""

    kept: "KeptHost | None" = None
    keeper: "_Keeper | None" = None
    #: the kept host that this thread is driving, or about to: its locks may be held
    busy: "KeptHost | None" = None
    #: the host whose thread this is
    server: "ThreadHost | None" = None


_here = _Here()
_hosts: "weakref.WeakSet[Host]" = weakref.WeakSet()
_options: dict[str, Any] = {}
_background: "ThreadHost | None" = None
starting = threading.RLock()
_exiting = False


def here() -> "Host":
    """Return the host that serves a call made here: the table of the documentation, row by row."""
    loop, busy, server = running(), _here.busy, _here.server
    if server is not None and (loop is not None or busy is not None):
        return server.nested()
    if loop is not None or busy is not None:
        return background()
    host = _here.kept
    return _keep() if host is None or host.gone is not None else host


def background() -> "ThreadHost":
    """Return the host that serves sync code inside loops which are not ours, started on first use."""
    global _background
    with starting:  # reentrant: garbage collection may come back here
        if _background is None or _background.gone is not None:
            host = ThreadHost("anysync background")
            if _background is None or _background.gone is not None:
                _background = host
            else:
                host.close()
        return _background


def configure(loop_factory: Callable[[], asyncio.AbstractEventLoop] | None, debug: bool | None) -> None:
    """Say how the loops of hosts that do not exist yet are made."""
    _options.update(loop_factory=loop_factory, debug=debug)


class Host:
    """One event loop, and who drives it.

    `open` holds what lives on the loop between calls: sessions, and calls that were submitted. `gone`
    is None until the loop serves no longer, and then says why.
    """

    def __init__(self, make_loop: Callable[[], asyncio.AbstractEventLoop], options: dict[str, Any]) -> None:
        self._runner = asyncio.Runner(loop_factory=options.get("loop_factory") or make_loop, debug=options.get("debug"))
        self.loop = self._runner.get_loop()
        self.open: set[object] = set()
        self.gone: str | None = None
        _hosts.add(self)

    def run(self, coro: Coroutine[Any, Any, Any], timeout: float | None, context: Context | None) -> Call:
        """Run `coro` to its end; return the finished call."""
        call = Call(self.loop, coro, timeout, context)
        self.perform(call)
        return call

    def submit(self, coro: Coroutine[Any, Any, Any], context: Context | None) -> "Future[Any]":
        """Start `coro`; return a future of its outcome, whose `cancel()` cancels it."""
        future: Future[Any] = Future()
        call = Call(self.loop, coro, None, context)
        call.on_done = partial(self._resolve, call, future)
        future.add_done_callback(partial(self._pass_cancel, call))
        self.open.add(call)
        self.post(call.begin, call)
        return future

    def _resolve(self, call: Call, future: "Future[Any]") -> None:
        assert call.result is not None
        try:
            value = call.result()
        except asyncio.CancelledError:
            future.cancel()
            future.set_running_or_notify_cancel()
        except BaseException as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(value)
        self.closed(call)

    def _pass_cancel(self, call: Call, future: "Future[Any]") -> None:
        if future.cancelled():
            self.post(call.cancel, call)

    def session(self, context: Context | None = None, **options: Any) -> Session:
        """Return a new session on this host."""
        return Session(self, context, **options)

    def perform(self, call: Call) -> None:
        """Take `call` to its end."""
        raise NotImplementedError

    def perform_sometime(self, call: Call) -> None:
        """Take `call` to its end without waiting, from wherever garbage collection runs."""
        if self.gone is None:
            self.post(call.begin, call)

    def post(self, job: Callable[[], object], call: Call) -> None:
        """Have whoever drives the loop do `job`, a step of `call`, which fails if the loop serves no longer."""
        raise NotImplementedError

    def closed(self, thing: object) -> None:
        """Hear, from the loop's thread, that something `open` is no longer."""
        self.open.discard(thing)

    def close(self) -> None:
        """Cancel what is left on the loop, wait for it, and close the loop."""
        raise NotImplementedError

    def _post_and_wait(self, call: Call) -> None:
        """Have `call` done by whoever drives the loop. An interrupt cancels it; a second one leaves at once."""
        done = allocate_lock()
        done.acquire()
        call.on_done = done.release
        job = call.begin
        interrupt: BaseException | None = None
        try:
            while True:
                try:
                    self.post(job, call)
                    wait(done)
                    break
                except BaseException as error:
                    if interrupt is not None:
                        raise
                    interrupt, job = error, call.cancel
            if interrupt is not None:
                raise interrupt
        finally:
            del interrupt

    def give_up(self, reason: str) -> None:
        """Serve no longer, without another turn of the loop, and never let its tasks be collected.

        A forked child shares the kernel's selector with its parent: closing the loop would unregister
        the parent's descriptors, and collecting its tasks would run the parent's `finally` blocks.
        """
        self.gone = reason
        keep_for_good(self)
        for task in asyncio.all_tasks(self.loop):
            keep_for_good(task)
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        if isinstance(self.loop, Loop):
            self.loop.shut()


class _Interrupts:
    """Ctrl-C while the main thread turns a loop: the first cancels the call, the second breaks out.

    A `KeyboardInterrupt` raised inside the loop's own code would lose wake-ups. Handlers that are not
    Python's own are left alone.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.count = 0
        self._handler: Callable[[int, FrameType | None], None] | None = None

    def __enter__(self) -> "_Interrupts":
        if get_ident() == threading.main_thread().ident and getsignal(SIGINT) is default_int_handler:
            self._handler = self._on_sigint
            set_handler(SIGINT, self._handler)
        return self

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        self.call.loop.call_soon_threadsafe(self.call.cancel)

    def __exit__(self, *_: object) -> None:
        if self._handler is not None and getsignal(SIGINT) is self._handler:
            set_handler(SIGINT, default_int_handler)


class KeptHost(Host):
    """A thread's own loop, kept between calls: driven by who makes a step, and between steps by the helper.

    Guarantees. Who holds `_drive` drives; a follower is handed it, still held, by whoever lets go, and
    both look again after they have changed what the other looks at. A driver serves what others have
    posted, and never waits for another thread while it drives. Interrupts: the first cancels the call
    and waits for its clean-up, the second gives up the loop. A thread that ends closes its loop;
    objects of it then raise. After a fork the child's copy is given up.
    """

    def __init__(self, *, transient: bool = False) -> None:
        super().__init__(Loop, _options)
        self._transient = transient
        self._owner = get_ident()
        self._drive = allocate_lock()
        self._followers: deque[_Turn] = deque()
        self._helping = False
        self._helper: threading.Thread | None = None
        self._bell = allocate_lock()
        self._bell.acquire()
        if isinstance(self.loop, Loop):
            self.loop.on_wake = self._on_wake

    def perform(self, call: Call) -> None:
        busy = _here.busy
        if self.gone is not None:
            call.abort(RuntimeError(self.gone))
            return
        if busy is not None or (loop := running()) is not None:
            if busy is self or loop is self.loop:
                call.abort(RuntimeError("would wait for itself: this object lives on the loop that runs here"))
            else:
                self._post_and_wait(call)
            return
        turn: _Turn | None = None
        interrupt: BaseException | None = None
        driving = False
        try:
            _here.busy = self
            while call.result is None:
                try:
                    if not driving:
                        driving = self._drive.acquire(False)
                    if not driving:
                        turn = turn or self._queue_up(call)
                        driving = self._follow(turn)
                    if driving:
                        self._advance(call)
                except BaseException as error:
                    if interrupt is not None or self.gone is not None:
                        raise
                    interrupt = error
                    self.loop.call_soon_threadsafe(call.cancel)
            if interrupt is not None:
                raise interrupt
        finally:
            del interrupt
            if turn is not None:
                driving = self._leave_queue(turn) or driving
            if driving:
                self._let_go()
            _here.busy = None
            if self._transient and not self.open:
                self.close()

    def _advance(self, call: Call) -> None:
        """Drive until `call` is done."""
        loop = self.loop
        if isinstance(loop, Loop) and loop.eager:
            try:
                loop.enter()
                call.begin()
            finally:
                loop.leave()
        else:
            call.begin()
        if call.result is not None:
            return
        call.on_done = loop.stop
        with _Interrupts(call) as interrupts:
            try:
                while call.result is None:
                    try:
                        loop.run_forever()
                    except (KeyboardInterrupt, SystemExit):
                        # the task's own is its outcome, which a turn more delivers
                        if interrupts.count > 1 or call.task is None or not call.task.done():
                            raise
            except BaseException:
                if interrupts.count > 1:
                    self.give_up("its loop was given up when a second Ctrl-C broke into the clean-up after the first")
                raise
        if interrupts.count:
            raise KeyboardInterrupt

    def _queue_up(self, call: Call | None = None) -> "_Turn":
        """Ask whoever drives to serve `call`, or to make way if it is the helper."""
        turn = _Turn()
        if call is not None:
            call.on_done = partial(self._served, turn)
        self._followers.append(turn)
        self.loop.call_soon_threadsafe(self._serve, call)
        return turn

    def _serve(self, call: Call | None) -> None:
        if self._helping:
            self.loop.stop()
        elif call is not None:
            call.begin()

    def _served(self, turn: "_Turn") -> None:
        with suppress(ValueError):
            self._followers.remove(turn)
        turn.come.release()

    def _follow(self, turn: "_Turn") -> bool:
        """Wait until the loop is handed over (true), or the call was served (false)."""
        if self._drive.acquire(False):
            self._leave_queue(turn)
            return True
        turn.come.acquire()
        return turn.promoted

    def _leave_queue(self, turn: "_Turn") -> bool:
        """Follow no longer; true if the loop has been handed over already."""
        try:
            self._followers.remove(turn)
        except ValueError:
            return turn.promoted
        return False

    def _let_go(self) -> None:
        """Hand the loop to the next follower, or wake the helper if there is something to turn."""
        self._drive.release()
        while self._followers and self._drive.acquire(False):
            with suppress(IndexError, ValueError):  # it has left the queue meanwhile
                turn = self._followers[0]
                turn.promoted = True  # before it leaves the queue: it may look at any time
                self._followers.remove(turn)
                turn.come.release()
                return
            self._drive.release()
        if self.open and not getattr(self.loop, "idle", False):
            self._on_wake()

    def _on_wake(self) -> None:
        if self.open and self.gone is None and not self._drive.locked():
            if self._helper is None:
                self._start_helper()
            with suppress(RuntimeError):  # rung already
                self._bell.release()

    def _start_helper(self) -> None:
        with starting:
            if self._helper is None:
                self._helper = _thread("anysync helper", self._help)

    def _help(self) -> None:
        """Turn the loop between steps: what the helper thread does."""
        while self._bell.acquire() and self.gone is None:
            if not self._drive.acquire(False):
                continue
            self._helping = True
            try:
                if not self._followers:
                    # what a task in the background raises is in that task
                    with suppress(KeyboardInterrupt, SystemExit):
                        self.loop.run_forever()
            finally:
                self._helping = False
                self._let_go()

    def perform_sometime(self, call: Call) -> None:
        inline = get_ident() == self._owner and _here.busy is None and running() is None
        if inline and not self._drive.locked():
            self.perform(call)
        else:
            super().perform_sometime(call)

    def post(self, job: Callable[[], object], call: Call) -> None:
        try:
            self.loop.call_soon_threadsafe(job)
        except RuntimeError:  # closed
            call.abort(RuntimeError(self.gone))

    def closed(self, thing: object) -> None:
        super().closed(thing)
        if self._helping and not self.open:
            self.loop.stop()

    def close(self) -> None:
        if self.gone is not None:
            return
        self.gone = "the thread that this object lived on has ended, and its event loop with it"
        if not self._drive.acquire(False):
            if get_ident() != self._owner:  # at exit, and a daemon thread is in the middle of a call
                keep_for_good(self)
                return
            turn = self._queue_up()
            self._follow(turn)
        try:
            self._runner.close()
        finally:
            if self._helper is not None:
                with suppress(RuntimeError):
                    self._bell.release()
                self._helper.join()


class _Turn:
    """A place in the queue of those who wait for a kept loop."""

    __slots__ = ("come", "promoted")

    def __init__(self) -> None:
        self.come = allocate_lock()
        self.come.acquire()
        self.promoted = False


class _Keeper:
    """Closes a thread's loop when the thread ends, and its thread-locals with it."""

    def __init__(self, host: KeptHost) -> None:
        self._host = host

    def __del__(self) -> None:
        self._host.close()


def _keep() -> KeptHost:
    if _exiting:  # nobody would close it
        return KeptHost(transient=True)
    host = _here.kept = KeptHost()
    _here.keeper = _Keeper(host)
    return host


class ThreadHost(Host):
    """A loop on a thread of its own: the background one, a nested one, a `Runner`'s.

    Guarantees. Only its thread touches the loop; everybody else posts. It survives whatever a task
    raises. A job posted when the thread has swept its mailbox is swept by who posted it: no call waits
    for ever. A transient host ends with the last thing that was open on it.
    """

    def __init__(self, name: str, *, transient: bool = False, options: dict[str, Any] | None = None) -> None:
        super().__init__(mailbox_loop, _options if options is None else options)
        self._transient = transient
        self._nested: weakref.WeakKeyDictionary[asyncio.Task[Any], ThreadHost] = weakref.WeakKeyDictionary()
        self._swept = False
        mailbox = getattr(self.loop, "mailbox", None)
        self._mailbox: Mailbox = Mailbox(self._ring, watching=True) if mailbox is None else mailbox
        try:
            self._thread = _thread(name, self._main)
        except RuntimeError as error:
            self.loop.close()
            raise RuntimeError(f"sync code inside an event loop needs a thread of its own: {error}") from None

    def _ring(self) -> None:
        with suppress(RuntimeError):  # closed, and swept
            self.loop.call_soon_threadsafe(self._mailbox.serve)

    def _main(self) -> None:
        _here.server = self
        while self.gone is None:
            with suppress(KeyboardInterrupt, SystemExit):
                self.loop.run_forever()
        for call in tuple(self.open):
            if isinstance(call, Call):
                call.instead = RuntimeError(self.gone)
        try:
            self._runner.close()
        finally:
            self._swept = True
            self._sweep()

    def _sweep(self) -> None:
        while self._mailbox.serve():
            pass

    def nested(self) -> "ThreadHost":
        """Return the host for a sync call made on this thread: the running task's own while it has one."""
        task = asyncio.current_task() if running() is self.loop else None
        host = None if task is None else self._nested.get(task)
        if host is None or host.gone is not None:
            host = ThreadHost("anysync nested", transient=True)
            if task is not None:
                self._nested[task] = host
        return host

    def perform(self, call: Call) -> None:
        if get_ident() == self._thread.ident:
            call.abort(RuntimeError("would wait for itself: this object lives on the loop that runs here"))
            return
        self.open.add(call)
        try:
            self._post_and_wait(call)
        finally:
            self.open.discard(call)
            if self._transient and not self.open:
                self.close()

    def post(self, job: Callable[[], object], call: Call) -> None:
        self._mailbox.post(partial(self._do, job, call))
        if self._swept:
            self._sweep()

    def _do(self, job: Callable[[], object], call: Call) -> None:
        if self.gone is None or call.task is not None:
            job()
        else:
            call.abort(RuntimeError(self.gone))

    def closed(self, thing: object) -> None:
        super().closed(thing)
        if self._transient and not self.open and self.gone is None:
            self._stop("the thread that this object lived on has ended")

    def close(self, reason: str = "the thread that this object lived on has ended") -> None:
        if self.gone is None:
            self._stop(reason)
        if get_ident() != self._thread.ident:
            self._thread.join()

    def _stop(self, reason: str) -> None:
        self.gone = reason
        self._mailbox.post(self.loop.stop)


def _thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a thread that begins with an empty context, also where threads inherit their starter's."""
    thread = threading.Thread(target=Context().run, args=(target,), name=name, daemon=True)
    thread.start()
    return thread


@atexit.register
def _at_exit() -> None:
    global _exiting
    _exiting = True
    for kind in KeptHost, ThreadHost:  # the clean-up of a kept loop may still call into the background
        for host in [host for host in _hosts if isinstance(host, kind)]:
            host.close()


def _after_fork_in_child() -> None:
    global _background, _here, _hosts, starting
    hosts, _hosts, _background = list(_hosts), weakref.WeakSet(), None
    _here, starting = _Here(), threading.RLock()
    for host in hosts:
        host.give_up("this object lives in the process that forked this one")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
