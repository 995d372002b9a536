"""What the rooms inside do when something unlikely happens."""

import asyncio
import sys
import threading
from asyncio import CancelledError

import pytest
from places import in_loop, in_thread

import anysync
from anysync._core import Step, thread as state
from anysync._host import process
from anysync._hosts import here
from anysync._on_asyncio import Loop


async def thread():
    await asyncio.sleep(0)
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
        return asyncio.Task(nothing(), loop=loop)

    loop, called = Loop(), []
    task, step = loop.caught(schedule)
    step()
    assert (task.done(), called) == (True, [])
    loop.run_until_complete(asyncio.sleep(0))
    assert called == ["later"]
    loop.close()


def test_a_step_that_is_cancelled_before_it_begins_never_does():
    step = Step(here().session(), thread, (), True)
    step.cancel()
    step.begin()
    with pytest.raises(CancelledError):
        step.take()()


def test_where_no_thread_can_start_the_coroutine_is_closed(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(process, "background", None)
    with pytest.raises(RuntimeError, match="needs a thread of its own: can't start new thread"):
        in_loop(lambda: anysync.run(thread()))


@pytest.mark.parametrize("known", [True, False])
def test_a_call_in_a_thread_that_does_not_serve_yet_waits_not_for_who_starts_it(monkeypatch, known):
    def before_it_serves(frame, event, argument):
        sys.setprofile(None)
        threading.setprofile(None)
        if not known:
            monkeypatch.setattr(threading, "enumerate", list)
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


def test_a_timeout_longer_than_a_float_can_tell_never_comes():
    assert anysync.run(thread(), timeout=10**400) is threading.current_thread()
