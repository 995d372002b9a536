"""`AnySyncCoroutine` and `run`: awaited, run, submitted, timed out, and in the place of a bare coroutine."""

import asyncio
import collections.abc
import concurrent.futures
import inspect
import threading
import types
from functools import partial

import anyio
import pytest
from loops import current_task, shielded
from places import error_of, in_async_code, in_loop, in_with, nested, nested_in_with, plain
from pytest_marks import everywhere, on_both
from scripts import collect_dropped

import anysync
from anysync import AnySyncCoroutine


def by_method(coro, **options):
    return AnySyncCoroutine(coro).run(**options)


def by_future(coro, **options):
    return AnySyncCoroutine(coro).submit(**options).result(30)


class Oops(Exception):
    pass


@anysync.coroutine
async def answer(value, *, suspended=True):
    if suspended:
        await anyio.sleep(0)
    return value


@anysync.coroutine
async def fail(error, *, suspended=True):
    if suspended:
        await anyio.sleep(0)
    raise error


async def forever():
    await anyio.Event().wait()


# await and run


@pytest.mark.parametrize("suspended", [False, True])
def test_await_gives_the_value_or_the_very_exception(backend, suspended):
    oops = Oops()

    async def main():
        value = await answer("value", suspended=suspended)
        try:
            await fail(oops, suspended=suspended)
        except Oops as error:
            return value, error

    assert anyio.run(main, backend=backend) == ("value", oops)


def test_await_stays_in_the_task_that_awaits(backend):
    @anysync.coroutine
    async def task():
        return current_task()

    async def main():
        return await task() is current_task()

    assert anyio.run(main, backend=backend)


@everywhere
@pytest.mark.parametrize("suspended", [False, True])
def test_run_gives_the_value_or_the_very_exception(place, suspended):
    oops = Oops()
    assert place(lambda: answer("value", suspended=suspended).run()) == "value"
    assert place(lambda: error_of(fail(oops, suspended=suspended).run)) is oops


@everywhere
def test_an_exception_that_is_returned_is_a_value(place):
    oops = Oops()
    assert place(lambda: answer(oops).run()) is oops
    assert place(lambda: answer(oops).submit().result(30)) is oops


@on_both
def test_run_many_times_in_a_row():
    assert [answer(n, suspended=n % 2 == 0).run() for n in range(200)] == list(range(200))
    assert in_loop(lambda: [answer(n, suspended=n % 2 == 0).run() for n in range(200)]) == list(range(200))


# the function `run`


class Custom:
    def __await__(self):
        yield from anyio.sleep(0).__await__()
        return "value"


class CustomCoroutine(collections.abc.Coroutine):
    def __init__(self):
        self.coro = answer("value").coro

    def __await__(self):
        return self.coro.__await__()

    def send(self, value):
        return self.coro.send(value)

    def throw(self, *args):
        return self.coro.throw(*args)

    def close(self):
        self.coro.close()


@types.coroutine
def generator_based():
    yield from anyio.sleep(0).__await__()
    return "value"


@everywhere
@pytest.mark.parametrize(
    "make",
    [lambda: answer("value").coro, lambda: answer("value"), Custom, CustomCoroutine, generator_based],
    ids=["coroutine", "AnySyncCoroutine", "awaitable", "custom coroutine", "generator-based coroutine"],
)
def test_the_function_run_takes_any_awaitable(place, make):
    assert place(lambda: anysync.run(make())) == "value"


def test_the_function_run_awaits_a_future_of_the_kept_loop():
    async def make():
        return asyncio.get_running_loop().create_future()

    async def resolve(future):
        future.set_result("value")

    future = anysync.run(make())
    anysync.run(resolve(future))
    assert anysync.run(future) == "value"


@pytest.mark.parametrize("thing", [None, 1, answer, lambda: None])
def test_the_function_run_refuses_what_cannot_be_awaited(thing):
    with pytest.raises(TypeError, match="expected an awaitable"):
        anysync.run(thing)


# submit

#: whose threads do not end before the future has its outcome
lasting_places = pytest.mark.parametrize("place", [plain, in_with, in_loop, nested, nested_in_with])


@on_both
@lasting_places
def test_submit_gives_a_future_of_the_outcome(place):
    oops = Oops()
    future = place(lambda: answer("value").submit())
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(30) == "value"
    assert place(lambda: fail(oops).submit()).exception(30) is oops


@everywhere
def test_a_submitted_coroutine_goes_on_while_the_caller_does_other_things(place):
    went_on = threading.Event()

    async def work():
        for _ in range(3):
            await anyio.sleep(0.001)
        went_on.set()

    def call():
        future = AnySyncCoroutine(work()).submit()
        assert went_on.wait(30)
        future.result(30)

    place(call)


@on_both
@pytest.mark.parametrize("place", [plain, in_with, in_loop, nested_in_with])
def test_submitted_coroutines_run_side_by_side(place):
    async def meet(events, number):
        events[number].set()
        for event in events:
            await event.wait()
        return number

    def call():
        events = [anyio.Event() for _ in range(3)]
        futures = [AnySyncCoroutine(meet(events, number)).submit() for number in range(3)]
        return [future.result(30) for future in futures]

    assert place(call) == [0, 1, 2]


@everywhere
def test_cancelling_the_future_cancels_the_coroutine(place):
    started, cleaned_up = threading.Event(), threading.Event()

    @anysync.coroutine
    async def work():
        started.set()
        try:
            await forever()
        except anyio.get_cancelled_exc_class():
            await shielded(anyio.sleep, 0)
            cleaned_up.set()
            raise

    def call():
        future = work().submit()
        assert started.wait(30)
        assert future.cancel()
        assert cleaned_up.wait(30)
        assert future.cancelled()
        assert concurrent.futures.wait([future], 30).done == {future}

    place(call)


@everywhere
def test_cancelling_the_future_at_once_leaves_no_coroutine_behind(place):
    log = []

    async def work():
        try:
            await forever()
            log.append("went on")
        finally:
            log.append("ended")

    def call():
        coro = work()
        future = AnySyncCoroutine(coro).submit()
        assert future.cancel()
        while inspect.getcoroutinestate(coro) != inspect.CORO_CLOSED:
            anysync.run(anyio.sleep(0))
        assert log in ([], ["ended"])

    place(call)


@lasting_places
def test_a_submitted_coroutine_that_cancels_itself_cancels_its_future(place):
    future = place(lambda: fail(asyncio.CancelledError()).submit())
    assert isinstance(error_of(lambda: future.result(30)), concurrent.futures.CancelledError)
    assert future.cancelled()


# in the place of a bare coroutine


@types.coroutine
def ask(question):
    return (yield question)


@anysync.coroutine
async def talk(log):
    try:
        try:
            got = await ask("question")
        except Oops:
            got = "thrown"
        return await ask(got)
    finally:
        log.append("closed")


def test_it_is_a_coroutine():
    coro = answer("value")
    assert isinstance(coro, collections.abc.Coroutine)
    assert isinstance(coro, AnySyncCoroutine)
    assert asyncio.iscoroutine(coro)
    assert inspect.isawaitable(coro)
    assert coro.cr_code is answer.__wrapped__.__code__
    assert "answer" in repr(coro)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = coro.nonsense
    coro.close()


def test_send_is_that_of_the_coroutine():
    coro = talk([])
    assert coro.send(None) == "question"
    assert coro.send("answer") == "answer"
    with pytest.raises(StopIteration) as stop:
        coro.send("result")
    assert stop.value.value == "result"


def test_throw_is_that_of_the_coroutine():
    coro = talk(log := [])
    coro.send(None)
    assert coro.throw(Oops()) == "thrown"
    oops = Oops()
    assert error_of(lambda: coro.throw(oops)) is oops
    assert log == ["closed"]


def test_close_is_that_of_the_coroutine():
    coro = talk(log := [])
    coro.send(None)
    coro.close()
    assert log == ["closed"]
    assert inspect.getcoroutinestate(coro.coro) == inspect.CORO_CLOSED


async def in_task_group(coro):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(coro)
    return task.result()


@pytest.mark.parametrize(
    "take",
    [
        asyncio.create_task,
        asyncio.ensure_future,
        asyncio.shield,
        partial(asyncio.wait_for, timeout=30),
        in_task_group,
    ],
)
def test_asyncio_takes_it_for_a_coroutine(take):
    async def main():
        return await take(answer("value"))

    assert asyncio.run(main()) == "value"


def test_asyncio_gathers_and_runs_it():
    async def main():
        return await asyncio.gather(answer(1), answer(2))

    assert asyncio.run(main()) == [1, 2]
    assert asyncio.run(answer("value")) == "value"


def test_one_that_was_never_run_warns_as_a_bare_coroutine_does():
    def warnings_of(function):
        def drop():
            function(1)
            collect_dropped()

        with pytest.warns(RuntimeWarning) as caught:
            drop()
        return [str(warning.message) for warning in caught]

    bare = warnings_of(answer.__wrapped__)
    assert "was never awaited" in bare[0]
    assert warnings_of(answer) == bare


def run_again(coro):
    coro.run()
    coro.run()


def run_then_submit(coro):
    coro.run()
    coro.submit().result(30)


def run_then_await(coro):
    async def wait_for_it():
        await coro

    coro.run()
    in_async_code(wait_for_it)


def close_then_run(coro):
    coro.close()
    coro.run()


@on_both
@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("twice", [run_again, run_then_submit, run_then_await, close_then_run])
def test_running_it_twice_raises_as_a_bare_coroutine_does(twice, suspended):
    async def bare():
        coro = answer.__wrapped__(1)
        await coro
        await coro

    expected = error_of(lambda: in_async_code(bare))
    error = error_of(lambda: twice(answer(1, suspended=suspended)))
    assert type(error) is type(expected) is RuntimeError
    assert str(error) == str(expected)


@on_both
def test_running_it_twice_raises_in_a_loop_too():
    error = in_loop(lambda: error_of(lambda: run_again(answer(1))))
    assert type(error) is RuntimeError
    assert "already awaited" in str(error)


@pytest.mark.parametrize("way", [AnySyncCoroutine.run, anysync.run, by_future])
def test_running_one_that_is_suspended_elsewhere_raises_and_leaves_it_alone(way, backend):
    @anysync.coroutine
    async def work(go):
        await go.wait()
        return "value"

    async def main():
        async def wait_for_it():
            values.append(await coro)

        go, values = anyio.Event(), []
        coro = work(go)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait_for_it)
                await anyio.wait_all_tasks_blocked()
                error = error_of(lambda: way(coro))
                go.set()
        return error, values

    error, values = anyio.run(main, backend=backend)
    assert type(error) is RuntimeError
    assert str(error) == "coroutine is being awaited already"
    assert values == ["value"]


@on_both
@pytest.mark.parametrize("way", [AnySyncCoroutine.run, anysync.run, by_future])
def test_running_one_from_within_itself_raises_and_leaves_it_alone(way):
    @anysync.coroutine
    async def work():
        return error_of(lambda: way(coro))

    coro = work()
    error = coro.run()
    assert type(error) is ValueError
    assert "already executing" in str(error)


# timeout


@everywhere
@pytest.mark.parametrize("run", [by_method, anysync.run])
def test_a_timeout_cancels_waits_for_the_clean_up_and_raises(place, run):
    log = []

    async def work():
        try:
            await forever()
        finally:
            await shielded(anyio.sleep, 0.001)
            log.append("cleaned up")

    error = place(lambda: error_of(lambda: run(work(), timeout=0.001)))
    assert type(error) is TimeoutError
    assert str(error) == "the coroutine did not finish within 0.001 seconds"
    assert log == ["cleaned up"]


@everywhere
@pytest.mark.parametrize("timeout", [0, -1, 0.0, float("-inf"), -(10**400)])
def test_no_time_at_all_cancels_at_the_first_suspension(place, timeout):
    log = []

    async def work():
        log.append("begun")
        try:
            await anyio.sleep(0)
            log.append("went on")
        finally:
            await shielded(anyio.sleep, 0)
            log.append("cleaned up")

    error = place(lambda: error_of(lambda: anysync.run(work(), timeout=timeout)))
    assert type(error) is TimeoutError
    assert log == ["begun", "cleaned up"]


@everywhere
@pytest.mark.parametrize("timeout", [0, -1])
def test_no_time_at_all_is_enough_for_a_coroutine_that_never_suspends(place, timeout):
    oops = Oops()
    assert place(lambda: answer("value", suspended=False).run(timeout)) == "value"
    assert place(lambda: error_of(lambda: fail(oops, suspended=False).run(timeout))) is oops


@everywhere
@pytest.mark.parametrize("timeout", [0, 0.001])
def test_a_coroutine_that_swallows_the_cancel_is_waited_for_and_its_value_returned(place, timeout):
    async def work():
        try:
            await forever()
        except anyio.get_cancelled_exc_class():
            await shielded(anyio.sleep, 0.001)
        return "value"

    assert place(lambda: anysync.run(work(), timeout=timeout)) == "value"


@everywhere
@pytest.mark.parametrize("timeout", [0, 0.001])
def test_an_error_during_the_clean_up_is_the_cause(place, timeout):
    oops = Oops()

    async def work():
        try:
            await forever()
        finally:
            await shielded(fail, oops)

    error = place(lambda: error_of(lambda: anysync.run(work(), timeout=timeout)))
    assert type(error) is TimeoutError
    assert error.__cause__ is oops


@everywhere
def test_an_interrupt_during_the_clean_up_is_not_hidden_by_the_timeout(place):
    stop = SystemExit()

    async def work():
        try:
            await forever()
        finally:
            await shielded(fail, stop)

    assert place(lambda: error_of(lambda: anysync.run(work(), timeout=0.001))) is stop


@everywhere
def test_a_timeout_that_is_not_reached_changes_nothing(place):
    oops, own = Oops(), TimeoutError("the coroutine's own")
    for timeout in 30, 30.0, float("inf"), None:
        assert place(lambda t=timeout: answer("value").run(t)) == "value"
        assert place(lambda t=timeout: error_of(lambda: fail(oops).run(timeout=t))) is oops
        assert place(lambda t=timeout: error_of(lambda: fail(own).run(timeout=t))) is own


@everywhere
def test_a_timeout_leaves_the_next_call_alone(place):
    async def slow():
        await anyio.sleep(0.005)
        return "value"

    def call():
        error = error_of(lambda: anysync.run(forever(), timeout=0.001))
        return type(error), answer("value").run(), anysync.run(slow(), timeout=30)

    assert place(call) == (TimeoutError, "value", "value")


@everywhere
@pytest.mark.parametrize("run", [by_method, anysync.run])
@pytest.mark.parametrize(
    ("timeout", "expected"), [(float("nan"), ValueError), ("1", TypeError), ([], TypeError), (1j, TypeError)]
)
def test_a_bad_timeout_raises_and_closes_the_coroutine(place, run, timeout, expected):
    coro = answer("value").coro
    error = place(lambda: error_of(lambda: run(coro, timeout=timeout)))
    assert type(error) is expected
    assert "timeout must be a number of seconds" in str(error)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


@on_both
def test_the_timeout_ends_what_the_coroutine_waits_for():
    log = []

    async def child():
        try:
            await forever()
        finally:
            log.append("child cleaned up")

    async def work():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)

    with pytest.raises(TimeoutError):
        anysync.run(work(), timeout=0.001)
    assert log == ["child cleaned up"]
