"""Calls in every way from many threads for as long as you like, and tells whether something was lost or grew.

    python tests/soak.py --seconds 600 --threads 16 --seed 1

In rounds of a minute at most, plain threads, threads with a running loop, threads that submit and threads
inside a loop of ours make random calls (see `crowd.py`), while processes are forked, and a timer signal
breaks into the calls of the main thread with one more. Between the rounds everybody pauses and what
there is gets counted; the first round is the warm-up. Exits with 1 if an outcome or a clean-up was lost, or
if threads, descriptors, tasks, what Python has allocated or memory have grown.
"""

import argparse
import ctypes
import faulthandler
import gc
import linecache
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import anyio
from crowd import PATIENCE, Caller, Job, tasks, work
from scripts import in_loop, quick_loops

import anysync
from anysync import core

ROUND = 60
MEMORY = 16 << 10  # KiB that fragmentation may take, beside a tenth
BLOCKS = getattr(sys, "getallocatedblocks", int)  # of Python's allocator


class Soak:
    def __init__(self, seconds: float, threads: int, seed: int, fork_every: float, backend: str) -> None:
        self.seed = seed
        self.backend = backend
        self.fork_every = fork_every
        self.rounds = max(3, round(seconds / ROUND))
        self.round_seconds = seconds / self.rounds
        self.until = 0.0
        self.going_on = True
        self.exchange: SimpleQueue[Any] = SimpleQueue()
        self.errors: SimpleQueue[str] = SimpleQueue()
        self.runner = anysync.Runner("soak")
        self.callers: list[Caller] = []
        self.tasks: list[int] = []
        self.signals = self.forks = 0
        self.me = self.caller("main")
        places = [self.in_plain_code, self.in_a_loop, self.by_submit, self.in_a_loop_of_ours]
        self.workers = [
            threading.Thread(target=places[number % 4], args=(self.caller(number),))
            for number in range(threads)
        ]
        if fork_every:
            self.workers.append(threading.Thread(target=self.by_fork))
        self.barrier = threading.Barrier(len(self.workers) + 1)

    def caller(self, name: object) -> Caller:
        caller = Caller((self.seed, name), self.runner, self.exchange)
        self.callers.append(caller)
        return caller

    def in_plain_code(self, caller: Caller) -> None:
        for _ in self.turns(caller.settle):
            self.watched(caller.act)

    def by_submit(self, caller: Caller) -> None:
        for _ in self.turns(caller.settle):
            self.watched(caller.submit)
            caller.made["submit"] += 1

    def in_a_loop(self, caller: Caller) -> None:
        anyio.run(self.turn, caller, backend=self.backend)

    def in_a_loop_of_ours(self, caller: Caller) -> None:
        with anysync.Runner("soak, nested") as runner:
            runner.run(self.turn(caller))

    async def turn(self, caller: Caller) -> None:
        for _ in self.turns(caller.settle):
            self.watched(caller.act)
            await anyio.sleep(0)

    def by_fork(self) -> None:
        for _ in self.turns(lambda: None):
            time.sleep(min(self.fork_every, max(0, self.until - time.monotonic())))
            self.forks += 1
            self.watched(self.fork)

    def fork(self) -> None:
        pid = os.fork()
        if pid:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert code == 0, f"a child ended with {code}"
            return
        code = 1
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)  # Python may have handled a signal of the parent
            signal.alarm(PATIENCE)
            child = Caller((self.seed, "fork", self.forks), self.runner)
            for _ in range(5):
                child.act()
                in_loop(child.act)
            child.settle()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def turns(self, settle: Callable[[], object]) -> Iterator[None]:
        """Yield again and again in each round, and pause after it; what the rounds are is `run`'s to say."""
        while self.barrier.wait() >= 0 and self.going_on:
            while time.monotonic() < self.until:
                yield
            self.watched(settle)
            self.barrier.wait()  # nobody begins anything any more
            self.barrier.wait()  # the exchange is empty
            self.watched(lambda: self.tasks.append(anysync.run(tasks())))
            self.barrier.wait()

    def watched(self, function: Callable[[], object]) -> None:
        """Call the function; print what it raises, and count that."""
        try:
            function()
        except BaseException:
            error = traceback.format_exc()
            self.errors.put(error)
            print(error, flush=True)

    def on_signal(self, *_: object) -> None:
        job = Job()
        self.signals += 1
        self.watched(lambda: self.expect(work(job, self.signals % 2).run(), job))
        if time.monotonic() < self.until:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.02)

    def expect(self, value: object, job: Job) -> None:
        assert value is job
        job.check_over()

    def run(self) -> bool:
        """Go through the rounds, print the figures of each; tell whether all is well."""
        began = time.monotonic()
        rounds: list[dict[str, int]] = []
        for worker in self.workers:
            worker.start()
        signal.signal(signal.SIGVTALRM, self.on_signal)
        for _ in range(self.rounds):
            faulthandler.dump_traceback_later(self.round_seconds + 2 * PATIENCE, exit=True)
            self.tasks.clear()
            self.until = time.monotonic() + self.round_seconds
            self.barrier.wait()
            self.on_signal()
            while time.monotonic() < self.until:
                self.watched(self.me.act)
            self.watched(self.me.settle)
            self.barrier.wait()
            while not self.exchange.empty():
                self.watched(self.exchange.get().close)
            self.barrier.wait()
            self.barrier.wait()
            rounds.append(self.figures())
            report(f"after {time.monotonic() - began:.0f} s", rounds[-1])
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        self.going_on = False
        self.barrier.wait()
        for worker in self.workers:
            worker.join()
        self.runner.close()
        report("start", rounds[0])
        report("middle", rounds[len(rounds) // 2])
        report("end", rounds[-1])
        print("made:", ", ".join(f"{name} {count:,}" for name, count in sorted(self.made().items())))
        return self.judge(rounds[0], rounds[-1])

    def made(self) -> Counter[str]:
        return sum(
            (caller.made for caller in self.callers), Counter({"signal": self.signals, "fork": self.forks})
        )

    def figures(self) -> dict[str, int]:
        """Count what there is while everybody pauses."""
        loops = [lambda: anysync.run(tasks(), backend=self.backend), lambda: self.runner.run(tasks())]
        linecache.clearcache()  # the lines of each file that was in a stack of asyncio's debug mode
        gc.collect()
        return {
            "calls": self.made().total(),
            "errors": self.errors.qsize(),
            "threads": threading.active_count(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "tasks": sum(self.tasks) + sum(in_loop(loop) for loop in loops),
            "blocks": BLOCKS(),
            "KiB": memory() >> 10,
        }

    def judge(self, start: dict[str, int], end: dict[str, int]) -> bool:
        well = self.errors.empty()
        for name, spare in {"threads": 4, "descriptors": 16, "tasks": 0, "blocks": 4000}.items():
            if end[name] > start[name] + spare:
                print(f"{name} have grown")
                well = False
        if end["KiB"] > start["KiB"] * 1.1 + MEMORY:
            print("memory has grown")
            well = False
        return well


def report(when: str, figures: dict[str, int]) -> None:
    print(f"{when}:", ", ".join(f"{count:,} {name}" for name, count in figures.items()), flush=True)


def memory() -> int:
    """Return how many bytes this process has in memory, without those that malloc keeps for the next peak."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fork-every", type=float, default=2, metavar="SECONDS", help="0 is never")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "This process.*is multi-threaded", DeprecationWarning)
    quick_loops()
    anysync.configure(backend=options.backend)
    for backend in "asyncio", "trio":  # a child that is forked while anyio imports one waits for it for ever
        import_module(f"anyio._backends._{backend}")
    faulthandler.register(signal.SIGALRM, chain=True)  # in a child, the end of its patience
    sys.setswitchinterval(1e-4)
    print(f"{core.name} core, Python {sys.version.split()[0]}, {options}")
    soak = Soak(options.seconds, options.threads, options.seed, options.fork_every, options.backend)
    return 0 if soak.run() else 1


if __name__ == "__main__":
    sys.exit(main())
