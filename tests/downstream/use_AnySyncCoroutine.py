"""Commands in a table, each a function that gives a coroutine, which its caller runs or submits."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from typing import assert_type

from anysync import AnySyncCoroutine, anysync

Command = Callable[[str], AnySyncCoroutine[str]]


@anysync
async def upper(text: str) -> str:
    return text.upper()


@anysync
async def size(text: str) -> int:
    return len(text)


def twice(text: str) -> AnySyncCoroutine[str]:
    async def repeat() -> str:
        return 2 * text

    return AnySyncCoroutine(repeat())


def run_all(jobs: Sequence[AnySyncCoroutine[object]]) -> list[object]:
    return [job.run() for job in jobs]


commands: dict[str, Command] = {"upper": upper, "twice": twice}
assert [assert_type(command("a").run(), str) for command in commands.values()] == ["A", "aa"]
assert run_all([size("three"), upper("b")]) == [5, "B"]  # covariant: a str is an object
futures = [assert_type(command("c").submit(), Future[str]) for command in commands.values()]
assert sorted(assert_type(done.result(), str) for done in as_completed(futures)) == ["C", "cc"]
