"""The lines of a child process, as they come, in a `for` of a sync script."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from typing import assert_type

from anysync import run, wrap_async_iterator

PROGRAM = "for n in range(int(input())): print(n, flush=True)"


def lines(process: Process) -> Iterator[str]:
    assert process.stdout is not None
    for line in wrap_async_iterator(process.stdout):
        yield assert_type(line, bytes).decode().strip()


async def start(count: int) -> Process:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    process.stdin.write(f"{count}\n".encode())
    process.stdin.close()
    return process


child = assert_type(run(start(3)), Process)
assert list(lines(child)) == ["0", "1", "2"]
assert assert_type(run(child.wait(), timeout=10), int) == 0
