"""The queue that takes the place of Python's own where that is not reentrant."""

import threading
from queue import Empty

import pytest
from scripts import PYPY, script, traced

from anysync._queues import ReentrantQueue, SimpleQueue

WATCHDOG = 20


def test_it_is_used_on_pypy_only():
    assert (SimpleQueue is ReentrantQueue) is PYPY


@script
def test_what_breaks_in_at_any_line_may_put_and_get():
    """As destructors and signal handlers do: where a lock is held at one of these lines, this hangs."""
    codes = [function.__code__ for function in vars(ReentrantQueue).values() if hasattr(function, "__code__")]
    queue, put, got = ReentrantQueue(), 0, 0

    def break_in(frame, event, _):
        nonlocal put, got
        if frame.f_code not in codes:
            return None
        if frame.f_code is not ReentrantQueue.__init__.__code__:
            for _ in range(3):
                queue.put("from what broke in")
            queue.get()
            put, got = put + 3, got + 1
        return break_in

    with traced(break_in):
        for number in range(3):
            queue.put(number)
            queue.get(True, 60)
            queue.get_nowait()
            put, got = put + 1, got + 2
    assert put > 50
    while not queue.empty():
        queue.get_nowait()
        got += 1
    assert got == put


def test_who_waits_is_given_all_that_is_put_in_its_order():
    def take():
        while (item := queue.get()) is not None:
            taken.append(item)

    queue, taken = ReentrantQueue(), []
    thread = threading.Thread(target=take)
    thread.start()
    for number in range(1000):
        queue.put(number)
    queue.put(None)
    thread.join(WATCHDOG)
    assert taken == [*range(1000)]


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_an_empty_one_says_so_when_the_time_is_up(timeout):
    queue = ReentrantQueue()
    with pytest.raises(Empty):
        queue.get(True, timeout)
    queue.put(1)
    assert not queue.empty()
    assert queue.get(True, timeout) == 1
    with pytest.raises(Empty):  # though it has been told of what is gone
        queue.get(True, timeout)
