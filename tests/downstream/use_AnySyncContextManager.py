"""A connection that sync and async code open, and that takes it upon itself if it is lost."""

import asyncio
from types import TracebackType
from typing import Self, assert_type

from anysync import AnySyncContextManager


class Connection(AnySyncContextManager["Connection", bool]):
    def __init__(self, host: str) -> None:
        self.host = host

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, typ: type[BaseException] | None, val: BaseException | None, tb: TracebackType | None, /
    ) -> bool:
        return typ is ConnectionError

    def ask(self, question: str) -> str:
        if self.host == "nowhere":
            raise ConnectionError
        return f"{question} {self.host}"


def ask(host: str) -> str:
    with Connection(host) as connection:
        return assert_type(connection, Connection).ask("who?")
    return "lost"  # not unreachable: __aexit__ returns a bool


async def ask_async(host: str) -> str:
    async with Connection(host) as connection:
        return assert_type(connection, Connection).ask("who?")
    return "lost"


assert (ask("here"), ask("nowhere")) == ("who? here", "lost")
assert (asyncio.run(ask_async("here")), asyncio.run(ask_async("nowhere"))) == ("who? here", "lost")
