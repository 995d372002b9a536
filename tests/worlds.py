"""Runs a test in both worlds that sync code can be in: plain code, and inside a running loop."""

import asyncio
from collections.abc import Callable
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from typing import Any

import pytest


def in_plain_code(function: Callable[[], Any]) -> Any:
    return function()


def in_a_loop(function: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return function()

    return asyncio.run(main())


def both_worlds(test: Callable[..., Any]) -> Any:
    """Run a test in plain sync code, and as sync code inside a running loop."""

    @wraps(test)
    def either(world: Callable[[Callable[[], Any]], Any], **fixtures: Any) -> None:
        world(partial(test, **fixtures))

    parameters = [Parameter("world", Parameter.KEYWORD_ONLY), *signature(test).parameters.values()]
    either.__signature__ = Signature([p.replace(kind=Parameter.KEYWORD_ONLY) for p in parameters])  # type: ignore[attr-defined]
    return pytest.mark.parametrize("world", [in_plain_code, in_a_loop])(either)
