"""Forks a process for each scenario of a test module, from one that has imported what the module needs.

A new process spends most of its time on imports. A forked one has a single thread too, and ends in the same
way, but that garbage collection does not look through what was imported: `gc.unfreeze()` brings that back.
The allocators of Python's development mode, which take time, are left to runs of the tests in that mode.
"""

import gc
import importlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress


class ForkServer:
    """What asks a process that is in `serve` for more processes."""

    def __init__(self, command: Sequence[str], imports: Sequence[str]) -> None:
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*command, "--serve", str(theirs.fileno()), *imports],
                env=({} if sys.flags.dev_mode else {"PYTHONMALLOC": "default"}) | os.environ,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Have a process go on with these arguments; return its output and exit code."""
        pipes = [os.pipe() for _ in "oe"]
        socket.send_fds(self._connection, ["\0".join(arguments).encode()], [writer for _, writer in pipes])
        for _, writer in pipes:
            os.close(writer)
        with ThreadPoolExecutor(2) as readers:
            out, err = readers.map(_read, [reader for reader, _ in pipes])
        (code,) = struct.unpack("i", self._connection.recv(4))
        return subprocess.CompletedProcess(arguments, code, out, err)

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _read(descriptor: int) -> str:
    with open(descriptor) as stream:
        return stream.read()


def serve(descriptor: str, *imports: str) -> list[str]:
    """Fork for whoever is at the other end of a socket; return, in each forked process, its arguments."""
    for module in imports:
        with suppress(ImportError):
            importlib.import_module(module)
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy has none
        gc.freeze()
    connection = socket.socket(fileno=int(descriptor))
    while True:
        request, descriptors, *_ = socket.recv_fds(connection, 4096, 2)
        if not request:
            sys.exit()
        pid = os.fork()
        if not pid:
            connection.close()
            for target, pipe in enumerate(descriptors, 1):
                os.dup2(pipe, target)
                os.close(pipe)
            return request.decode().split("\0")
        for pipe in descriptors:
            os.close(pipe)
        connection.sendall(struct.pack("i", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
