"""`python -m anysync`: what is installed, which core runs, and a self-check over a real TCP server.

The server is asyncio's, and so is all that talks to it, whichever backend plain sync code has otherwise.
"""

import asyncio
import platform
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Callable
from timeit import timeit

from . import __version__, anysync, contextmanager, core


@contextmanager(backend="asyncio")
async def serving() -> AsyncGenerator[int]:
    """An echo server on loopback; yields its port."""

    async def echo(reader: StreamReader, writer: StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1")
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextmanager(backend="asyncio")
async def connected(port: int) -> AsyncGenerator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


@anysync(backend="asyncio")
async def ask(port: int, word: str) -> str:
    async with connected(port) as (reader, writer):
        writer.write(f"{word}\n".encode())
        return (await reader.readline()).decode().strip()


@anysync(backend="asyncio")
async def ask_all(port: int, *words: str) -> AsyncGenerator[str]:
    for word in words:
        yield await ask(port, word)


@anysync
async def nothing() -> None: ...


def with_connection(port: int) -> str:
    with connected(port) as (reader, writer):
        writer.write(b"with\n")
        return read_line(reader).run(timeout=10).decode().strip()


@anysync(backend="asyncio")
async def read_line(reader: StreamReader) -> bytes:
    return await reader.readline()


async def in_a_loop(sync_function: Callable[[], object]) -> object:
    return sync_function()


def main() -> int:
    """Print the result of each check; return how many failed."""
    print(f"anysync {__version__}, {core.name} core, {platform.python_implementation()}", end=" ")
    print(f"{platform.python_version()}, {sys.platform}, from {core.__file__.removesuffix('core.py')}")
    failed = 0
    with serving() as port:
        checks: list[tuple[str, object, Callable[[], object]]] = [
            ("f().run()", "CALL", lambda: ask(port, "call").run(timeout=10)),
            ("for x in g()", ["A", "B"], lambda: list(ask_all(port, "a", "b"))),
            ("with cm()", "WITH", lambda: with_connection(port)),
        ]
        for name, expected, check in checks:
            for place in "no loop", "in a loop":
                result = check() if place == "no loop" else asyncio.run(in_a_loop(check))
                failed += result != expected
                print(f"{'ok' if result == expected else 'FAILED':6} {name:12}  {place:9}  {result}")

    def calls() -> object:
        return timeit(lambda: nothing().run(), number=2000) / 2000 * 1e6

    print(
        f"a call of nothing: {calls():.1f} us with no loop, {asyncio.run(in_a_loop(calls)):.1f} us in a loop"
    )
    return failed


if __name__ == "__main__":
    sys.exit(main())
