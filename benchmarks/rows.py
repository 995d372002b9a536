"""What `compare.py` times, the same file for both installations: `python rows.py ROW WAY`, or `--list`."""

import asyncio
import gc  # noqa: F401 (statements use it)
import json
import signal
import subprocess  # noqa: F401 (statements use it)
import sys
from asyncio import sleep
from functools import cache
from threading import Thread
from time import perf_counter
from timeit import Timer

import pyperf

from anysync import contextmanager, coroutine, generator

ITEMS = 500
runner, loop = asyncio.Runner(), asyncio.new_event_loop()
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it, which saves work


async def bare():
    """Never suspend."""


f, g = coroutine(bare), coroutine(sleep)


@generator
async def items():
    for i in range(ITEMS):
        yield i


@contextmanager
async def empty():
    yield


@cache
def other_loop():
    other = asyncio.new_event_loop()
    Thread(target=other.run_forever, daemon=True).start()
    return other


def run_threadsafe(coro):
    return asyncio.run_coroutine_threadsafe(coro, other_loop()).result()


def plain(statement, n):
    """Return the seconds that `n` times the statement takes, as do all below."""
    return Timer(statement, "gc.enable()", globals=globals()).timeit(n)


async def plain_in_async(statement, n):
    return plain(statement, n)


def in_loop(statement, n):
    return asyncio.run(plain_in_async(statement, n))


def nested(statement, n):
    async def main():
        return coroutine(plain_in_async)(statement, n).run()

    return asyncio.run(main())


def awaiting(name, n):
    async def main(function):
        start = perf_counter()
        for _ in range(n):
            await function()
        return perf_counter() - start

    return asyncio.run(main(globals()[name]))


def in_fresh_interpreter(statement, n):
    """Leave out what the interpreter's own start takes."""
    start = "subprocess.run([sys.executable, '-I', '-c', {!r}], check=True)".format
    return plain(start(statement), n) - plain(start("pass"), n)


# AnySync's way comes first, then the standard library's ways to do the same.
ROWS = {
    "`run()`, never suspends": (plain, "f().run()", "runner.run(bare())", "loop.run_until_complete(bare())"),
    "`run()`, `sleep(0)`": (plain, "g(0).run()", "runner.run(sleep(0))", "loop.run_until_complete(sleep(0))"),
    "`run()` in a loop, never suspends": (in_loop, "f().run()", "run_threadsafe(bare())"),
    "`run()` in a loop, `sleep(0)`": (in_loop, "g(0).run()", "run_threadsafe(sleep(0))"),
    "an item of `for x in gen()`": (plain, "for x in items(): pass"),
    "an item of `for x in gen()` in a loop": (in_loop, "for x in items(): pass"),
    "an empty `with`": (plain, "with empty(): pass"),
    "an empty `with` in a loop": (in_loop, "with empty(): pass"),
    "`run()` in a `run()` in a loop": (nested, "f().run()"),
    "`await f()`": (awaiting, "f", "bare"),
    "`import anysync`": (in_fresh_interpreter, "import anysync"),
}

if sys.argv[1:] == ["--list"]:
    print(json.dumps({row: ways for row, (_, *ways) in ROWS.items()}))
else:
    bench = pyperf.Runner(add_cmdline_args=lambda command, args: command.extend(args.row))
    bench.argparser.add_argument("row", nargs=2)
    row, way = bench.parse_args().row
    time, inner_loops = ROWS[row][0], ITEMS if "items()" in way else 1
    bench.bench_time_func(row, lambda n: time(way, n), inner_loops=inner_loops)
