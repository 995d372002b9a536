"""Functions of an async library made sync for an application: any awaitable will do."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import wraps
from typing import Generic, ParamSpec, TypeVar, assert_type

from anysync import run

P = ParamSpec("P")
R = TypeVar("R")


class Request(Generic[R]):
    """What some libraries return: no coroutine, but an object to await."""

    def __init__(self, answer: R) -> None:
        self.answer = answer

    def __await__(self) -> Generator[object, None, R]:
        yield from asyncio.sleep(0).__await__()
        return self.answer


def blocking(func: Callable[P, Awaitable[R]]) -> Callable[P, R]:
    @wraps(func)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return run(func(*args, **kwargs), timeout=10)

    return wrapper


async def add(x: int, *, y: int) -> int:
    return await Request(x) + y


assert assert_type(blocking(add)(1, y=2), int) == 3
assert assert_type(run(Request([b"raw"])), list[bytes]) == [b"raw"]
try:
    assert not run(asyncio.Event().wait(), timeout=0.01)
except TimeoutError:
    assert run(asyncio.sleep(0, "goes on")) == "goes on"
