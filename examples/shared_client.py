"""One `httpx.AsyncClient` for many sync calls: they share its connection, because they share a loop.

Run it with `python examples/shared_client.py`; it needs httpx, starlette and uvicorn.
"""

import socket
import threading

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from anysync import anysync, run

connections = set()


async def hello(request: Request) -> PlainTextResponse:
    connections.add(request.client)
    return PlainTextResponse(f"hello, {request.path_params['name']}")


app = Starlette(routes=[Route("/{name}", hello)])


class Greeter:
    """A client as a library would write it: once, in async code, for users of both worlds."""

    def __init__(self, url: str) -> None:
        self.http = httpx.AsyncClient(base_url=url, trust_env=False)

    @anysync
    async def greet(self, name: str) -> str:
        response = await self.http.get(f"/{name}")
        return response.raise_for_status().text


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        greeter = Greeter(f"http://127.0.0.1:{listener.getsockname()[1]}")
        for name in "ada", "grace", "barbara":
            print(greeter.greet(name).run())
        run(greeter.http.aclose())
        print(f"3 calls, {len(connections)} connection")
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


if __name__ == "__main__":
    main()
