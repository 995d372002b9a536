"""A `with` that hosts a server: uvicorn answers while blocking code runs in the body.

Run it with `python examples/hosted_server.py`; it needs httpx, starlette and uvicorn.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from anysync import contextmanager


async def add(request: Request) -> JSONResponse:
    await asyncio.sleep(0.01)  # the loop is at work, though the body blocks
    return JSONResponse(sum(await request.json()))


app = Starlette(routes=[Route("/add", add, methods=["POST"])])


class Server(uvicorn.Server):
    def capture_signals(self) -> AbstractContextManager[None]:
        return nullcontext()  # Ctrl-C is for the body


@contextmanager
async def hosted(app: Starlette) -> AsyncIterator[str]:
    """Serve the app on a free port, and give its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(uvicorn.Config(app, log_level="warning"))
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


def main() -> None:
    with hosted(app) as url, httpx.Client(base_url=url, trust_env=False) as client:
        print("2 + 3 =", client.post("/add", json=[2, 3]).json())
        print("4 + 5 =", client.post("/add", json=[4, 5]).json())
    try:
        httpx.get(url, trust_env=False)
    except httpx.ConnectError:
        print("the server is gone")


if __name__ == "__main__":
    main()
