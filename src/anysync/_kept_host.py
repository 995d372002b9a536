"""The loop of a thread: kept between calls, driven by the caller, and by a helper between its steps."""

import logging
import sys
import threading
from _thread import allocate_lock, get_ident
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from inspect import CO_COROUTINE
from time import monotonic
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from ._calls import Call, cancel_interrupted, interrupted, keep_for_good
from ._core import BaseCall, Drive, running, thread
from ._host import Host, lacks_room, new_loop, new_thread, start
from ._interrupts import Interrupts, give_back_ctrl_c
from ._on_asyncio import Loop, kept_loop
from ._process import process
from ._queues import Empty, SimpleQueue

if TYPE_CHECKING:
    from asyncio import Task

    from ._pyloop import Coro

_log = logging.getLogger("anysync")

#: what one step may put on the stack, beside the user's own code
FRAMES = 20


class _Turn:
    """A place in the queue of those who wait for a kept loop."""

    __slots__ = ("call", "come", "fate", "thread")

    def __init__(self) -> None:
        self.thread = get_ident()
        self.come: SimpleQueue[bool] = SimpleQueue()
        self.fate: dict[str, str] = {}
        #: what the driver is to serve
        self.call: BaseCall | None = None

    def wake(self) -> None:
        self.come.put(True)

    def is_to(self, fate: str) -> bool:
        """Decide how the turn ends, "drive" or "leave", unless that is decided; true if it is to end so."""
        return self.fate.setdefault("is", fate) == fate

    def wait(self) -> bool:
        """Wait for `wake`; false after a while: a signal just before it parks does not wake it."""
        with suppress(Empty):
            return self.come.get(True, 0.25)
        return False


class KeptHost(Drive, Host):
    """A thread's own loop, kept between calls: driven by who makes a step, and between steps by the helper.

    Guarantees. `_driver`, one entry of a dictionary, names the thread that drives; it is taken by an
    atomic `setdefault`, so that an interrupted thread finds its own name and goes on. Whoever lets go
    hands the loop to a follower; both look again after they have changed what the other looks at. A
    driver serves what others have posted, and never waits for another thread while it drives.
    Interrupts: the first cancels the call and waits for its clean-up, the second gives up the loop. A
    thread that ends closes its loop; objects of it then raise. After a fork the child's copy is given up.
    """

    exit_order = 0
    keeps = True

    def __init__(self, backend: str = "asyncio", *, transient: bool = False) -> None:
        Drive.__init__(self)
        Host.__init__(self, backend, *new_loop(backend, kept_loop))
        self.transient = transient
        self._owner = get_ident()
        self.alone = self._owner == process.main_thread
        self.followers: deque[_Turn] = deque()
        #: the call that the driver turns the loop for
        self._turning: BaseCall | None = None
        self._helping = False
        self._helper: threading.Thread | None = None
        #: who is to start the helper, as of `_driver`, and whether it has begun to
        self._starter: dict[str, int] = {}
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._helper_closes = self._helper_ends = self._helper_left = False
        self._helped = allocate_lock()
        self._helped.acquire()
        self.own_loop = self.loop if isinstance(self.loop, Loop) else None
        if self.own_loop is not None:
            self.own_loop.on_wake = self.wake

    def perform(self, call: BaseCall) -> None:
        busy = None if thread.busy is None else process.busy()
        loop = running()
        if self.gone is not None:
            call.abort(RuntimeError(self.gone))
        elif busy is self or self.loop in (loop, thread.trio):
            call.abort(RuntimeError("would wait for itself: this object lives on the loop that runs here"))
        elif busy is not None or loop is not None:
            self.perform_elsewhere(call)
        else:
            self._perform_here(call)

    def run(self, coro: "Coro", timeout: float | None, context: Context | None) -> Callable[[], Any]:
        call = Call(self.loop, coro, timeout, context)
        if not self.at_once(call):
            self._perform_here(call)  # `here` has just seen that no loop runs in this thread
        return call.take()

    def _take_over(
        self, coro: "Coro", task: "Task[Any]", interrupt: BaseException | None
    ) -> Callable[[], Any]:
        """Take to its end what has begun here in `task`; `interrupt`, if not None, broke into that."""
        call = Call(self.loop, coro)
        call.task = task
        try:
            if task.done():
                call.settle(task)
            else:
                if interrupt is None:
                    call.go_on()
                self._perform_here(call, True, interrupt)
        finally:
            del task, interrupt  # the coroutine's frame, which an error may hold, holds this one
        return call.take()

    def _perform_here(
        self, call: BaseCall, begun: bool = False, interrupt: BaseException | None = None
    ) -> None:
        """Take `call` to its end in this thread, which drives already if it has `begun`, in `at_once`.

        `interrupt`, if not None, broke into that.
        """
        if not begun and lacks_room(call, FRAMES):
            return
        turn: _Turn | None = None
        driving = entered = begun
        try:
            if interrupt is not None:
                cancel_interrupted(call)
            while True:
                try:
                    thread.busy = self, sys._getframe()  # pyright: ignore[reportPrivateUsage]
                    if entered:
                        entered = False
                        self.leave()  # not before: who looks for a loop here must not find that nobody drives
                    if call.result is not None:
                        break
                    driving = driving or self.try_to_drive()
                    if not driving:
                        turn = turn or _Turn()  # before it is in the queue: an interrupt may come at any line
                        self._queue_up(turn, call)
                        driving = not self.loop.is_closed() and self._follow(turn)
                    if driving:
                        if not begun:
                            self._begin_here(call)
                            begun = True
                        self._turn_until(call)
                    elif self.loop.is_closed():
                        call.abort(RuntimeError(self.gone or "somebody has closed this object's event loop"))
                except BaseException as error:
                    if self.loop.is_closed():
                        call.abort(error)
                        raise
                    if interrupt is not None or self.gone is not None:
                        raise
                    interrupt = error
                    if driving:
                        cancel_interrupted(call)
                    else:
                        self.loop.call_soon_threadsafe(call.cancel)
            if interrupt is not None:
                raise interrupted(call, interrupt)
        finally:
            thread.busy = None
            del interrupt
            if entered:
                self.leave()
            self.recover()
            if turn is not None:
                driving = self._leave_queue(turn, driving)
            if driving:
                self.let_go()
        if self.transient and not self.open:
            self.close()

    def _begin_here(self, call: BaseCall) -> None:
        if self.own_loop is None:
            call.begin()
            return
        try:
            self.own_loop.enter()
            call.begin()
        finally:
            self.own_loop.leave()

    def _turn_until(self, call: BaseCall) -> None:
        """Turn the loop until `call` is done."""
        if call.result is not None:
            return
        if self.given_up:
            self._end_in_child(call)
            return
        loop = self.loop
        call.on_done = loop.stop
        self._turning = call
        interrupts = Interrupts(call, self.own_loop)
        try:
            interrupts.begin()
            while call.result is None:
                try:
                    loop.run_forever()
                except (KeyboardInterrupt, SystemExit) as error:
                    # the task's own is the outcome of the call, which one turn more delivers
                    own = _raised(call.task, error)
                    if interrupts.count > 1 or not (own or self._is_for_another(error)):
                        raise
                if self.given_up:
                    self._end_in_child(call)
        except BaseException:
            if interrupts.count > 1:
                self.give_up("the loop of this object was given up, at a second Ctrl-C")
            raise
        finally:
            self._turning = None
            interrupts.end()
        if interrupts.count:
            raise KeyboardInterrupt

    def _is_for_another(self, error: BaseException) -> bool:
        """Whether a task raised `error`, which is told to whoever waits for that task."""
        if get_ident() != process.main_thread:
            return any(frame.f_code.co_flags & CO_COROUTINE for frame, _ in walk_tb(error.__traceback__))
        # here a signal handler may have raised it, in whatever task it broke into
        calls = [*self.open.copy(), *(turn.call for turn in self.followers.copy())]
        return any(_raised(call.task, error) for call in calls if isinstance(call, BaseCall))

    def _end_in_child(self, call: BaseCall) -> None:
        """End a call whose coroutine has forked, in the child, where its loop cannot serve it any more."""
        if call.task is not None and call.task.done():
            call.settle(call.task)
        elif call.result is None:
            call.fail(RuntimeError(self.gone))
        if self.own_loop is not None:
            self.own_loop.shut()

    def _queue_up(self, turn: _Turn, call: BaseCall | None = None) -> None:
        """Ask whoever drives to serve `call`, or to make way if it is the helper."""
        if call is not None:
            turn.call = call
            call.on_done = partial(self._served, turn)
        if turn not in self.followers:  # else an interrupt has come before
            self.followers.append(turn)
        with suppress(RuntimeError):  # closed just now
            self.loop.call_soon_threadsafe(self._serve, call)

    def _serve(self, call: BaseCall | None) -> None:
        if self._helping:
            self.loop.stop()
        elif call is not None:
            self._begin(call)

    def _begin(self, call: BaseCall) -> None:
        """Begin what was posted, unless the host has ended meanwhile."""
        if self.gone is None:
            call.begin()
        else:
            call.abort(RuntimeError(self.gone))

    def _served(self, turn: _Turn) -> None:
        with suppress(ValueError):
            self.followers.remove(turn)
        turn.wake()

    def _follow(self, turn: _Turn) -> bool:
        """Wait until the loop is handed over (true), or the call was served (false)."""
        driving = self._await(turn)
        if driving:
            self._leave_queue(turn, driving)
        return driving

    def _await(self, turn: _Turn) -> bool:
        """Wait until this thread drives (true), or is woken and does not."""
        woken = False
        while not self.try_to_drive():
            if woken:
                return False
            woken = turn.wait()
        return True

    def _leave_queue(self, turn: _Turn, driving: bool) -> bool:
        """Follow no longer; true if this thread is `driving`, or the loop is handed over to it just now."""
        left = turn.is_to("leave")
        with suppress(ValueError):
            self.followers.remove(turn)
        return driving or (not left and self._await(turn))

    def let_go(self) -> None:
        """Hand the loop to the next follower, or wake the helper if there is something to turn."""
        self.stop_driving()
        while self.followers and self.try_to_drive():
            with suppress(IndexError):  # it has left the queue meanwhile
                turn = self.followers[0]
                handed_over = turn.is_to("drive")
                if handed_over and not self.hand_to(turn.thread):
                    return  # a signal handler's call has let go meanwhile
                with suppress(ValueError):
                    self.followers.remove(turn)
                if handed_over:
                    turn.wake()
                    return
            self.stop_driving()
        if self.open and self.gone is None and (self.own_loop is None or not self.own_loop.idle):
            try:
                self.wake()
            except RuntimeError as error:  # the step that has just been made is not to be lost
                if not (process.exiting or getattr(self.loop, "idle", False)):
                    _log.warning("until the next step, nothing goes on that this thread has open: %s", error)

    def recover(self) -> None:
        """Undo what an interrupt has left of a step of this thread."""
        if self.own_loop is not None and running() is self.own_loop:
            self.own_loop.leave()

    def wake(self) -> None:
        if self.open and self.gone is None and not self.driven():
            if self._helper is None:
                self._start_helper()
            self._ring()

    def _ring(self) -> None:
        if self._bell.empty():
            self._bell.put(True)

    def _start_helper(self) -> None:
        """Start the helper, unless somebody is at it.

        Nobody is waited for: where garbage is collected as the helper begins, this is the helper.
        """
        starter, here = self._starter, get_ident()
        if process.is_not_ours() or starter.setdefault("thread", here) != here or "starts" in starter:
            return
        try:
            starter["starts"] = here
            if self._helper is None:
                helper = new_thread("anysync helper", self._help)
                start(helper)
                self._helper = helper
        finally:
            starter.clear()

    def _help(self) -> None:
        """Turn the loop between steps, and close it if asked to: what the helper thread does."""
        try:
            while self._bell.get() and not self._helper_ends:  # `gone` comes before it is known who closes
                if self.try_to_drive():
                    self._turn_between_steps()
            if self._helper_closes:
                self._close_loop()
        finally:
            if self._helper_left and self._helper is not None:
                process.threads.discard(self._helper)
            self._helped.release()

    def _turn_between_steps(self) -> None:
        self._helping = True
        try:
            if self.open and self.gone is None and not self.followers and not self.loop.is_closed():
                # what a task in the background raises is in that task
                with suppress(KeyboardInterrupt, SystemExit):
                    self.loop.run_forever()
        except RuntimeError:
            if not self.loop.is_closed():  # by somebody else
                raise
        finally:
            self._helping = False
            self.let_go()

    def perform_sometime(self, call: BaseCall) -> bool:
        if self.gone is not None:
            return super().perform_sometime(call)
        here = get_ident() == self._owner and thread.busy is None and running() is None
        if not here or self.driven() or process.is_not_ours() or not self.try_to_drive():
            return super().perform_sometime(call)
        try:
            call.on_done = None
            self.perform(call)
        finally:
            if self.try_to_drive():  # it may not have got so far
                self.let_go()
        return True

    def post(self, call: BaseCall, job: Callable[[], object] | None = None) -> None:
        try:
            if self.given_up:
                raise RuntimeError
            self.loop.call_soon_threadsafe(job or partial(self._begin, call))
            self.wake()  # a loop that is not ours would not tell
        except RuntimeError as error:  # closed, or no thread can start
            call.abort(RuntimeError(self.gone or str(error)))
            if self.transient and not self.open:
                self.close()

    def closed(self, thing: object) -> None:
        super().closed(thing)
        if self._helping and not self.open:
            self.loop.stop()

    def close(self, *, at_thread_end: bool = False) -> None:
        if self.gone is not None:
            return
        self.gone = "the thread that this object lived on has ended, and its event loop with it"
        if not self.try_to_drive():
            turn = _Turn()
            self._queue_up(turn)
            if process.exiting and not self._take_from_daemon(turn):
                keep_for_good(self)
                if self._helper is not None:
                    process.threads.discard(self._helper)
                return
            self._follow(turn)
        if at_thread_end and (self.own_loop is None or not self.own_loop.spent):
            # `threading` has forgotten this thread already: what is left to run, runs in the helper's
            with suppress(RuntimeError):
                self._start_helper()
            self._helper_closes = self._helper is not None
        try:
            if not self._helper_closes:
                self._close_loop()
        finally:
            self._helper_ends = True
            if self._helper is not None:
                # on PyPy, garbage collection in any thread: nothing there may wait, so `exit` does
                self._helper_left = at_thread_end and get_ident() != self._owner
                if self._helper_left:
                    process.threads.add(self._helper)
                self._ring()
                if not self._helper_left:
                    self._helped.acquire()  # not join(), which would register this thread again
            self._dismiss_followers()

    def _take_from_daemon(self, turn: _Turn) -> bool:
        """Cancel the call of a daemon thread, and have the loop handed over; false if that takes too long."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._stop_turning)
        if not self.try_to_drive():
            until = monotonic() + 1 if get_ident() == self._owner else process.patience
            with suppress(Empty):
                turn.come.get(True, max(0, until - monotonic()))
        return self._leave_queue(turn, self.try_to_drive())

    def _stop_turning(self) -> None:
        call = self._turning
        if call is not None:
            call.instead = self.reason_to_stop(call)
            call.cancel()

    def give_up(self, reason: str) -> None:
        super().give_up(reason)
        give_back_ctrl_c()
        self._dismiss_followers()
        self._helper_ends = True
        self._ring()

    def _dismiss_followers(self) -> None:
        for turn in self.followers.copy():
            turn.wake()


def _raised(task: "Task[Any] | None", error: BaseException) -> bool:
    return task is not None and task.done() and not task.cancelled() and task.exception() is error


class Keeper:
    """Closes a thread's loop when the thread ends, and its thread-locals with it."""

    def __init__(self, host: KeptHost) -> None:
        self._host = host

    def __del__(self) -> None:
        if self._host.gone is not None:  # perhaps at exit, when the globals of this module are gone as well
            return
        if process.is_not_ours():
            process.orphans.append(self._host)
        else:
            self._host.close(at_thread_end=True)
