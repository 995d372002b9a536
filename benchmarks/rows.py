"""What is measured: where, how each side does it, and the goals."""

import asyncio
import gc  # noqa: F401 (statements use it)
import signal
import subprocess
import sys
from asyncio import sleep
from collections.abc import Callable
from statistics import median
from threading import Thread  # noqa: F401 (ways use it)
from time import perf_counter
from timeit import Timer
from typing import NamedTuple

OURS, PUBLISHED = "anysync", "anysync 1.0.2"
RUN, RUNNER, KEPT = "`asyncio.run`", "`asyncio.Runner.run`, kept", "`loop.run_until_complete`, kept"
THREADSAFE, PORTAL, FSSPEC = "`run_coroutine_threadsafe`", "anyio's blocking portal, kept", "fsspec's `sync`"
ASGIREF, NEST, SYNCHRONICITY, UNSYNC = "asgiref", "nest-asyncio2", "synchronicity", "unsync"
ON_UVLOOP, ON_TRIO = "anysync on uvloop", "anysync on trio"
TRIO_PORTAL = "anyio's blocking portal on trio, kept"
BARE, HANDOFF = "a bare coroutine", "a bare handoff to a thread, in C"
ITEMS = 500


# What is called.


async def nothing():
    """Never suspend."""


async def once():
    await sleep(0)


async def numbers():
    for i in range(ITEMS):
        yield i


async def empty():
    yield


async def once_anywhere():
    await anyio.sleep(0)  # noqa: F821 (the row imports it)


ECHO = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    with server.accept()[0] as connection:
        while data := connection.recv(1000):
            connection.sendall(data)
"""
connection = []


def start_server():
    """Start a server in another process; return its port."""
    server = subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE)
    return int(server.stdout.readline())


async def echo():
    """Send a byte to a server in another process, and read it; connect at the first call, and keep that."""
    if not connection:
        connection.extend(await asyncio.open_connection("127.0.0.1", start_server()))
    reader, writer = connection
    writer.write(b"x")
    return await reader.readexactly(1)


async def echo_anywhere():
    """Do the same with anyio, a kilobyte at a time and sixteen times over."""
    if not connection:
        connection.append(await anyio.connect_tcp("127.0.0.1", start_server()))  # noqa: F821
    for _ in range(16):
        await connection[0].send(b"x" * 1000)
        left = 1000
        while left:
            left -= len(await connection[0].receive(left))


# Where it is called: each returns the seconds that `n` times the statement takes.


def plain(statement, names, n):
    return Timer(statement, "gc.enable()", globals=names).timeit(n)


async def plain_in_async(*args):
    return plain(*args)


def in_loop(statement, names, n):
    run = names.get("run_async", asyncio.run)  # of the library that the side is about
    return run(plain_in_async(statement, names, n))


def nested(*args):
    """Measure inside of a call that is itself made inside a loop."""
    from anysync import run

    async def main():
        return run(plain_in_async(*args))

    return asyncio.run(main())


def awaiting(name, names, n):
    async def main(function):
        start = perf_counter()
        for _ in range(n):
            await function()
        return perf_counter() - start

    return asyncio.run(main(names[name]))


def in_fresh_interpreter(statement, names, n):
    """Leave out what the interpreter's own start takes; one slow start would hide the difference."""
    start = "subprocess.run([sys.executable, '-I', '-c', {!r}], check=True)".format
    both = [(plain(start(statement), names, 1), plain(start("pass"), names, 1)) for _ in range(7)]
    with_it, without = map(median, zip(*both, strict=True))
    return n * (with_it - without)


# How it is called: what each side does once, where `function` is what to call, and then each time.

CALLS = {
    OURS: ("from anysync import coroutine; call = coroutine(function)", "call().run()"),
    RUNNER: ("runner = asyncio.Runner()", "runner.run(function())"),
    KEPT: ("loop = asyncio.new_event_loop()", "loop.run_until_complete(function())"),
    RUN: ("", "asyncio.run(function())"),
    THREADSAFE: (
        "loop = asyncio.new_event_loop(); Thread(target=loop.run_forever, daemon=True).start()",
        "asyncio.run_coroutine_threadsafe(function(), loop).result()",
    ),
    FSSPEC: ("from fsspec.asyn import get_loop, sync; loop = get_loop()", "sync(loop, function)"),
    PORTAL: (
        "import atexit\n"
        "from anyio.from_thread import start_blocking_portal\n"
        "kept = start_blocking_portal(); portal = kept.__enter__()\n"
        "atexit.register(kept.__exit__, None, None, None)",
        "portal.call(function)",
    ),
    NEST: ("import nest_asyncio2; nest_asyncio2.apply()", "asyncio.run(function())"),
    UNSYNC: ("from unsync import unsync; call = unsync(function)", "call().result()"),
    SYNCHRONICITY: ("from synchronicity import Synchronizer; call = Synchronizer().wrap(function)", "call()"),
    ASGIREF: ("from asgiref.sync import async_to_sync; call = async_to_sync(function)", "call()"),
    HANDOFF: (
        "import pyximport; pyximport.install(build_dir=sys.prefix + '/pyximport')\n"
        "from handoff import Handoff; handoff = Handoff(); Thread(target=handoff.serve, daemon=True).start()",
        "handoff(function)",
    ),
}
ON_ASYNCIO = CALLS[OURS][0]
UVLOOP = """
import anysync, uvloop
anysync.configure(backend_options={"use_uvloop": True})
run_async = uvloop.run
"""
TRIO = """
import anysync, trio
anysync.configure(backend="trio")
run_async = lambda coro: trio.run(lambda: coro)
"""
CALLS |= {
    ON_UVLOOP: (UVLOOP + ON_ASYNCIO, "call().run()"),
    ON_TRIO: (TRIO + ON_ASYNCIO, "call().run()"),
    TRIO_PORTAL: (TRIO + CALLS[PORTAL][0].replace("portal()", "portal('trio')"), CALLS[PORTAL][1]),
}
FOR = {OURS: ("from anysync import generator; items = generator(function)", "for x in items(): pass")}
WITH = {OURS: ("from anysync import contextmanager; cm = contextmanager(function)", "with cm(): pass")}
for ways in FOR, WITH:
    ways |= {
        ON_UVLOOP: (UVLOOP + ways[OURS][0], ways[OURS][1]),
        ON_TRIO: (TRIO + ways[OURS][0], ways[OURS][1]),
    }
AWAIT = {OURS: (CALLS[OURS][0], "call"), BARE: ("", "function")}
IMPORT = {OURS: ("", "import anysync")}


class Row(NamedTuple):
    """Goals are at least, a rival's time divided by ours; floors at most, our time divided by theirs."""

    place: Callable[..., float]
    function: Callable[..., object]
    ways: dict[str, tuple[str, str]]
    goals: dict[str, float | None]
    pinned: dict[str, float] = {}  # noqa: RUF012 (never changed): the goals on one processor
    floors: dict[str, float] = {}  # noqa: RUF012
    items: int = 1  # that the statement goes through
    growth: int = 0  # after how many calls to look at the memory
    imports: str = ""  # which other rows are to do without

    def prepare(self, side):
        """Do what the side does once; return the function that measures `n` times what it does each time."""
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # background jobs ignore it, which saves work
        once, each = self.ways[side]
        names = {**globals(), "function": self.function}
        exec(self.imports, globals())
        exec(once, names)
        return lambda n: self.place(each, names, n)


NO_LOOP, IN_LOOP = "`.run()`, no loop, never suspends", "`.run()` in a loop, never suspends"
IMPORTING = "`import anysync`, beyond a bare interpreter"
MANY = 200_000
anywhere = dict.fromkeys([PORTAL, NEST, UNSYNC, SYNCHRONICITY])

ROWS = {
    NO_LOOP: Row(
        plain,
        nothing,
        CALLS,
        {PUBLISHED: 100, RUNNER: 20, KEPT: 5} | dict.fromkeys([RUN, ASGIREF, THREADSAFE, FSSPEC]) | anywhere,
        growth=MANY,
    ),
    "`.run()`, no loop, one `sleep(0)`": Row(plain, once, CALLS, {KEPT: 0.95}, growth=MANY),
    "an echo over a kept TCP connection, no loop": Row(plain, echo, CALLS, {KEPT: 0.95}),
    IN_LOOP: Row(
        in_loop,
        nothing,
        CALLS,
        {PUBLISHED: 40, THREADSAFE: 10, FSSPEC: 10} | anywhere | dict.fromkeys([RUN, RUNNER, KEPT, ASGIREF]),
        pinned={PUBLISHED: 12, THREADSAFE: 4, FSSPEC: 4},
        floors={HANDOFF: 1.6},
        growth=MANY,
    ),
    "`.run()` in a loop, one `sleep(0)`": Row(
        in_loop, once, CALLS, {PUBLISHED: 15, THREADSAFE: 4}, growth=MANY
    ),
    "an item of `for x in gen()`, no loop": Row(
        plain, numbers, FOR, {PUBLISHED: 60}, items=ITEMS, growth=MANY // ITEMS
    ),
    "an item of `for x in gen()` in a loop": Row(
        in_loop, numbers, FOR, {PUBLISHED: 25}, items=ITEMS, growth=MANY // ITEMS
    ),
    "an empty `with`, no loop": Row(plain, empty, WITH, {PUBLISHED: 25}, growth=MANY),
    "an empty `with` in a loop": Row(in_loop, empty, WITH, {PUBLISHED: 12}, growth=MANY),
    "a re-entrant `.run()`, on a new thread": Row(nested, nothing, CALLS, {PUBLISHED: 6}, growth=MANY // 20),
    "`await f()`": Row(awaiting, nothing, AWAIT, {PUBLISHED: 2.4}, floors={BARE: 4.5}, growth=MANY),
    IMPORTING: Row(in_fresh_interpreter, nothing, IMPORT, {PUBLISHED: 4}),
}

#: what is measured on each library too: beside anyio's portal, which is what there is for both
EVERYWHERE = {
    "`.run()`, no loop, never suspends": Row(plain, nothing, CALLS, {}),
    "`.run()`, no loop, one `sleep(0)`": Row(plain, once_anywhere, CALLS, {}, imports="import anyio"),
    "16 echoes of a kilobyte over a kept TCP connection, no loop": Row(
        plain, echo_anywhere, CALLS, {}, imports="import anyio"
    ),
    "`.run()` in a loop, never suspends": Row(in_loop, nothing, CALLS, {}),
    "`.run()` in a loop, one `sleep(0)`": Row(in_loop, once_anywhere, CALLS, {}, imports="import anyio"),
    "an item of `for x in gen()`, no loop": Row(plain, numbers, FOR, {}, items=ITEMS),
    "an item of `for x in gen()` in a loop": Row(in_loop, numbers, FOR, {}, items=ITEMS),
    "an empty `with`, no loop": Row(plain, empty, WITH, {}),
    "an empty `with` in a loop": Row(in_loop, empty, WITH, {}),
}
