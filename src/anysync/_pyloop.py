"""The pure-Python core, and the specification of the compiled one.

Which event loop is running here; a coroutine on its way to its outcome (`Call`), begun eagerly; the
door of a loop that has a thread of its own (`Mailbox`); and what a forked child must never collect.
"""

import os
import sys
from _thread import LockType
from asyncio import CancelledError, Task, _get_running_loop  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from queue import Empty, SimpleQueue
from time import sleep
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle

    from ._on_asyncio import Loop, Session


Coro = Coroutine[Any, Any, Any]

yield_processor: Callable[[], object] = getattr(os, "sched_yield", partial(sleep, 0))


def running() -> object | None:
    """Return what runs async code in this thread: an asyncio loop, another library's name, or None."""
    loop = _get_running_loop()
    if loop is None and (sniffio := sys.modules.get("sniffio")) is not None:
        return getattr(sniffio.thread_local, "name", None)
    return loop


_no_items: tuple[Any, ...] = ()
_finished_generator: Generator[Any] = (item for item in _no_items)
_finished_generator.close()
# Raises an exception as it is. A `raise` statement would add a frame of ours to its traceback, and
# replace its `__context__` where the caller is handling another one; a finished generator does neither.
raise_as_is = _finished_generator.throw


def drop_frame(error: BaseException) -> None:
    """Take the frame that caught `error` out of its traceback."""
    error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next


def check_free(context: Context) -> None:
    """Raise `RuntimeError` if `context` is entered: a task begun in it would stay "current" for good."""
    try:
        context.run(int)
    except RuntimeError:
        raise RuntimeError(
            f"cannot run in {context!r}, which is entered already: give `context=` a copy, context.copy()"
        ) from None


def keep_for_good(thing: object) -> None:
    """Take a reference that is never given back, so that not even interpreter exit collects `thing`."""
    import ctypes  # only a forked child needs it

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if sys.version_info >= (3, 12):

    def _first_step(holder: Any, loop: "Loop", coro: Coro, context: Context) -> None:
        # held first: its constructor raises what the step does; and not by this frame, see `Call.take`
        holder.task = _new_task(Task)
        holder.task.__init__(coro, loop=loop, context=context, eager_start=True)

    _new_task: Any = Task.__new__

else:  # before Python 3.12

    def _first_step(holder: Any, loop: "Loop", coro: Coro, context: Context) -> None:
        holder.task, step = loop.caught(lambda: Task(coro, loop=loop, context=context))
        step()


def start(holder: "Call | Session", loop: "Loop", coro: Coro, context: Context) -> None:
    """Run the first step of `coro` at once, in a task of the loop that is running (or entered) here.

    `holder.task` is that task; it is done if the coroutine never suspended. `KeyboardInterrupt` and
    `SystemExit`, which a task also raises into its loop, stay in the task.
    """
    try:
        _first_step(holder, loop, coro, context)
    except (KeyboardInterrupt, SystemExit) as error:
        if holder.task is None or not holder.task.done():
            raise
        drop_frame(error)
        drop_frame(error)
    except BaseException:
        holder.task = None
        raise


def wait(lock: LockType) -> None:
    """Acquire `lock`, looking a while before parking: to be woken costs far more than an answer that is near.

    Each look gives up the processor and the GIL, else the other thread would be kept from answering.
    """
    for _ in range(200):
        if lock.acquire(False):
            return
        yield_processor()
    while not lock.acquire(timeout=0.25):  # a signal just before it parks does not wake it
        pass


class Call:
    """One coroutine on its way to its outcome.

    Guarantees. One thread begins, cancels and finishes a call: the one that drives `loop`, except that
    an unbegun call may be finished by whoever takes it out of a mailbox. `on_done` is set before the
    call is shared, and called once, after `result` is set. Then the call refers to nothing but its
    result. Each method but `fail` and `finish` may come too late, or twice, and then does nothing.
    """

    __slots__ = (
        "context",
        "coro",
        "fresh",
        "instead",
        "loop",
        "on_done",
        "result",
        "task",
        "timeout",
        "timer",
    )

    def __init__(
        self,
        loop: "AbstractEventLoop",
        coro: Coro,
        timeout: float | None = None,
        context: Context | None = None,
    ) -> None:
        self.loop = loop
        self.coro: Coro | None = coro
        self.timeout = timeout
        self.fresh = context is None
        self.context: Context | None = copy_context() if context is None else context
        self.task: Task[Any] | None = None
        self.timer: TimerHandle | None = None
        #: Raised in place of what the coroutine makes of being cancelled, which becomes its cause.
        self.instead: Exception | None = None
        self.on_done: Callable[[], object] | None = None
        #: Once finished: returns or raises the outcome. No Python function, so no frame in a traceback.
        self.result: Any = None

    def begin(self) -> None:
        """Start the coroutine, eagerly where the loop allows it."""
        coro, context, loop = self.coro, self.context, self.loop
        if coro is None or context is None or self.task is not None:
            return
        eager = getattr(loop, "eager", False)
        try:
            if not self.fresh:
                check_free(context)
            if eager:
                start(self, cast("Loop", loop), coro, context)
            else:
                self.task = loop.create_task(coro, context=context)
        except BaseException as error:
            if self.task is not None:  # an interrupt, after the first step
                raise
            self.abort(error)
            return
        assert self.task is not None
        if self.task.done():
            self.settle(self.task)
            return
        self.task.add_done_callback(self.settle)
        if self.timeout is not None:
            if self.timeout > 0:
                self.timer = loop.call_later(self.timeout, self.expire)
            elif eager:
                self.expire()
            else:  # after the first step
                loop.call_soon(self.expire)

    def settle(self, task: "Task[Any]") -> None:
        """Take over the outcome of the finished task."""
        if self.result is not None:
            return
        if not task.cancelled():
            error = task.exception()
            if error is None:
                self.finish(task.result)
                return
            if isinstance(error, Exception):
                self.fail(error)
                return
        try:
            task.result()  # the CancelledError itself; any other without the loop's own frames
        except BaseException as error:
            drop_frame(error)
            self.fail(error)

    def expire(self) -> None:
        """Cancel because the time is up."""
        if self.task is not None and not self.task.done():
            self.instead = TimeoutError(f"the coroutine did not finish within {self.timeout:g} seconds")
            self.task.cancel()

    def cancel(self) -> None:
        """Ask the coroutine to stop; the call is done when it has."""
        if self.result is not None:
            return
        if self.task is None:
            self.abort(CancelledError())
        else:
            self.task.add_done_callback(self.settle)  # an interrupt may have come before the first one
            self.task.cancel()

    def abort(self, error: BaseException) -> None:
        """Fail without having begun."""
        if self.coro is not None:
            self.coro.close()
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        if self.instead is not None and isinstance(error, (Exception, CancelledError)):
            self.instead.__cause__ = error
            error = self.instead
        self.finish(partial(raise_as_is, error))

    def finish(self, result: Callable[[], Any]) -> None:
        if self.result is not None:
            return
        self.result = result  # first: an interrupt may come at any line
        on_done = self.on_done
        if self.timer is not None:
            self.timer.cancel()
        self.coro = self.context = self.task = self.timer = self.on_done = self.instead = None
        if on_done is not None:
            on_done()

    def take(self) -> Callable[[], Any]:
        """Give away the result: frames in the traceback of an error may refer to the call."""
        result, self.result = self.result, _taken
        return cast("Callable[[], Any]", result)


def _taken() -> None:
    """Stand for a result that was taken."""


class Mailbox:
    """The door of a loop that has a thread of its own: any thread posts jobs, that thread does them.

    Guarantees. `post` never blocks and may be called from anywhere, `__del__` and signal handlers
    included. A job that is posted before `park` or `watched` returns is seen by it: the flag that says
    that the thread waits on descriptors is raised before the last look, and read after the post.
    """

    def __init__(self, ring: Callable[[], object], watching: bool = False) -> None:
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._ring = ring
        self._watching = watching

    def post(self, job: Callable[[], object] | None) -> None:
        """Have the thread do `job`, or with None just wake it."""
        self._jobs.put(job)
        if self._watching:
            self._ring()

    def serve(self) -> bool:
        """Do one job that is waiting; false if there was none."""
        try:
            job = self._jobs.get_nowait()
        except Empty:
            return False
        if job is not None:
            job()
        return True

    def park(self, timeout: float | None) -> bool:
        """Wait up to `timeout` seconds for a job and do it; false if none came."""
        yield_processor()  # on one core, the next job comes from the thread that this lets run
        try:
            job = self._jobs.get(timeout=timeout)
        except Empty:
            return False
        if job is not None:
            job()
        return True

    def watched(self, select: Callable[[float | None], Any], timeout: float | None) -> Any:
        """Wait in `select`, rung out of it by a post."""
        self._watching = True
        try:
            return select(timeout if self._jobs.empty() else 0)
        finally:
            self._watching = False
