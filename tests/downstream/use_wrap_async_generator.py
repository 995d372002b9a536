"""An async generator of a library, which answers what it is sent, talked to by a sync script."""

from collections.abc import AsyncGenerator
from contextlib import closing
from typing import assert_type

from anysync import wrap_async_generator

log: list[str] = []


async def dialogue(name: str) -> AsyncGenerator[bytes, str]:
    try:
        said = yield b"hello"
        while said != "bye":
            try:
                said = yield f"{name}: {said}".encode()
            except KeyError as error:
                said = yield repr(error).encode()
    finally:
        log.append("gone")


with closing(wrap_async_generator(dialogue("ada"))) as talk:
    assert assert_type(next(talk), bytes) == b"hello"
    assert assert_type(talk.send("one"), bytes) == b"ada: one"
    assert assert_type(talk.throw(KeyError("two")), bytes) == b"KeyError('two')"
    try:
        talk.send("bye")
    except StopIteration as end:
        log.append(f"ended with {end.value}")
assert log == ["gone", "ended with None"]
