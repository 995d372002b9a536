"""A run of trio that is turned as asyncio's loops are.

trio has no loop that several calls can turn, one after the other; but `trio.run` is a loop around a generator
that they can. The private names of trio that this relies on are checked by the tests.
"""

import signal
import sys
import traceback
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from math import inf
from typing import TYPE_CHECKING, Any, cast

import sniffio
import trio
from trio._core._run import GLOBAL_RUN_CONTEXT, setup_runner, unrolled_run

from ._calls import keep_for_good
from ._core import LoopState, Mailbox, thread
from ._trio_tasks import HomeOnTrio as HomeOnTrio, LoopOnTrio, TrioSession as TrioSession

if TYPE_CHECKING:
    from collections.abc import Mapping

#: what a mailbox counts where trio does not tell what it waits for: always more than its own wake-up
_DESCRIPTORS = {"trio's wake-up": None, "others": None}

Callback = tuple[Context, Callable[..., object], tuple[Any, ...]]


class TrioLoop(LoopOnTrio):
    """A run of trio, with those methods of an asyncio loop that hosts, calls and sessions use.

    Guarantees. One thread at a time turns it, in `run_forever`: there, and only there, the run is that
    thread's. Others, and signal handlers, come in through `call_soon_threadsafe` or the mailbox. Whatever is
    done to tasks from outside of them is a callback, done between two turns.
    """

    def __init__(self, options: "Mapping[str, Any]", mailbox: bool) -> None:
        super().__init__()
        self._callbacks: deque[Callback] = deque()
        self.state = LoopState()
        self.state.eager = False
        self.state.ready = self._callbacks
        own: Any = self
        self.mailbox: Mailbox | None = None
        self._stopping = self._closed = self._closing = False
        self._scheduled = ()  # timers are tasks
        self._thread_id = 0
        self._end = trio.CancelScope()
        outer, hooks = _swap({}), sys.get_asyncgen_hooks()
        try:
            self._runner = Context().run(
                setup_runner,
                options.get("clock"),
                options.get("instruments", ()),
                False,
                options.get("strict_exception_groups", True),
            )
            self._runner.ki_manager.close()  # Ctrl-C is the business of hosts
            self._hooks = tuple(sys.get_asyncgen_hooks())  # theirs the garbage collector does not see into
        finally:
            #: what trio has of the thread that turns it
            self._own = _swap(outer)
            sys.set_asyncgen_hooks(*hooks)
        self._descriptors: Any = getattr(self._runner.io_manager, "_registered", _DESCRIPTORS)
        if mailbox:
            self.mailbox = Mailbox(own, self._ring)
            self._have_wakeups_posted()
        self._turns: Any = unrolled_run(self._runner, self._main, (), host_uses_signal_set_wakeup_fd=True)
        self._begun = False
        #: by which other threads know the run, once it has begun
        self.token: trio.lowlevel.TrioToken | None = None
        self._timeout = 0.0

    def _have_wakeups_posted(self) -> None:
        """Have trio's own wake-up, a socket, heard of at the mailbox too: the thread may wait there."""
        wakeup: Any = self._runner.entry_queue.wakeup
        wake = wakeup.wakeup_thread_and_signal_safe

        def wake_and_post() -> None:
            wake()
            with suppress(RuntimeError):  # the run has ended
                self.call_soon_threadsafe(int, context=Context())

        wakeup.wakeup_thread_and_signal_safe = wake_and_post

    async def _main(self) -> None:
        self._begun, self.token = True, trio.lowlevel.current_trio_token()
        with self._end:
            await trio.sleep_forever()

    # what hosts do

    def run_forever(self) -> None:
        """Turn until `stop`."""
        outer, hooks, library = _swap(self._own), sys.get_asyncgen_hooks(), sniffio.thread_local.name
        sys.set_asyncgen_hooks(*self._hooks)
        sniffio.thread_local.name = "trio"
        thread.trio, self._thread_id = self, get_ident()
        try:
            with _WakesOnSignals(self._runner.entry_queue.wakeup.write_sock.fileno()):
                self._turn_until_stopped()
        finally:
            self._stopping = False
            thread.trio, self._thread_id = None, 0
            sniffio.thread_local.name = library
            sys.set_asyncgen_hooks(*hooks)
            self._own = _swap(outer)

    def _turn_until_stopped(self) -> None:
        if self._closed:
            raise RuntimeError("this run of trio has ended")
        if not self._begun:
            self._turn(None)
        while not self._begun:  # else it takes no tasks
            self._turn(self._runner.io_manager.get_events(0))
        while True:
            self._call_back()
            if self._stopping or self._closed:
                return
            try:
                events = self._wait(self._timeout)
            except BaseException:
                self._expect_events_again()
                raise
            if events or not self._callbacks:
                self._turn(events)

    def _turn(self, events: Any) -> None:
        """Have trio do what there is to do, and learn how long it wants to wait."""
        try:
            self._timeout = self._turns.send(events)
        except StopIteration:
            self._closed = True
            if not self._closing:
                main: Any = self._runner.main_task_outcome
                raise _end_of_run(getattr(main, "error", None)) from None
        except BaseException as error:
            self._closed = self._turns.gi_frame is None
            if self._closed:  # there may be tasks, which complain if they are collected
                keep_for_good(self._runner)
            if isinstance(error, trio.TrioInternalError):
                raise _end_of_run(error) from error.__cause__
            raise

    def _call_back(self) -> None:
        """Do what was to be done soon, after which there is no waiting."""
        while self._callbacks:
            context, callback, args = self._callbacks.popleft()
            self._timeout = 0
            try:
                context.run(callback, *args)
            except Exception as error:
                self.call_exception_handler({"message": f"error in {callback!r}", "exception": error})
            del context, callback, args  # else they would live as long as the loop waits

    def _wait(self, timeout: float) -> Any:
        get_events: Any = self._runner.io_manager.get_events
        if self.mailbox is None:
            return get_events(0 if self._callbacks else timeout)
        if self.mailbox.attend(timeout, self._descriptors):
            return self.mailbox.watched(get_events, timeout)
        return None if self._callbacks else get_events(0)

    def _expect_events_again(self) -> None:
        """Have the kernel tell once more what a signal handler's exception may have thrown away."""
        manager: Any = self._runner.io_manager
        if hasattr(manager, "_epoll"):
            for descriptor, waiters in [*manager._registered.items()]:
                waiters.current_flags = 0
                manager._update_registrations(descriptor)

    def stop(self) -> None:
        self._stopping = not self._closing

    def close(self) -> None:
        """Have sessions end, cancel all else that is left, wait for it, and end the run."""
        if self._closed:
            return
        self._closing = True
        self._stopping = False
        sessions = self.waiting.copy()
        tasks: list[Any] = [session.task for session in sessions]

        def ended(_: object) -> None:
            if all(task.done() for task in tasks):
                self._end.cancel()

        for session, task in zip(sessions, tasks, strict=True):
            task.add_done_callback(ended)
            session.go_on()
        self.call_soon(ended, None)
        self.run_forever()

    def is_closed(self) -> bool:
        return self._closed

    @property
    def idle(self) -> bool:
        """Whether a turn would do nothing, as far as trio tells: it does with epoll only."""
        runner: Any = self._runner
        ready = self._callbacks or runner.runq
        return not ready and runner.deadlines.next_deadline() == inf and len(self._descriptors) == 1

    def shut(self) -> None:
        """Close this process's part of the loop: a fork shares the kernel's."""
        if self._closed:
            return
        self._closed = self._stopping = True
        wakeup = self._runner.entry_queue.wakeup
        with suppress(ValueError):  # not the main thread's
            found = signal.set_wakeup_fd(-1)
            if found != wakeup.write_sock.fileno():
                signal.set_wakeup_fd(found)
        wakeup.close()
        self._runner.io_manager.close()

    # what calls and sessions do

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> None:
        """Have the thread that turns the loop call back before its next turn."""
        self._callbacks.append((copy_context() if context is None else context, callback, args))

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> None:
        if self._closed:
            raise RuntimeError("this run of trio has ended")
        self.call_soon(callback, *args, context=context)
        if self.mailbox is not None:
            self.mailbox.post(None)
        else:
            self._ring()

    def _ring(self) -> None:
        with suppress(OSError):  # closed
            self._runner.io_manager.force_wakeup()


def _end_of_run(error: BaseException | None) -> BaseException:
    """Return what ended a run: `error`, unless there is something in it that a signal handler has raised."""
    found = [error if error.__cause__ is None else error.__cause__] if error is not None else []
    while found:
        one = found.pop()
        if isinstance(one, BaseExceptionGroup):
            found.extend(cast("BaseExceptionGroup[BaseException]", one).exceptions)
            continue
        modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(one.__traceback__)]
        if not modules or not modules[-1].startswith("trio."):
            return one
    return RuntimeError("this run of trio has ended") if error is None else error


def _swap(context: dict[str, Any]) -> dict[str, Any]:
    """Make this thread's run of trio, or none, another one; return the one before."""
    here = vars(GLOBAL_RUN_CONTEXT)
    before = here.copy()
    here.clear()
    here.update(context)
    return before


class _WakesOnSignals:
    """Have a signal, of which only the main thread hears, wake the loop that it turns meanwhile."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before: int | None = None

    def __enter__(self) -> None:
        with suppress(ValueError):  # not the main thread
            self._before = signal.set_wakeup_fd(self._descriptor, warn_on_full_buffer=False)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            found = signal.set_wakeup_fd(self._before)
            if found != self._descriptor:
                signal.set_wakeup_fd(found)
