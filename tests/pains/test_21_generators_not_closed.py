"""A generator that is left early goes on, is closed in another task, or cannot be closed at all."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anyio
import pytest
from loops import call_soon, current_task, post, this_loop
from places import error_of
from scripts import collect_dropped
from worlds import both_worlds

import anysync


class Rows:
    """A generator whose clean-up has to await, and what is seen of it."""

    def __init__(self):
        self.tasks = []
        self.ended = threading.Event()
        self.waiting = threading.Event()
        self.go_on = None

    @anysync.generator
    async def read(self):
        self.tasks.append(current_task())
        try:
            yield 1
            go_on = anyio.Event()
            self.go_on = partial(post, this_loop(), go_on.set)
            call_soon(self.waiting.set)
            await go_on.wait()
            yield 2
        finally:
            await anyio.sleep(0)
            self.tasks.append(current_task())
            self.ended.set()


@both_worlds
def test_21_generators_not_closed_by_a_break():
    """pymc-labs/decision-hub#298, google/adk-python#6564, modal-labs/synchronicity#59."""
    rows = Rows()
    for _ in rows.read():
        break
    collect_dropped()
    assert rows.ended.wait(30)
    assert rows.tasks[0] is rows.tasks[1]


def test_21_generators_not_closed_when_the_next_line_runs():
    """google/adk-python#6564: in plain code, the clean-up is over once the loop is left.

    On trio, whose loop the helper turns all the while, it may be that thread which sees to it a moment later.
    """
    rows = Rows()
    for _ in rows.read():
        break
    collect_dropped()
    assert rows.ended.is_set()


@both_worlds
def test_21_asynchronous_generator_is_already_running():
    """modal-labs/synchronicity#60: a close that races with a pending step."""
    rows = Rows()
    generator = rows.read()
    assert next(generator) == 1

    with ThreadPoolExecutor(1) as pool:
        step = pool.submit(next, generator)
        assert rows.waiting.wait(30)
        error = error_of(generator.close)
        assert not rows.ended.is_set()
        rows.go_on()
        assert step.result(30) == 2
    assert type(error) is RuntimeError
    assert "already running" in str(error)
    generator.close()
    assert rows.ended.is_set()
    assert rows.tasks[0] is rows.tasks[1]


@both_worlds
@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_21_errors_of_the_body_arrive_as_they_are(error):
    """modal-labs/synchronicity#59: and not in an ExceptionGroup."""
    rows = Rows()

    def use():
        for _ in rows.read():
            raise error

    assert error_of(use) is error
    error.with_traceback(None)  # whose frame holds the generator
    collect_dropped()
    assert rows.ended.wait(30)
