"""Runs a scenario in a process of its own, where Ctrl-C, forks and interpreter exit can do no harm.

`@script` makes a test of a function whose body is the scenario. The process executes the module of the
test without its other tests and without pytest, so that imports and helpers are at hand, on the backend
that is configured for the test: `@on_both` makes it two. `run_source` runs any source, for scenarios in
which the order of imports or the main module matters.
"""

import asyncio
import atexit
import faulthandler
import functools
import gc
import marshal
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType
from typing import Any

from forkserver import ForkServer, serve

# seconds until a process that hangs shows where, and dies
WATCHDOG = int(os.environ.get("ANYSYNC_TEST_WATCHDOG", 45))
PYPY = sys.implementation.name == "pypy"  # which counts no references, and collects nothing at its end
#: whose functions are in tracebacks where they are not compiled
COMPILED = (asyncio.tasks.__file__, asyncio.futures.__file__) if PYPY else ()
FORKS = ("-W", "ignore::DeprecationWarning")  # since Python 3.12, a fork warns if there are threads


def run_file(
    path: Path | str, *arguments: str, options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a Python file with these options and arguments, and return its output and exit code."""
    command = [sys.executable, "-X", "dev", *options, str(path), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=4 * WATCHDOG, stdin=subprocess.DEVNULL
    )


def run_source(source: str, directory: Path, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run source, which may import this module, as the main module of a process."""
    path = directory / "main.py"
    path.write_text(f"import sys; sys.path.append({str(Path(__file__).parent)!r})\nimport scripts\n{source}")
    return run_file(path, options=options)


def check(done: subprocess.CompletedProcess[str], out: str = "", code: int = 0) -> None:
    """Assert that a process printed this, exited with this code, and had nothing to complain about."""
    assert (complaints(done), done.stdout, done.returncode) == ([], out, code), (
        f"{done.stdout}\n{done.stderr}"
    )


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a process wrote to stderr, without the slow steps that asyncio's debug mode tells of."""
    return [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]


def python(code: str) -> list[str]:
    """Run a program of its own with warnings as errors, and return the words that it printed."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * WATCHDOG)
    assert (complaints(done), done.returncode) == ([], 0)
    return done.stdout.split()


def script(
    function: Callable[..., None] | None = None,
    *,
    out: str = "",
    code: int = 0,
    raises: str = "",
    within: float | None = None,
    options: Sequence[str] = (),
) -> Any:
    """Make a test that runs the function in a process of its own, which must end with `out` and `code`.

    If it `raises`, that exception is the last line of the only thing on stderr, a traceback. The process ends
    `within` that many seconds after the function has.
    """
    if function is None:
        return functools.partial(script, out=out, code=code, raises=raises, within=within, options=options)

    @functools.wraps(function)
    def test(**parameters: object) -> None:
        with tempfile.TemporaryDirectory() as directory:
            scenario, end = Path(directory, "scenario"), Path(directory, "end")
            path = function.__code__.co_filename
            module = scene(path, function.__name__)
            environment = dict(os.environ)
            scenario.write_bytes(
                marshal.dumps((module, function.__name__, parameters, environment, backend()))
            )
            done = run_forked(path, options, str(scenario), str(end))
            assert within is None or time.monotonic() - float(end.read_text()) < within
        if raises:
            first, *_, last = complaints(done)
            assert (first, last) == ("Traceback (most recent call last):", raises), done.stderr
            assert done.stderr.count("Traceback") == 1, done.stderr
            done.stderr = ""
        check(done, out, code)

    return test


@functools.cache
def scene(path: str, name: str) -> CodeType:
    """Compile a test module without its other tests and without pytest."""
    import ast  # which the process of the scenario can do without

    body = []
    for node in statements(path):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            if node.name != name:
                continue
            node.decorator_list = []
        elif "pytest" in ast.unparse(node):
            continue
        body.append(node)
    return compile(ast.Module(body, []), path, "exec")


@functools.cache
def statements(path: str) -> list[Any]:
    import ast

    return ast.parse(Path(path).read_text()).body


def run_forked(path: str, options: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this file with these options and arguments, forked from a process which the test module has."""
    if not hasattr(os, "fork"):
        return run_file(__file__, *arguments, options=options)
    key = path, *options, backend()
    if key not in servers:
        if not any(path in other for other in servers):
            close_servers()
        command = [sys.executable, "-X", "dev", *options, __file__]
        servers[key] = ForkServer(command, libraries(path))
    try:
        return servers[key].run(*arguments)
    except BaseException:  # its answer may still come
        servers.pop(key).close()
        raise


servers: dict[tuple[str, ...], ForkServer] = {}


@atexit.register
def close_servers() -> None:
    while servers:
        servers.popitem()[1].close()


def libraries(path: str) -> list[str]:
    """Return what a test module imports, but for anysync and what is beside it."""
    import ast

    names = set()
    for node in statements(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    if "anyio" in names:
        names.add(f"anyio._backends._{backend()}")
    ours = {"anysync", "pytest", *(file.stem for file in Path(__file__).parent.glob("*.py"))}
    return sorted(name for name in names if name.partition(".")[0] not in ours)


def watch() -> None:
    """Have this process, and those it forks, dump all stacks and die if they hang."""
    start = functools.partial(faulthandler.dump_traceback_later, WATCHDOG, exit=True)
    start()
    if hasattr(os, "fork"):  # a child has not the thread that watches, and must not wait for it at its end
        faulthandler.register(signal.SIGALRM, chain=True)
        stop = faulthandler.cancel_dump_traceback_later
        alarm = functools.partial(signal.alarm, WATCHDOG)
        os.register_at_fork(before=stop, after_in_parent=start, after_in_child=alarm)


def quick_loops() -> None:
    """Take loops out of the debug mode of -X dev, where no step is eager, unless the variable asks for it."""
    import logging
    import math

    import anysync

    logging.getLogger("asyncio").setLevel(logging.ERROR)  # not that a slow machine took long
    anysync.configure(stall_warning=math.inf)  # nor this
    if not os.environ.get("PYTHONASYNCIODEBUG"):
        anysync.configure(backend_options={"debug": False})


# What scenarios use.


def backend() -> str:
    """Return what is configured, and what loops here are of."""
    module: Any = sys.modules.get("anysync._process")  # it is imported by the first use, and gone at the end
    return module.process.backend if module is not None else "asyncio"


def in_loop(function: Callable[[], Any]) -> Any:
    """Call a function inside a running loop, as a notebook does: without its handler for Ctrl-C."""

    async def main() -> Any:
        return function()

    if backend() == "trio":
        return in_trio(function)
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def in_trio(function: Callable[[], Any]) -> Any:
    import trio

    def set_handler(handler: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)

    async def main() -> Any:
        set_handler(before)
        try:
            return function()
        finally:
            with suppress(ValueError):  # not the main thread
                # trio closes its end first, and a signal meanwhile would be complained of
                signal.set_wakeup_fd(-1)

    before = signal.getsignal(signal.SIGINT)
    set_handler(signal.SIG_IGN)  # trio replaces Python's own only
    return trio.run(main)


def collect_dropped() -> None:
    """Collect what has been let go of, and see it cleaned up, where references are not counted."""
    if PYPY:
        for _ in range(3):  # what a destructor needs goes after it
            gc.collect()
        module: Any = sys.modules.get("anysync._process")
        closing = set(module.process.threads) if module is not None else set()
        for thread in closing - {threading.current_thread()}:
            thread.join(WATCHDOG)


def plainly(function: Callable[[], Any]) -> Any:
    return function()


def raised(function: Callable[[], object]) -> BaseException:
    """Return what the function raises."""
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@contextmanager
def traced(trace: Callable[..., Any]) -> Iterator[None]:
    """Have this thread traced in the body; whoever has traced it before does so again afterwards."""
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


async def suspended(event: threading.Event) -> None:
    """Suspend for good, and set the event once that has happened."""
    import anyio
    import loops

    loops.call_soon(event.set)
    await anyio.Event().wait()


def threads_since(before: Iterable[threading.Thread]) -> list[threading.Thread]:
    """Return the threads that were not there before and do not end: what ends is there a moment longer."""
    since = [thread for thread in threading.enumerate() if thread not in before]
    if since:
        collect_dropped()
    for thread in since:
        thread.join(5)
    return [thread for thread in since if thread.is_alive()]


def send_after(
    *events: threading.Event, signum: int = signal.SIGINT, asleep: bool = True
) -> threading.Thread:
    """Start a thread that sends this process a signal for each event once it is set.

    It waits until the main thread sleeps: Python has a moment before that in which a signal comes to nothing.
    """

    def send() -> None:
        for event in events:
            event.wait()
            while asleep and not main_thread_sleeps():
                pass
            os.kill(os.getpid(), signum)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def main_thread_sleeps() -> bool:
    """Whether the main thread waits in the kernel; elsewhere than on Linux nobody knows."""
    state = Path(f"/proc/self/task/{os.getpid()}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "S"


def fork(function: Callable[[], object]) -> int:
    """Call a function in a forked child, which ends without clean-up; return its exit code."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return exit_code(pid)


def exit_code(pid: int) -> int:
    """Wait for a child to end."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(scenario: str, end: str) -> None:
    """Run one scenario of a test module, and note in the file `end` when it ends."""
    import anysync

    watch()
    code, name, parameters, environment, chosen = marshal.loads(Path(scenario).read_bytes())
    os.environ.update(environment)
    quick_loops()
    anysync.configure(backend=chosen)
    module = sys.modules["__main__"].__dict__
    exec(code, module)
    try:
        module[name](**parameters)
    finally:
        Path(end).write_text(str(time.monotonic()))


if __name__ == "__main__":
    main(*(serve(*sys.argv[2:]) if sys.argv[1] == "--serve" else sys.argv[1:]))
