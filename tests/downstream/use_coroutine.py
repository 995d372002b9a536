"""An application's own decorator around a coroutine function, which is awaited beside others, and run."""

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, assert_type

from anysync import AnySyncCoroutine, coroutine

P = ParamSpec("P")
R = TypeVar("R")
calls: list[tuple[object, ...]] = []


def logged(func: Callable[P, AnySyncCoroutine[R]]) -> Callable[P, AnySyncCoroutine[R]]:
    @wraps(func)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> AnySyncCoroutine[R]:
        calls.append(args)
        return func(*args, **kwargs)

    return wrapper


@logged
@coroutine
async def price(item: str, *, rate: float = 1) -> float:
    return len(item) * rate


@coroutine
async def title(item: str) -> str:
    return item.title()


async def main() -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(price("tea", rate=0.5))
    assert assert_type(task.result(), float) == 1.5
    cost, name = await asyncio.gather(asyncio.wait_for(price("tea"), 10), title("tea"))
    assert (assert_type(cost, float), assert_type(name, str)) == (3, "Tea")


asyncio.run(main())
assert assert_type([price(item).run() for item in ("tea", "coffee")], list[float]) == [3, 6]
assert calls == [("tea",), ("tea",), ("tea",), ("coffee",)]
