# cython: language_level=3, freethreading_compatible=True, auto_pickle=False
"""The compiled core: what `_pyloop` specifies, name by name, where compiling it was measured to pay.

Under a GIL, no other thread can come between two lines here, and no interrupt. Free-threaded builds have
critical sections in those places (which compile to nothing elsewhere); what is not in one has one owner at
a time, and changes hands through a lock: the value is written, then the lock released; the lock is acquired,
then the value read.
"""

cimport cython
from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject

import sys
from _thread import _local
from collections import deque
from functools import partial
from types import CoroutineType as _CoroutineType, GenericAlias

cdef extern from "Python.h":
    ctypedef struct AsyncSlots "PyAsyncMethods":
        object (*am_await)(object)

    ctypedef struct Slots "PyTypeObject":
        object (*tp_new)(type, object, void *)
        int (*tp_init)(object, object, object) except? -1
        AsyncSlots *tp_as_async

    ctypedef struct PyThreadState:
        PyObject *async_gen_firstiter
        PyObject *async_gen_finalizer

    PyThreadState *PyThreadState_Get()

cdef extern from * nogil:
    """
    #if PY_VERSION_HEX < 0x030C0000
    #define frames_left(thread) ((thread)->recursion_remaining)
    #else
    #define frames_left(thread) ((thread)->py_recursion_remaining)
    #endif
    """
    int frames_left(PyThreadState *)

cdef enum:
    FRAMES = 24  # on the stack: those that `_kept_host` looks for, and its own

cdef extern from "pythread.h" nogil:
    ctypedef void *Lock "PyThread_type_lock"
    ctypedef long long PY_TIMEOUT_T
    ctypedef enum PyLockStatus:
        PY_LOCK_ACQUIRED

    Lock PyThread_allocate_lock()
    void PyThread_free_lock(Lock)
    PyLockStatus PyThread_acquire_lock_timed(Lock, PY_TIMEOUT_T microseconds, int interruptible)
    void PyThread_release_lock(Lock)
    unsigned long PyThread_get_thread_ident()

cdef extern from * nogil:
    """
    #ifdef _WIN32
    #include <windows.h>
    #define yield_processor() SwitchToThread()
    static double now(void) {
        LARGE_INTEGER ticks, frequency;
        QueryPerformanceCounter(&ticks);
        QueryPerformanceFrequency(&frequency);
        return (double)ticks.QuadPart / (double)frequency.QuadPart;
    }
    #else
    #include <sched.h>
    #include <time.h>
    #define yield_processor() sched_yield()
    static double now(void) {
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
    }
    #endif
    """
    void yield_processor()
    double now()

cdef double FOREVER = float("inf")
cdef double LOST = 100e-6  # seconds: a turn of a spin that takes longer has lost the processor to someone else
cdef double REST = 20  # times what was spun in vain or lost: until then, waiting parks at once
cdef double DAY = 86400.0
cdef PY_TIMEOUT_T SLICE = 250_000  # microseconds: a signal just before it parks does not wake it; on Windows none does

cdef double spin_limit = 0
cdef bint tasks_start_eagerly = sys.version_info >= (3, 12)
cdef object CancelledError, Handle, Task
cdef object get_running_loop, set_running_loop, current_task, tell
cdef bint may_be_direct = True


def load(double spin, watch):
    global CancelledError, Handle, Task, get_running_loop, set_running_loop, current_task, tell, spin_limit
    from asyncio import CancelledError, Handle, Task, current_task
    from asyncio.events import _get_running_loop as get_running_loop, _set_running_loop as set_running_loop

    tell = watch
    spin_limit = spin


class ThreadState(_local):
    kept = keeper = kept_on_trio = keeper_on_trio = busy = server = home = trio = None


thread = ThreadState()
cdef object this_thread = thread
cdef dict modules = sys.modules
cdef object CoroutineType = _CoroutineType


cdef class LoopState:
    """What the core asks a loop of ours again and again."""

    cdef public object ready
    cdef public bint eager


cdef LoopState state_of(loop):
    return getattr(loop, "state", None)


cpdef running():
    loop = get_running_loop()
    if loop is None and "sniffio" in modules:
        return getattr(getattr(modules["sniffio"], "thread_local", None), "name", None)
    return loop


# A generator of Python's own, since Cython's would add a frame: see the twin.
_finished_generator = eval("(item for item in ())")
_finished_generator.close()
raise_as_is = _finished_generator.throw
cdef object raise_ = raise_as_is


cpdef drop_frame(error):
    BaseException.with_traceback(error, error.__traceback__ and error.__traceback__.tb_next)


cdef check_free(context):
    try:
        PyContext_Enter(context)
        PyContext_Exit(context)
    except RuntimeError:
        raise RuntimeError(
            f"cannot run in {context!r}, which is entered already: give `context=` a copy, context.copy()"
        ) from None


cdef class Catch:
    """Stands for a loop's `call_soon`, and keeps what is scheduled."""

    cdef list scheduled

    def __call__(self, callback, *args, context=None):
        self.scheduled.append((callback, args, context))


cdef class Holder:
    """What has a task."""

    cdef public object task

    cdef int start(self, loop, coro, context) except -1:
        try:
            self.first_step(loop, coro, context)
        except BaseException as error:
            interrupt = bare_interrupt(error)
            if self.task is None or interrupt is None or not (self.task.done() or self.task._coro):
                self.task = None
                raise
            if not self.task.done():
                raise interrupt from None
            drop_frame(error)
            drop_frame(error)
        return 0

    cdef int first_step(self, loop, coro, context) except -1:
        cdef Catch catch
        if tasks_start_eagerly:
            self.task = (<Slots *>Task).tp_new(<type>Task, (), NULL)
            options = {"loop": loop, "context": context, "eager_start": True}
            if (<Slots *>Task).tp_init(self.task, (coro,), options) < 0:
                raise SystemError  # as from Python, if garbage collection met the interrupt first
            return 0
        loop.call_soon = catch = Catch.__new__(Catch)
        catch.scheduled = []
        try:
            self.task = Task(coro, loop=loop, context=context)
        finally:
            del loop.call_soon
        step = None
        for callback, args, where in catch.scheduled:
            if getattr(callback, "__self__", None) is self.task:
                step = callback
            else:
                loop._ready.append(Handle(callback, args, loop, where))
        PyContext_Enter(context)
        try:
            step()
        finally:
            PyContext_Exit(context)
        return 0


cdef tuple cancels = ()


def add_cancel(cancelled):
    global cancels
    cancels = (*cancels, cancelled)


def be_direct(bint direct):
    global may_be_direct
    may_be_direct = direct


cdef bare_interrupt(error):
    """Return the interrupt that `error` is, or that Python's eager start has made a `SystemError` of."""
    if isinstance(error, SystemError):
        interrupt, error.__cause__, error.__context__ = error.__cause__, None, None
        return interrupt or KeyboardInterrupt()
    return error if isinstance(error, (KeyboardInterrupt, SystemExit)) else None


cdef class BaseCall(Holder):
    cdef public object loop, coro, timeout, context, timer, instead, on_done, result
    cdef public bint fresh

    def __init__(self, loop, coro, timeout=None, context=None):
        self.loop = loop
        self.coro = coro
        self.timeout = timeout
        self.fresh = context is None
        self.context = PyContext_CopyCurrent() if context is None else context

    cpdef begin(self):
        cdef LoopState state
        if self.coro is None or self.task is not None:
            return
        state = state_of(self.loop)
        try:
            if not self.fresh:
                check_free(self.context)
            if state is not None and state.eager:
                self.start(self.loop, self.coro, self.context)
            else:
                self.task = self.loop.create_task(self.coro, context=self.context)
        except BaseException as error:
            if self.task is not None:
                raise
            self.abort(error)
            return
        if self.task.done():
            self.settle(self.task)
        else:
            self.go_on()

    cdef bint is_over(self) except -1:
        """Whether it has a result, which who waits for it may be about to take."""
        cdef bint over
        with cython.critical_section(self):
            over = self.result is not None
        return over

    cpdef settle(self, task):
        if self.is_over():
            return
        if task.cancelled() or task.exception() is not None:
            self.settle_failed(task)
        else:
            self.finish(task.result)

    cpdef fail(self, error):
        if self.instead is not None and isinstance(error, (Exception, CancelledError, *cancels)):
            self.instead.__cause__ = error
            error = self.instead
        self.finish(partial(raise_, error))

    cpdef finish(self, result):
        with cython.critical_section(self):  # either this finds the latch of `perform`, or that the result
            if self.result is not None:
                return
            self.result = result
            on_done, timer = self.on_done, self.timer
            coro, context, task, instead = self.coro, self.context, self.task, self.instead  # not to die in here
            self.coro = self.context = self.task = self.timer = self.on_done = self.instead = None
        coro = context = task = instead = None
        if timer is not None:
            timer.cancel()
        if on_done is not None:
            on_done()

    cpdef take(self):
        with cython.critical_section(self):
            result, self.result = self.result, taken
        return result


def taken():
    """Stand for a result that was taken."""


cdef class Step(BaseCall):
    cdef public object function, args
    cdef public BaseSession session
    cdef public bint begun, cancelled, last

    def __init__(self, BaseSession session, function, tuple args, bint last):
        self.session = session
        self.loop = session.loop
        self.function = function
        self.args = args
        self.last = last

    cpdef begin(self):
        if not self.begun and not self.is_over():
            self.begun = True
            self.session.take(self)

    cpdef cancel(self):
        if self.is_over():
            return
        if self.session.task is not None and (self.begun or self.last):
            self.cancelled = self.begun  # else the last step, which must be taken, finds its task cancelled
            self.session.task.cancel()
        else:
            self.abort(CancelledError())

    cpdef abort(self, error):
        self.fail(error)

    cpdef finish(self, result):
        with cython.critical_section(self):
            function, args, self.function, self.args = self.function, self.args, nothing, ()
        function = args = None
        BaseCall.finish(self, result)


async def nothing():
    pass


async def outcome(function, *args):
    try:
        return [await function(*args)].pop, None
    except BaseException as error:
        drop_frame(error)
        return partial(raise_, error), error


cdef class Gate:
    """The future that the task of a session waits for between steps, the same one each time."""

    cdef object loop, wakeup, context
    cdef tuple cancelled
    cdef bint yielded
    cdef public bint _asyncio_future_blocking

    def get_loop(self):
        return self.loop

    def add_done_callback(self, wakeup, *, context):
        self.wakeup, self.context = wakeup, context

    def done(self):
        return self.wakeup is None or self.cancelled is not None

    def cancel(self, msg=None):
        if self.wakeup is None:
            return False
        self.cancelled = () if msg is None else (msg,)
        self.loop.call_soon(self.let_go, context=self.context)
        return True

    def result(self):
        if self.cancelled is not None:
            cancelled, self.cancelled = self.cancelled, None
            raise CancelledError(*cancelled)

    def __await__(self):
        self._asyncio_future_blocking = True
        self.yielded = False
        return self

    def __next__(self):
        if self.yielded:
            raise StopIteration
        self.yielded = True
        return self

    cdef int open(self, bint at_once) except -1:
        context = self.context
        if self.wakeup is None or self.cancelled is not None:
            return 0
        if not at_once:
            self.loop.call_soon(self.let_go, context=context)
            return 0
        PyContext_Enter(context)
        try:
            self.let_go()
        finally:
            PyContext_Exit(context)
        return 0

    cpdef let_go(self):
        wakeup, self.wakeup, self.context = self.wakeup, None, None
        if wakeup is not None:
            wakeup(self)


cdef class BaseSession(Holder):
    cdef public object host, loop
    cdef public object context, ends, on_cancel, on_close, cancelled, early
    cdef public Step current
    cdef public bint ended, lost
    cdef bint is_foreign
    cdef object stepping
    cdef LoopState state
    cdef Gate gate

    foreign = False

    def __init__(self, host, context=None, *, ends=BaseException, on_cancel=None, on_close=None):
        self.host = host
        self.loop = host.loop
        self.state = state_of(self.loop)
        self.context = PyContext_CopyCurrent() if context is None else context
        self.ends = ends
        self.on_cancel = on_cancel
        self.on_close = on_close
        self.is_foreign = self.foreign
        self.gate = Gate.__new__(Gate)
        self.gate.loop = self.loop

    def step(self, function, tuple args=(), bint last=False):
        cdef Step step = Step.__new__(Step)
        step.session, step.loop, step.function, step.args, step.last = self, self.loop, function, args, last
        if not isinstance(self.host, Drive) or not (<Drive>self.host).at_once(step):
            self.host.perform(step)
        return step.take()

    def enter(self, step):
        cdef bint busy
        with cython.critical_section(self):
            if self.stepping is None:
                self.stepping = step
            busy = self.stepping is not step
        if busy:
            raise RuntimeError(
                self.host.gone or "already running: a step of this object is under way"
            )

    def leave(self, step, _):
        with cython.critical_section(self):
            if self.stepping is step:
                self.stepping = None

    cpdef take(self, Step step):
        loop = self.loop
        cdef bint eager = self.state is not None and self.state.eager
        coro = None
        try:
            if self.ended:
                gone = "the loop that this object lived on has been closed"
                raise RuntimeError(gone if self.lost else "already running: another thread has just ended this object")
            check_free(self.context)
            self.current = step
            if self.task is not None:
                if self.is_foreign:
                    self.go_on()
                else:
                    self.gate.open(eager and not self.state.ready)
                return
            self.host.open.add(self)
            coro = self.live()
            if eager:
                self.start(loop, coro, self.context)
            else:
                self.task = loop.create_task(coro, context=self.context)
                self.task.add_done_callback(self.died)  # it may be cancelled before it runs
        except BaseException as error:
            if step.result is not None or (self.task is not None and self.current is step):
                raise  # an interrupt, after the task has begun with the step
            if coro is not None:
                coro.close()
                self.host.open.discard(self)
            step.abort(error)

    async def serve(self):
        cdef Step step
        raised = None
        try:
            while not self.ended:
                if self.current is None:
                    try:
                        if self.host.gone is not None and not self.host.given_up:
                            # a step that swallowed its cancel will be the last one
                            raise CancelledError
                        if self.is_foreign:
                            await self.wait()
                        else:
                            await self.gate
                    except CancelledError as error:
                        raised = error.with_traceback(None)
                    if raised is not None:  # not inside `except`: Cython's coroutines may crash if they wait there
                        await self.cancel_between_steps(raised)
                        raised = None
                    continue
                step = self.current
                result = self.early
                if result is None:
                    if self.cancelled is not None:  # as if it had only just come
                        self.task.uncancel()
                        self.task.cancel(*self.cancelled.args)
                        self.cancelled = None
                    try:
                        result = [await step.function(*step.args)].pop
                    except BaseException as error:
                        drop_frame(error)
                        if isinstance(error, GeneratorExit) and error.__traceback__ is None:
                            raise  # none of the step's: see the twin
                        raised = error
                if step.cancelled:
                    (self.task or current_task()).uncancel()  # an eager task factory has yet to return it
                if step.last or isinstance(raised, self.ends):
                    self.end()
                self.current = None
                if raised is None:
                    step.finish(result)
                else:
                    step.fail(raised)
                step = result = raised = None
        except GeneratorExit:
            raise
        except BaseException as error:  # what closing down raised
            if self.current is None:
                raise
            self.current.abort(error)
        finally:
            self.end()

    async def wait(self):
        raise NotImplementedError

    def go_on(self):
        raise NotImplementedError

    cpdef end(self):
        task = self.task  # which is not to die inside of the critical section
        with cython.critical_section(self):
            self.ended = True
            self.task = None
        self.host.closed(self)


cdef class Drive:
    """Guarantees. `driver` is the number of the thread that drives, or 0, and `entered` whether it has entered the
    loop for one step; they change in critical sections.
    """

    cdef public object loop, own_loop, open, gone, followers
    cdef public bint alone, transient
    cdef bint entered
    cdef LoopState state
    cdef tuple hooks
    cdef dict options
    cdef PyObject *outer_firstiter
    cdef PyObject *outer_finalizer
    cdef unsigned long driver

    cpdef bint try_to_drive(self) except -1:
        cdef unsigned long here = PyThread_get_thread_ident(), driver
        with cython.critical_section(self):
            if not self.driver:
                self.driver = here
            driver = self.driver
        return driver == here

    cpdef bint hand_to(self, unsigned long thread) except -1:
        cdef bint mine
        with cython.critical_section(self):
            mine = self.driver == PyThread_get_thread_ident()
            if mine:
                self.driver = thread
        return mine

    cpdef stop_driving(self):
        self.hand_to(0)

    cpdef bint driven(self) except -1:
        cdef unsigned long driver
        with cython.critical_section(self):
            driver = self.driver
        return driver != 0

    cpdef bint at_once(self, BaseCall call) except -1:
        if not self.enter():
            return False
        interrupt = None
        try:
            try:
                call.begin()
            except BaseException as error:
                interrupt = error
            if call.result is None or interrupt is not None:
                try:
                    self._perform_here(call, True, interrupt)  # which leaves when it has told that this thread drives
                except BaseException as error:
                    if interrupt is not None or not self.is_in():
                        raise
                    self._perform_here(call, True, error)  # which has not begun
        finally:
            if self.is_in():
                self.leave()
                self.give_back()
        return True

    cdef run(self, coro):
        """What `at_once` does, for a coroutine that most often needs no `Call`; None if nothing was done."""
        if not tasks_start_eagerly or not self.enter():
            return None
        result = interrupt = None
        try:
            task = (<Slots *>Task).tp_new(<type>Task, (), NULL)
            try:
                if (<Slots *>Task).tp_init(task, (coro,), self.options) < 0:
                    raise SystemError  # see `first_step`
                if task.done() and not task.cancelled() and task.exception() is None:
                    result = task.result
            except BaseException as error:
                drop_frame(error)
                interrupt = bare_interrupt(error)
                if interrupt is None or not (task.done() or task._coro):
                    result = partial(raise_, error)
                    coro.close()
                elif task.done():
                    interrupt = None
            if result is not None:
                return result
            try:
                return self._take_over(coro, task, interrupt)
            except BaseException as error:
                if interrupt is not None or not self.is_in():
                    raise
                return self._take_over(coro, task, error)  # which has not begun
        finally:
            if self.is_in():
                self.leave()
                self.give_back()

    cdef bint enter(self) except -1:
        cdef PyThreadState *thread = PyThreadState_Get()
        cdef bint free
        loop = self.own_loop
        if loop is None or self.transient or self.gone is not None or running() is not None:
            return False
        if frames_left(thread) < FRAMES:  # else what has begun might find no room to go on
            return False
        with cython.critical_section(self):
            free = not self.driver
            if free:
                self.driver = PyThread_get_thread_ident()
        if not free:
            return False
        if self.state is None:
            self.hooks = loop._asyncgen_firstiter_hook, loop._asyncgen_finalizer_hook
            self.options = {"loop": loop, "eager_start": True}
            self.state = state_of(loop)
        if not self.state.eager:
            self.give_back()
            return False
        # first in and last out: garbage collection may come at any call, and call
        set_running_loop(loop)
        loop._thread_id = PyThread_get_thread_ident()
        self.outer_firstiter, self.outer_finalizer = thread.async_gen_firstiter, thread.async_gen_finalizer
        thread.async_gen_firstiter, thread.async_gen_finalizer = <PyObject *>self.hooks[0], <PyObject *>self.hooks[1]
        Py_INCREF(self.hooks[0])
        Py_INCREF(self.hooks[1])
        with cython.critical_section(self):
            self.entered = True
        return True

    cdef bint is_in(self) except -1:
        """Whether this thread has entered: if it has left, another one may be in by now."""
        cdef bint here
        with cython.critical_section(self):
            here = self.entered and self.driver == PyThread_get_thread_ident()
        return here

    cpdef leave(self):
        cdef PyThreadState *thread = PyThreadState_Get()
        cdef PyObject *firstiter = thread.async_gen_firstiter
        cdef PyObject *finalizer = thread.async_gen_finalizer
        thread.async_gen_firstiter, thread.async_gen_finalizer = self.outer_firstiter, self.outer_finalizer
        Py_XDECREF(firstiter)
        Py_XDECREF(finalizer)
        self.own_loop._thread_id = None
        with cython.critical_section(self):
            self.entered = False
        set_running_loop(None)

    cdef give_back(self):
        self.stop_driving()
        if self.followers or (self.open and self.gone is None and not self.own_loop.idle):
            self.let_go()


cdef bint look(Lock lock) noexcept nogil:
    return PyThread_acquire_lock_timed(lock, 0, 0) == PY_LOCK_ACQUIRED


cdef bint spin(Lock lock, double limit, double *rest) noexcept nogil:
    """Look for `lock` for up to `limit` seconds, unless it is before `*rest`; true if it was acquired.

    Each look yields the processor: the thread that is waited for may have no other. For time spun in vain, or
    lost to another process, there is a rest many times as long.
    """
    cdef double start = now(), last = start, time
    if look(lock):
        return True
    while limit > 0 and start >= rest[0]:
        yield_processor()
        time = now()
        if time - last > LOST:
            rest[0] = time + REST * (time - last)
            return look(lock)
        if look(lock):
            return True
        if time - start >= limit:
            rest[0] = time + REST * (time - start)
        last = time
    return False


cdef class Latch:
    """What the caller waits for: opened once, by the thread that did what was called for."""

    cdef Lock lock
    cdef Mailbox mailbox

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock is NULL:
            raise MemoryError
        look(self.lock)

    def __dealloc__(self):
        if self.lock is not NULL:
            PyThread_free_lock(self.lock)

    def __call__(self):
        if self.mailbox is not None and self.mailbox.is_about_to_wait():
            self.mailbox.finished = self
            return
        with nogil:  # else who waits would wake up to a GIL that is taken
            PyThread_release_lock(self.lock)

    cpdef wait(self, BaseCall call=None):
        cdef double rest, start
        cdef bint opened = False
        if self.mailbox is not None:
            with cython.critical_section(self.mailbox):
                rest = self.mailbox.callers_rest
            with nogil:
                opened = spin(self.lock, spin_limit, &rest)
            with cython.critical_section(self.mailbox):
                self.mailbox.callers_rest = rest
        if opened:
            return
        start = now()
        while True:
            with nogil:
                opened = PyThread_acquire_lock_timed(self.lock, SLICE, 1) == PY_LOCK_ACQUIRED
            if opened:
                return
            PyErr_CheckSignals()
            if call is not None and tell(call, now() - start):
                call = None


cdef class Mailbox:
    """Guarantees. `jobs`, `rung`, `watching`, `swept` and `callers_rest` change in critical sections; all else belongs
    to the thread whose mailbox it is. `bell` rings with each post. Where that thread is about to wait anyway, the
    latch of a finished call is opened there, when the GIL has been given up.
    """

    cdef object jobs, loop, ring
    cdef LoopState state
    cdef bint attending, rung, swept, watching
    cdef unsigned long owner
    cdef double callers_rest, rest
    cdef Latch finished
    cdef Lock bell
    cdef object closing

    def __cinit__(self, *args):
        self.bell = PyThread_allocate_lock()
        if self.bell is NULL:
            raise MemoryError
        look(self.bell)

    def __dealloc__(self):
        if self.bell is not NULL:
            PyThread_free_lock(self.bell)

    def __init__(self, loop, ring):
        self.loop = loop
        self.state = state_of(loop)
        self.jobs = deque()
        self.ring = ring
        self.watching = loop is None

    cpdef post(self, BaseCall call, job=None):
        cdef bint ring, sweep
        jobs = self.jobs
        with cython.critical_section(self):
            jobs.append(call if job is None else job)
            ring, sweep = self.watching, self.swept
            if not self.rung:  # else it is not locked, or on its way to who waits for it
                self.rung = True
                PyThread_release_lock(self.bell)
        if ring:
            self.ring()
        if sweep:
            self.sweep()

    def perform(self, BaseCall call, job=None):
        cdef Latch latch = call.on_done
        cdef bint over
        if latch is None:
            latch = Latch.__new__(Latch)
            latch.mailbox = self
        with cython.critical_section(call):
            call.on_done = latch
            over = call.result is not None
        if over:
            return
        self.post(call, job)
        latch.wait(call if job is None else None)

    cpdef bint serve(self) except -1:
        cdef bint found
        job = None
        jobs = self.jobs
        with cython.critical_section(self):
            if self.rung:
                look(self.bell)  # if nobody has heard it
                self.rung = False
            closing = self.closing
            found = len(jobs) > 0
            if found:
                job = jobs.popleft()
        if not isinstance(job, BaseCall):
            if job is not None:
                job()
        elif closing is None:
            (<BaseCall>job).begin()
        else:
            job.abort(RuntimeError(closing))
        return found

    def attend(self, timeout, descriptors):
        cdef double start = now(), until = start + timeout if timeout is not None else FOREVER
        cdef double due = min(until, start + spin_limit)
        cdef bint rung = True, watched = False
        cdef Lock opened
        loop = self.loop
        ready = self.state.ready
        cdef Py_ssize_t timers = len(loop._scheduled)
        self.owner = PyThread_get_thread_ident()
        self.attending = True
        try:
            while rung:
                while self.serve():
                    watched = len(descriptors) > 1
                    if ready or loop._stopping or len(loop._scheduled) > timers or now() >= (due if watched else until):
                        return False
                    if self.jobs:
                        self.publish()
                if ready or loop._stopping or until <= start:
                    return False
                watched = len(descriptors) > 1
                latch, self.finished = self.finished, None
                opened = NULL if latch is None else (<Latch>latch).lock
                with nogil:
                    if opened is not NULL:
                        PyThread_release_lock(opened)
                    rung = spin(self.bell, min(spin_limit, (due if watched else until) - now()), &self.rest)
                    if not rung and not watched:
                        rung = park(self.bell, until)
                latch = None
            return watched
        finally:
            self.attending = False
            self.publish()

    def watched(self, select, timeout):
        cdef bint waiting
        with cython.critical_section(self):
            self.watching = True
            waiting = len(self.jobs) == 0
        try:
            return select(timeout if waiting else 0)
        finally:
            with cython.critical_section(self):
                self.watching = False

    def shut(self, reason):
        with cython.critical_section(self):
            self.closing = reason

    def sweep(self):
        self.owner = 0
        self.publish()
        with cython.critical_section(self):
            self.swept = True
        while self.serve():
            pass

    cdef bint is_about_to_wait(self):
        return (
            self.finished is None
            and self.owner == PyThread_get_thread_ident()
            and (self.attending or not self.state.ready)
        )

    cpdef publish(self):
        latch, self.finished = self.finished, None
        if latch is not None:
            with nogil:
                PyThread_release_lock((<Latch>latch).lock)


cdef bint park(Lock lock, double until) noexcept nogil:
    """Wait for `lock` until then; true if it was acquired."""
    cdef double left = until - now()
    cdef PY_TIMEOUT_T microseconds = -1
    if left < DAY:
        microseconds = 0 if left < 0 else 1 + <PY_TIMEOUT_T>(1e6 * left)
    elif until < FOREVER:
        microseconds = <PY_TIMEOUT_T>(1e6 * DAY)
    return PyThread_acquire_lock_timed(lock, microseconds, 0) == PY_LOCK_ACQUIRED


cdef bint may_go_home() except -1:
    """Whether a loop may wait for this thread, as for a worker thread: see `_home_host`."""
    library = modules.get("anyio._core._eventloop")
    if library is not None and getattr(getattr(library, "threadlocals", None), "current_token", None) is not None:
        return True
    library = modules.get("trio._threads")
    return library is not None and hasattr(getattr(library, "PARENT_TASK_DATA", None), "token")


cdef class BaseCoroutine:
    """What a coroutine of both worlds does often: to be awaited, and to be run."""

    cdef readonly object coro, backend
    cdef object __weakref__

    __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, coro, backend=None):
        self.coro = coro
        self.backend = backend
        if type(coro) is not CoroutineType:
            self._check()

    def _check(self):
        raise NotImplementedError

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __await__(self):
        coro = self.coro
        if type(coro) is CoroutineType:
            return (<Slots *>CoroutineType).tp_as_async.am_await(coro)
        return coro.__await__()

    def run(self, timeout=None, *, context=None, backend=None):
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
        if timeout is None and context is None and backend is None and self.backend is None and may_be_direct:
            kept = this_thread.kept
            if kept is not None and ((<Drive>kept).alone or not may_go_home()) and getattr(self.coro, "cr_await", None) is None:
                result = (<Drive>kept).run(self.coro)
                if result is not None:
                    return result()
        return self._run(timeout, context, backend)()

    def _run(self, timeout, context, backend):
        """Run the coroutine; return what returns or raises the outcome."""
        raise NotImplementedError

    def send(self, value, /):
        """Resume the coroutine, as `coroutine.send` does."""
        return self.coro.send(value)

    def throw(self, *args):
        """Raise an exception in the coroutine, as `coroutine.throw` does."""
        return self.coro.throw(*args)

    def close(self):
        """End the coroutine, as `coroutine.close` does."""
        self.coro.close()
