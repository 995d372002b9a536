"""Ctrl-C, and signal handlers that make calls of their own."""

import asyncio
import builtins
import ctypes
import dataclasses
import itertools
import operator
import os
import random
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import _base
from contextlib import suppress
from functools import partial
from queue import Empty

import anyio
import pytest
import scripts
from anyio import get_cancelled_exc_class as cancel
from loops import call_soon, leave_behind, post, shielded, this_loop
from pytest_marks import on_asyncio, on_both
from scripts import backend, collect_dropped, in_loop, raised, script, send_after, suspended, traced

import anysync
from anysync._core import importing, thread as local
from anysync._hosts import here
from anysync._kept_host import KeptHost, _Turn
from anysync._process import process

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="os.kill sends no SIGINT on Windows"),
    on_both,
]
places = pytest.mark.parametrize("place", ["plainly", "in_loop"])


eager = pytest.mark.skipif(
    bool(os.environ.get("PYTHONASYNCIODEBUG")), reason="no step is eager in asyncio's debug mode"
)


@anysync.coroutine
async def works():
    """Return 1, and suspend on the way."""
    await anyio.sleep(0)
    return 1


@anysync.coroutine
async def which_loop():
    await anyio.sleep(0)
    assert hasattr(this_loop(), "run_sync_soon") == (backend() == "trio")
    return id(this_loop())


@anysync.coroutine
async def works_until_cancelled(event, log):
    try:
        await suspended(event)
    except cancel():
        log.append("cancelled")
        raise
    finally:
        await shielded(anyio.sleep, 0.01)
        log.append("clean")


async def slow_to_end(event, cleaning):
    try:
        await suspended(event)
    finally:
        await shielded(until_woken, cleaning)


woken = []


async def until_woken(event):
    """Wait for `wake`."""
    loop, go_on = this_loop(), anyio.Event()
    woken.append(lambda: post(loop, go_on.set))
    call_soon(event.set)
    await go_on.wait()


def wake():
    woken.pop()()


class interrupted:
    """Expects a KeyboardInterrupt in its body, and Python's own handler after it."""

    def __enter__(self):
        return self

    def __exit__(self, typ, error, tb):
        assert typ is KeyboardInterrupt, typ
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return True


@places
@script
def test_ctrl_c_cancels_the_coroutine_and_is_raised_after_its_clean_up(place):
    def call():
        loop = which_loop().run()
        log, event = [], threading.Event()
        thread = send_after(event)
        with interrupted():
            works_until_cancelled(event, log).run()
        assert log == ["cancelled", "clean"]
        thread.join()
        assert which_loop().run() == loop

    getattr(scripts, place)(call)


@on_asyncio
@script
def test_asyncio_run_takes_the_first_ctrl_c_and_the_call_the_second():
    log, first, second = [], threading.Event(), threading.Event()

    async def main():
        main_task = asyncio.current_task()

        def wait_for_first():
            while not main_task.cancelling():  # until the handler of asyncio.run has seen it
                pass
            second.set()

        threads = send_after(first, second), threading.Thread(target=wait_for_first)
        threads[1].start()
        try:
            works_until_cancelled(first, log).run()
        except KeyboardInterrupt:
            log.append("interrupted")
        for thread in threads:
            thread.join()
        assert works().run() == 1
        await asyncio.sleep(0)

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        log.append("main was cancelled")
    assert log == ["cancelled", "clean", "interrupted", "main was cancelled"]


@script
def test_ctrl_c_during_a_call_inside_a_kept_loop_cancels_that_call():
    async def outer():
        await anyio.sleep(0)
        try:
            works_until_cancelled(event, log).run()
        finally:
            log.append("outer")

    event, log = threading.Event(), []
    thread = send_after(event)
    with interrupted():
        anysync.run(outer())
    thread.join()
    assert log == ["cancelled", "clean", "outer"]
    assert works().run() == 1


@places
@script
def test_ctrl_c_is_raised_also_if_the_coroutine_swallows_the_cancel(place):
    async def stubborn(event):
        try:
            await suspended(event)
        except cancel():
            await shielded(anyio.sleep, 0)
            return "a value"

    def call():
        event = threading.Event()
        thread = send_after(event)
        with interrupted():
            anysync.run(stubborn(event))
        thread.join()
        assert works().run() == 1

    getattr(scripts, place)(call)


@places
@script
def test_ctrl_c_is_raised_also_if_the_clean_up_fails(place):
    async def failing(event):
        try:
            await suspended(event)
        finally:
            await shielded(anyio.sleep, 0)
            raise ValueError

    def call():
        event = threading.Event()
        thread = send_after(event)
        with interrupted():
            anysync.run(failing(event))
        thread.join()
        assert works().run() == 1

    getattr(scripts, place)(call)


@places
@script
def test_a_second_ctrl_c_breaks_into_the_clean_up(place):
    def call():
        assert works().run() == 1
        event, cleaning = threading.Event(), threading.Event()
        thread = send_after(event, cleaning)
        with interrupted():
            anysync.run(slow_to_end(event, cleaning))
        thread.join()
        assert works().run() == 1
        assert works().run() == 1
        if (backend(), place) == ("trio", "in_loop"):
            wake()  # nothing else ends what is shielded, and the end of the process waits for it

    getattr(scripts, place)(call)


@script
def test_a_second_ctrl_c_ends_what_was_open_on_the_loop_with_a_clear_error():
    @anysync.generator
    async def numbers():
        yield 1
        yield 2

    open_before = numbers()
    next(open_before)
    event, cleaning = threading.Event(), threading.Event()
    thread = send_after(event, cleaning)
    with interrupted():
        anysync.run(slow_to_end(event, cleaning))
    thread.join()
    assert "Ctrl-C" in str(raised(lambda: next(open_before)))
    assert list(numbers()) == [1, 2]


@places
@script
def test_ctrl_c_in_a_step_of_a_generator(place):
    log, event = [], threading.Event()

    @anysync.generator
    async def numbers():
        yield 1
        await works_until_cancelled(event, log)
        yield 2

    def call():
        generator = numbers()
        assert next(generator) == 1
        thread = send_after(event)
        with interrupted():
            next(generator)
        thread.join()
        assert log == ["cancelled", "clean"]
        assert list(generator) == []
        assert works().run() == 1

    getattr(scripts, place)(call)


@on_asyncio  # what is cancelled in trio stays cancelled
@places
@script
def test_ctrl_c_in_a_step_lets_the_generator_go_on_if_it_catches_the_cancel(place):
    event = threading.Event()

    @anysync.generator
    async def numbers():
        yield 1
        try:
            await suspended(event)
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
        yield 2
        await asyncio.sleep(0)
        yield 3

    def call():
        generator = numbers()
        assert next(generator) == 1
        thread = send_after(event)
        with interrupted():
            next(generator)
        thread.join()
        assert next(generator) == 3

    getattr(scripts, place)(call)


@places
@script
def test_ctrl_c_in_the_body_of_a_with_is_seen_by_its_exit(place):
    log = []

    @anysync.contextmanager
    async def manager():
        leave_behind(partial(anyio.sleep, 3600))
        try:
            yield
        except KeyboardInterrupt:
            await anyio.sleep(0)
            log.append("seen")
            raise
        finally:
            log.append("clean")

    def call():
        event = threading.Event()
        thread = send_after(event)
        with interrupted(), manager():
            event.set()
            threading.Event().wait()
        thread.join()
        assert log == ["seen", "clean"]
        assert works().run() == 1

    getattr(scripts, place)(call)


@places
@script
def test_ctrl_c_in_a_call_that_is_made_in_the_body_of_a_with(place):
    log = []

    @anysync.contextmanager
    async def manager():
        try:
            yield
        finally:
            await anyio.sleep(0)
            log.append("left")

    def call():
        event = threading.Event()
        thread = send_after(event)
        with interrupted(), manager():
            works_until_cancelled(event, log).run()
        thread.join()
        assert log == ["cancelled", "clean", "left"]
        assert works().run() == 1

    getattr(scripts, place)(call)


@places
@script
def test_ctrl_c_in_enter(place):
    log, event = [], threading.Event()

    @anysync.contextmanager
    async def manager():
        await works_until_cancelled(event, log)
        yield

    def call():
        thread = send_after(event)
        with interrupted(), manager():
            log.append("entered")
        thread.join()
        assert log == ["cancelled", "clean"]
        assert works().run() == 1

    getattr(scripts, place)(call)


@places
@script
def test_what_swallows_ctrl_c_in_enter_is_left_again(place):
    log, event = [], threading.Event()

    @anysync.contextmanager
    async def manager():
        try:
            await suspended(event)
        except cancel():
            log.append("swallowed")
        try:
            yield
        finally:
            await shielded(anyio.sleep, 0)
            log.append("left")

    def call():
        thread = send_after(event)
        with interrupted(), manager():
            log.append("entered")
        thread.join()
        assert log == ["swallowed", "left"]
        assert works().run() == 1

    getattr(scripts, place)(call)


@places
@script
def test_ctrl_c_in_exit(place):
    log, event = [], threading.Event()

    @anysync.contextmanager
    async def manager():
        yield
        await works_until_cancelled(event, log)

    def call():
        thread = send_after(event)
        with interrupted(), manager():
            log.append("entered")
        thread.join()
        assert log == ["entered", "cancelled", "clean"]
        assert works().run() == 1

    getattr(scripts, place)(call)


@eager
@on_asyncio
@script
def test_ctrl_c_before_the_first_suspension_comes_up_in_the_frame_of_the_coroutine():
    log, event = [], threading.Event()

    async def busy():
        event.set()
        try:
            while True:
                pass
        except KeyboardInterrupt:
            await asyncio.sleep(0)
            log.append("clean")
            raise

    thread = send_after(event, asleep=False)
    with interrupted():
        anysync.run(busy())
    thread.join()
    assert log == ["clean"]
    assert works().run() == 1


@eager
@on_asyncio
@script
def test_ctrl_c_that_a_coroutine_handles_itself_is_not_raised_again():
    async def busy():
        event.set()
        try:
            while True:
                pass
        except KeyboardInterrupt:
            return "handled"

    event = threading.Event()
    thread = send_after(event, asleep=False)
    assert anysync.run(busy()) == "handled"
    thread.join()


@places
@script
def test_a_handler_of_the_users_own_is_left_alone(place):
    calls = []

    def handler(signum, frame):
        calls.append(signal.getsignal(signum))
        wake()

    def call():
        event = threading.Event()
        thread = send_after(event)
        anysync.run(until_woken(event))
        thread.join()

    signal.signal(signal.SIGINT, handler)
    getattr(scripts, place)(call)
    assert calls == [handler]
    assert signal.getsignal(signal.SIGINT) is handler


@script
def test_a_handler_that_the_coroutine_installs_stays():
    def handler(signum, frame):
        raise AssertionError

    async def installs():
        await anyio.sleep(0)
        signal.signal(signal.SIGINT, handler)
        await anyio.sleep(0)

    anysync.run(installs())
    assert signal.getsignal(signal.SIGINT) is handler


@script
def test_no_handler_is_installed_for_a_call_of_another_thread():
    seen = []

    async def looks():
        await anyio.sleep(0)
        seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=lambda: anysync.run(looks()))
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.skipif(sys.platform != "linux", reason="takes the place of the loop's epoll object")
@script
def test_ctrl_c_just_before_the_loop_sleeps_is_not_lost():
    kill = partial(ctypes.CDLL(None).kill, os.getpid(), signal.SIGINT)

    class KillThenPoll:
        """Does both with not one bytecode in between, where Python could run the handler."""

        def __init__(self, epoll):
            self.epoll = epoll

        def poll(self, *arguments):
            setattr(*holder, self.epoll)
            return deque(map(operator.call, (kill, partial(self.epoll.poll, *arguments))), maxlen=1).pop()

    async def waits():
        nonlocal holder
        await anyio.sleep(0)
        if backend() == "trio":
            from trio._core._run import GLOBAL_RUN_CONTEXT

            holder = GLOBAL_RUN_CONTEXT.runner.io_manager, "_epoll"
        else:
            holder = this_loop()._selector, "_selector"
        setattr(*holder, KillThenPoll(getattr(*holder)))
        await anyio.Event().wait()

    holder = None
    with interrupted():
        anysync.run(waits())
    assert works().run() == 1


async def never_suspends():
    pass


def call_that_never_suspends():
    anysync.run(never_suspends())


def call_that_suspends():
    works().run()


@pytest.mark.parametrize("use", ["call_that_never_suspends", "call_that_suspends"])
@script(options=["-W", "ignore:coroutine:RuntimeWarning"])
def test_calls_in_a_loop_work_after_ctrl_c_at_any_line_of_ours(use):
    ours = os.path.dirname(anysync.__file__)

    def trace(frame, event, _):
        nonlocal lines
        if not frame.f_code.co_filename.startswith(ours):
            return None
        if event == "line":
            lines += 1
            if lines == line:
                signal.raise_signal(signal.SIGINT)
        return trace

    def call():
        nonlocal line, lines
        while lines >= line:
            line, lines = line + 1, 0
            with suppress(KeyboardInterrupt), traced(trace):
                globals()[use]()
            assert works().run() == 1

    line = lines = 0
    works().run()
    in_loop(call)
    assert line > 20


async def tasks():
    return len(anyio.get_running_tasks())


def run_it(log):
    in_and_out(log).run()


def run_it_in_time(log):
    in_and_out(log).run(timeout=60)


def iterate_over_it(log):
    for _ in anysync.generator(in_and_out_with_yield)(log):
        pass


def enter_it(log):
    with anysync.contextmanager(in_and_out_with_yield)(log):
        pass


@anysync.coroutine
async def in_and_out(log):
    log.append("in")
    try:
        await anyio.sleep(0)
    finally:
        log.append("out")
        await shielded(anyio.sleep, 0)


async def in_and_out_with_yield(log):
    log.append("in")
    try:
        await anyio.sleep(0)
        yield
        await anyio.sleep(0)
    finally:
        log.append("out")
        await shielded(anyio.sleep, 0)


def loop_files():
    if backend() == "trio":
        from trio import _core

        return os.path.dirname(_core.__file__)
    return asyncio.events.__file__, asyncio.base_events.__file__


@script
def test_a_signal_handler_may_wait_for_other_threads_while_the_main_thread_imports_or_starts_a_thread():
    """Only the first use takes the locks of that."""

    async def item():
        yield 1

    def call_in_all_ways():
        anysync.configure(backend=backend())
        with anysync.contextmanager(item)() as one:
            results.extend([one, *anysync.generator(item)(), works().run(), works().submit().result()])
            results.append(runner.run(works()))
        with anysync.Runner() as own:
            own.run(works())

    results = []
    with anysync.Runner() as runner:
        in_loop(call_in_all_ways)
        with importing, process.starting, runner._lock():
            thread = threading.Thread(target=lambda: (call_in_all_ways(), in_loop(call_in_all_ways)))
            thread.start()
            thread.join()
    assert results == [1] * 15


@pytest.mark.parametrize("ending", ["leave", "close"])
@script
def test_ctrl_c_while_the_last_step_waits_for_the_helper_does_not_prevent_it(ending):
    async def block():
        blocks.set()
        assert go_on.wait(scripts.WATCHDOG)

    async def lives():
        leave_behind(block)
        try:
            yield
        except cancel():
            log.append("cancelled")
            raise
        finally:
            log.append("clean")
            await shielded(anyio.sleep, 0)

    def interrupt():
        blocks.wait()
        while not host.followers:
            pass
        os.kill(os.getpid(), signal.SIGINT)

    def handler(*_):
        go_on.set()
        raise KeyboardInterrupt

    def use():
        if ending == "leave":
            with anysync.contextmanager(lives)():
                blocks.wait()
        else:
            generator = anysync.generator(lives)()
            next(generator)
            blocks.wait()
            generator.close()

    log, blocks, go_on = [], threading.Event(), threading.Event()
    signal.signal(signal.SIGINT, handler)
    works().run()
    host = here()
    thread = threading.Thread(target=interrupt)
    thread.start()
    assert isinstance(raised(use), KeyboardInterrupt)
    thread.join()
    assert log == (["cancelled", "clean"] if ending == "leave" else ["clean"])
    assert works().run() == 1


@on_both
@pytest.mark.parametrize("name", ["KeyboardInterrupt", "SystemExit"])
@script
def test_what_a_call_that_the_main_thread_serves_raises_is_not_the_main_threads(name):
    """It drives the loop of another thread, which calls meanwhile."""

    @anysync.generator
    async def steps():
        yield go_on
        under_way.set()
        await go_on.wait()
        yield "went on"

    async def fails():
        await anyio.sleep(0)
        raise getattr(builtins, name)

    async def let_go():
        go_on.set()

    def owner():
        objects.append(steps())
        next(objects[0])
        begun.set()
        under_way.wait()
        outcomes.append(type(raised(lambda: anysync.run(fails()))))
        anysync.run(let_go())
        ended.wait()

    go_on, objects, outcomes = anyio.Event(), [], []
    begun, under_way, ended = threading.Event(), threading.Event(), threading.Event()
    thread = threading.Thread(target=owner)
    thread.start()
    begun.wait()
    assert next(objects[0]) == "went on"
    objects[0].close()
    ended.set()
    thread.join()
    assert [error.__name__ for error in outcomes] == [name]


def test_who_follows_looks_up_now_and_then():
    """A signal that comes just before it waits for another thread does not wake it."""

    class Come:
        def get(self, block, timeout):
            looks.append(timeout)
            if len(looks) < 3:
                raise Empty
            return True

    turn, looks = _Turn(), []
    turn.come = Come()
    assert [turn.wait() for _ in range(3)] == [False, False, True]
    assert looks == [0.25] * 3


@script
def test_an_interrupt_just_as_a_step_queues_up_for_the_loop_loses_nobodys_turn():
    class Interrupted(deque):
        def append(self, turn):
            super().append(turn)
            if not go_on.is_set():
                go_on.set()
                raise KeyboardInterrupt

    async def block():
        blocks.set()
        assert go_on.wait(scripts.WATCHDOG)

    @anysync.generator
    async def lives():
        leave_behind(block)
        try:
            yield 1
            yield 2
        finally:
            log.append("clean")

    log, blocks, go_on = [], threading.Event(), threading.Event()
    works().run()
    here().followers = Interrupted()
    generator = lives()
    assert next(generator) == 1
    blocks.wait()
    assert isinstance(raised(generator.close), KeyboardInterrupt)
    assert (log, works().run()) == (["clean"], 1)


@eager
@pytest.mark.parametrize(
    ("backend", "use"),
    [
        *(("asyncio", use) for use in ("run_it", "run_it_in_time", "iterate_over_it", "enter_it")),
        *(("trio", use) for use in ("run_it", "run_it_in_time", "enter_it")),
    ],
    indirect=["backend"],
)
@script(options=["-W", "ignore:coroutine 'LoopOnTrio.call_later:RuntimeWarning"])
def test_ctrl_c_at_any_line_of_the_event_loop_is_followed_by_the_clean_up(use):
    loop_code = loop_files()
    in_c = "_get_running_loop", "_set_running_loop"  # but on PyPy: they are called from lines of ours

    def tell(unraisable):  # Python's eager start goes on with the interrupt set, and garbage may die there
        if not isinstance(unraisable.exc_value, SystemError):
            sys.__unraisablehook__(unraisable)

    def trace(frame, event, _):
        nonlocal lines
        if not frame.f_code.co_filename.startswith(loop_code) or frame.f_code.co_name in in_c:
            return None
        if event == "line":
            lines += 1
            if lines == line:
                signal.raise_signal(signal.SIGINT)
        return trace

    sys.unraisablehook = tell
    works().run()
    before = anysync.run(tasks())
    line = lines = 0
    while lines >= line:
        line, lines, log = line + 1, 0, []
        with suppress(KeyboardInterrupt), traced(trace):
            globals()[use](log)
            assert lines < line, "the interrupt was lost"
        assert works().run() == 1
        if log == ["in"]:  # the generator is suspended, and nobody has it
            collect_dropped()
            assert works().run() == 1
        assert log in ([], ["in", "out"])
        assert anysync.run(tasks()) == before
    assert line > 20


@places
@script
def test_no_interrupt_is_lost_whenever_it_comes(place):
    random.seed(5)

    async def steps(count, event):
        event.set()
        for _ in range(count):
            await anyio.sleep(0)

    def send(event, turns, sent):
        event.wait()
        for _ in range(turns):
            pass
        os.kill(os.getpid(), signal.SIGINT)
        sent.set()

    def call():
        assert works().run() == 1
        for _ in range(50):
            event, sent = threading.Event(), threading.Event()
            thread = threading.Thread(target=send, args=(event, random.randrange(20_000), sent))
            thread.start()
            with interrupted():
                anysync.run(steps(random.randrange(40), event))
                while True:
                    sent.wait()
            thread.join()
            assert works().run() == 1

    getattr(scripts, place)(call)


@places
@script
def test_a_signal_handler_may_call_while_the_call_that_it_broke_into_waits(place):
    results = []

    def handler(signum, frame):
        results.append(works().run())
        wake()

    def call():
        event = threading.Event()
        thread = send_after(event, signum=signal.SIGUSR1)
        anysync.run(until_woken(event))
        thread.join()

    signal.signal(signal.SIGUSR1, handler)
    getattr(scripts, place)(call)
    assert results == [1]


@script
def test_a_signal_handler_may_call_while_the_main_thread_begins_to_wait_for_a_future():
    """It has the future's lock then, and what it calls waits for the thread that is to tell the outcome."""

    async def two():
        ends.set()
        return 2

    async def one():
        return 1

    ends = threading.Event()
    future = anysync.wrap_coroutine(two()).submit()
    with future._condition:
        assert ends.wait(30)
        assert anysync.run(one()) == 1  # as the handler does
    assert future.result(30) == 2


@script
def test_a_signal_handler_may_call_while_the_main_thread_looks_which_of_its_futures_are_done():
    """It has a lock then that whoever tells an outcome needs, in `as_completed`."""

    async def two():
        assert waited_for.wait(30)
        ends.set()
        return 2

    async def one():
        return 1

    waited_for, ends = threading.Event(), threading.Event()
    future = anysync.wrap_coroutine(two()).submit()
    waiter = _base._create_and_install_waiters([future], _base.ALL_COMPLETED)
    with waiter.lock:
        waited_for.set()
        assert ends.wait(30)
        assert anysync.run(one()) == 1  # as the handler does
    assert future.result(30) == 2
    assert waiter.event.wait(30)


def interrupted_at(number, function):
    """Call, with a Ctrl-C at this entry of a function of ours; tell whether there were as many."""

    def interrupt(frame, *_):
        nonlocal number
        if frame.f_code.co_filename.startswith(ours):
            number -= 1
            if number == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)

    ours = os.path.dirname(anysync.__file__)
    with suppress(KeyboardInterrupt), traced(interrupt):
        function()
    return number <= 0


@pytest.mark.skipif(scripts.PYPY, reason="hangs there: PyPy sees to signals in other places too")
@on_asyncio
@pytest.mark.parametrize("suspends", [False, True])
@script
def test_ctrl_c_at_the_entry_of_any_function_of_ours_leaves_a_generator_that_can_be_closed(suspends):
    """There, and after a call, is where Python sees to signals."""

    @anysync.generator
    async def numbers(log):
        try:
            for number in range(3):
                if suspends:
                    await asyncio.sleep(0)
                yield number
        finally:
            log.append("cleaned up")

    for number in itertools.count(1):
        log = []
        generator = numbers(log)
        next(generator)
        if not interrupted_at(number, lambda: next(generator)):  # noqa: B023
            break
        next(generator, None)
        generator.close()
        assert log == ["cleaned up"], number
        assert works().run() == 1
    assert number > 5


@on_asyncio
@script
def test_ctrl_c_at_the_entry_of_any_function_of_ours_while_another_thread_is_to_leave_a_with():
    @anysync.contextmanager
    async def entered(log):
        yield
        await asyncio.sleep(0)
        log.append("left")

    for number in itertools.count(1):
        log = []
        manager = entered(log)
        manager.__enter__()
        leave = partial(manager.__exit__, None, None, None)
        if not in_loop(partial(interrupted_at, number, leave)):
            break
        assert works().run() == 1
    assert log == ["left"]
    assert number > 5


@places
@script
def test_a_frozen_exception_of_a_signal_handler_has_what_the_clean_up_raised_as_its_cause(place):
    @dataclasses.dataclass(frozen=True)
    class Frozen(Exception):
        number: int = 1

    async def waits():
        try:
            await suspended(event)
        finally:
            raise ValueError("from the clean-up")

    def on_signal(*_):
        raise error

    event, error = threading.Event(), Frozen()
    signal.signal(signal.SIGTERM, on_signal)
    thread = send_after(event, signum=signal.SIGTERM)
    assert getattr(scripts, place)(lambda: raised(lambda: anysync.run(waits()))) is error
    thread.join()
    assert repr(error.__cause__) == "ValueError('from the clean-up')"


@on_asyncio  # trio runs what is due soon in another turn
@script
def test_what_a_signal_handler_raises_is_raised_although_the_coroutine_has_just_returned():
    async def returns():
        await anyio.sleep(0)
        call_soon(signal.raise_signal, signal.SIGTERM)
        return 1

    error = SystemExit("from the handler")

    def on_signal(*_):
        raise error

    signal.signal(signal.SIGTERM, on_signal)
    assert raised(lambda: anysync.run(returns())) is error
    assert anysync.run(works()) == 1


@script
def test_a_signal_handler_may_call_when_the_main_thread_has_just_been_woken_by_a_future():
    """It has the future's lock then, and what it calls waits for the thread that tells the outcome."""

    def handler(*_):
        in_handler.set()
        assert works().run() == 1

    def wait_and_be_interrupted(timeout):
        waits.set()
        wait(timeout)
        signal.raise_signal(signal.SIGTERM)
        return True

    async def two():
        await anyio.sleep(0)
        assert waits.wait(30)
        return 2

    in_handler, waits = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, handler)
    future = anysync.wrap_coroutine(two()).submit()
    future._done_callbacks.insert(0, lambda _: in_handler.wait(30))
    wait = future._condition.wait
    future._condition.wait = wait_and_be_interrupted
    assert future.result(30) == 2


@places
@script
def test_a_signal_handler_may_call_at_any_point_of_a_for(place):
    results, stop, calls = [], threading.Event(), threading.Semaphore(0)

    def handler(signum, frame):
        results.append(works().run())
        calls.release()

    @anysync.generator
    async def numbers():
        number = 0
        while not stop.is_set():
            if number % 2:
                await anyio.sleep(0)
            yield number
            number += 1

    def send():
        for _ in range(50):
            os.kill(os.getpid(), signal.SIGUSR1)
            calls.acquire()
        stop.set()

    def call():
        thread = threading.Thread(target=send)
        for number in numbers():
            if number == 0:
                thread.start()
        thread.join()

    signal.signal(signal.SIGUSR1, handler)
    getattr(scripts, place)(call)
    assert results == [1] * 50


@on_both
@script
def test_a_signal_handler_may_call_while_the_loop_is_taken_or_let_go():
    """Then the helper drives again as what was broken into goes on, at each line of it in turn."""

    def trace(frame, event, _):
        nonlocal lines
        code = frame.f_code
        if code.co_filename != KeptHost.let_go.__code__.co_filename:
            return None
        if event == "line" and local.busy is None:  # else it calls elsewhere
            if lines == moment:
                sys.settrace(None)
                anysync.run(leave_something())
                assert turned.wait(scripts.WATCHDOG)
            lines += 1
        return trace

    async def leave_something():
        leave_behind(something)

    async def something():
        await anyio.sleep(0.001)  # in the helper's turn
        turned.set()

    @anysync.generator
    async def numbers():
        leave_behind(partial(anyio.sleep, 3600))  # for which the helper drives between steps
        for number in range(3):
            await anyio.sleep(0)
            yield number

    moment, turned = -1, None
    while turned is None or turned.is_set():
        moment += 1
        lines, turned, steps = 0, threading.Event(), numbers()
        assert next(steps) == 0
        while not here().driven():  # by the helper
            time.sleep(0)
        with traced(trace):
            assert next(steps) == 1
        assert (next(steps), next(steps, None)) == (2, None)
    assert moment > 20


@script
def test_a_timer_signal_may_call_all_the_time():
    results = []

    def again():
        signal.setitimer(signal.ITIMER_REAL, 0.002)

    def handler(signum, frame):
        results.append(works().run())
        again()

    assert works().run() == 1
    assert in_loop(lambda: works().run()) == 1
    signal.signal(signal.SIGALRM, handler)
    again()
    while len(results) < 50:
        assert works().run() == 1
        assert in_loop(lambda: works().run()) == 1
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    assert set(results) == {1}


@script
def test_a_coroutine_that_raises_keyboard_interrupt_by_itself_gives_it_to_its_caller():
    async def raises(turns, error):
        for _ in range(turns):
            await anyio.sleep(0)
        raise error

    def call():
        for turns in 0, 1:
            mine = KeyboardInterrupt("mine")
            assert raised(partial(anysync.run, raises(turns, mine))) is mine
            assert works().run() == 1

    call()
    in_loop(call)
