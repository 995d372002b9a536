"""`SimpleQueue`, and one to take its place where Python's own is not reentrant: on PyPy.

Give `get` its arguments by position: at the first keyword, CPython switches to the main interpreter and back,
which a debug build of 3.14 finds to be wrong where a subinterpreter ends.
"""

import queue
from _thread import allocate_lock
from collections import deque
from contextlib import suppress
from queue import Empty as Empty
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

T = TypeVar("T")


class ReentrantQueue(Generic[T]):
    """What is needed of `SimpleQueue`, for any number of threads that put, and one at a time that waits.

    Guarantees. No lock is held at any line, so `__del__`, signal handlers and a forked child may put
    and get. `put` appends before it tells, and who was told looks again: nothing that is put is slept over.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._told = allocate_lock()
        self._told.acquire()

    def put(self, item: T) -> None:
        self._items.append(item)
        with suppress(RuntimeError):  # told already
            self._told.release()

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        if not block:
            timeout = 0
        until = None if timeout is None else monotonic() + timeout
        while True:
            with suppress(IndexError):
                return self._items.popleft()
            if not self._told.acquire(timeout=-1 if until is None else max(0, until - monotonic())):
                raise Empty

    def get_nowait(self) -> T:
        return self.get(False)

    def empty(self) -> bool:
        return not self._items


if TYPE_CHECKING or queue.SimpleQueue.__module__ != "queue":  # not the one that is written in Python
    from queue import SimpleQueue as SimpleQueue
else:
    SimpleQueue = ReentrantQueue
