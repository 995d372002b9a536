"""What another thread does between two lines of one's own disturbs neither, and nobody waits for ever."""

import asyncio
import os
import signal
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count

import anyio
import pytest
import scripts
from anyio import get_cancelled_exc_class as cancel
from loops import current_task, shielded
from pytest_marks import of_cpython, on_asyncio, on_both
from scripts import backend, in_loop, main_thread_sleeps, raised, script, send_after, suspended
from sniffio import current_async_library

import anysync
from anysync._home_host import HomeHost
from anysync._hosts import here
from anysync._kept_host import KeptHost
from anysync._managers import _enter
from anysync._objects import Steps
from anysync._on_asyncio import Loop
from anysync._process import process
from anysync._thread_host import ThreadHost

SOON = 30  # seconds within which all that does not hang is over
pytestmark = on_both
places = pytest.mark.parametrize("place", ["plainly", "in_loop"])


class Aside(threading.Thread):
    """A thread that calls a function."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.call, self.outcome = partial(function, *args), Future()
        self.start()

    def run(self):
        try:
            self.outcome.set_result(self.call())
        except BaseException as error:
            self.outcome.set_exception(error)

    def result(self):
        """Wait for the end of the thread; return what the function returned, or raise what it raised."""
        self.join(SOON)
        assert not self.is_alive(), "hangs"
        return self.outcome.result()


class before:
    """In the body, `action` is done once: before the line of this number that this thread comes to.

    They are the lines of `function`, or without one, those of this library and of asyncio's loop.
    """

    def __init__(self, function, number):
        self.code, self.left = function and function.__code__, number
        self.action, self.reached, self.returned = None, False, False

    def __call__(self, action):
        self.action = action
        return self

    def __enter__(self):
        self.outer = sys.gettrace()
        sys.settrace(self.trace)

    def __exit__(self, *error):
        sys.settrace(self.outer)

    def trace(self, frame, event, _):
        code = frame.f_code
        if (
            self.action is None
            or self.reached
            or (code is not self.code if self.code else not code.co_filename.startswith(OURS))
        ):
            return None
        if event == "line":
            self.left -= 1
            if self.left < 0:
                self.reached = True
                self.action()
        elif event == "return":  # and the line was not among those that it came to
            self.returned = True
        return self.trace


OURS = os.path.dirname(anysync.__file__), asyncio.base_events.__file__


def moments(function=None):
    """Yield `before` for each line in turn, and at last for one that is not reached."""
    for number in count():
        moment = before(function, number)
        yield moment
        if not moment.reached:
            break
    assert number > 1


@anysync.generator
async def numbers():
    for number in count():
        yield number


class Owner:
    """A thread on whose loop a generator lives, until the thread is told to end."""

    def __init__(self):
        self.begun, self.ends = threading.Event(), threading.Event()
        self.thread = Aside(self.main)
        assert self.begun.wait(SOON)

    def main(self):
        self.generator = numbers()
        assert next(self.generator) == 0
        self.begun.set()
        self.ends.wait()

    def end(self):
        self.ends.set()
        self.thread.result()

    turn_no_more = end


def step_or_ended(moment, owner):
    """Return the next number, unless the loop has ended."""
    with moment(owner.turn_no_more):
        try:
            return next(owner.generator)
        except RuntimeError as error:
            return 1 if "ended" in str(error) else error


@script
def test_async_code_steps_what_lives_on_a_loop_that_ends_before_any_line_of_that():
    for moment in moments():
        owner = Owner()
        assert Aside(in_loop, partial(step_or_ended, moment, owner)).result() == 1
        owner.end()


@on_asyncio
@script
def test_a_loop_ends_while_the_thread_that_has_made_a_step_there_looks_whether_it_is_idle():
    for moment in moments(Loop.idle.fget):
        owner = Owner()
        assert Aside(step_or_ended, moment, owner).result() == 1
        owner.end()


@script
def test_a_second_ctrl_c_is_told_to_async_code_that_waits_for_a_step_on_that_loop():
    @anysync.generator
    async def slow():
        yield 0
        stepping.set()
        await anyio.sleep_forever()
        yield 1

    async def stubborn():
        waiters.append(Aside(in_loop, partial(next, generator)))
        while not stepping.is_set():
            await anyio.sleep(0)
        try:
            await suspended(first)
        except cancel():
            await shielded(suspended, second)

    stepping, first, second = (threading.Event() for _ in range(3))
    generator, waiters = slow(), []
    assert next(generator) == 0
    sender = send_after(first, second)
    with suppress(KeyboardInterrupt):
        anysync.run(stubborn())
    sender.join()
    assert "Ctrl-C" in str(raised(waiters[0].result))


class Application(Owner):
    """A thread that runs an application, on whose loop a generator of a worker thread's lives."""

    def main(self):
        anyio.run(self.run, backend=backend())

    async def run(self):
        await anyio.to_thread.run_sync(self.begin)
        self.begun.set()
        await anyio.to_thread.run_sync(self.ends.wait)

    def begin(self):
        self.generator = numbers()
        assert next(self.generator) == 0


@script
def test_a_step_on_the_loop_of_an_application_that_ends_before_any_line_of_that():
    for moment in moments():
        owner = Application()
        assert Aside(step_or_ended, moment, owner).result() == 1
        owner.end()


def hold(loop, owner):
    """Have a loop wait, after its last turn, until one more callback has come."""

    def close_later():
        owner.has_turned.set()
        assert owner.posted.wait(SOON)
        close()

    def post_and_tell(*args, **options):
        try:
            return post(*args, **options)
        finally:
            if owner.has_turned.is_set():
                owner.posted.set()

    close, post = loop.close, loop.call_soon_threadsafe
    loop.close, loop.call_soon_threadsafe = close_later, post_and_tell


class HeldOwner(Owner):
    def main(self):
        self.has_turned, self.posted = threading.Event(), threading.Event()
        hold(here().loop, self)
        super().main()

    def turn_no_more(self):
        self.ends.set()
        assert self.has_turned.wait(SOON)


class HeldApplication(HeldOwner, Application):
    def main(self):
        self.has_turned, self.posted = threading.Event(), threading.Event()
        Application.main(self)

    async def run(self):
        hold(asyncio.get_running_loop(), self)
        await super().run()


def step_when_it_turns_no_more(kind, function):
    for moment in moments(function):
        owner = kind()
        try:
            assert Aside(in_loop, partial(step_or_ended, moment, owner)).result() == 1
        finally:
            owner.posted.set()
            owner.end()


@of_cpython
@on_asyncio  # trio's loops do not close by that method
@script
def test_async_code_posts_a_step_to_a_loop_that_has_had_its_last_turn():
    step_when_it_turns_no_more(HeldOwner, KeptHost.post)


@on_asyncio  # trio's run tells who comes after its last turn
@script
def test_a_step_is_posted_to_the_loop_of_an_application_that_has_had_its_last_turn():
    step_when_it_turns_no_more(HeldApplication, HomeHost.post)


@script
def test_ctrl_c_in_the_thread_that_the_helper_is_about_to_hand_the_loop_to():
    """It comes before any line of that; the thread is in its next call when the helper goes on."""

    @anysync.coroutine
    async def works():
        await anyio.sleep(0.01)
        return 1

    @anysync.coroutine
    async def lasts():
        while not moment.returned:
            await anyio.sleep(0.001)
        return 1

    @anysync.coroutine
    async def next_call():
        over.set()
        return await works()

    def interrupt():
        while not main_thread_sleeps():
            pass
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(0.2)  # or until that thread waits for this one

    moment = before(KeptHost.let_go, 0)
    threading.settrace(lambda *args: moment.trace(*args))
    endless = anysync.wrap_coroutine(anyio.sleep_forever()).submit()
    for moment in moments(KeptHost.let_go):
        assert works().submit().result(SOON) == 1  # the helper turns the loop, and goes on to
        over = threading.Event()
        moment(interrupt)
        with suppress(KeyboardInterrupt):
            assert lasts().run() == 1
        assert next_call().run() == 1
    moment.action = None
    endless.cancel()


@script
def test_a_signal_handler_calls_before_any_line_by_which_the_loop_is_handed_to_another_thread():
    @anysync.generator
    async def lasts():
        yield 0
        while not goes_on.is_set():
            await anyio.sleep(0.001)
        yield 1

    @anysync.coroutine
    async def until_one_waits():
        other = Aside(next, generator)
        while not host.followers:
            await anyio.sleep(0)
        return other

    host = here()
    for moment in moments(KeptHost.let_go):
        generator, goes_on = lasts(), threading.Event()
        assert next(generator) == 0
        with moment(lambda: anysync.run(anyio.sleep(0))):
            other = until_one_waits().run()
        goes_on.set()
        assert other.result() == 1


@on_asyncio  # a turn of trio's may step what another thread has posted
@of_cpython
@script
def test_a_destructor_does_not_wait_for_a_thread_that_begins_to_drive_before_any_line_of_it():
    @anysync.generator
    async def locked():
        yield 0
        drives.set()
        with lock:
            pass
        yield 1

    def drop(moment):
        dropped, shared = numbers(), locked()
        assert next(dropped) == next(shared) == 0

        def step():
            others.append(Aside(next, shared))
            drives.wait(0.2)  # or until it waits for this thread

        with lock, moment(step):
            del dropped
        for other in others:
            assert other.result() == 1

    for moment in moments(KeptHost.perform_sometime):
        lock, drives, others = threading.Lock(), threading.Event(), []
        Aside(drop, moment).result()


@script
def test_a_thread_that_comes_late_does_not_end_what_has_begun_anew_before_any_line_of_its_step():
    class Feed(anysync.AnySyncIterator):
        """It goes on after its end if there is more."""

        def __init__(self):
            self.items, self.tasks = [1], []

        async def __anext__(self):
            self.tasks.append(current_task())
            if not self.items:
                raise StopAsyncIteration
            return self.items.pop(0)

    def meanwhile():
        with suppress(RuntimeError):  # "already running"
            assert list(feed) == []
            feed.items, feed.tasks = [2, 3, 4], []
            assert next(feed) == 2

    with ThreadPoolExecutor(1) as crowd:
        for moment in moments(Steps.step):
            feed = Feed()
            assert next(feed) == 1
            with moment(lambda: crowd.submit(meanwhile).result(SOON)), suppress(RuntimeError, StopIteration):
                next(feed)
            had = len(feed.items)
            assert list(feed) == [2, 3, 4][3 - had :]
            if had:
                assert len(set(feed.tasks)) == 1


@script
def test_a_with_that_ctrl_c_breaks_into_leaves_no_other_one_that_begins_before_any_line_of_that():
    class Manager(anysync.AnySyncContextManager):
        async def __aenter__(self):
            if threading.current_thread() is threading.main_thread():
                event = threading.Event()
                send_after(event)
                await suspended(event)

        async def __aexit__(self, *error):
            left.append(error)

    def enter():
        with suppress(RuntimeError):  # "entered already"
            crowd.submit(manager.__enter__).result(SOON)
            entered.append(manager)

    with ThreadPoolExecutor(1) as crowd:
        for moment in moments(_enter):
            manager, entered, left = Manager(), [], []
            with moment(enter), suppress(KeyboardInterrupt, RuntimeError):
                manager.__enter__()
            if entered:
                assert left == []
                crowd.submit(manager.__exit__).result(SOON)
                assert left == [(None, None, None)]


@on_asyncio
@pytest.mark.parametrize("theirs", ["sync", "async"])
@script
def test_the_thread_that_is_first_says_in_which_world_an_object_begins(theirs):
    def enter(world):
        with suppress(RuntimeError):
            steps.enter(world)
            accepted.append(world)

    for moment in moments(Steps.enter):
        steps, accepted = Steps(), []
        with moment(lambda: Aside(enter, theirs).result()):
            enter("sync")
        if moment.reached:  # else this thread has come to the end alone
            assert len(accepted) == (2 if theirs == "sync" else 1)


@script
def test_two_threads_begin_to_iterate_over_what_returns_one_iterator():
    @anysync.generator
    async def in_task():
        while True:
            yield current_task()

    class Shared(anysync.AnySyncIterator):
        def __init__(self):
            self.inner = in_task()

        def __aiter__(self):
            return self.inner

        async def __anext__(self):
            raise NotImplementedError

    def begin():
        tasks.add(next(iter(shared)))

    with ThreadPoolExecutor(1) as crowd:
        for moment in moments(anysync.AnySyncIterator.__iter__):
            shared, tasks = Shared(), set()
            with moment(lambda: crowd.submit(begin).result(SOON)):
                iterator = iter(shared)
            tasks.add(next(iterator))
            assert len(tasks) == 1


@script
def test_one_of_two_threads_enters_a_manager_that_is_entered_once():
    @anysync.contextmanager
    async def opened():
        yield 1

    async def use():
        async with manager as value:
            entered.append(value)

    def enter():
        with suppress(RuntimeError):
            anyio.run(use, backend=backend())

    for moment in moments(type(opened()).__aenter__):
        manager, entered = opened(), []
        with moment(lambda: Aside(enter).result()):
            enter()
        assert entered == [1]


@on_asyncio
@script
def test_options_stay_with_the_backend_that_was_configured_as_they_were_checked():
    other = partial(anysync.configure, backend="trio")
    for more in {"backend": "asyncio"}, {}:
        call = partial(anysync.configure, backend_options={"debug": False}, **more)
        for moment in moments(anysync.configure):
            anysync.configure(backend="asyncio")
            process.defaults["asyncio"].clear()
            with moment(lambda: Aside(other).result()), suppress(TypeError):
                call()
                assert process.defaults == {"asyncio": {"debug": False}, "trio": {}}
                assert not moment.reached or more or process.backend == "trio"


@on_asyncio
@pytest.mark.parametrize("number", range(3))
@script
def test_the_first_calls_to_asyncio_of_two_applications_on_trio(number):
    async def which():
        await anyio.sleep(0)
        return current_async_library()

    async def main():
        return anysync.run(which(), backend="asyncio")

    def application():
        libraries.append(anyio.run(main, backend="trio"))

    libraries = []
    in_loop(lambda: anysync.run(asyncio.sleep(0)))
    assert "trio" not in sys.modules  # else the background thread has told by itself
    with before(ThreadHost.tell_library, number)(lambda: Aside(application).result()):
        application()
    assert libraries == ["asyncio"] * 2


@pytest.mark.parametrize("number", [0, 2, 5, 8])
@places
@script(out="closed\n")
def test_a_daemon_thread_makes_its_first_loop_as_the_process_ends(place, number):
    @anysync.generator
    async def opened():
        try:
            yield 1
        finally:
            await anyio.sleep(0)
            print("closed")

    def stop_there():
        there.set()
        threading.Event().wait()

    def begin():
        host = KeptHost if place == "plainly" else ThreadHost
        with before(host.__init__, number)(stop_there):
            getattr(scripts, place)(lambda: anysync.run(anyio.sleep(0)))

    there = threading.Event()
    kept.append(anysync.Runner(backend=backend()))
    kept.append(kept[0].iterate(opened()))
    assert next(kept[1]) == 1
    Aside(begin)
    assert there.wait(SOON)


kept = []  # to the end of the process
