"""A call in a loop of asyncio that is somebody else's, whose task is a guest in a cancel scope there."""

from asyncio import AbstractEventLoop, Task, current_task
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from sys import modules
from typing import TYPE_CHECKING, Any

from ._calls import Call
from ._core import drop_frame

if TYPE_CHECKING:
    from ._pyloop import Coro


class HomeCall(Call):
    """A call in a loop of asyncio that is somebody else's.

    A task raises `KeyboardInterrupt` and `SystemExit` into its loop too: here they are the caller's alone.
    """

    __slots__ = ("guest", "inner")

    def __init__(
        self,
        loop: AbstractEventLoop,
        coro: "Coro",
        timeout: float | None = None,
        context: Context | None = None,
    ) -> None:
        super().__init__(loop, coro, timeout, context)
        self.inner: Coro | None = coro
        self.guest: Guest | None = None

    def begin(self) -> None:
        if self.coro is self.inner and self.inner is not None:
            self.coro = _contained(self.inner, self.guest)
        super().begin()

    def settle(self, task: "Task[Any]") -> None:
        if task.cancelled() or task.exception() is not None or not isinstance(task.result(), _Interrupt):
            super().settle(task)
        else:
            self.fail(task.result().error)

    def settle_failed(self, task: "Task[Any]") -> None:
        if task.cancelled() and self.inner is not None:
            with suppress(Exception):  # of one that is not Python's own
                self.inner.close()  # a task that was cancelled before it began has not
        error = None if task.cancelled() else task.exception()
        if error is not None:
            drop_frame(error)  # of `_contained`
        super().settle_failed(task)
        result: Any = self.result
        if task.cancelled() and isinstance(result, partial):
            drop_frame(result.args[0])  # of `_contained` too

    def abort(self, error: BaseException) -> None:
        if self.coro is not None and self.coro is not self.inner:
            self.coro.close()
            self.coro = self.inner
        super().abort(error)

    def finish(self, result: Callable[[], Any]) -> None:
        self.inner = self.guest = None
        super().finish(result)


class _Interrupt:
    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _contained(coro: "Coro", guest: "Guest | None") -> Any:
    try:
        if guest is not None:
            guest.enter()
        return await coro
    except (KeyboardInterrupt, SystemExit) as error:
        drop_frame(error)
        return _Interrupt(error)
    finally:
        if guest is not None:
            guest.leave()


class Guest:
    """Puts the task that runs into a cancel scope of anyio's, as anyio does with tasks of its own.

    What it does meanwhile is cancelled with the scope as if it were awaited there, which shields hold off:
    asyncio's own cancel knows of none. Scopes that the task is in already, around a `yield`, are inside.
    """

    def __init__(self, scope: Any) -> None:
        self._scope = scope
        self._task: Any = None
        self._cancels = 0

    def enter(self) -> None:
        anyio: Any = modules["anyio._backends._asyncio"]
        self._task = task = current_task()
        self._cancels = self._task.cancelling()
        state = anyio._task_states.setdefault(task, anyio.TaskState(None, None))
        if state.cancel_scope is None:
            state.cancel_scope = self._scope
            self._scope._tasks.add(task)
        else:
            outermost = _outermost(state, None)
            outermost._parent_scope = self._scope
            self._scope._child_scopes.add(outermost)

    def leave(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        state = modules["anyio._backends._asyncio"]._task_states[task]
        if state.cancel_scope is self._scope:
            state.cancel_scope = None
            self._scope._tasks.discard(task)
        else:
            outermost = _outermost(state, self._scope)
            outermost._parent_scope = None
            self._scope._child_scopes.discard(outermost)
        if self._scope._effectively_cancelled:  # else the code's own cancels stay
            while task.cancelling() > self._cancels:
                task.uncancel()

    def step(self, function: Callable[..., Any], *args: Any) -> Any:
        self.enter()
        return function(*args)


def _outermost(state: Any, parent: Any) -> Any:
    """Return that scope of a task's which has this parent."""
    scope = state.cancel_scope
    while scope._parent_scope is not parent:
        scope = scope._parent_scope
    return scope
