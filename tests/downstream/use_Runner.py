"""A sync driver whose async functions run on a loop and a thread of its own."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from threading import current_thread
from typing import ParamSpec, TypeVar, assert_type

from anysync import Runner

P = ParamSpec("P")
R = TypeVar("R")


async def count(table: str, *, at_least: int = 0) -> int:
    return max(len(table), at_least)


async def select(table: str) -> AsyncGenerator[tuple[str, int]]:
    for number in range(2):
        yield table, number


@asynccontextmanager
async def locked(table: str) -> AsyncGenerator[str]:
    yield f"{table} by {current_thread().name}"


class Driver(Runner):
    def call(self, func: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        return self.run(func(*args, **kwargs), timeout=10)

    def rows(self, table: str) -> Iterator[tuple[str, int]]:
        return self.iterate(select(table))


with Driver("driver") as driver:
    assert assert_type(assert_type(driver, Driver).call(count, "users", at_least=9), int) == 9
    assert assert_type(list(driver.rows("users")), list[tuple[str, int]]) == [("users", 0), ("users", 1)]
    with driver.enter(locked("users")) as lock:
        assert assert_type(lock, str) == "users by driver"
