"""Objects that two threads use at once, and runners that are closed meanwhile: clear errors, no hang."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
from places import error_of
from pytest_marks import every_row
from steps import ROWS, Thrown

import anysync
from anysync._core import Latch

pytestmark = pytest.mark.timeout(60)


class Paused:
    """Steps that stop half way, each until it is let go."""

    def __init__(self):
        self.begun = threading.Event()
        self.go = asyncio.Event()

    async def pause(self):
        self.loop = asyncio.get_running_loop()
        self.begun.set()
        await self.go.wait()

    def let_go(self):
        self.loop.call_soon_threadsafe(self.go.set)

    async def pauses_first(self):
        await self.pause()
        yield 1

    async def pauses_later(self):
        with suppress(Thrown):
            yield 1
        await self.pause()
        yield 2

    async def pauses_at_the_end(self):
        try:
            yield 1
        finally:
            await self.pause()

    enters = asynccontextmanager(pauses_first)
    exits = asynccontextmanager(pauses_at_the_end)


def ended(items):
    return next(items, "ended")


def thrown(items):
    return items.throw(Thrown())


def closed(items):
    items.close()
    return "closed"


def sent(items):
    return items.send(None)


def exit_of(manager):
    return manager.__exit__(None, None, None)


INTRUSIONS = [ended, sent, thrown, closed]


@contextmanager
def while_one_is_in_it(paused, step, thing, intrude):
    """Make a step in another thread, intrude half way, and give what came of both; then that thread ends."""
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(step, thing)
        assert paused.begun.wait(30)
        error = error_of(lambda: intrude(thing))
        paused.let_go()
        yield going.result(30), error


def check_already_running(error):
    assert type(error) is RuntimeError
    assert str(error) == "already running: a step of this object is under way"


@pytest.mark.parametrize("row", ["plain", "in_loop", "nested", "runner"])
@pytest.mark.parametrize(
    ("make", "first", "step", "outcome"),
    [
        ("pauses_first", False, ended, 1),
        ("pauses_later", True, ended, 2),
        ("pauses_later", True, sent, 2),
        ("pauses_later", True, thrown, 2),
        ("pauses_at_the_end", True, closed, "closed"),
        ("pauses_at_the_end", True, ended, "ended"),
    ],
)
@pytest.mark.parametrize("intrude", INTRUSIONS)
def test_a_generator_that_another_thread_is_in_says_so_and_goes_on(row, make, first, step, outcome, intrude):
    def call(api):
        paused = Paused()
        items = api.iterate(getattr(paused, make)())
        if first:
            assert next(items) == 1
        with while_one_is_in_it(paused, step, items, intrude) as (went_on, error):
            assert went_on == outcome
            check_already_running(error)
            assert list(items) == []

    ROWS[row](call)


@every_row
def test_a_with_that_another_thread_enters_says_so_and_is_entered(row):
    def call(api):
        paused = Paused()
        manager = api.enter(paused.enters())
        with while_one_is_in_it(paused, lambda cm: cm.__enter__(), manager, exit_of) as (entered, error):
            assert entered == 1
            check_already_running(error)
            with pytest.raises(RuntimeError, match="is entered already: leave it before it is entered again"):
                manager.__enter__()
            assert not exit_of(manager)

    ROWS[row](call)


@every_row
def test_a_with_that_another_thread_leaves_says_so_and_is_left(row):
    def call(api):
        paused = Paused()
        manager = api.enter(paused.exits())
        assert manager.__enter__() == 1
        with while_one_is_in_it(paused, exit_of, manager, exit_of) as (left, error):
            assert not left
            check_already_running(error)
        with pytest.raises(RuntimeError, match="this context manager is not entered"):
            exit_of(manager)

    ROWS[row](call)


# a runner that is closed during calls

UNDER_WAY = {
    "run": lambda runner, paused: lambda: runner.run(paused.pause()),
    "submit": lambda runner, paused: lambda: runner.submit(paused.pause()).result(30),
    "first": lambda runner, paused: lambda: next(runner.iterate(paused.pauses_first())),
    "enter": lambda runner, paused: runner.enter(paused.enters()).__enter__,
}


def begun(thing, step):
    """Return the step of a generator or a `with` that has been begun."""
    (next if hasattr(thing, "__next__") else type(thing).__enter__)(thing)
    return lambda: step(thing)


UNDER_WAY |= {
    "next": lambda runner, paused: begun(runner.iterate(paused.pauses_later()), next),
    "send": lambda runner, paused: begun(runner.iterate(paused.pauses_later()), sent),
    "throw": lambda runner, paused: begun(runner.iterate(paused.pauses_later()), thrown),
    "close": lambda runner, paused: begun(runner.iterate(paused.pauses_at_the_end()), closed),
    "exit": lambda runner, paused: begun(runner.enter(paused.exits()), exit_of),
}


@pytest.mark.parametrize("call", UNDER_WAY)
def test_a_runner_that_is_closed_during_calls_ends_each_with_an_error_that_says_so(call):
    runner, paused = anysync.Runner(), Paused()
    with ThreadPoolExecutor(3) as pool:
        under_way = pool.submit(error_of, UNDER_WAY[call](runner, paused))
        assert paused.begun.wait(30)
        for closing in [pool.submit(runner.close) for _ in range(2)]:
            closing.result(30)
        error = under_way.result(30)
    assert type(error) is RuntimeError
    assert str(error) == "the runner has been closed"


class TellingMailbox:
    """A mailbox that says when something has been posted, and when it has been shut."""

    def __init__(self, mailbox):
        self._mailbox = mailbox
        self.posted, self.was_shut = threading.Event(), threading.Event()

    def perform(self, call):
        call.on_done = latch = Latch()
        self.post(call)
        latch.wait()

    def post(self, call, job=None):
        self._mailbox.post(call, job)
        self.posted.set()

    def shut(self, reason):
        self._mailbox.shut(reason)
        self.was_shut.set()

    def __getattr__(self, name):
        return getattr(self._mailbox, name)


@pytest.mark.parametrize("call", ["run", "submit", "first", "enter", "next", "send", "throw"])
def test_a_call_that_waits_for_its_turn_when_a_runner_is_closed_never_begins(call):
    async def blocks():
        blocked.set()
        go_on.wait()

    runner, paused = anysync.Runner(), Paused()
    blocked, go_on = threading.Event(), threading.Event()
    with ThreadPoolExecutor(3) as pool:
        runner.run(asyncio.sleep(0))
        under_way = UNDER_WAY[call](runner, paused)
        pool.submit(runner.run, blocks())
        assert blocked.wait(30)
        mailbox = runner._host._mailbox = TellingMailbox(runner._host._mailbox)
        waiting = pool.submit(error_of, under_way)
        assert mailbox.posted.wait(30)
        closing = pool.submit(runner.close)
        assert mailbox.was_shut.wait(30)
        go_on.set()
        closing.result(30)
        assert str(waiting.result(30)) == "the runner has been closed"
    assert not paused.begun.is_set()
