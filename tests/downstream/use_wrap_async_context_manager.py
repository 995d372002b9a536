"""A server of asyncio's that serves during a `with`, in which a blocking client asks it."""

import asyncio
import socket
from asyncio import Server, StreamReader, StreamWriter
from typing import assert_type

from anysync import run, wrap_async_context_manager


async def shout(reader: StreamReader, writer: StreamWriter) -> None:
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


def ask(server: Server, question: bytes) -> bytes:
    with socket.create_connection(server.sockets[0].getsockname()) as client, client.makefile("rwb") as file:
        file.write(question)
        file.flush()
        return file.read()


with wrap_async_context_manager(run(asyncio.start_server(shout, "127.0.0.1"))) as opened:
    assert ask(assert_type(opened, Server), b"hello\n") == b"HELLO\n"
assert not opened.is_serving()
with wrap_async_context_manager(asyncio.Lock()) as nothing:
    assert assert_type(nothing, None) is None
