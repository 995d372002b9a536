"""A store of both worlds: async code knows it by a protocol, sync code calls the same methods."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Protocol, assert_type

from anysync import anysync


class Store(Protocol):
    # not `async def`: to some checkers its coroutines are Python's own, and no others will do
    def get(self, key: str, default: int = 0) -> Awaitable[int]: ...
    def names(self, *, prefix: str = "") -> AsyncIterator[str]: ...


class Memory:
    def __init__(self, **items: int) -> None:
        self.items = items

    @anysync
    async def get(self, key: str, default: int = 0) -> int:
        return self.items.get(key, default)

    @anysync
    async def names(self, *, prefix: str = "") -> AsyncGenerator[str]:
        for key in self.items:
            if key.startswith(prefix):
                yield key


async def total(store: Store) -> int:
    return sum([await store.get(key) async for key in store.names()])


memory = Memory(ada=1, alan=2, grace=3)
assert asyncio.run(total(memory)) == 6
assert assert_type(memory.get("mary", default=-1).run(), int) == -1
assert assert_type(sorted(memory.names(prefix="a"), key=len), list[str]) == ["ada", "alan"]
