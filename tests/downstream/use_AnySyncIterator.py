"""A generic batcher: an iterator class of one's own, which is written for async code only."""

import asyncio
from collections.abc import Iterable
from typing import Generic, TypeVar, assert_type

from anysync import AnySyncIterator

T = TypeVar("T")


class Batches(AnySyncIterator[list[T]], Generic[T]):
    def __init__(self, items: Iterable[T], size: int) -> None:
        self.items = iter(items)
        self.size = size
        self.closed = False

    async def __anext__(self) -> list[T]:
        batch = [item for item, _ in zip(self.items, range(self.size), strict=False)]
        if not batch:
            raise StopAsyncIteration
        return batch

    async def aclose(self) -> None:
        self.closed = True


async def batched(text: str) -> list[list[str]]:
    return [batch async for batch in Batches(text, 3)]


assert assert_type(list(Batches(range(3), 3)), list[list[int]]) == [[0, 1, 2]]
assert asyncio.run(batched("abc")) == [["a", "b", "c"]]
batches = Batches({"ada": 1, "grace": 2}, 1)
assert assert_type(next(batches), list[str]) == ["ada"]
batches.close()
assert batches.closed
