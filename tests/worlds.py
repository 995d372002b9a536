"""Runs a test in both worlds that sync code can be in: plain code, and inside a running loop."""

from collections.abc import Callable
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from typing import Any

import pytest
from places import in_loop, plain
from pytest_marks import on_both


def both_worlds(test: Callable[..., Any]) -> Any:
    """Run a test in plain sync code, and as sync code inside a running loop, on both backends."""

    @wraps(test)
    def either(world: Callable[[Callable[[], Any]], Any], **fixtures: Any) -> None:
        world(partial(test, **fixtures))

    parameters = [Parameter("world", Parameter.KEYWORD_ONLY), *signature(test).parameters.values()]
    either.__signature__ = Signature([p.replace(kind=Parameter.KEYWORD_ONLY) for p in parameters])  # type: ignore[attr-defined]
    return on_both(pytest.mark.parametrize("world", [plain, in_loop])(either))
