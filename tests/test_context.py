"""Context variables flow in, and out of nothing but a `context=` that the caller gave."""

import inspect
import threading
from contextvars import Context, ContextVar, copy_context

import anyio
import pytest
from loops import current_task, shielded
from places import error_of, in_loop, plain
from pytest_marks import everywhere, on_both

import anysync
from anysync import AnySyncCoroutine

var = ContextVar("var", default="default")


def by_method(coro, **options):
    return AnySyncCoroutine(coro).run(**options)


def by_future(coro, **options):
    return AnySyncCoroutine(coro).submit(**options).result(30)


every_way = pytest.mark.parametrize("run", [by_method, anysync.run, by_future])
suspended_or_not = pytest.mark.parametrize("suspended", [False, True])


async def look_and_set(value, suspended=True):
    before = var.get()
    if suspended:
        await anyio.sleep(0)
    var.set(value)
    return before


@everywhere
@every_way
@suspended_or_not
def test_variables_flow_in_and_changes_do_not_flow_out(place, run, suspended):
    def call():
        var.set("the caller's")
        return run(look_and_set("changed", suspended)), run(look_and_set("again", suspended)), var.get()

    assert copy_context().run(place, call) == ("the caller's", "the caller's", "the caller's")


@everywhere
@every_way
@suspended_or_not
def test_a_given_context_flows_in_and_takes_the_changes(place, run, suspended):
    def call():
        var.set("the caller's")
        given = copy_context()
        given.run(var.set, "the given one's")
        before = run(look_and_set("changed", suspended), context=given)
        return before, given[var], var.get()

    assert copy_context().run(place, call) == ("the given one's", "changed", "the caller's")


@everywhere
@every_way
def test_an_empty_context_is_a_context(place, run):
    def call():
        var.set("the caller's")
        given = Context()
        return run(look_and_set("changed"), context=given), given[var]

    assert copy_context().run(place, call) == ("default", "changed")


@everywhere
def test_a_token_can_be_reset_in_a_later_call_with_the_same_context(place):
    async def set_var():
        return var.set("changed")

    async def reset(token):
        var.reset(token)

    def call():
        given = copy_context()
        token = anysync.run(set_var(), context=given)
        anysync.run(reset(token), context=given)
        return given.run(var.get)

    assert place(call) == "default"


@everywhere
def test_tasks_of_the_coroutine_inherit_its_variables(place):
    seen = []

    async def child():
        seen.append(await look_and_set("the child's"))

    async def main():
        var.set("changed")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)
        seen.append(var.get())

    place(lambda: anysync.run(main()))
    assert seen == ["changed", "changed"]


@everywhere
def test_the_clean_up_after_a_timeout_sees_the_variables_of_the_coroutine(place):
    seen = []

    async def main():
        var.set("changed")
        try:
            await anyio.Event().wait()
        finally:
            await shielded(anyio.sleep, 0)
            seen.append(var.get())

    with pytest.raises(TimeoutError):
        place(lambda: anysync.run(main(), timeout=0.001))
    assert seen == ["changed"]


@everywhere
@every_way
def test_a_context_that_is_entered_is_refused_and_nothing_is_run(place, run):
    log = []

    async def work():
        log.append("run")

    async def current():
        task = current_task()
        await anyio.sleep(0)
        name = task.get_coro().__qualname__ if hasattr(task, "get_coro") else task.name
        return task is current_task() and name.rpartition(".")[2]

    def call():
        coro, given = work(), copy_context()
        error = given.run(error_of, lambda: run(coro, context=given))
        assert type(error) is RuntimeError
        assert "entered already" in str(error)
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
        # no dead task is left current, and the context serves when it is free
        assert run(current()) == run(current(), context=given) == "current"

    place(call)
    assert log == []


@on_both
@pytest.mark.parametrize("place", [plain, in_loop])
def test_a_context_that_another_thread_is_in_is_refused(place):
    given, entered, leave = copy_context(), threading.Event(), threading.Event()

    def stay():
        entered.set()
        assert leave.wait(30)

    thread = threading.Thread(target=given.run, args=(stay,))
    thread.start()
    try:
        assert entered.wait(30)
        error = place(lambda: error_of(lambda: anysync.run(look_and_set("changed"), context=given)))
    finally:
        leave.set()
        thread.join()
    assert type(error) is RuntimeError
    assert "entered already" in str(error)
    assert var not in given


@on_both
def test_a_refused_context_does_not_disturb_other_calls_of_the_loop():
    started, given = threading.Event(), copy_context()

    async def patient(go):
        started.set()
        await go.wait()
        return current_task() is not None

    async def release(go):
        go.set()

    def call():
        go = anyio.Event()
        other = AnySyncCoroutine(patient(go)).submit()
        assert started.wait(30)
        error = given.run(error_of, lambda: anysync.run(look_and_set("changed"), context=given))
        anysync.run(release(go))
        return type(error), other.result(30)

    assert in_loop(call) == (RuntimeError, True)


@every_way
@pytest.mark.parametrize("context", [{}, 0, "context", copy_context])
def test_what_is_no_context_is_refused_and_the_coroutine_closed(run, context):
    coro = look_and_set("changed")
    with pytest.raises(TypeError, match=r"context must be a contextvars\.Context"):
        run(coro, context=context)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
