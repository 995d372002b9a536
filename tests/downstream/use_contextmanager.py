"""Transactions that are committed or rolled back: one, a stack of them, and one of async code."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack
from typing import assert_type

from anysync import contextmanager

accounts = {"ada": 5, "grace": 5}


@contextmanager
async def transaction(*, read_only: bool = False) -> AsyncGenerator[dict[str, int]]:
    changed = dict(accounts)
    yield changed
    if not read_only:
        accounts.update(changed)


def balance(name: str) -> int:
    with transaction(read_only=True) as seen:
        return assert_type(seen, dict[str, int])[name]  # a body that returns is all that there is


async def deposit(name: str, amount: int) -> None:
    async with AsyncExitStack() as stack:
        changed = await stack.enter_async_context(transaction())
        assert_type(changed, dict[str, int])[name] += amount


try:
    with transaction() as half_done:
        half_done["ada"] = half_done["no such name"]
except KeyError:
    assert balance("ada") == 5
with ExitStack() as stack:
    assert_type(stack.enter_context(transaction()), dict[str, int])["grace"] = 7
asyncio.run(deposit("ada", 1))
assert (balance("ada"), balance("grace")) == (6, 7)
