"""What the rooms inside do when something unlikely happens."""

import asyncio
import contextvars
import io
import signal
import sys
import threading
import time
from asyncio import CancelledError
from concurrent.futures import Future
from queue import SimpleQueue
from types import SimpleNamespace

import anyio
import pytest
from places import error_of, in_loop, in_thread
from pytest_marks import every_place, everywhere, on_both
from scripts import collect_dropped, script

import anysync
from anysync import _calls, core
from anysync._calls import Call, cancel_interrupted
from anysync._core import Step, thread as state
from anysync._host import _NoDaemon
from anysync._hosts import here
from anysync._on_asyncio import Loop
from anysync._process import process


@anysync.coroutine
async def works():
    return 1


async def thread():
    await anyio.sleep(0)
    return threading.current_thread()


def test_a_mark_that_an_interrupt_left_is_forgotten():
    def frame_that_has_ended():
        return sys._getframe()

    def call():
        host = here()
        host.loop.enter()
        state.busy = host, frame_that_has_ended()
        assert anysync.run(thread()) is threading.current_thread()
        assert here() is host
        assert state.busy is None

    in_thread(call)


def test_a_step_that_is_caught_leaves_other_callbacks_their_turn():
    async def nothing():
        pass

    def schedule():
        loop.call_soon(called.append, "later")
        task.__init__(nothing(), loop=loop)

    loop, called = Loop(), []
    task = asyncio.Task.__new__(asyncio.Task)
    step = loop.caught(task, schedule)
    loop.enter()  # since Python 3.14, a task must be run by the loop that runs
    step()
    loop.leave()
    assert (task.done(), called) == (True, [])
    loop.run_until_complete(asyncio.sleep(0))
    assert called == ["later"]
    loop.close()


def test_a_helper_that_is_woken_while_its_thread_ends_waits_to_be_told_who_closes_the_loop():
    parked = threading.Event()

    class Lock:
        """Tells when the helper comes to wait for its bell, or has ended."""

        def __init__(self):
            self.lock = threading.Lock()
            self.lock.acquire()

        def acquire(self):
            if self.lock.locked():
                parked.set()
            return self.lock.acquire()

        def release(self):
            parked.set()
            self.lock.release()

    class Bell:
        def __init__(self):
            self.queue = SimpleQueue()
            self.empty, self.put = self.queue.empty, self.queue.put

        def get(self):
            if self.queue.empty():
                parked.set()
            return self.queue.get()

    def call():
        host = here()
        host._bell, host._helped, start_helper = Bell(), Lock(), host._start_helper

        def start_and_wake_it():
            start_helper()
            assert parked.wait(30)
            if host.gone is not None:
                parked.clear()
                host._ring()
                assert parked.wait(30)

        host._start_helper = start_and_wake_it
        future = anysync.wrap_coroutine(asyncio.Event().wait()).submit()
        return host.loop, future

    loop, future = in_thread(call)
    collect_dropped()
    assert (loop.is_closed(), future.done()) == (True, True)


@on_both
def test_a_helper_may_make_calls_of_its_own_as_it_begins(monkeypatch):
    """As where garbage is collected there."""

    @anysync.contextmanager
    async def waiting():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 3600)
            yield
            tasks.cancel_scope.cancel()

    def begin(thread):
        set_native_id(thread)
        if thread.name == "anysync helper":
            monkeypatch.undo()
            with waiting():  # which has a helper too
                hosts[0].wake()
                begun.append(in_loop(lambda: anysync.run(works())))

    def call():
        hosts.append(here())
        with waiting():
            begun.append(anysync.run(works()))

    hosts, begun, set_native_id = [], [], threading.Thread._set_native_id
    monkeypatch.setattr(threading.Thread, "_set_native_id", begin)
    in_thread(call)
    assert begun == [1, 1]


def test_a_loop_that_a_fork_found_while_it_closed_is_shut():
    loop = Loop()
    loop._close_self_pipe()
    loop.shut()
    assert loop.is_closed()


@on_both
def test_a_step_that_is_cancelled_before_it_begins_never_does():
    step = Step(here().session(), thread, (), True)
    step.cancel()
    step.begin()
    with pytest.raises(CancelledError):
        step.take()()


@on_both
def test_where_no_thread_can_start_the_coroutine_is_closed(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(process, "background", {})
    with pytest.raises(RuntimeError, match="needs a thread of its own: can't start new thread"):
        in_loop(lambda: anysync.run(thread()))


@on_both
@pytest.mark.parametrize("known", [True, False])
def test_a_call_in_a_thread_that_does_not_serve_yet_waits_not_for_who_starts_it(monkeypatch, known):
    def before_it_serves(frame, event, argument):
        sys.setprofile(None)
        threading.setprofile(None)
        if not known:
            monkeypatch.setattr(threading, "_active", {})
            monkeypatch.setattr(threading.Thread, "ident", None)
        called_in.append(in_loop(lambda: anysync.run(thread())))
        monkeypatch.undo()

    async def calls():
        threading.setprofile(before_it_serves)
        return anysync.run(thread())

    called_in = []
    served_in = in_loop(lambda: anysync.run(calls()))
    assert served_in is not called_in[0] is not threading.current_thread()


def test_options_that_are_no_mapping_are_refused():
    with pytest.raises(TypeError, match="backend_options must be a mapping"):
        anysync.configure(backend_options=3)


@on_both
def test_a_timeout_longer_than_a_float_can_tell_never_comes():
    assert anysync.run(thread(), timeout=10**400) is threading.current_thread()


@on_both
@script
def test_a_call_from_a_signal_handler_leaves_the_driver_its_place():
    """Wherever a signal arrives between the first step and the turns of the loop."""

    @anysync.contextmanager
    async def beating():
        async def beats():
            while True:
                await anyio.sleep(0.0005)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(beats)
            yield
            tasks.cancel_scope.cancel()

    async def sleeps():
        await anyio.sleep(0.0005)
        return 1

    def handler(signum, frame):
        handled.append(works().run())

    handled = []
    in_loop(lambda: works().run())
    signal.signal(signal.SIGALRM, handler)
    with beating():
        for microseconds in range(1000):
            signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + microseconds % 100))
            assert anysync.run(sleeps()) == 1
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert set(handled) == {1}


@every_place
def test_a_task_that_waits_for_its_next_step_can_be_shown(place):
    @anysync.generator
    async def items():
        yield asyncio.current_task()
        yield

    async def shown(task):
        file = io.StringIO()
        task.print_stack(file=file)
        return repr(task), file.getvalue()

    def call():
        steps = items()
        name, stack = anysync.run(shown(next(steps)))
        steps.close()
        return name, stack

    name, stack = place(call)
    assert "pending" in name
    assert "Stack for <Task pending" in stack


@everywhere
def test_a_context_that_is_entered_between_steps_is_refused_for_that_step(place):
    @anysync.generator
    async def items():
        yield 1
        yield 2

    def call():
        context = contextvars.copy_context()
        with anysync.Runner() as runner:
            steps = runner.iterate(items(), context=context)
            found = [next(steps)]
            with pytest.raises(RuntimeError, match="is entered already"):
                context.run(next, steps)
            return found + list(steps)

    assert place(call) == [1, 2]


def test_a_thread_that_is_no_daemon_is_joined_at_exit_and_starts_none(monkeypatch):
    ran = []
    ours = _NoDaemon(target=lambda: ran.append(threading.current_thread().daemon), daemon=False)
    ours.start()
    assert ours in process.threads
    ours.join()
    other = _NoDaemon(target=list, daemon=False)
    other.start()
    assert ours not in process.threads
    other.join()
    process.threads.discard(other)
    assert ran == [False]
    monkeypatch.setattr(process, "exiting", True)
    with pytest.raises(RuntimeError, match="at interpreter shutdown"):
        _NoDaemon(target=list, daemon=False).start()


@pytest.mark.parametrize("ident", ["mine", None, 1])
def test_a_thread_that_does_not_serve_yet_is_known_by_its_number_or_by_having_none(monkeypatch, ident):
    host = SimpleNamespace(thread=SimpleNamespace(ident=threading.get_ident() if ident == "mine" else ident))
    monkeypatch.setattr(process, "newborn", [host])
    if ident is None:
        monkeypatch.setattr(threading, "_active", {})
    assert process.newborn_here() is (None if ident == 1 else host)


def test_to_look_for_the_own_host_takes_no_lock_of_threads(monkeypatch):
    """A signal handler may break in there, and wait for a thread that starts another one."""
    monkeypatch.setattr(process, "newborn", [SimpleNamespace(thread=SimpleNamespace(ident=None))])
    with threading._active_limbo_lock:
        assert process.newborn_here() is None  # which knows this thread
    assert threading._active[threading.get_ident()] is threading.current_thread()


@pytest.mark.skipif(
    core.name != "compiled" or sys.version_info < (3, 12),
    reason="a short cut of the compiled core since Python 3.12",
)
def test_who_comes_in_as_another_one_leaves_stays_in():
    @anysync.generator
    async def items():
        yield
        inside.set()
        assert left.wait(30)
        loop = asyncio.get_running_loop()
        yield loop, loop.is_running(), hosts[0].driven()

    def call():
        host, generator = here(), items()
        host.loop.set_debug(False)  # where the short cut is not taken
        hosts.append(host)
        next(generator)
        other = threading.Thread(target=lambda: loops.append(next(generator)))
        take_over = host._take_over

        def take_over_and_let_the_other_in(*args):
            result = take_over(*args)
            other.start()
            assert inside.wait(30)
            return result

        host._take_over = take_over_and_let_the_other_in
        assert anysync.wrap_coroutine(asyncio.sleep(0, 1)).run() == 1
        del host._take_over
        left.set()
        other.join()
        return host.loop

    inside, left, hosts, loops = threading.Event(), threading.Event(), [], []
    loop = in_thread(call)
    assert loops == [(loop, True, True)]


@pytest.mark.parametrize("version", [sys.version_info, (3, 15)])
def test_a_task_whose_next_step_was_lost_takes_it_and_is_cancelled(version, monkeypatch):
    """As when an interrupt comes while asyncio schedules that step; since Python 3.15 in another task."""
    monkeypatch.setattr(_calls, "sys", SimpleNamespace(version_info=version))

    async def sleeps():
        try:
            await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            cleaned_up.append(True)

    def call():
        host = here()
        host.loop.set_debug(False)
        call = Call(host.loop, sleeps())
        host.loop.enter()
        call.begin()
        host.loop.leave()
        host.loop._ready.clear()
        cancel_interrupted(call)
        call.on_done = host.loop.stop
        host.loop.run_forever()
        return error_of(call.take())

    cleaned_up = []
    assert type(in_thread(call)) is CancelledError
    assert cleaned_up == [True]


def test_a_fork_is_told_which_tasks_there_are():
    """Since Python 3.14, where the child cannot be told; it works everywhere."""

    def call():
        here()
        process.about_to_fork()
        tasks = process.tasks[threading.get_ident()]
        process.has_forked()
        return tasks, threading.get_ident() in process.tasks

    tasks, kept = in_thread(call)
    assert isinstance(tasks, set)
    assert not kept


@on_both
def test_the_outcome_of_a_future_that_is_in_use_when_its_loop_closes_is_told():
    async def two():
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return 2

    runner = anysync.Runner()
    future, loop = runner.submit(two()), runner._host.loop
    runner.run(anyio.sleep(0))
    closing = threading.Thread(target=runner.close)
    with future._condition:
        closing.start()
        while not loop.is_closed():
            time.sleep(0)
    closing.join()
    assert future.result(30) == 2


async def two_when(event):
    await anyio.to_thread.run_sync(event.wait, 30)
    return 2


@on_both
def test_callbacks_of_a_future_are_called_without_its_lock():
    def ask(future):
        answers.put(in_thread(lambda: (future.done(), future.cancel(), future.result(30))))

    answers, released = SimpleQueue(), threading.Event()
    with anysync.Runner() as runner:
        future = runner.submit(two_when(released))
        future.add_done_callback(ask)
        released.set()
        assert answers.get(timeout=30) == (True, False, 2)
    assert answers.empty()


@on_both
def test_callbacks_of_a_future_that_is_cancelled_while_it_is_told_are_called_once():
    def tell():  # as where a signal handler cancels in the thread that tells
        assert future.cancel()
        return Future.set_running_or_notify_cancel(future)

    called, released = SimpleQueue(), threading.Event()
    with anysync.Runner() as runner:
        future = runner.submit(two_when(released))
        future.set_running_or_notify_cancel = tell
        future.add_done_callback(called.put)
        released.set()
        assert called.get(timeout=30) is future
        assert future.cancelled()
    assert called.empty()


@on_both
def test_a_future_whose_lock_is_held_is_known_to_a_fork():
    """Which makes the lock anew in the child."""
    known, released = [], threading.Event()
    with anysync.Runner() as runner:
        future = runner.submit(two_when(released))
        futures, release = runner._host.futures, future._condition.release
        future._condition.release = lambda: (known.append(future in futures.values()), release())
        released.set()
        assert future.result(30) == 2
        runner.run(anyio.sleep(0))
    assert known == [True]
