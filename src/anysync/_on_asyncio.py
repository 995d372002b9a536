"""What only asyncio needs: a loop that one step can enter, and that a mailbox can wake."""

import asyncio
import selectors
import signal
import sys
from _thread import get_ident
from asyncio import Handle, Task
from asyncio.events import _set_running_loop  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from weakref import getweakrefcount

from ._core import LoopState, Mailbox

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections import deque
    from socket import socket

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
    _woken_before: int | None = None
    _outer_hooks: Any = None
    _task_factory: object = None
    _left: list[Handle] | None = None

    if TYPE_CHECKING:  # what BaseEventLoop has, and typeshed does not tell
        _asyncgen_finalizer_hook: Any
        _asyncgen_firstiter_hook: Any
        _asyncgens: object
        _closed: bool
        _csock: socket
        _default_executor: object
        _exception_handler: object
        _ready: deque[Handle]
        _scheduled: list[TimerHandle]
        _selector: selectors.BaseSelector
        _signal_handlers: dict[int, Handle]
        _ssock: socket
        _stopping: bool
        _thread_id: int | None

    def __init__(self, *args: Any) -> None:
        self.state = LoopState()
        super().__init__(*args)
        self.state.ready = self._ready

    def set_debug(self, enabled: bool) -> None:
        super().set_debug(enabled)
        self.state.eager = not (enabled or self._task_factory)

    def set_task_factory(self, factory: Any) -> None:
        super().set_task_factory(factory)
        self.state.eager = not (factory or self.get_debug())

    def close(self) -> None:
        super().close()
        self.state.eager = False

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

    def caught(self, task: Task[Any], schedule: Callable[[], object]) -> Callable[[], object]:
        """Call `schedule`, which schedules a step of `task`; return that step.

        What garbage collection schedules meanwhile waits for the next turn.
        """
        handles: list[Any] = []

        def catch(callback: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:
            handle = Handle(callback, args, self, context)
            handles.append(handle)
            return handle

        self.call_soon = catch  # type: ignore[assignment]  # a task looks it up on the instance
        try:
            schedule()
        finally:
            del self.call_soon
        step: Callable[[], object] | None = None
        for handle in handles:
            if getattr(handle._callback, "__self__", None) is task:
                step = partial(handle._context.run, handle._callback, *handle._args)
            else:
                self._ready.append(handle)
        assert step is not None
        return step

    @property
    def idle(self) -> bool:
        """Whether a turn would do nothing: nothing ready, no timer, no descriptor but the own wake-up."""
        return self._closed or not (
            self._ready
            or self._signal_handlers
            or (self._scheduled and any(not timer.cancelled() for timer in self._scheduled))
            or len(getattr(self._selector, "get_map", tuple)() or ()) > 1  # another thread may be closing it
        )

    @property
    def spent(self) -> bool:
        """Whether closing takes no turn: no callback, task, async generator or thread of an executor."""
        return not (self._ready or asyncio.all_tasks(self) or self._asyncgens or self._default_executor)

    @property
    def as_new(self) -> bool:
        """Whether nothing tells that the loop was ever used."""
        return self.spent and not (
            self._scheduled
            or self._signal_handlers
            or self._exception_handler
            or not self.state.eager
            or self._closed
            or len(self._selector.get_map()) > 1
            or getweakrefcount(self)  # where libraries keep what they know of a loop
        )

    def expect_signals(self) -> None:
        """Have signals wake the loop when it waits: one that comes just before would not."""
        selector: Any = self._selector
        selector.before_wait = self._wake_on_signals

    def _wake_on_signals(self) -> None:
        cast("Any", self._selector).before_wait = None
        self._woken_before = signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)

    def expect_no_signals(self) -> None:
        """Undo `expect_signals`, unless signal handlers of the loop, or others, need what is there."""
        selector: Any = self._selector
        selector.before_wait = None
        before, self._woken_before = self._woken_before, None
        if before is None or self._closed or self._signal_handlers:
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

    def is_closed(self) -> bool:
        return self._closed or self._left is not None

    def shut(self) -> None:
        """Close this process's part of the loop without a word to the kernel's selector: a fork shares it.

        A step that has forked goes on to its end: then the loop only stops.
        """
        if self._closed:
            return
        own: Any = self._csock
        with suppress(ValueError):  # not the main thread's
            descriptor = signal.set_wakeup_fd(-1)
            if own is None or descriptor != own.fileno():
                signal.set_wakeup_fd(descriptor)
        if sys.platform != "win32":
            parts: list[Any] = [self._selector, self._ssock, own]
            for part in parts:
                if part is not None:  # closed already, by a thread that the fork broke off
                    part.close()
        if self._thread_id != get_ident():
            self._closed = True
            return
        self.stop()
        self._left = [*self._ready, *self._scheduled]  # for good, since tasks would be collected with them
        for handle in self._left:
            handle._cancelled = True


class KeptSelector(selectors.DefaultSelector):
    """Tells before it waits, which most turns of a loop do not."""

    before_wait: Callable[[], object] | None = None

    def select(self, timeout: float | None = None) -> Any:
        if self.before_wait is not None and timeout != 0:
            self.before_wait()
        return super().select(timeout)


def kept_loop() -> Loop:
    """Return a new loop for a thread to keep."""
    return Loop() if sys.platform == "win32" else Loop(KeptSelector())


class MailboxSelector(selectors.DefaultSelector):
    """Waits at the mailbox, which is quicker than in the kernel, while there is nothing else to wait for."""

    loop: Loop

    def select(self, timeout: float | None = None) -> Any:
        mailbox = self.loop.mailbox
        assert mailbox is not None
        descriptors = cast("Any", self)._fd_to_key
        if mailbox.attend(timeout, descriptors):
            return mailbox.watched(super().select, timeout)
        if not descriptors:  # it is shut: a step has forked, and this is the child
            return []
        return super().select(0)


def mailbox_loop(used: Loop | None = None) -> Loop:
    """Return a loop whose own thread serves a mailbox, where the platform's loop is a selector loop.

    It is a new one, or the one given, which is `as_new`.
    """
    if sys.platform == "win32":
        return used or Loop()
    if used is None:
        selector = MailboxSelector()
        used = selector.loop = Loop(selector)
    used.mailbox = Mailbox(used, used.ring)
    return used
