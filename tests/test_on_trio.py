"""A run of trio that is turned like a loop: what hosts seldom ask of it."""

import gc
import logging
import sys
import threading
import weakref
from contextvars import Context, copy_context
from functools import partial

import pytest
import trio
from places import in_thread
from pytest_marks import dies_at_once

from anysync._calls import Call
from anysync._on_trio import TrioLoop


@pytest.fixture(params=[False, True], ids=["kept", "mailbox"])
def loop(request):
    loop = TrioLoop({}, mailbox=request.param)
    yield loop
    loop.close()


kept = []


def turn_until_done(loop, task):
    task.add_done_callback(lambda _: loop.stop())
    loop.run_forever()


async def sleeps(seconds=0):
    await trio.sleep(seconds)
    return "slept"


def test_a_task_tells_its_result(loop):
    task = loop.create_task(sleeps(), context=Context())
    assert not task.done()
    turn_until_done(loop, task)
    assert (task.done(), task.cancelled(), task.exception(), task.get_coro()) == (True, False, None, None)
    assert task.result() == "slept"
    turn_until_done(loop, task)  # which has ended


def test_a_task_is_cancelled_before_it_begins(loop):
    task = loop.create_task(sleeps(60), context=Context())
    task.cancel()
    turn_until_done(loop, task)
    assert task.cancelled()


def test_a_task_in_a_context_that_is_entered_fails(loop):
    context = copy_context()
    coro = sleeps()
    task = loop.create_task(coro, context=context)
    context.run(turn_until_done, loop, task)
    assert type(task.exception()) is RuntimeError


def test_a_timer_calls_back_unless_it_is_cancelled(loop):
    called = []
    loop.call_later(0, lambda: called.append("late")).cancel()
    loop.call_later(0.001, lambda: (called.append("in time"), loop.stop()))
    loop.run_forever()
    assert called == ["in time"]


@dies_at_once
def test_a_timer_that_is_cancelled_keeps_neither_what_it_would_call_nor_who_cancels_it(loop):
    class Thing:
        pass

    def use():
        thing, local = Thing(), Thing()
        timer = loop.call_later(60, partial(list, thing))
        turn_until_done(loop, loop.create_task(sleeps(0.001), context=Context()))
        timer.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        return weakref.ref(thing), weakref.ref(local)

    gc.disable()
    try:
        assert [reference() for reference in use()] == [None, None]
    finally:
        gc.enable()


def test_other_threads_come_in(loop):
    other = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.stop))
    loop.call_soon(other.start)
    loop.run_forever()
    other.join()


def test_an_error_in_a_callback_is_logged(loop, caplog):
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "ZeroDivisionError" in caplog.text


def test_a_run_that_has_ended_takes_nothing(loop):
    loop.close()
    loop.close()
    assert loop.is_closed()
    for use in loop.run_forever, lambda: loop.call_soon_threadsafe(print):
        with pytest.raises(RuntimeError, match="this run of trio has ended"):
            use()


def test_a_run_that_ends_by_itself_says_so(loop):
    loop.call_soon(loop._end.cancel)
    with pytest.raises(RuntimeError, match="this run of trio has ended"):
        loop.run_forever()
    assert loop.is_closed()


@pytest.mark.parametrize("in_group", [False, True])
def test_what_somebody_raises_into_a_run_is_what_ended_it(loop, in_group):
    class Alarm(Exception):
        pass

    def raise_it():
        raise ExceptionGroup("both", [Alarm()]) if in_group else Alarm()

    async def breaks():
        raise_it()

    loop.call_soon(lambda: trio.lowlevel.spawn_system_task(breaks))
    with pytest.raises((Alarm, ExceptionGroup)):
        loop.run_forever()
    assert loop.is_closed()


def test_events_that_were_thrown_away_come_again(loop):
    async def called_back():
        token = trio.lowlevel.current_trio_token()
        event = trio.Event()
        token.run_sync_soon(event.set)
        await event.wait()
        return "called"

    loop.call_soon(loop.stop)
    loop.run_forever()
    loop._expect_events_again()
    task = loop.create_task(called_back(), context=Context())
    turn_until_done(loop, task)
    assert task.result() == "called"


def test_worker_threads_of_trio_are_heard(loop):
    async def answered():
        return [await trio.to_thread.run_sync(int, number) for number in range(50)]

    task = loop.create_task(answered(), context=Context())
    turn_until_done(loop, task)
    assert task.result() == [*range(50)]


@pytest.mark.skipif(sys.platform == "win32", reason="trio does not tell there what it waits for")
def test_no_socket_wakes_a_thread_that_waits_for_nothing_else(monkeypatch):
    def ring_and_note(loop):
        rung.append(loop)
        ring(loop)

    def perform():
        call = Call(loop, sleeps(), context=Context())
        loop.mailbox.perform(call)
        return call.take()()

    ring, rung = TrioLoop._ring, []
    monkeypatch.setattr(TrioLoop, "_ring", ring_and_note)
    loop = TrioLoop({}, mailbox=True)
    turning = threading.Thread(target=loop.run_forever)
    turning.start()
    assert [perform() for _ in range(50)] == ["slept"] * 50
    loop.call_soon_threadsafe(loop.stop)
    turning.join()
    loop.close()
    assert not rung


def test_a_loop_is_shut_without_another_turn():
    for mailbox in False, True:
        loop = TrioLoop({}, mailbox=mailbox)
        loop.call_soon(loop.stop)
        loop.run_forever()
        for _ in range(2):
            loop.shut()
        assert loop.is_closed()
        kept.append(loop)  # as `give_up` does: to collect it would warn


def test_it_is_turned_in_any_thread(loop):
    task = loop.create_task(sleeps(), context=Context())
    in_thread(lambda: turn_until_done(loop, task))
    assert task.result() == "slept"
    assert not loop.get_debug()
