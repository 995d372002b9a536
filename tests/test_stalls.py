"""`configure(stall_warning=...)`: a loop that a call blocks too long, and the call, are named once."""

import asyncio
import logging
import os
import threading
from contextlib import aclosing
from functools import partial

import anyio
import loops
import pytest
import scripts
from pytest_marks import on_both
from scripts import COMPILED, collect_dropped, in_loop, script

import anysync


def background(function):
    return in_loop(lambda: anysync.run(as_coroutine(function)))


def kept(function):
    return anysync.run(as_coroutine(function))


def runner(function):
    with anysync.Runner() as runner:
        return runner.run(as_coroutine(function))


async def as_coroutine(function):
    return function()


HOSTS = ["in_loop", "kept", "background", "runner"]
WAYS = ["call", "run", "step", "enter"]
hosts = pytest.mark.parametrize("host", HOSTS)


class Warned(logging.Handler):
    """Keeps what is logged, and lets those go on who wait for that."""

    def __init__(self):
        super().__init__()
        self.messages = []
        self.others = []
        self.levels = set()
        self.waiting = []
        logging.getLogger("anysync").addHandler(self)
        logging.getLogger("anysync").propagate = False

    def emit(self, record):
        message = record.getMessage()
        if "  # here the" not in message:
            self.others.append(message)  # of a loop that waits for the one that the test is about
            return
        self.messages.append(message)
        self.levels.add(record.levelname)
        while self.waiting:
            self.waiting.pop()()

    async def wait(self):
        """Wait for the next warning, as for a lock that is held on the blocked loop."""
        event = asyncio.Event() if scripts.backend() == "asyncio" else loops.trio().Event()
        self.waiting.append(partial(loops.post, loops.this_loop(), event.set))
        await event.wait()  # here the call stands

    def wait_in_its_thread(self):
        event = threading.Event()
        self.waiting.append(event.set)
        event.wait()  # here the thread stands


@anysync.coroutine
async def waits(warned):
    await inner(warned)
    return "done"


@anysync.coroutine
async def inner(warned):
    await warned.wait()


@anysync.generator
async def items(warned):
    async with aclosing(inner_items(warned)) as inner:
        async for item in inner:
            yield item


async def inner_items(warned):
    await inner(warned)
    yield "done"


@anysync.contextmanager
async def manager(warned):
    await inner(warned)
    yield "done"


def call(warned):
    return waits(warned).run()


def run(warned):
    return anysync.run(waits(warned))


def step(warned):
    return next(items(warned))


def enter(warned):
    with manager(warned) as entered:
        return entered


@pytest.mark.parametrize(
    ("backend", "host", "way"),
    [
        *(("asyncio", host, way) for host in HOSTS for way in WAYS),
        *(("trio", "in_loop", way) for way in WAYS),
        *(("trio", host, "run") for host in HOSTS if host != "in_loop"),
    ],
    indirect=["backend"],
)
@script
def test_the_blocked_loop_the_call_and_both_stacks_are_told(backend, host, way):
    def block():
        blocked.append("'trio'" if backend == "trio" else repr(loops.this_loop()))
        return globals()[way](warned)

    blocked, warned = [], Warned()
    anysync.configure(stall_warning=0.01)
    assert globals()[host](block) == "done"
    [message] = warned.messages
    assert warned.levels == {"WARNING"}
    assert message.startswith(f"the event loop {blocked[0]} has been blocked for ")
    names = {"call": "coroutine object waits", "run": "coroutine object waits"}
    names |= {"step": "generator object items", "enter": "ContextManager object"}
    first, stacks = message.split("\nThe loop is blocked here:\n")
    assert names[way] in first
    loop, stands = stacks.split("\nThe call stands here:\n")
    assert loop.splitlines()[-2].endswith(f"in {way}")
    lines = [line for line in stands.splitlines() if line.startswith("  File")]
    places = [line.rpartition(" in ")[2] for line in lines if not any(file in line for file in COMPILED)]
    outer = {"step": ["items", "inner_items"], "enter": ["__aenter__", "manager"]}.get(way, ["waits"])
    if backend == "trio":
        assert places[-2] == "wait_task_rescheduled"
        del places[-2:]
    assert places == [*outer, "inner", "wait", "wait"]
    assert "await event.wait()  # here the call stands" in stands
    assert "anysync" not in "".join(
        line for line in message.splitlines() if line.startswith("  File")
    ).replace(os.path.dirname(__file__), "")  # whatever the checkout is called


@on_both
@hosts
@script
def test_a_call_that_keeps_its_thread_busy_is_shown_where_it_is(host):
    async def blocks():
        warned.wait_in_its_thread()

    warned = Warned()
    anysync.configure(stall_warning=0.01)
    globals()[host](lambda: anysync.run(blocks()))
    [message] = warned.messages
    _, stands = message.split("\nThe call stands here:\n")
    assert "in blocks\n" in stands
    assert "event.wait()  # here the thread stands" in stands


@on_both
@script
def test_each_call_is_told_once():
    async def waits_on():
        await warned.wait()
        await anyio.sleep(1)  # time for three more looks

    def block():
        for _ in range(2):
            anysync.run(waits_on())

    warned = Warned()
    anysync.configure(stall_warning=0.01)
    in_loop(block)
    assert len(warned.messages) == 2


@on_both
@script
def test_a_loop_that_waits_for_a_blocked_one_is_told_too():
    def block():
        anysync.run(waits_for_nested())

    async def waits_for_nested():
        anysync.run(both_are_told())

    async def both_are_told():
        while not (warned.messages and warned.others):
            await anyio.sleep(0.001)  # here the call stands

    warned = Warned()
    anysync.configure(stall_warning=0.01)
    in_loop(block)
    assert "both_are_told at" in warned.messages[0]
    assert len(warned.messages) == 1
    assert "waits_for_nested at" in warned.others[0]
    assert len(warned.others) == 1


@on_both
@pytest.mark.parametrize("seconds", [None, "inf", 1000])
@script
def test_nothing_is_told_unless_asked_for(seconds):
    warned = Warned()
    anysync.configure(stall_warning=seconds and float(seconds))
    in_loop(lambda: anysync.run(anyio.sleep(0.6)))  # time for two looks
    assert warned.messages == warned.others == []


@on_both
@script
def test_only_calls_that_block_a_loop_are_told():
    warned = Warned()
    anysync.configure(stall_warning=0.01)
    anysync.run(anyio.sleep(0.6))
    with anysync.Runner() as runner:
        runner.run(anyio.sleep(0.6))
    assert warned.messages == warned.others == []


@pytest.mark.parametrize("debug", [False, True])
@script
def test_a_loop_in_debug_mode_is_told_without_being_asked(debug):
    from anysync import _stalls

    async def main():
        asyncio.get_running_loop().set_debug(debug)
        anysync.run(anyio.sleep(0.6))

    _stalls.limit = None  # in these processes the debug mode of -X dev is not to tell
    assert _stalls._IN_DEBUG_MODE == 5
    _stalls._IN_DEBUG_MODE = 0.01
    warned = Warned()
    asyncio.run(main(), debug=False)
    assert len(warned.others) == debug


@on_both
@script
def test_what_was_kept_of_a_call_for_its_warning_is_let_go():
    import gc
    import weakref

    class Argument:
        pass

    async def waits_with(argument):
        await warned.wait()

    def block():
        argument = Argument()
        references.append(weakref.ref(argument))
        anysync.run(waits_with(argument))

    references, warned = [], Warned()
    anysync.configure(stall_warning=0.01)
    gc.collect()
    gc.disable()
    in_loop(block)
    assert len(warned.messages) == 1
    collect_dropped()
    assert references[0]() is None
