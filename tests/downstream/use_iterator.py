"""A function that hands out the async iterator of its library, for `async for` and for `for`."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple, assert_type

from anysync import iterator


class Row(NamedTuple):
    key: str
    value: int


class Cursor(AsyncIterator[Row]):
    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    async def __anext__(self) -> Row:
        if not self.rows:
            raise StopAsyncIteration
        return self.rows.pop(0)


@iterator
def select(table: str, limit: int | None = None) -> Cursor:
    return Cursor([Row(f"{table}.{n}", n) for n in range(3)][:limit])


async def values(table: str) -> list[int]:
    return [row.value async for row in select(table)]


assert assert_type(dict(select("users", limit=2)), dict[str, int]) == {"users.0": 0, "users.1": 1}
assert assert_type(max(select("users"), key=lambda row: row.value), Row) == ("users.2", 2)
assert asyncio.run(values("users")) == [0, 1, 2]
