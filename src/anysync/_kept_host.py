"""The loop of a thread: kept between calls, driven by the caller, and by a helper between its steps."""

import sys
import threading
from _thread import allocate_lock, get_ident
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from signal import SIGINT, default_int_handler
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from ._core import Call, keep_for_good, running
from ._host import Coro, Host, interrupted, process, start_thread
from ._on_asyncio import Loop

if TYPE_CHECKING:
    from signal import getsignal
    from signal import signal as set_handler
else:  # what `signal` wraps around these to make enums costs more than a turn of the loop
    from _signal import getsignal
    from _signal import signal as set_handler


class _Interrupts:
    """Ctrl-C while the main thread turns a loop: the first cancels the call, the second breaks out.

    A `KeyboardInterrupt` raised inside the loop's own code would lose wake-ups. Handlers that are not
    Python's own are left alone.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.count = 0
        self._handler: Callable[[int, FrameType | None], None] | None = None
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        if get_ident() == threading.main_thread().ident and getsignal(SIGINT) is default_int_handler:
            handler = self._on_sigint
            with suppress(ValueError):  # a subinterpreter's main thread gets no signals
                set_handler(SIGINT, handler)
                self._handler = handler
                # a signal just before the selector would not wake it otherwise
                if isinstance(self.call.loop, Loop):
                    self._descriptor = self.call.loop.wake_on_signals()
        return self

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        self.call.loop.call_soon_threadsafe(self.call.cancel)

    def __exit__(self, *_: object) -> None:
        handler, self._handler = self._handler, None  # which refers back to this
        if handler is not None and getsignal(SIGINT) is handler:
            set_handler(SIGINT, default_int_handler)
        if self._descriptor is not None and isinstance(self.call.loop, Loop):
            self.call.loop.wake_on_signals_no_more(self._descriptor)


class _Turn:
    """A place in the queue of those who wait for a kept loop."""

    __slots__ = ("come", "promoted", "thread")

    def __init__(self) -> None:
        self.thread = get_ident()
        self.come = allocate_lock()
        self.come.acquire()
        self.promoted = False

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is awake
            self.come.release()


class KeptHost(Host):
    """A thread's own loop, kept between calls: driven by who makes a step, and between steps by the helper.

    Guarantees. `_driver`, one entry of a dictionary, names the thread that drives; it is taken by an
    atomic `setdefault`, so that an interrupted thread finds its own name and goes on. Whoever lets go
    hands the loop to a follower; both look again after they have changed what the other looks at. A
    driver serves what others have posted, and never waits for another thread while it drives.
    Interrupts: the first cancels the call and waits for its clean-up, the second gives up the loop. A
    thread that ends closes its loop; objects of it then raise. After a fork the child's copy is given up.
    """

    exit_order = 0

    def __init__(self, *, transient: bool = False) -> None:
        super().__init__(Loop)
        self._transient = transient
        self._owner = get_ident()
        self._driver: dict[str, int] = {}
        self._followers: deque[_Turn] = deque()
        self._helping = False
        self._helper: threading.Thread | None = None
        self._bell = allocate_lock()
        self._bell.acquire()
        self._helper_closes = False
        self._helped = allocate_lock()
        self._helped.acquire()
        self._own_loop = self.loop if isinstance(self.loop, Loop) else None
        if self._own_loop is not None:
            self._own_loop.on_wake = self._on_wake

    def perform(self, call: Call) -> None:
        thread = process.thread
        busy = None if thread.busy is None else process.busy()
        loop = running()
        if self.gone is not None:
            call.abort(RuntimeError(self.gone))
        elif busy is self or loop is self.loop:
            call.abort(RuntimeError("would wait for itself: this object lives on the loop that runs here"))
        elif busy is not None or loop is not None:
            self._post_and_wait(call)
        else:
            self._perform_here(call)

    def run(self, coro: Coro, timeout: float | None, context: Context | None) -> Callable[[], Any]:
        call = Call(self.loop, coro, timeout, context)
        self._perform_here(call)  # `here` has just seen that no loop runs in this thread
        return call.take()

    def _perform_here(self, call: Call) -> None:
        thread = process.thread
        try:
            thread.frame = sys._getframe()  # pyright: ignore[reportPrivateUsage]
            thread.busy = self
            self._drive(call)
        finally:
            thread.busy = thread.frame = None
        if self._transient and not self.open:
            self.close()

    def _drive(self, call: Call) -> None:
        """Take `call` to its end in this thread, or have it served by the one that is driving."""
        turn: _Turn | None = None
        interrupt: BaseException | None = None
        driving = False
        try:
            while call.result is None:
                try:
                    driving = driving or self._try_to_drive() or (turn is not None and turn.promoted)
                    if not driving:
                        turn = turn or self._queue_up(call)
                        driving = not self.loop.is_closed() and self._follow(turn)
                    if driving:
                        self._advance(call)
                    elif self.loop.is_closed():
                        call.abort(RuntimeError(self.gone))
                except BaseException as error:
                    if interrupt is not None or self.gone is not None:
                        raise
                    interrupt = error
                    if driving:
                        call.cancel()
                    else:
                        self.loop.call_soon_threadsafe(call.cancel)
            if interrupt is not None:
                raise interrupted(call, interrupt)
        finally:
            del interrupt
            if turn is not None:
                driving = self._leave_queue(turn) or driving
            if driving:
                self._let_go()

    def _advance(self, call: Call) -> None:
        """Drive until `call` is done."""
        loop, own_loop = self.loop, self._own_loop
        if own_loop is None:
            call.begin()
        else:
            try:
                own_loop.enter()
                call.begin()
            finally:
                own_loop.leave()
        if call.result is not None:
            return
        call.on_done = loop.stop
        with _Interrupts(call) as interrupts:
            try:
                while call.result is None:
                    try:
                        loop.run_forever()
                    except (KeyboardInterrupt, SystemExit):
                        # the task's own is the outcome of the call, which one turn more delivers
                        if interrupts.count > 1 or call.task is None or not call.task.done():
                            raise
            except BaseException:
                if interrupts.count > 1:
                    self.give_up("the loop of this object was given up, at a second Ctrl-C")
                raise
        if interrupts.count:
            raise KeyboardInterrupt

    def _queue_up(self, call: Call | None = None) -> _Turn:
        """Ask whoever drives to serve `call`, or to make way if it is the helper."""
        turn = _Turn()
        if call is not None:
            call.on_done = partial(self._served, turn)
        self._followers.append(turn)
        with suppress(RuntimeError):  # closed just now
            self.loop.call_soon_threadsafe(self._serve, call)
        return turn

    def _serve(self, call: Call | None) -> None:
        if self._helping:
            self.loop.stop()
        elif call is not None:
            self._do(call.begin, call)

    def _served(self, turn: _Turn) -> None:
        with suppress(ValueError):
            self._followers.remove(turn)
        turn.wake()

    def _follow(self, turn: _Turn) -> bool:
        """Wait until the loop is handed over (true), or the call was served (false)."""
        if self._try_to_drive():
            self._leave_queue(turn)
            return True
        turn.come.acquire()
        return turn.promoted

    def _leave_queue(self, turn: _Turn) -> bool:
        """Follow no longer; true if the loop has been handed over meanwhile."""
        try:
            self._followers.remove(turn)
        except ValueError:
            return turn.promoted
        return False

    def _let_go(self) -> None:
        """Hand the loop to the next follower, or wake the helper if there is something to turn."""
        self._driver.clear()
        while self._followers and self._try_to_drive():
            with suppress(IndexError, ValueError):  # it has left the queue meanwhile
                turn = self._followers[0]
                turn.promoted = True  # before it leaves the queue: it may look at any time
                self._followers.remove(turn)
                self._driver["is"] = turn.thread
                turn.wake()
                return
            self._driver.clear()
        if self.open and self.gone is None and (self._own_loop is None or not self._own_loop.idle):
            self._on_wake()

    def _try_to_drive(self) -> bool:
        """Become the driver, or find that an interrupt has left this thread in that place."""
        return self._driver.setdefault("is", get_ident()) == get_ident()

    def recover(self) -> None:
        """Undo what an interrupt has left of a step of this thread."""
        if self._own_loop is not None and running() is self._own_loop:
            self._own_loop.leave()

    def _on_wake(self) -> None:
        if self.open and self.gone is None and not self._driver:
            if self._helper is None:
                self._start_helper()
            self._ring()

    def _ring(self) -> None:
        with suppress(RuntimeError):  # rung already
            self._bell.release()

    def _start_helper(self) -> None:
        with process.starting:
            if self._helper is None:
                self._helper = start_thread("anysync helper", self._help)

    def _help(self) -> None:
        """Turn the loop between steps, and close it if asked to: what the helper thread does."""
        while self._bell.acquire() and self.gone is None:
            if not self._try_to_drive():
                continue
            self._helping = True
            try:
                if self.open and not self._followers:
                    # what a task in the background raises is in that task
                    with suppress(KeyboardInterrupt, SystemExit):
                        self.loop.run_forever()
            finally:
                self._helping = False
                self._let_go()
        try:
            if self._helper_closes:
                self._close_loop()
        finally:
            self._helped.release()

    def perform_sometime(self, call: Call) -> bool:
        here = get_ident() == self._owner and process.thread.busy is None and running() is None
        if self.gone is not None or not here or self._driver:
            return super().perform_sometime(call)
        call.on_done = None
        self.perform(call)
        return True

    def post(self, job: Callable[[], object], call: Call) -> None:
        try:
            self.loop.call_soon_threadsafe(self._do, job, call)
        except RuntimeError:  # closed
            call.abort(RuntimeError(self.gone))
        else:
            self._on_wake()  # a loop that is not ours would not tell

    def closed(self, thing: object) -> None:
        super().closed(thing)
        if self._helping and not self.open:
            self.loop.stop()

    def close(self, *, at_thread_end: bool = False) -> None:
        if self.gone is not None:
            return
        self.gone = "the thread that this object lived on has ended, and its event loop with it"
        if not self._try_to_drive():
            if get_ident() != self._owner:  # at exit, and a daemon thread is in the middle of a call
                keep_for_good(self)
                return
            self._follow(self._queue_up())
        if at_thread_end and (self._own_loop is None or not self._own_loop.spent):
            # `threading` has forgotten this thread already: what is left to run, runs in the helper's
            with suppress(RuntimeError):
                self._start_helper()
                self._helper_closes = True
        try:
            if not self._helper_closes:
                self._close_loop()
        finally:
            if self._helper is not None:
                self._ring()
                self._helped.acquire()  # not join(), which would register this thread again
            self._dismiss_followers()

    def give_up(self, reason: str) -> None:
        super().give_up(reason)
        self._dismiss_followers()
        self._ring()

    def _dismiss_followers(self) -> None:
        for turn in tuple(self._followers):
            turn.wake()


class Keeper:
    """Closes a thread's loop when the thread ends, and its thread-locals with it."""

    def __init__(self, host: KeptHost) -> None:
        self._host = host

    def __del__(self) -> None:
        self._host.close(at_thread_end=True)
