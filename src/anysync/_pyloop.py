"""The pure-Python core, and the specification of the compiled one.

Which event loop is running here; a coroutine on its way to its outcome (`BaseCall`), begun eagerly; the task
that a generator or a `with` lives in (`BaseSession`); who drives a kept loop (`Drive`); the door of a loop
that has a thread of its own (`Mailbox`); the coroutine of both worlds (`BaseCoroutine`). asyncio comes
with `load`, before which only `BaseCoroutine` and `thread` are of use.
"""

import os
import sys
from _thread import (
    _local,  # pyright: ignore[reportPrivateUsage]
    allocate_lock,
    get_ident,
)
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from time import perf_counter, sleep
from types import CoroutineType, FrameType, GenericAlias
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from asyncio import (
        AbstractEventLoop,
        CancelledError,
        Task,
        TimerHandle,
        _get_running_loop,  # pyright: ignore[reportPrivateUsage]
        current_task,
    )

    from ._home_host import HomeHost
    from ._host import Host
    from ._kept_host import Keeper, KeptHost
    from ._on_asyncio import Loop
    from ._on_trio import TrioLoop
    from ._queues import Empty, SimpleQueue
    from ._thread_host import ThreadHost

R_co = TypeVar("R_co", covariant=True)
Coro = Coroutine[Any, Any, Any]
AsyncFunction = Callable[..., Awaitable[Any]]

yield_processor: Callable[[], object] = getattr(os, "sched_yield", partial(sleep, 0))
_spin = 0.0
_watch: "Callable[[BaseCall, float], bool]"


def load(spin: float, watch: "Callable[[BaseCall, float], bool]") -> None:
    """Import what the core has of asyncio; look `spin` seconds for an answer before parking.

    `watch(call, seconds)` is told now and then how long a caller has been parked, until it returns true.
    """
    global CancelledError, Empty, SimpleQueue, Task, _get_running_loop, _new_task, _spin, _watch, current_task
    from asyncio import (
        CancelledError,
        Task,
        _get_running_loop as get,  # pyright: ignore[reportPrivateUsage]
        current_task,
    )

    from ._queues import Empty, SimpleQueue

    _get_running_loop, _new_task, _spin, _watch = get, Task.__new__, spin, watch


class ThreadState(_local):
    """What a thread has of ours."""

    kept: "KeptHost | None" = None
    keeper: "Keeper | None" = None
    kept_on_trio: "KeptHost | None" = None
    keeper_on_trio: "Keeper | None" = None
    #: the kept host that this thread drives, or is about to, and the frame that does it
    busy: "tuple[KeptHost, FrameType] | None" = None
    #: the host whose own thread this is
    server: "ThreadHost | None" = None
    #: the host of the loop that waits for this thread
    home: "HomeHost | None" = None
    #: the run of trio that this thread is turning, if it is one of ours
    trio: "TrioLoop | None" = None


thread = ThreadState()


class LoopState:
    """What the core asks a loop of ours, its `state`, again and again."""

    __slots__ = ("eager", "ready")

    def __init__(self) -> None:
        #: whether steps may be taken without a turn: in debug mode or with a task factory they may not
        self.eager = True
        #: the callbacks of the next turn
        self.ready: Any = None


def running() -> object | None:
    """Return what runs async code in this thread: an asyncio loop, another library's name, or None."""
    loop = _get_running_loop()
    if loop is None and (sniffio := sys.modules.get("sniffio")) is not None:
        return getattr(getattr(sniffio, "thread_local", None), "name", None)  # it may be in the making
    return loop


_no_items: tuple[Any, ...] = ()
_finished_generator: Generator[Any] = (item for item in _no_items)
_finished_generator.close()
# Raises an exception as it is. A `raise` statement would add a frame of ours to its traceback, and
# replace its `__context__` where the caller is handling another one; a finished generator does neither.
raise_as_is = _finished_generator.throw


def drop_frame(error: BaseException) -> None:
    """Take the frame that caught `error` out of its traceback."""
    # an assignment is what a frozen dataclass refuses
    BaseException.with_traceback(error, error.__traceback__ and error.__traceback__.tb_next)


def check_free(context: Context) -> None:
    """Raise `RuntimeError` if `context` is entered: a task begun in it would stay "current" for good."""
    try:
        context.run(int)
    except RuntimeError:
        raise RuntimeError(
            f"cannot run in {context!r}, which is entered already: give `context=` a copy, context.copy()"
        ) from None


_new_task: Any = None  # until `load`

if sys.version_info >= (3, 12):

    def _first_step(holder: Any, loop: "Loop", coro: Coro, context: Context) -> None:
        # held first: its constructor raises what the step does; and not by this frame, see `BaseCall.take`
        holder.task = _new_task(Task)
        holder.task.__init__(coro, loop=loop, context=context, eager_start=True)

else:  # before Python 3.12

    def _first_step(holder: Any, loop: "Loop", coro: Coro, context: Context) -> None:
        holder.task = _new_task(Task)
        loop.caught(holder.task, lambda: holder.task.__init__(coro, loop=loop, context=context))()


def _start(holder: "BaseCall | BaseSession", loop: "Loop", coro: Coro, context: Context) -> None:
    """Run the first step of `coro` at once, in a task of the loop that is running (or entered) here.

    `holder.task` is that task; it is done if the coroutine never suspended. `KeyboardInterrupt` and
    `SystemExit`, which a task also raises into its loop, stay in the task.
    """
    try:
        _first_step(holder, loop, coro, context)
    except BaseException as error:
        task = cast("Any", holder).task
        interrupt = bare_interrupt(error)
        # a task that is written in Python has no `_coro` at first
        begun = task is not None and task._loop and (task.done() or getattr(task, "_coro", None))
        if interrupt is None or task is None or not begun:
            if task is not None:
                task._log_destroy_pending = False
            holder.task = None
            raise
        if not task.done():
            raise interrupt from None
        drop_frame(error)
        drop_frame(error)


#: what a call raises when it has been cancelled, of every library that has been used
_cancels: tuple[type[BaseException], ...] = ()


def add_cancel(cancelled: type[BaseException]) -> None:
    """Know another library's word for having been cancelled."""
    global _cancels
    _cancels = (*_cancels, cancelled)


def be_direct(direct: bool) -> None:
    """Say whether a bare `run()` may use the thread's kept loop of asyncio without asking for its host.

    That is a short cut of the compiled core.
    """


def bare_interrupt(error: BaseException) -> BaseException | None:
    """Return the interrupt that `error` is, or that Python's eager start has made a `SystemError` of."""
    if isinstance(error, SystemError):
        interrupt, error.__cause__, error.__context__ = error.__cause__, None, None
        return interrupt or KeyboardInterrupt()
    return error if isinstance(error, (KeyboardInterrupt, SystemExit)) else None


class BaseCall:
    """One coroutine on its way to its outcome; what is done less often is in `_calls.Call`.

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
        self.instead: BaseException | None = None
        self.on_done: Callable[[], object] | None = None
        #: Once finished: returns or raises the outcome. No Python function, so no frame in a traceback.
        self.result: Any = None

    def begin(self) -> None:
        """Start the coroutine, eagerly where the loop allows it."""
        coro, context, loop = self.coro, self.context, self.loop
        if coro is None or context is None or self.task is not None:
            return
        state = getattr(loop, "state", None)
        try:
            if not self.fresh:
                check_free(context)
            if state is not None and state.eager:
                _start(self, cast("Loop", loop), coro, context)
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
        else:
            self.go_on()

    def settle(self, task: "Task[Any]") -> None:
        """Take over the outcome of the finished task."""
        if self.result is not None:
            return
        if task.cancelled() or task.exception() is not None:
            self.settle_failed(task)
        else:
            self.finish(task.result)

    def go_on(self) -> None:
        """See to the task that has just been started and is not done."""
        raise NotImplementedError

    def settle_failed(self, task: "Task[Any]") -> None:
        """Take over what the finished task raised."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Ask the coroutine to stop; the call is done when it has."""
        raise NotImplementedError

    def abort(self, error: BaseException) -> None:
        """Fail without having begun."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        if self.instead is not None and isinstance(error, (Exception, CancelledError, *_cancels)):
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


class Step(BaseCall):
    """One async function, awaited in the task of a session."""

    __slots__ = ("args", "begun", "cancelled", "function", "last", "session")

    def __init__(
        self, session: "BaseSession", function: AsyncFunction, args: tuple[Any, ...], last: bool
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
            self.session.take(self)

    def cancel(self) -> None:
        if self.result is not None:
            return
        if self.session.task is not None and (self.begun or self.last):
            self.cancelled = self.begun  # else the last step, which must be taken, finds its task cancelled
            self.session.task.cancel()
        else:
            self.abort(CancelledError())

    def abort(self, error: BaseException) -> None:
        self.fail(error)

    def finish(self, result: Callable[[], Any]) -> None:
        self.function, self.args = _nothing, ()
        super().finish(result)


async def _nothing() -> None: ...


class Gate:
    """The future that the task of a session waits for between steps, the same one each time.

    asyncio takes for a future what has `_asyncio_future_blocking` (see `asyncio.isfuture`). This one lets
    the task go on at once, where a `Future` would take a turn of the loop.
    """

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_context", "_loop", "_wakeup")

    def __init__(self, loop: "AbstractEventLoop") -> None:
        self._loop = loop
        self._asyncio_future_blocking = False
        self._wakeup: Callable[[Gate], object] | None = None
        self._context: Context | None = None
        self._cancelled: tuple[Any, ...] | None = None

    def get_loop(self) -> "AbstractEventLoop":
        return self._loop

    def add_done_callback(self, wakeup: Callable[["Gate"], object], *, context: Context) -> None:
        self._wakeup, self._context = wakeup, context

    def done(self) -> bool:
        return self._wakeup is None or self._cancelled is not None

    def cancel(self, msg: object = None) -> bool:
        if self._wakeup is None:
            return False
        self._cancelled = () if msg is None else (msg,)
        self._loop.call_soon(self._open, context=self._context)
        return True

    def result(self) -> None:
        if self._cancelled is not None:
            cancelled, self._cancelled = self._cancelled, None
            raise CancelledError(*cancelled)

    def __await__(self) -> Generator["Gate"]:
        self._asyncio_future_blocking = True
        yield self

    def open(self, at_once: bool) -> None:
        """Let the task go on, unless it is on its way already: at once, or in the loop's next turn."""
        context = self._context
        if self._wakeup is None or self._cancelled is not None or context is None:
            return
        if at_once:
            context.run(self._open)
        else:
            self._loop.call_soon(self._open, context=context)

    def _open(self) -> None:
        wakeup, self._wakeup, self._context = self._wakeup, None, None
        if wakeup is not None:
            wakeup(self)


async def outcome(function: AsyncFunction, *args: Any) -> tuple[Callable[[], Any], BaseException | None]:
    """Return what returns or raises the outcome of `await function(*args)`, and what it raises."""
    try:
        return [await function(*args)].pop, None
    except BaseException as error:
        drop_frame(error)
        return partial(raise_as_is, error), error


class BaseSession:
    """One task and one context, from the first step to the last: where a generator or a `with` lives.

    Guarantees. Only the thread that drives the loop touches the task, and `_stepping` admits one caller
    at a time. The host holds a session while it is open; a session holds the object that its users see
    only through `on_cancel`: who enters a `with` leaves it, but iterators are dropped. A cancel that
    arrives between steps is not lost: see `_calls.Session`.
    """

    #: whether the task is not asyncio's: then it waits in `wait` between steps, until `go_on` is called
    foreign = False

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
        self.context = copy_context() if context is None else context
        self.ends = ends
        self.on_cancel = on_cancel
        self.on_close = on_close
        #: the step that the task is to answer
        self.current: Step | None = None
        #: a cancel that came between steps, for the next one
        self.cancelled: CancelledError | None = None
        #: the outcome of the last step, if that has been taken already
        self.early: Callable[[], Any] | None = None
        #: the step that is under way, and after it those that are about to be told so
        self._stepping: dict[object, None] = {}
        #: end it; the dictionary's own method, before which no interrupt can come
        self.leave: Callable[[object, None], None] = self._stepping.pop
        self._gate = Gate(host.loop)

    def step(
        self, function: AsyncFunction, args: tuple[Any, ...] = (), last: bool = False
    ) -> Callable[[], Any]:
        """Await `function(*args)` in the task; return what returns or raises its outcome.

        A `last` step ends the session, and so does an exception that `ends` names. The caller has entered.
        """
        step = Step(self, function, args, last)
        self.host.perform(step)
        return step.take()

    def enter(self, step: object) -> None:
        """Let `step` be the one that is made, or raise."""
        self._stepping[step] = None
        if list(self._stepping)[0] is not step:  # noqa: RUF015  # which another thread cannot break into
            raise RuntimeError(self.host.gone or "already running: a step of this object is under way")

    def take(self, step: Step) -> None:
        """Hand `step` to the task, which starts or goes on at once where the loop allows it."""
        loop: Any = self.loop
        state = getattr(loop, "state", None)
        coro: Coro | None = None
        try:
            if self.ended:
                gone = "the loop that this object lived on has been closed"
                raise RuntimeError(
                    gone if self.lost else "already running: another thread has just ended this object"
                )
            check_free(self.context)
            step.begun = True
            self.current = step
            if self.task is not None:
                if self.foreign:
                    self.go_on()
                else:  # at once if nobody has waited longer for a turn
                    self._gate.open(state is not None and state.eager and not state.ready)
                return
            self.host.open.add(self)
            coro = self.live()
            if state is not None and state.eager:
                _start(self, loop, coro, self.context)
            else:
                self.task = task = loop.create_task(coro, context=self.context)
                task.add_done_callback(self.died)  # it may be cancelled before it runs
        except BaseException as error:
            if step.result is not None or (self.task is not None and self.current is step):
                raise  # an interrupt, after the task has begun with the step
            if coro is not None:
                coro.close()
                self.host.open.discard(self)
            step.abort(error)

    def live(self) -> Coro:
        """Return the coroutine of the task, which serves."""
        raise NotImplementedError

    async def serve(self) -> None:
        try:
            while not self.ended:
                if self.current is None:
                    await self._pause()
                else:
                    await self._answer(self.current)
        except GeneratorExit:  # Python closes this coroutine: `live` has the one that is meant
            raise
        except BaseException as error:  # an interrupt between our own lines, or what closing down raised
            if self.current is None:
                raise
            self.current.abort(error)
        finally:
            self.end()

    async def _answer(self, step: Step) -> None:
        task: Any = self.task or current_task()  # an eager task factory has yet to return it
        error: BaseException | None = None
        if self.early is not None:
            result = self.early
        else:
            if self.cancelled is not None:  # as if it had only just come
                task.uncancel()
                task.cancel(*self.cancelled.args)
                self.cancelled = None
            result, error = await outcome(step.function, *step.args)
        if step.cancelled:
            task.uncancel()
        if step.last or isinstance(error, self.ends):
            self.end()
        self.current = None
        if error is None:
            step.finish(result)
        else:
            step.fail(error)
        del error, result  # whose traceback holds this frame

    async def _pause(self) -> None:
        try:
            if self.host.gone is not None and not self.host.given_up:
                # a step that swallowed its cancel will be the last one
                raise CancelledError
            await (self.wait() if self.foreign else self._gate)
            return
        except CancelledError as error:
            cancelled = error.with_traceback(None)
        await self.cancel_between_steps(cancelled)

    async def wait(self) -> None:
        """Wait for the next step, where the task is not asyncio's; a cancel is told as `CancelledError`."""
        raise NotImplementedError

    def go_on(self) -> None:
        """End that wait."""
        raise NotImplementedError

    async def cancel_between_steps(self, cancelled: "CancelledError") -> None:
        """See to a cancel that comes between steps, or to the end of the host."""
        raise NotImplementedError

    def end(self) -> None:
        self.ended = True
        self.task = None
        self.host.closed(self)

    def died(self, task: "Task[None]") -> None:
        """See to it that no caller waits for a task that was cancelled before it ran."""
        raise NotImplementedError


class Drive:
    """Who drives a kept loop, and what ends in its first step.

    Guarantees. One entry of a dictionary names the thread that drives; it is taken by an atomic
    `setdefault`, so that a thread that was interrupted finds its own name and goes on. Who gives it away
    looks whether it has it still, since a signal handler's call may have let go. Between that look and the
    change there is no call, hence no signal and no other thread.
    """

    #: whether no loop can wait for the thread, which is the main one: a short cut of the compiled core
    alone = False

    def __init__(self) -> None:
        self._driver: dict[str, int] = {}

    def try_to_drive(self) -> bool:
        """Become the driver, or find that an interrupt has left this thread in that place."""
        return self._driver.setdefault("is", get_ident()) == get_ident()

    def hand_to(self, thread: int) -> bool:
        """Make another thread the driver; false if this one drives no longer."""
        here = get_ident()
        try:
            if self._driver["is"] == here:
                self._driver["is"] = thread
                return True
        except KeyError:
            pass
        return False

    def stop_driving(self) -> None:
        """Drive no longer, if this thread does."""
        here = get_ident()
        try:
            if self._driver["is"] == here:
                del self._driver["is"]
        except KeyError:
            pass

    def driven(self) -> bool:
        return bool(self._driver)

    def leave(self) -> None:
        """Undo what `at_once` did to the thread, which goes on with a call that has not ended."""

    def at_once(self, call: BaseCall) -> bool:
        """Begin `call` here if nothing else has to be seen to, and say whether it has ended.

        Here an interrupt may come at any line, so there is always more to see to.
        """
        return False


class Latch:
    """What a caller waits for: opened once, by a call of it, in the thread that did what was asked for."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def __call__(self) -> None:
        self._lock.release()

    def wait(self, call: BaseCall | None = None) -> None:
        """Look a while before parking: to be woken costs far more than an answer that is near.

        Each look gives up the processor and the GIL, else the other thread would be kept from answering.
        `watch` is told of `call`, if that is what is waited for.
        """
        start = perf_counter()
        while perf_counter() < start + _spin:
            if self._lock.acquire(False):
                return
            yield_processor()
        while not self._lock.acquire(timeout=0.25):  # a signal just before it parks does not wake it
            if call is not None and _watch(call, perf_counter() - start):
                call = None


class Mailbox:
    """The door of a loop that has a thread of its own: any thread posts jobs, that thread does them.

    Guarantees. `post` never blocks and may be called from anywhere, `__del__` and signal handlers
    included. A job that is posted before `attend` or `watched` returns is seen by it: the flag that says
    that the thread waits on descriptors is raised before the last look, and read after the post. Once
    the mailbox is shut, no call begins; once its thread has swept it for the last time, who posts sweeps: no
    call waits for ever.
    """

    def __init__(self, loop: "Loop | None", ring: Callable[[], object]) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self._ring = ring
        self._watching = loop is None
        self._swept = False
        self._closing: str | None = None

    def post(self, call: BaseCall | None, job: Callable[[], object] | None = None) -> None:
        """Have the thread begin `call`, or do `job`, or just wake it."""
        self._jobs.put(call if job is None else job)
        if self._watching:
            self._ring()
        if self._swept:
            self.sweep()

    def perform(self, call: BaseCall, job: Callable[[], object] | None = None) -> None:
        """Have the thread begin `call`, or do `job` for it, and wait for its end."""
        call.on_done = latch = call.on_done or Latch()
        if isinstance(latch, Latch) and call.result is None:  # looked at last: who ends it finds the latch
            self.post(call, job)
            latch.wait(call if job is None else None)

    def serve(self) -> bool:
        """Do one job that is waiting; false if there was none."""
        try:
            job = self._jobs.get_nowait()
        except Empty:
            return False
        self._do(job)
        return True

    def _do(self, job: Any) -> None:
        if not isinstance(job, BaseCall):
            if job is not None:
                job()
        elif self._closing is None:
            job.begin()
        else:
            job.abort(RuntimeError(self._closing))

    def attend(self, timeout: float | None, descriptors: dict[Any, Any]) -> bool:
        """Do jobs until the loop wants a turn or `timeout` seconds are over.

        True if nothing is left but to wait for `descriptors`, of which one is the loop's own.
        """
        loop: Any = self._loop
        served = self.serve()
        while not (loop.state.ready or loop._stopping or (served and loop._scheduled)):
            if len(descriptors) > 1:
                return True
            yield_processor()  # on one core, the next job comes from the thread that this lets run
            try:
                job = self._jobs.get(True, timeout)
            except Empty:
                break
            self._do(job)
            served = True
        return False

    def watched(self, select: Callable[[float | None], Any], timeout: float | None) -> Any:
        """Wait in `select`, rung out of it by a post."""
        self._watching = True
        try:
            return select(timeout if self._jobs.empty() else 0)
        finally:
            self._watching = False

    def shut(self, reason: str | None) -> None:
        """Let no call begin any more."""
        self._closing = reason

    def sweep(self) -> None:
        """Do what was posted, and from now on whatever is posted in the thread that posts it."""
        self._swept = True
        while self.serve():
            pass

    def publish(self) -> None:
        """Let go of what the callers of finished calls wait for: here they have it already."""


class BaseCoroutine(Coroutine[Any, Any, R_co]):
    """What a coroutine of both worlds does often: to be awaited, and to be run."""

    __slots__ = ("__weakref__", "backend", "coro")
    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, coro: Coroutine[Any, Any, R_co], backend: str | None = None) -> None:
        self.coro: Coroutine[Any, Any, R_co] = coro
        self.backend: str | None = backend
        if type(coro) is not CoroutineType:
            self._check()

    def _check(self) -> None:
        """Raise `TypeError` if `coro` is no coroutine."""
        raise NotImplementedError

    def __reduce__(self) -> Any:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self.coro.__await__()

    def run(
        self, timeout: float | None = None, *, context: Context | None = None, backend: str | None = None
    ) -> R_co:
        """Run the coroutine from sync code and return its result: the same as `await` in async code.

        `timeout`, in seconds, cancels the coroutine when it has passed, as `asyncio.wait_for` does: the
        clean-up is waited for, and `TimeoutError` raised, with what the clean-up raised as its cause;
        a value that the coroutine returns all the same is returned. Zero or less cancels at the first
        suspension.

        The coroutine sees the caller's context variables, and changes a copy of them; or `context`, if
        given, in which the caller can then look for the changes. A context that is entered raises
        `RuntimeError`.

        Where it runs is told in the documentation's table: on the loop that waits for this thread, if one
        does; in this thread, if no event loop runs here; else on a background thread, which blocks the loop
        that runs here. `backend` is `"asyncio"` or `"trio"`. If it is not given, it is that of the decorator;
        if that has none, the one of the loop that runs here, or waits; and if none does, what `configure`
        says. Ctrl-C cancels the coroutine, waits for its clean-up and raises `KeyboardInterrupt`; a second
        one does not wait.
        """
        return cast("R_co", self._run(timeout, context, backend)())

    def _run(self, timeout: float | None, context: Context | None, backend: str | None) -> Callable[[], Any]:
        """Run the coroutine; return what returns or raises the outcome."""
        raise NotImplementedError

    def send(self, value: Any, /) -> Any:
        """Resume the coroutine, as `coroutine.send` does."""
        return self.coro.send(value)

    def throw(self, *args: Any) -> Any:
        """Raise an exception in the coroutine, as `coroutine.throw` does."""
        return self.coro.throw(*args)

    def close(self) -> None:
        """End the coroutine, as `coroutine.close` does."""
        self.coro.close()
