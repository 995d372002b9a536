"""Threads that wait cost nothing, starve nobody, and wake up, however long they look before they park."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anyio
import pytest
import scripts
from loops import shielded
from pytest_marks import on_both
from scripts import in_loop, python, raised, script, send_after, suspended

import anysync

places = pytest.mark.parametrize("place", ["plainly", "in_loop"])
#: in microseconds: never, as long as usual, for very long
SPINS = [("asyncio", "0"), ("asyncio", "50"), ("asyncio", "1000000"), ("trio", "0"), ("trio", "1000000")]


def spins(test):
    """Run a scenario on both backends, with several times to look."""
    return on_both(pytest.mark.parametrize(("backend", "spin"), SPINS, indirect=True)(test))


@pytest.fixture
def spin(request, monkeypatch):
    monkeypatch.setenv("ANYSYNC_SPIN_US", request.param)
    return request.param


@anysync.coroutine
async def give(value):
    return value


@anysync.coroutine
async def give_later(value):
    await anyio.sleep(0)
    return value


@anysync.generator
async def numbers():
    for number in range(3):
        yield number
        await anyio.sleep(0)


@anysync.contextmanager
async def manager():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        yield "entered"
        tasks.cancel_scope.cancel()


def call_all_ways():
    assert give(1).run() == give_later(1).run() == 1
    assert list(numbers()) == [0, 1, 2]
    with manager() as entered:
        assert entered == "entered"
        assert give_later(2).run() == give_later(2).submit().result() == 2


# it costs nothing


def busy(wait):
    """Return which share of the time that `wait` takes the whole process needs a processor."""
    start, start_busy = time.perf_counter(), time.process_time()
    wait()
    return (time.process_time() - start_busy) / (time.perf_counter() - start)


@on_both
@script
def test_parked_threads_cost_nothing():
    def use():
        call_all_ways()
        next(generators[-1])

    generators = [numbers()]
    use()
    generators.append(numbers())
    in_loop(use)
    with manager(), anysync.Runner() as runner, runner.enter(manager()):
        runner.run(give_later(1))
        assert busy(partial(time.sleep, 1)) < 0.05
        assert busy(partial(threading.Event().wait, 1)) < 0.05


@on_both
@places
@script
def test_waiting_for_a_coroutine_costs_nothing(place):
    def wait():
        give(1).run()
        anysync.run(anyio.sleep(1))

    getattr(scripts, place)(wait)
    assert busy(partial(getattr(scripts, place), wait)) < 0.05


# how long it looks


@pytest.mark.parametrize("spin", ["-1", "x", "2000000", "1.5"])
def test_what_is_no_number_of_microseconds_is_refused(spin, monkeypatch):
    monkeypatch.setenv("ANYSYNC_SPIN_US", spin)
    program = """
        try:
            import anysync
        except ImportError as error:
            print("ANYSYNC_SPIN_US" in str(error))
    """
    assert python(program) == ["True"]


@spins
@places
@script
def test_calls_of_all_kinds(spin, place):
    for _ in range(5):
        getattr(scripts, place)(call_all_ways)


@spins
@places
@script
def test_calls_of_many_threads(spin, place):
    def calls(me):
        assert [give((me, n)).run() for n in range(20)] == [(me, n) for n in range(20)]
        assert [give_later((me, n)).run() for n in range(20)] == [(me, n) for n in range(20)]
        call_all_ways()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda me: getattr(scripts, place)(partial(calls, me)), range(8)))


@spins
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no system call for it")
@script
def test_calls_in_a_loop_on_one_processor(spin):
    def calls(me):
        assert [give((me, n)).run() for n in range(50)] == [(me, n) for n in range(50)]
        call_all_ways()

    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda me: in_loop(partial(calls, me)), range(4)))


# it starves nobody


async def tick(times, done):
    for _ in range(times):
        await anyio.sleep(0.001)
    done.set()


async def echo(times, done):
    """Send a line there and back, with nothing but descriptors to wait for."""

    async def answer(stream):
        async with stream:
            async for line in stream:
                await stream.send(line)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            for n in range(times):
                await stream.send(b"%d\n" % n)
                assert await stream.receive() == b"%d\n" % n
        tasks.cancel_scope.cancel()
    done.set()


def run_them(stop):
    while not stop.is_set():
        give(1).run()


def submit_them(stop):
    """Have calls wait in the mailbox at all times."""
    futures = []
    while not stop.is_set():
        futures = [*futures[-20:], give(1).submit()]
        futures[0].result()


@pytest.mark.parametrize("crowd", ["run_them", "submit_them"])
@pytest.mark.parametrize(
    ("backend", "work", "spin", "threads"),
    [
        *(("asyncio", "tick", "50", 1), ("asyncio", "tick", "50", 3)),
        *(("asyncio", "echo", spin, threads) for spin in ("0", "50") for threads in (1, 3)),
        *(("trio", "tick", "50", 3), ("trio", "echo", "0", 1), ("trio", "echo", "50", 3)),
    ],
    indirect=["backend", "spin"],
)
@script
def test_what_lives_on_the_background_loop_goes_on_while_a_crowd_calls(backend, work, spin, crowd, threads):
    """The crowd goes home when it is done, and so never if it was starved."""
    done = threading.Event()
    in_loop(lambda: anysync.wrap_coroutine(globals()[work](50, done)).submit())
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(threads):
            pool.submit(in_loop, partial(globals()[crowd], done))


@spins
@script
def test_a_long_look_puts_off_timers_and_descriptors_but_does_not_forget_them(spin):
    for work in tick, echo:
        done = threading.Event()
        in_loop(anysync.wrap_coroutine(work(1, done)).submit)
        in_loop(partial(run_them, done))


# it can be interrupted


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill sends no SIGINT on Windows")
@spins
@pytest.mark.parametrize("asleep", [False, True])
@script
def test_ctrl_c_reaches_who_waits_in_a_loop(spin, asleep):
    async def waits(event, log):
        try:
            await suspended(event)
        finally:
            await shielded(anyio.sleep, 0)
            log.append("clean")

    def call():
        log, event = [], threading.Event()
        thread = send_after(event, asleep=asleep)
        assert type(raised(lambda: anysync.run(waits(event, log)))) is KeyboardInterrupt
        assert log == ["clean"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        thread.join()
        assert give_later(1).run() == 1

    in_loop(call)
