"""A generator class of one's own: a countdown that starts anew from the number that it is sent."""

import asyncio
from collections.abc import Generator
from types import TracebackType
from typing import Any, assert_type

from anysync import AnySyncGenerator


class Countdown(AnySyncGenerator[str, int | None]):
    def __init__(self, start: int) -> None:
        self.left = start

    async def asend(self, value: int | None) -> str:
        self.left = self.left if value is None else value
        if self.left < 0:
            raise StopAsyncIteration
        self.left -= 1
        return str(self.left + 1)

    async def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> str:
        self.left = -1
        raise typ


def restarted(numbers: Generator[str, int | None, None], start: int) -> str:
    return numbers.send(start)


async def last() -> list[str]:
    return [number async for number in Countdown(1)]


countdown = Countdown(9)
assert assert_type(next(countdown), str) == "9"
assert restarted(countdown, 1) == "1"
assert assert_type(list(countdown), list[str]) == ["0"]
assert asyncio.run(last()) == ["1", "0"]
