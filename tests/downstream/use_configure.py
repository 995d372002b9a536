"""An application that reads its settings from a file, and hands them on when it starts."""

import asyncio
import tomllib
from typing import assert_type

from anysync import configure, run

settings = tomllib.loads("""
backend = "asyncio"
backend_options = { debug = true }
stall_warning = 2.5
""")


async def debugs() -> bool:
    return asyncio.get_running_loop().get_debug()


def new_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


configure(**settings)
configure(go_home=False, backend_options={"loop_factory": new_loop})
assert assert_type(run(debugs()), bool)
try:
    configure(backend="no such")
except ValueError:
    assert run(debugs())  # nothing was changed
