"""A closed loop that other code left current poisons the next call.

pydantic/pydantic-ai#6849, openai/openai-agents-python#4102, PrefectHQ/marvin#1399: `get_event_loop()` hands
back whatever is in the slot.
"""

import asyncio
import threading

import pytest
import scripts
from scripts import raised, script

import anysync

places = pytest.mark.parametrize("place", ["plainly", "in_loop"])


@anysync.coroutine
async def one():
    await asyncio.sleep(0)
    return 1


@anysync.generator
async def ones():
    yield await one()


@anysync.contextmanager
async def entered():
    yield await one()


def every_use_works():
    assert one().run() == 1
    assert one().run(timeout=20) == 1
    assert one().submit().result() == 1
    assert list(ones()) == [1]
    with entered() as value:
        assert value == 1


def leave_a_closed_loop():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.close()
    return loop


@pytest.mark.parametrize("used_before", [False, True])
@script(options=("-W", "error"))
def test_02_a_closed_current_loop_is_not_used_and_stays_where_it_is(used_before):
    if used_before:
        every_use_works()
    loop = leave_a_closed_loop()
    every_use_works()
    assert asyncio.get_event_loop() is loop
    asyncio.run(one())
    every_use_works()


@script(options=("-W", "error"))
def test_02_an_empty_slot_stays_empty():
    asyncio.run(one())
    every_use_works()
    assert isinstance(raised(asyncio.get_event_loop), RuntimeError)


@script(options=("-W", "error"))
def test_02_a_closed_current_loop_of_another_thread_is_not_used():
    def call():
        loop = leave_a_closed_loop()
        every_use_works()
        assert asyncio.get_event_loop() is loop
        results.append("all work")

    results = []
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert results == ["all work"]


@places
@script(options=("-W", "error"))
def test_02_a_closed_loop_that_a_coroutine_leaves_current_is_not_used(place):
    async def leaves_one():
        await asyncio.sleep(0)
        leave_a_closed_loop()

    def call():
        anysync.run(leaves_one())
        every_use_works()

    getattr(scripts, place)(call)
