"""Whatever an async function raises, in whatever step, reaches the caller of that step and nobody else."""

import asyncio
import contextlib
import functools
import gc
import logging
import threading

import pytest
from places import error_of, in_loop, in_thread, plain
from pytest_marks import every_row, every_step
from steps import KINDS, ROWS, STEPS, WAYS, FailingIterator, Neighbours, bare, in_a_task, outcome

import anysync


@pytest.fixture(autouse=True)
def nothing_logged(caplog):
    """Fail the test if asyncio logs an error, such as an exception that was never retrieved."""
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def outcomes(step):
    """Return what each kind of exception, raised in each way, is for the caller of `step`."""
    return {
        (kind, way.__name__): outcome(step, KINDS[kind]("message"), way)
        for kind in KINDS
        for way in WAYS
        if (kind, way) != ("GeneratorExit", in_a_task)  # which a generator of Python 3.12 does not survive
    }


@functools.cache
def expected(step):
    """Return the outcomes of the step in async code."""
    return outcomes(lambda fails: asyncio.run(vars(bare)[step](fails)))


async def this_loop():
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


@every_row
@every_step
def test_what_a_step_raises_reaches_its_caller_as_in_async_code(row, step):
    def call(api):
        loop = api.run(this_loop())
        found = outcomes(lambda fails: STEPS[step](api, fails))
        assert row == "nested" or api.run(this_loop()) is loop
        return found

    assert ROWS[row](call) == expected(step)


@every_row
@every_step
def test_what_a_step_raises_leaves_the_other_users_of_the_loop_alone(row, step):
    def call(api):
        neighbours = Neighbours(api)
        found = outcomes(lambda fails: STEPS[step](api, fails))
        assert neighbours.live_on()
        return found

    assert ROWS[row](call) == expected(step)


@every_row
@pytest.mark.parametrize("step", ["item_of_iterator", "enter_of_class"])
def test_a_generator_exit_of_a_task_that_a_step_awaits_is_the_same_object(row, step):
    """Python gives it to the outermost coroutine only, and closes those in it."""
    error = GeneratorExit("message")

    class Manager(contextlib.AbstractAsyncContextManager):
        async def __aenter__(self):
            await in_a_task(error)

        async def __aexit__(self, *args): ...

    def call(api):
        if step == "item_of_iterator":
            return error_of(lambda: next(api.iterate(FailingIterator(lambda: in_a_task(error)))))
        return error_of(api.enter(Manager()).__enter__)

    assert ROWS[row](call) is error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("place", [plain, in_thread, in_loop])
def test_an_interrupt_of_a_submitted_call_leaves_the_call_that_turns_the_loop_alone(place, kind):
    error, go, begun = kind("message"), asyncio.Event(), threading.Event()

    async def waits():
        begun.set()
        await go.wait()
        raise error

    async def lets_it_go():
        go.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return "value"

    def call():
        future = anysync.wrap_coroutine(waits()).submit()
        assert begun.wait(30)
        return anysync.run(lets_it_go()), future.exception(30)

    assert place(call) == ("value", error)
