"""Crowds of threads that call in every way at once: each call ends with an outcome of its caller's own."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import anyio
import pytest
from crowd import PATIENCE, Caller, Job, items, opened, tasks, work
from pytest_marks import GIL
from scripts import FORKS, collect_dropped, complaints, in_loop, run_file, script

import anysync
from anysync import _hosts, _objects
from anysync._process import process

THREADS = 64


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("seed", [1, 2])
@script
def test_a_crowd_that_calls_in_all_ways_at_once(seed, backend):
    """Cancels, timeouts, closes and errors come at random; a thread may run between any two lines."""
    anysync.configure(backend=backend)
    sys.setswitchinterval(1e-5)
    exchange = SimpleQueue()
    barrier = threading.Barrier(THREADS + 1, timeout=60)
    acts = 6

    def in_plain_code(caller):
        for _ in range(acts):
            caller.act()
        caller.settle()

    def by_submit(caller):
        for _ in range(acts):
            caller.submit()
        caller.settle()

    def in_a_loop(caller):
        async def main():
            for _ in range(acts):
                await caller.act_in_loop()
            caller.settle()

        anyio.run(main, backend=backend)

    def call(number, place):
        try:
            barrier.wait()
            place(Caller((seed, number), runner, exchange))
            barrier.wait()  # the generators in the exchange are open on the loops of these threads
            barrier.wait()
        except BaseException:
            barrier.abort()
            raise

    with anysync.Runner() as runner, ThreadPoolExecutor(THREADS) as crowd:
        places = [in_plain_code, in_a_loop, by_submit]
        callers = [crowd.submit(call, number, places[number % 3]) for number in range(THREADS)]
        with suppress(threading.BrokenBarrierError):
            barrier.wait()
            barrier.wait()
            while not exchange.empty():
                exchange.get().close()
            barrier.wait()
    for caller in callers:
        if not isinstance(caller.exception(), threading.BrokenBarrierError):
            caller.result()
    collect_dropped()
    for thread in threading.enumerate():
        if not thread.name.startswith(("MainThread", "anysync background", "Trio thread")):
            thread.join()  # it is about to end, or the watchdog tells where it is
    names = {thread.name for thread in threading.enumerate() if not thread.name.startswith("Trio thread")}
    assert names <= {"MainThread", "anysync background"}
    assert in_loop(lambda: anysync.run(tasks(), backend=backend)) == 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts descriptors and memory as on Linux")
@pytest.mark.timeout(2 * PATIENCE + 60)  # what hangs is to tell where
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_short_soak_loses_nothing(backend):
    """What `soak.py` does for as long as one likes: forks and signals too."""
    soak = Path(__file__).with_name("soak.py")
    # without a GIL, the locks of Python's own dictionaries may be held for good in the child of busy threads
    fork_every = "0.3" if GIL else "0"
    arguments = "--seconds", "3", "--threads", "8", "--fork-every", fork_every, "--backend", backend
    done = run_file(soak, *arguments, options=FORKS)
    assert (complaints(done), done.returncode) == ([], 0), f"{done.stdout}\n{done.stderr}"


def run():
    work(Job()).run()


def step_and_close():
    generator = items(Job(), 2)
    next(generator)
    generator.close()


def enter():
    with opened(Job()):
        pass


def submit():
    work(Job()).submit().result(PATIENCE)


@pytest.mark.parametrize("use", [run, submit, step_and_close, enter])
def test_a_call_in_a_call_may_begin_just_when_the_last_one_ends(use, monkeypatch):
    """They share a thread, which ends with the last of them: `no_thread_left` sees to that."""

    async def main():
        future = work(job, hold=True).submit()
        assert job.held.wait(PATIENCE)

        def here_and_then_the_last_one_ends(backend=None):
            host = here(backend)
            if not future.done():
                job.release()
                assert future.result(PATIENCE) is job
            return host

        monkeypatch.setattr(_objects, "here", here_and_then_the_last_one_ends)
        use()
        assert future.done()

    job, here = Job(), _hosts.here
    in_loop(lambda: anysync.run(main()))


def test_a_runner_that_has_started_serves_while_another_thread_starts_something():
    """Who starts a thread holds a lock, and may meanwhile be in a signal handler that waits for others."""
    started, go_on = threading.Event(), threading.Event()

    def start():
        with process.starting:
            started.set()
            assert go_on.wait(PATIENCE)

    thread = threading.Thread(target=start)
    with anysync.Runner() as runner:
        runner.run(work(Job()))
        thread.start()
        assert started.wait(PATIENCE)
        try:
            assert runner.run(work(job := Job()), PATIENCE) is job
        finally:
            go_on.set()
            thread.join()
