"""A task for each step, and the scope around the yield is left in another task than it was entered in."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import anyio
import pytest
from loops import current_task, enter_either, own_group, own_timeout
from worlds import both_worlds

import anysync

scopes = pytest.mark.parametrize(
    "scope",
    [anyio.create_task_group, own_group, lambda: anyio.fail_after(60), lambda: own_timeout(60)],
    ids=["anyio.create_task_group", "own group", "fail_after", "own timeout"],
)


class Session:
    """A client that has a scope open from its start to its end, and notes whether it left as it should."""

    def __init__(self, scope):
        self.scope = scope
        self.outcome = None
        self.ended = threading.Event()

    async def __aenter__(self):
        self.task = current_task()
        self.entered = enter_either(self.scope())
        await self.entered.__aenter__()
        return self

    async def __aexit__(self, *error):
        try:
            assert current_task() is self.task
            await anyio.sleep(0)
            # of what the caller threw in; since Python 3.15, what closes a generator comes by itself
            with suppress(BaseExceptionGroup, GeneratorExit):
                await self.entered.__aexit__(*error)
            self.outcome = "left"
        except BaseException as wrong:
            self.outcome = wrong
            raise
        finally:
            self.ended.set()


@anysync.generator
async def messages(session):
    async with session:
        for number in range(3):
            await anyio.sleep(0)
            yield number


@anysync.contextmanager
async def connected(session):
    async with session:
        yield session


def exhaust(generator):
    assert list(generator) == [0, 1, 2]


def leave_early(generator):
    for _ in generator:
        break


def throw(generator):
    next(generator)
    with pytest.raises(LookupError):
        generator.throw(LookupError())


def drop(generator):
    next(generator)


def close_in_another_thread(generator):
    assert next(generator) == 0
    with ThreadPoolExecutor(1) as pool:
        pool.submit(generator.close).result(30)


@both_worlds
@scopes
@pytest.mark.parametrize("end", [exhaust, leave_early, throw, drop, close_in_another_thread])
def test_19_cancel_scope_exited_in_another_task_by_a_generator(scope, end):
    """modelcontextprotocol/python-sdk#79, vllm-project/vllm#25697, pydantic/pydantic-ai#6199."""
    session = Session(scope)
    end(messages(session))
    gc.collect()
    assert session.ended.wait(30)
    assert session.outcome == "left"


@both_worlds
@scopes
@pytest.mark.parametrize("fails", [False, True])
def test_19_cancel_scope_exited_in_another_task_by_a_with(scope, fails):
    """IBM/mcp-cli#38, pydantic/pydantic-ai#6454."""
    session = Session(scope)
    with suppress(LookupError), connected(session):
        if fails:
            raise LookupError
    assert session.outcome == "left"


@both_worlds
@scopes
def test_19_cancel_scope_exited_in_another_thread(scope):
    """modelcontextprotocol/python-sdk#79: entered in one thread of a pool, left in another."""
    session = Session(scope)
    manager = connected(session)
    manager.__enter__()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(manager.__exit__, None, None, None).result(30)
    assert session.outcome == "left"
