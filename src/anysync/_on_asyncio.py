"""What only asyncio needs: a loop that one step can enter, the task that a generator or `with` lives in."""

import asyncio
import selectors
import signal
import sys
from _thread import allocate_lock, get_ident
from asyncio import CancelledError, Future, Handle, Task, current_task
from asyncio.events import _set_running_loop  # pyright: ignore[reportPrivateUsage]
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ._core import Call, Mailbox, check_free, drop_frame, raise_as_is, running, start

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections import deque
    from socket import socket

    from ._host import Host

AsyncFunction = Callable[..., Awaitable[Any]]

if sys.platform == "win32":
    _PlatformLoop = asyncio.ProactorEventLoop
else:
    _PlatformLoop = asyncio.SelectorEventLoop


class Loop(_PlatformLoop):
    """The platform's event loop, and three things more.

    `enter` and `leave` make it the running loop for a step that does not turn it; `caught` catches
    the step that a task schedules; wake-ups from other threads go to `mailbox` if there is one, else
    `on_wake` hears of them. The tests check, on each Python, the private names this relies on.
    """

    mailbox: Mailbox | None = None
    on_wake: Callable[[], object] | None = None
    _outer_hooks: Any = None

    if TYPE_CHECKING:  # what BaseEventLoop has, and typeshed does not tell
        _asyncgen_finalizer_hook: Any
        _asyncgen_firstiter_hook: Any
        _asyncgens: object
        _closed: bool
        _csock: socket
        _debug: bool
        _default_executor: object
        _ready: deque[Handle]
        _scheduled: list[TimerHandle]
        _selector: selectors.BaseSelector
        _signal_handlers: dict[int, Handle]
        _ssock: socket
        _stopping: bool
        _task_factory: object
        _thread_id: int | None

    @property
    def eager(self) -> bool:
        """Whether steps may be taken without a turn: in debug mode or with a task factory they may not."""
        return not (self._debug or self._task_factory)

    def enter(self) -> None:
        """Be this thread's running loop, as `run_forever` makes it."""
        self._outer_hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)
        self._thread_id = get_ident()
        _set_running_loop(self)

    def leave(self) -> None:
        _set_running_loop(None)
        self._thread_id = None
        if self._outer_hooks is not None:
            sys.set_asyncgen_hooks(*self._outer_hooks)
            self._outer_hooks = None

    def caught(self, schedule: Callable[[], Task[Any]]) -> tuple[Task[Any], Callable[[], object]]:
        """Call `schedule`, which schedules a step of the task that it returns; return the task and that step.

        What garbage collection schedules meanwhile waits for the next turn.
        """
        handles: list[Any] = []

        def catch(callback: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:
            handle = Handle(callback, args, self, context)
            handles.append(handle)
            return handle

        self.call_soon = catch  # type: ignore[assignment]  # a task looks it up on the instance
        try:
            task = schedule()
        finally:
            del self.call_soon
        step: Callable[[], object] | None = None
        for handle in handles:
            if getattr(handle._callback, "__self__", None) is task:
                step = partial(handle._context.run, handle._callback, *handle._args)
            else:
                self._ready.append(handle)
        assert step is not None
        return task, step

    @property
    def quiet(self) -> bool:
        """Whether a task may go on at once: steps need no turn, and nobody has waited longer for one."""
        return not (self._ready or self._debug or self._task_factory)

    def wants_turn(self, timer_set: bool) -> bool:
        """Whether something is ready, may be due before the timers known so far, or has stopped the loop."""
        return bool(self._ready or self._stopping or (timer_set and self._scheduled))

    @property
    def idle(self) -> bool:
        """Whether a turn would do nothing: nothing ready, no timer, no descriptor but the own wake-up."""
        return not (
            self._ready
            or self._signal_handlers
            or any(not timer.cancelled() for timer in self._scheduled)
            or len(self._selector.get_map()) > 1
        )

    @property
    def spent(self) -> bool:
        """Whether closing has nothing to wait for: no task, no async generator, no thread of an executor."""
        return not (asyncio.all_tasks(self) or self._asyncgens or self._default_executor)

    def wake_on_signals(self) -> int:
        """Have signals wake the loop, and return the descriptor that they wrote to before."""
        return signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)

    def wake_on_signals_no_more(self, before: int) -> None:
        """Undo `wake_on_signals`, unless signal handlers of the loop, or others, need what is there."""
        if self._closed or self._signal_handlers:
            return
        own = self._csock.fileno()
        found = signal.set_wakeup_fd(-1)
        if found != own:
            signal.set_wakeup_fd(found)
        elif before != own:
            signal.set_wakeup_fd(before)

    def ring(self) -> None:
        """Wake the loop out of its selector."""
        cast("Any", super())._write_to_self()

    def _write_to_self(self) -> None:
        if self.mailbox is not None:
            self.mailbox.post(None)
            return
        self.ring()
        if self.on_wake is not None:
            self.on_wake()

    def shut(self) -> None:
        """Close this process's part of the loop without a word to the kernel's selector: a fork shares it."""
        if self._closed:
            return
        with suppress(ValueError):  # not the main thread's
            descriptor = signal.set_wakeup_fd(-1)
            if descriptor != self._csock.fileno():
                signal.set_wakeup_fd(descriptor)
        if sys.platform != "win32":
            self._selector.close()
            self._ssock.close()
            self._csock.close()
        self._closed = True


class MailboxSelector(selectors.DefaultSelector):
    """Waits at the mailbox, which is quicker than in the kernel, while there is nothing else to wait for."""

    loop: Loop

    def select(self, timeout: float | None = None) -> Any:
        loop = self.loop
        mailbox = loop.mailbox
        assert mailbox is not None
        served = mailbox.serve()
        while not loop.wants_turn(timer_set=served):
            if len(self.get_map()) > 1:
                return mailbox.watched(super().select, timeout)
            served = mailbox.park(timeout)
            if not served:
                break
        return super().select(0)


def mailbox_loop() -> Loop:
    """Return a new loop whose own thread serves a mailbox, where the platform's loop is a selector loop."""
    if sys.platform == "win32":
        return Loop()
    selector = MailboxSelector()
    loop = Loop(selector)
    selector.loop = loop
    loop.mailbox = Mailbox(loop.ring)
    return loop


class Step(Call):
    """One async function, awaited in the task of a session."""

    __slots__ = ("args", "begun", "cancelled", "function", "last", "session")

    def __init__(
        self, session: "Session", function: AsyncFunction, args: tuple[Any, ...], last: bool
    ) -> None:
        self.session = session
        self.loop = session.loop
        self.function = function
        self.args = args
        self.last = last
        self.begun = self.cancelled = self.fresh = False
        self.coro = self.context = self.task = self.timer = self.timeout = None
        self.instead = self.on_done = self.result = None

    def begin(self) -> None:
        if not self.begun and self.result is None:
            self.begun = True
            self.session.take(self)

    def cancel(self) -> None:
        if self.result is not None:
            return
        if self.begun and self.session.task is not None:
            self.cancelled = True
            self.session.task.cancel()
        else:
            self.abort(CancelledError())

    def abort(self, error: BaseException) -> None:
        self.fail(error)

    def finish(self, result: Callable[[], Any]) -> None:
        self.function, self.args = _nothing, ()
        super().finish(result)


async def _nothing() -> None: ...


async def _outcome(function: AsyncFunction, *args: Any) -> tuple[Callable[[], Any], BaseException | None]:
    """Return what returns or raises the outcome of `await function(*args)`, and what it raises."""
    try:
        return [await function(*args)].pop, None
    except BaseException as error:
        drop_frame(error)
        return partial(raise_as_is, error), error


def _nothing_suppressed() -> bool:
    """Stand for an exit that has been: it suppressed its own cancel, and nothing of the body's."""
    return False


class Session:
    """One task and one context, from the first step to the last: where a generator or a `with` lives.

    Guarantees. Only the thread that drives the loop touches the task, and `_stepping` admits one caller
    at a time. The host holds a session while it is open; a session holds the object that its users see
    only through `on_cancel`: who enters a `with` leaves it, but iterators are dropped. A cancel that
    arrives between steps is not lost: where there is `on_cancel`, the `__aexit__` of a `with`, it is
    thrown in at once, and the last step answers with the outcome; else it is given to the next step.
    When the host closes, `on_cancel` or `on_close` runs in the task.
    """

    def __init__(
        self,
        host: "Host",
        context: Context | None = None,
        *,
        ends: type[BaseException] = BaseException,
        on_cancel: AsyncFunction | None = None,
        on_close: AsyncFunction | None = None,
    ) -> None:
        self.host = host
        self.loop = host.loop
        self.task: Task[None] | None = None
        self.ended = False
        #: ended by its host, not by a step
        self.lost = False
        self._context = copy_context() if context is None else context
        self._ends = ends
        self._on_cancel = on_cancel
        self._on_close = on_close
        self._stepping = allocate_lock()
        self._step: Step | None = None
        self._wake: Future[None] | None = None
        self._cancelled: CancelledError | None = None
        self._early: Callable[[], Any] | None = None

    def step(self, function: AsyncFunction, *args: Any, last: bool = False) -> Callable[[], Any]:
        """Await `function(*args)` in the task; return what returns or raises its outcome.

        A `last` step ends the session, and so does an exception that `ends` names.
        """
        if not self._stepping.acquire(False):
            raise RuntimeError("already running: another thread is inside a step of this object")
        try:
            step = Step(self, function, args, last)
            self.host.perform(step)
            return step.take()
        finally:
            self._stepping.release()

    def is_here(self) -> bool:
        """Whether the code that is running here runs in the session's task."""
        return running() is self.loop and current_task() is self.task

    def abandon(self, function: AsyncFunction) -> None:
        """Make `function` the last step, from wherever garbage collection runs."""
        step = Step(self, function, (), last=True)
        step.on_done = partial(self._report, step)
        if self.host.perform_sometime(step):
            self._report(step)

    def _report(self, step: Step) -> None:
        try:
            step.take()()
        except BaseException as error:
            if self.host.gone is not None:  # which has closed it
                return
            message = "an error occurred while an abandoned generator was closed"
            self.loop.call_exception_handler({"message": message, "exception": error})

    def take(self, step: Step) -> None:
        """Hand `step` to the task, which starts or goes on at once where the loop allows it."""
        loop = self.loop
        try:
            if self.ended:
                raise RuntimeError("the loop that this object lived on has been closed")
            if self.task is None:
                check_free(self._context)
                self._step = step
                self.host.open.add(self)
                coro = self._serve()
                if isinstance(loop, Loop) and loop.eager:
                    start(self, loop, coro, self._context)
                else:
                    self.task = loop.create_task(coro, context=self._context)
                    self.task.add_done_callback(self._died)  # it may be cancelled before it runs
            else:
                self._step = step
                if self._wake is not None and not self._wake.done():
                    if isinstance(loop, Loop) and loop.quiet:
                        loop.caught(self._resume)[1]()
                    else:
                        self._resume()
        except BaseException as error:
            step.abort(error)

    def _resume(self) -> Task[None]:
        assert self._wake is not None
        assert self.task is not None
        self._wake.set_result(None)
        return self.task

    async def _serve(self) -> None:
        try:
            while not self.ended:
                if self._step is None:
                    await self._pause()
                else:
                    await self._answer(self._step)
        except BaseException as error:  # an interrupt between our own lines, or what closing down raised
            if self._step is None:
                raise
            self._step.abort(error)
        finally:
            self._end()

    async def _answer(self, step: Step) -> None:
        task = current_task()
        assert task is not None
        error: BaseException | None = None
        if self._early is not None:
            result = self._early
        else:
            if self._cancelled is not None:  # as if it had only just come
                task.uncancel()
                task.cancel(*self._cancelled.args)
                self._cancelled = None
            result, error = await _outcome(step.function, *step.args)
        if step.cancelled:
            task.uncancel()
        if step.last or isinstance(error, self._ends):
            self._end()
        self._step = None
        if error is None:
            step.finish(result)
        else:
            step.fail(error)
        del error, result  # whose traceback holds this frame

    async def _pause(self) -> None:
        """Wait for the next step, and see to a cancel that comes first, or to the end of the host."""
        try:
            if self.host.gone is not None:  # a step that swallowed its cancel will not be followed by another
                raise CancelledError
            self._wake = self.loop.create_future()
            await self._wake
            return
        except CancelledError as error:
            cancelled = error
        self.ended = self.lost = self.host.gone is not None
        if self._on_cancel is not None:
            on_cancel, self._on_cancel = self._on_cancel, None
            result, raised = await _outcome(on_cancel, CancelledError, cancelled, cancelled.__traceback__)
            self._early = partial(raise_as_is, raised or cancelled)
            if raised is None and result():
                self._early = _nothing_suppressed
            if self.ended and raised is not None and raised is not cancelled:
                raise raised
        elif not self.ended:
            self._cancelled = cancelled
        elif self._on_close is not None:
            await self._on_close()

    def _end(self) -> None:
        self.ended = True
        self.task = self._wake = None
        self.host.closed(self)

    def _died(self, _: Task[None]) -> None:
        """See to it that no caller waits for a task that was cancelled before it ran."""
        if self._step is not None:
            self._step.abort(CancelledError())
        self._end()
