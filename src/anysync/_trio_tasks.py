"""Calls and sessions in a run of trio: tasks of its own, with those methods of asyncio's that we use."""

from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any

import trio
from trio.lowlevel import Abort, current_task, reschedule, spawn_system_task, wait_task_rescheduled

from ._calls import Session
from ._core import add_cancel, drop_frame, raise_as_is, running

add_cancel(trio.Cancelled)


class LoopOnTrio:
    """What calls and sessions use of an asyncio loop, where trio runs."""

    def __init__(self) -> None:
        #: sessions between two steps
        self.waiting: set[TrioSession] = set()

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> None:
        raise NotImplementedError

    def call_later(self, delay: float, callback: Callable[[], object]) -> "TrioTimer":
        """Call back after so many seconds, unless what is returned is cancelled before."""
        timer = TrioTimer(self, callback)
        self.call_soon(timer.start, delay, context=Context())
        return timer

    def create_task(self, coro: Coroutine[Any, Any, Any], *, context: Context) -> "TrioTask":
        task = TrioTask(self, coro)
        self.call_soon(task.start, context, context=Context())
        return task

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        import logging

        logging.getLogger("anysync").error(context["message"], exc_info=context["exception"])


class HomeOnTrio(LoopOnTrio):
    """A run of trio that is somebody else's."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        super().__init__()
        self._token = token

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> None:
        self._token.run_sync_soon((context or copy_context()).run, partial(callback, *args))

    call_soon_threadsafe = call_soon


class TrioTask:
    """A task of trio, with those methods of asyncio's that calls and sessions use.

    It is cancelled as a whole, by a scope around its coroutine: that is for good, as always in trio.
    """

    def __init__(self, loop: LoopOnTrio, coro: Coroutine[Any, Any, Any]) -> None:
        self._loop = loop
        self._coro: Coroutine[Any, Any, Any] | None = coro
        self._scope = trio.CancelScope()
        self._callbacks: list[Callable[[TrioTask], object]] = []
        self._error: BaseException | None = None
        self._result: Callable[[], Any] | None = None
        #: once it runs
        self.own: trio.lowlevel.Task | None = None

    def start(self, context: Context) -> None:
        coro: Any = self._coro
        try:
            self.own = spawn_system_task(self._run, name=getattr(coro, "__qualname__", None), context=context)
        except RuntimeError as error:  # the run ends, or the context is entered
            coro.close()
            self._fail(error)

    async def _run(self) -> None:
        assert self._coro is not None
        value: list[Any] = []
        try:
            with self._scope:
                value.append(await self._coro)
        except BaseException as error:
            drop_frame(error)
            self._fail(CancelledError() if isinstance(error, trio.Cancelled) else error)
        else:
            if self._scope.cancelled_caught:
                self._fail(CancelledError())
            else:
                self._finish(value.pop)
        finally:
            del self  # the coroutine's frame, which an error may hold, holds this one

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._finish(partial(raise_as_is, error))

    def _finish(self, result: Callable[[], Any]) -> None:
        self._result = result
        self._coro = None
        for callback in self._callbacks:
            self._loop.call_soon(callback, self, context=Context())
        self._callbacks.clear()

    def done(self) -> bool:
        return self._result is not None

    def cancelled(self) -> bool:
        return isinstance(self._error, CancelledError)

    def exception(self) -> BaseException | None:
        return self._error

    @property
    def result(self) -> Callable[[], Any] | None:
        return self._result

    def get_coro(self) -> Coroutine[Any, Any, Any] | None:
        return self._coro

    def was_one_step(self) -> bool:
        """Whether it has run, and ended without suspending."""
        own: Any = self.own
        return own is not None and not own._schedule_points

    def add_done_callback(self, callback: "Callable[[TrioTask], object]") -> None:
        if self.done():
            self._loop.call_soon(callback, self, context=Context())
        else:
            self._callbacks.append(callback)

    def cancel(self, *args: object) -> None:
        self._loop.call_soon(self._scope.cancel, context=Context())

    def uncancel(self) -> None:
        """Do nothing: there is no way back."""


class TrioTimer:
    """Calls back, unless it is cancelled before.

    No scope is cancelled for that: until its next turn, the task would keep an error that holds the frames of
    who calls.
    """

    def __init__(self, loop: LoopOnTrio, callback: Callable[[], object]) -> None:
        self._loop = loop
        self._callback: Callable[[], object] | None = callback
        self._waiting: trio.lowlevel.Task | None = None

    def start(self, delay: float) -> None:
        if self._callback is not None:
            with suppress(RuntimeError):  # the run ends
                spawn_system_task(self._wait, delay, context=Context())

    async def _wait(self, delay: float) -> None:
        with trio.move_on_after(delay):
            if self._callback is not None:
                self._waiting = current_task()
                await wait_task_rescheduled(self._abort)
        if self._callback is not None:
            self._loop.call_soon(self._callback, context=Context())

    def _abort(self, _: object) -> Abort:
        self._waiting = None
        return Abort.SUCCEEDED

    def cancel(self) -> None:
        self._callback = None
        self._loop.call_soon(self._go_on, context=Context())

    def _go_on(self) -> None:
        if self._waiting is not None:
            reschedule(self._waiting)
            self._waiting = None


class TrioSession(Session):
    """One task of trio from the first step to the last.

    Who is cancelled in trio stays so, until the scope that is cancelled ends: the next step of a generator is
    cancelled at its first checkpoint by itself, so a cancel between two steps is nobody's business but that
    of a `with`, which is told at once, and of the host's end.
    """

    foreign = True
    cancels = CancelledError, trio.Cancelled
    _waiting: trio.lowlevel.Task | None = None
    _told: BaseException | None = None

    async def wait(self) -> None:
        def abort(_: object) -> Abort:
            if self.on_cancel is None or self._told is not None:
                return Abort.FAILED
            self._waiting = None  # it goes on by itself, and finds a step that comes before it does
            return Abort.SUCCEEDED

        loop: Any = self.loop
        loop.waiting.add(self)
        self._waiting = current_task()
        try:
            await wait_task_rescheduled(abort)
        except trio.Cancelled as cancelled:
            self._told = cancelled.with_traceback(None)
            raise CancelledError from None
        finally:
            self._waiting = None
            loop.waiting.discard(self)

    def go_on(self) -> None:
        self.loop.call_soon(self._resume, context=Context())

    def _resume(self) -> None:
        if self._waiting is not None:
            reschedule(self._waiting)
            self._waiting = None

    def died(self, task: Any) -> None:
        if self.current is None and not task.cancelled() and task.exception() is not None:
            # nobody is there to hear of it; of tasks, asyncio tells itself
            message = "unhandled exception in a generator or `with` that ended with its loop"
            self.loop.call_exception_handler({"message": message, "exception": task.exception()})
        super().died(task)

    def is_here(self) -> bool:
        task: Any = self.task
        return running() == "trio" and trio.lowlevel.in_trio_task() and task.own is current_task()

    async def cancel_between_steps(self, cancelled: CancelledError) -> None:
        told: Any = self._told or cancelled
        await super().cancel_between_steps(told)
