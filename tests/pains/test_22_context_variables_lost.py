"""Context variables get lost on one of the ways; here they flow in, and out if a context is given for it."""

from contextvars import Context, ContextVar, copy_context

import anyio
import anyio.to_thread
import pytest
from pytest_marks import everywhere
from scripts import script

import anysync

user = ContextVar("user", default="nobody")
tokens = []


@anysync.coroutine
async def log_in(turns=1):
    before = user.get()
    for _ in range(turns):
        await anyio.sleep(0)
    tokens.append(user.set("somebody"))
    return before


@anysync.coroutine
async def log_out():
    await anyio.sleep(0)
    user.reset(tokens.pop())


@everywhere
@pytest.mark.parametrize("turns", [0, 1])
def test_22_context_variables_lost(place, turns):
    """django/asgiref#170, run-llama/llama_index#21555, taskiq-python/taskiq#482, hynek/structlog#491."""

    def call():
        token = user.set("caller")
        try:
            assert log_in(turns).run() == "caller"
            assert user.get() == "caller"
            context = copy_context()
            assert log_in(turns).run(context=context) == "caller"
            assert context[user] == "somebody"
            assert user.get() == "caller"
        finally:
            user.reset(token)
            tokens.clear()

    place(call)


@everywhere
def test_22_a_token_of_one_call_is_refused_in_the_next(place):
    """django/asgiref#267, django/asgiref#534: one context for both calls makes them fit."""

    def call():
        context = Context()
        assert log_in().run(context=context) == "nobody"
        log_out().run(context=context)
        return user in context

    assert place(call) is False


@everywhere
def test_22_context_variables_lost_by_generators_and_managers(place):
    """django/asgiref#148: a step sees what the steps before it have set, and what the caller had set."""

    @anysync.generator
    async def names():
        for _ in range(2):
            yield await log_in()

    @anysync.contextmanager
    async def logged_in():
        yield await log_in()
        assert user.get() == "somebody"

    def call():
        token = user.set("caller")
        try:
            with logged_in() as before:
                return before, list(names()), user.get()
        finally:
            user.reset(token)
            tokens.clear()

    assert place(call) == ("caller", ["caller", "somebody"], "caller")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@script
def test_22_context_variables_differ_by_backend(backend):
    """agronholm/anyio#363: sync code sees the same in asyncio and in trio, there and in their threads."""

    def call():
        return log_in().run(), user.get()

    async def main():
        user.set("caller")
        return call(), await anyio.to_thread.run_sync(call)

    assert anyio.run(main, backend=backend) == (("caller", "caller"), ("caller", "caller"))
