"""Calls and sessions: what the core leaves to do, since it is done less often."""

import sys
from asyncio import CancelledError, Task, _unregister_task, current_task  # pyright: ignore[reportPrivateUsage]
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from ._core import BaseCall, BaseSession, Step, drop_frame, outcome, raise_as_is, running


class Call(BaseCall):
    """One coroutine on its way to its outcome, which may be a timeout or a cancel."""

    __slots__ = ()

    def go_on(self) -> None:
        task, loop = self.task, self.loop
        assert task is not None
        task.add_done_callback(self.settle)
        if self.timeout is None:
            return
        state = getattr(loop, "state", None)
        if self.timeout > 0:  # a loop that is not ours may see to its timers before the first step
            expire = self.expire if state is not None else partial(loop.call_soon, self.expire)
            self.timer = loop.call_later(self.timeout, expire)
        elif state is not None and state.eager:
            self.expire()
        else:  # after the first step
            loop.call_soon(self.expire)

    def expire(self) -> None:
        """Cancel because the time is up."""
        if self.task is not None and not self.task.done():
            self.instead = TimeoutError(f"the coroutine did not finish within {self.timeout:g} seconds")
            self.task.cancel()

    def settle_failed(self, task: "Task[Any]") -> None:
        if self.instead is not None and getattr(task, "was_one_step", bool)():
            self.instead = None  # trio takes the first step when the time is up already
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):
                self.fail(error)
                return
        try:
            task.result()  # the CancelledError itself; any other without the loop's own frames
        except BaseException as error:
            drop_frame(error)
            self.fail(error)

    def cancel(self) -> None:
        if self.result is not None:
            return
        if self.task is None:
            self.abort(CancelledError())
        else:
            self.task.add_done_callback(self.settle)  # an interrupt may have come before the first one
            self.task.cancel()

    def abort(self, error: BaseException) -> None:
        if self.coro is not None:
            with suppress(Exception):  # of one that is not Python's own
                self.coro.close()
            self.fail(error)


def see_through(call: BaseCall, perform: Callable[..., object], interrupt: BaseException) -> None:
    """Cancel `call`, which another thread takes to its end: `interrupt` broke into waiting for that.

    Its clean-up is waited for, `perform(call, job)` having the thread do the job; a second interrupt leaves.
    """
    try:
        if call.result is None:
            perform(call, partial(_cancel_and_begin, call))
        raise interrupted(call, interrupt)
    finally:
        del interrupt


def _cancel_and_begin(call: BaseCall) -> None:
    """Cancel `call`, and begin what must be even so, a last step, if that has not been asked for."""
    call.cancel()
    call.begin()


def cancel_interrupted(call: BaseCall) -> None:
    """Cancel `call`: an interrupt broke into the thread that drives it.

    It may have come while asyncio scheduled the task's next step, which would then never be taken.
    """
    session = call.session if isinstance(call, Step) else None
    holder: Any = session or call
    task, state = holder.task, getattr(call.loop, "state", None)
    if (
        isinstance(task, Task)
        and state is not None
        and not task.done()
        and ((waiter := cast("Any", task)._fut_waiter) is None or getattr(waiter, "done", bool)())
    ):
        handles: list[Any] = list(state.ready)
        if not any(getattr(handle._callback, "__self__", None) is task for handle in handles):
            _schedule_again(holder, task)
            if isinstance(session, Session):
                # it is cancelled before it runs, if it has not begun
                holder.task.add_done_callback(session.died)
    call.cancel()


def _schedule_again(holder: Any, task: Any) -> None:
    """Have a task take its next step, if need be as another task."""
    context = task.get_context() if hasattr(task, "get_context") else holder.context
    options = {"loop": holder.loop, "context": context, "name": task.get_name()}
    if sys.version_info >= (3, 15):
        _unregister_task(task)
        task._log_destroy_pending = False
        holder.task = Task(task.get_coro(), **options)
    else:  # initialized again, with its own coroutine, it is the same task
        task.__init__(task._coro, **options)


def interrupted(call: BaseCall, interrupt: BaseException) -> BaseException:
    """Return `interrupt`, which cancelled `call`, with what the clean-up raised as its cause."""
    try:
        call.take()()
    except CancelledError:
        pass
    except BaseException as error:
        # an assignment is what a frozen dataclass refuses
        vars(BaseException)["__cause__"].__set__(interrupt, None if error is interrupt else error)
    return interrupt


class Session(BaseSession):
    """The task and context that a generator or a `with` lives in, and what becomes of a cancel there.

    One that arrives between steps is not lost: where there is `on_cancel`, the `__aexit__` of a `with`, it is
    thrown in at once, and the last step answers with the outcome; else it is given to the next step. When the
    host closes, `on_cancel` or `on_close` runs in the task.
    """

    cancels: tuple[type[BaseException], ...] = (CancelledError,)
    #: whether a cancel that came between steps is at work
    leaving = False

    async def live(self) -> None:
        # a coroutine of Python's own: `Task.print_stack` cannot show one of Cython's
        try:
            await self.serve()
        except GeneratorExit as error:  # thrown into the task: Python has closed what was awaited here
            step, self.current = self.current, None
            if step is not None:
                drop_frame(error)
                step.fail(error)
        except (KeyboardInterrupt, SystemExit):  # which broke in here, and is raised by the loop too
            task = None if self.foreign else current_task()
            if task is not None:
                task.add_done_callback(_look_at)
            raise

    def is_here(self) -> bool:
        """Whether the code that is running here runs in the session's task."""
        return running() is self.loop and current_task() is self.task

    def abandon(self, function: Callable[..., Awaitable[Any]]) -> None:
        """Make `function` the last step, from wherever garbage collection runs."""
        step = Step(self, function, (), True)
        step.on_done = partial(self._report, step)
        if self.host.perform_sometime(step):
            self._report(step)

    def _report(self, step: Step) -> None:
        try:
            step.take()()
        except BaseException as error:
            if self.closes(error) or (self.host.gone is not None and not step.begun):
                return  # nothing went wrong, or the end of its host closes the generator
            message = "an error occurred while an abandoned generator was closed"
            self.loop.call_exception_handler({"message": message, "exception": error})

    async def cancel_between_steps(self, cancelled: CancelledError) -> None:
        self.ended = self.lost = self.host.gone is not None
        self.leaving = True  # unless it raises, which ends the session
        if self.on_cancel is not None:
            on_cancel, self.on_cancel = self.on_cancel, None
            result, raised = await outcome(on_cancel, type(cancelled), cancelled, None)
            self.early = partial(raise_as_is, cancelled if raised is None else raised)
            if raised is None and result():
                self.early = _nothing_suppressed
        elif not self.ended:
            self.cancelled = cancelled
        if self.ended:
            try:
                if self.early is not None:  # there will be no last step to tell
                    self.early()
                elif self.on_close is not None:
                    await self.on_close()
            except BaseException as error:
                if not self.closes(error):
                    raise
        self.leaving = False

    def closes(self, error: BaseException) -> bool:
        """Whether `error` is what cancels a task or closes a generator, also as task groups hand it on."""
        ends: Any = GeneratorExit, *self.cancels
        if isinstance(error, BaseExceptionGroup):
            return cast("Any", error).split(ends)[1] is None
        return isinstance(error, ends)

    def died(self, task: "Task[None]") -> None:
        if self.current is not None:
            failed = None if task.cancelled() else task.exception()
            self.current.abort(CancelledError() if failed is None else failed)
        self.end()


def _look_at(task: "Task[None]") -> None:
    """Have asyncio not tell that nobody has looked at what ended `task`."""
    if not task.cancelled():
        task.exception()


def _nothing_suppressed() -> bool:
    """Stand for an exit that has been: it suppressed its own cancel, and nothing of the body's."""
    return False


def keep_for_good(thing: object) -> None:
    """Take a reference that is never given back, so that not even interpreter exit collects `thing`."""
    import ctypes  # which is seldom needed

    if hasattr(ctypes, "pythonapi"):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    else:  # PyPy, whose exit collects nothing
        _kept.append(thing)


_kept: list[object] = []
