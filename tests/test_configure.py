"""`configure` and the options of `Runner`: how loops are made, and that loops of any make serve."""

import asyncio
import contextlib
import gc
import inspect
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from scripts import collect_dropped, complaints

from anysync import AnySyncIterator, Runner, _stalls, configure, contextmanager, coroutine, generator, run

WATCHDOG = 30
Place = Callable[[Callable[[], Any]], Any]
variable: ContextVar[str] = ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Give the process its defaults back."""
    yield
    configure(backend="asyncio", backend_options={"loop_factory": None, "debug": None, "use_uvloop": False})


def in_new_thread(function: Callable[[], Any]) -> Any:
    """Call a function in a thread that has no loop yet; return or raise what it does."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WATCHDOG)
    assert outcome, "it hangs"
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


async def of_the_loop() -> asyncio.AbstractEventLoop:
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


class OwnLoop(asyncio.SelectorEventLoop):
    """A loop that is told from the others by its type."""


# what configure takes


@pytest.mark.parametrize("take", [configure, Runner])
@pytest.mark.parametrize("backend", ["nonsense", "", "uvloop"])
def test_an_unknown_backend_is_an_error(take: Any, backend: str) -> None:
    with pytest.raises(ValueError, match=f"unknown backend '{backend}'.*'asyncio'"):
        take(backend=backend)
    with pytest.raises(ValueError, match=f"unknown backend '{backend}'.*'asyncio'"):
        take(backend=backend, backend_options={"debug": True})


@pytest.mark.parametrize("take", [configure, Runner])
def test_an_unknown_option_is_an_error(take: Any) -> None:
    with pytest.raises(TypeError, match=r"'policy', 'strict'.*'debug', 'loop_factory' and 'use_uvloop'"):
        take(backend="asyncio", backend_options={"strict": True, "debug": True, "policy": None})


@pytest.mark.parametrize("take", [configure, Runner])
@pytest.mark.parametrize("factory", [42, "uvloop"])
def test_a_loop_factory_must_be_callable(take: Any, factory: object) -> None:
    with pytest.raises(TypeError, match=f"loop_factory must be a function .*, not {factory!r}"):
        take(backend_options={"loop_factory": factory})


@pytest.mark.parametrize("take", [configure, Runner])
def test_the_options_are_by_keyword(take: Any) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        take("name", {"debug": True}, "asyncio")


@pytest.mark.parametrize("take", [configure, Runner])
def test_uvloop_asked_for_and_not_installed_is_an_import_error(
    take: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.setitem(sys.modules, "winloop", None)
    with pytest.raises(
        ImportError, match=r"needs (uvloop: pip install 'anysync\[uvloop\]'|winloop: pip install winloop)"
    ):
        take(backend_options={"use_uvloop": True})


@pytest.mark.parametrize(
    ("seconds", "error", "message"),
    [
        (0, ValueError, "stall_warning must be a number of seconds above 0, or math.inf, not 0"),
        (
            -1.5,
            ValueError,
            "stall_warning must be a number of seconds above 0, or math.inf, not -1.5",
        ),
        (
            float("nan"),
            ValueError,
            "stall_warning must be a number of seconds above 0, or math.inf, not nan",
        ),
        (True, TypeError, "stall_warning must be a number of seconds, not True"),
        ("5", TypeError, "stall_warning must be a number of seconds, not '5'"),
    ],
)
def test_a_stall_warning_takes_seconds(
    monkeypatch: pytest.MonkeyPatch, seconds: Any, error: type[Exception], message: str
) -> None:
    monkeypatch.setattr(_stalls, "limit", 7.0)
    with pytest.raises(error) as caught:
        configure(stall_warning=seconds, backend_options={"loop_factory": OwnLoop})
    assert str(caught.value) == message
    assert _stalls.limit == 7
    assert in_new_thread(lambda: type(run(of_the_loop()))) is not OwnLoop


def test_going_home_is_a_yes_or_no() -> None:
    wrong: Any = "no"
    with pytest.raises(TypeError, match="go_home must be True or False, not 'no'"):
        configure(go_home=wrong)


def test_a_stall_warning_that_is_not_given_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stalls, "limit", None)
    configure(stall_warning=3)
    configure(backend_options={})
    assert _stalls.limit == 3
    with pytest.raises(TypeError):
        configure(stall_warning=4, backend_options={"wrong": 1})
    assert _stalls.limit == 3


def test_a_refused_configuration_changes_nothing() -> None:
    configure(backend_options={"loop_factory": OwnLoop})
    for wrong in {"loop_factory": 42}, {"loop_factory": None, "strict": True}:
        with pytest.raises(TypeError):
            configure(backend_options=wrong)
    assert type(in_new_thread(lambda: run(of_the_loop()))) is OwnLoop


# what it does


def test_new_loops_are_made_by_the_loop_factory() -> None:
    configure(backend_options={"loop_factory": OwnLoop})
    assert type(in_new_thread(lambda: run(of_the_loop()))) is OwnLoop


def test_a_loop_that_exists_stays_as_it_is() -> None:
    def around_configure() -> list[asyncio.AbstractEventLoop]:
        before = run(of_the_loop())
        configure(backend_options={"loop_factory": OwnLoop})
        return [before, run(of_the_loop())]

    before, after = in_new_thread(around_configure)
    assert before is after
    assert type(before) is not OwnLoop


def test_the_loop_of_the_factory_is_kept_and_closed_with_its_thread() -> None:
    configure(backend_options={"loop_factory": OwnLoop})
    first, second = in_new_thread(lambda: (run(of_the_loop()), run(of_the_loop())))
    collect_dropped()
    assert first is second
    assert first.is_closed()


@pytest.mark.parametrize("debug", [True, False])
def test_debug_is_that_of_the_loop(debug: bool) -> None:
    configure(backend_options={"debug": debug})
    assert in_new_thread(lambda: run(of_the_loop()).get_debug()) is debug
    with Runner() as runner:
        assert runner.loop.get_debug() is debug


def test_what_is_not_given_stays_as_it_is() -> None:
    configure(backend_options={"loop_factory": OwnLoop})
    configure()
    configure(backend="asyncio")
    configure(backend_options={"debug": True})
    loop, debug = in_new_thread(lambda: (run(of_the_loop()), run(of_the_loop()).get_debug()))
    assert type(loop) is OwnLoop
    assert debug is True


def test_a_runner_has_the_defaults_of_configure() -> None:
    configure(backend_options={"loop_factory": OwnLoop, "debug": True})
    with Runner() as runner:
        assert type(runner.loop) is OwnLoop
        assert runner.loop.get_debug() is True


def test_what_a_runner_is_not_given_is_as_configure_says() -> None:
    configure(backend_options={"loop_factory": OwnLoop})
    with Runner(backend="asyncio", backend_options={"debug": True}) as runner:
        assert type(runner.loop) is OwnLoop
        assert runner.loop.get_debug() is True


def test_the_options_of_a_runner_are_its_own() -> None:
    with Runner(backend_options={"loop_factory": OwnLoop}) as runner, Runner() as other:
        assert type(runner.loop) is OwnLoop
        assert type(other.loop) is not OwnLoop
        assert type(in_new_thread(lambda: run(of_the_loop()))) is not OwnLoop


def fails() -> asyncio.AbstractEventLoop:
    raise OSError("no loop today")


def test_an_error_of_the_factory_reaches_the_caller() -> None:
    coro = of_the_loop()
    configure(backend_options={"loop_factory": fails})
    with pytest.raises(OSError, match="no loop today"):
        in_new_thread(lambda: run(coro))
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


def test_an_error_of_a_runners_factory_reaches_the_caller() -> None:
    coro = of_the_loop()
    with pytest.raises(OSError, match="no loop today"):
        Runner(backend_options={"loop_factory": fails}).run(coro)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


# uvloop, in each place


def uses_uvloop(loop: asyncio.AbstractEventLoop) -> bool:
    return type(loop).__module__.partition(".")[0] in ("uvloop", "winloop")


def test_use_uvloop_in_plain_code() -> None:
    pytest.importorskip("uvloop")
    configure(backend_options={"use_uvloop": True})
    assert uses_uvloop(in_new_thread(lambda: run(of_the_loop())))


def test_use_uvloop_false_is_the_loop_of_asyncio() -> None:
    configure(backend_options={"use_uvloop": False})
    assert not uses_uvloop(in_new_thread(lambda: run(of_the_loop())))


def test_a_loop_factory_comes_before_use_uvloop() -> None:
    configure(backend_options={"use_uvloop": True, "loop_factory": OwnLoop})
    assert type(in_new_thread(lambda: run(of_the_loop()))) is OwnLoop


def test_a_runner_on_uvloop() -> None:
    pytest.importorskip("uvloop")
    with Runner(backend_options={"use_uvloop": True}) as runner:
        assert uses_uvloop(runner.loop)
        assert runner.run(of_the_loop()) is runner.loop
        assert runner.submit(of_the_loop()).result(WATCHDOG) is runner.loop
        with runner.enter(lent([])) as loop:
            assert loop is runner.loop
        assert list(runner.iterate(count(3))) == [0, 1, 2]


# The background loop is one for the process, so this needs a process of its own.
IN_A_LOOP = """
import asyncio, sys, threading
import anysync

@anysync.coroutine
async def kind():
    await asyncio.sleep(0)
    return type(asyncio.get_running_loop()).__module__.partition(".")[0], threading.current_thread().name

@anysync.generator
async def kinds():
    yield await kind()
    yield await kind()

@anysync.contextmanager
async def lent():
    served = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(kind().coro)
    yield task
    await task

async def nested():
    return kind().run()

async def sleep():
    await asyncio.sleep(3600)

async def exits():
    await asyncio.sleep(0)
    raise SystemExit(3)

def sync_code():
    yield kind().run()
    yield from kinds()
    with lent():
        yield kind().run()
    yield kind().submit().result(30)
    yield anysync.run(nested())
    try:
        anysync.run(sleep(), timeout=0.01)
    except TimeoutError:
        yield "too slow"
    try:
        anysync.run(exits())
    except SystemExit as error:
        yield error.code
    yield kind().run()

async def main():
    for line in sync_code():
        print(line)

anysync.configure(backend_options={sys.argv[1]: eval(sys.argv[2])})
print(*kind().run())
asyncio.run(main())
"""


@pytest.mark.parametrize("option", ["loop_factory", "use_uvloop"])
def test_the_process_default_is_for_the_main_thread_the_background_and_nested_calls(option: str) -> None:
    if option == "use_uvloop":
        pytest.importorskip("uvloop")
    kind, value = ("uvloop", "True") if option == "use_uvloop" else ("asyncio", "asyncio.SelectorEventLoop")
    command = [sys.executable, "-W", "error", "-c", IN_A_LOOP, option, value]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50)
    background = f"('{kind}', 'anysync background')"
    nested = f"('{kind}', 'anysync nested')"
    assert ran.stdout.splitlines() == [
        f"{kind} MainThread",
        *[background] * 5,
        nested,
        "too slow",
        "3",
        background,
    ]
    assert "Error" not in ran.stderr


# All objects on loops that are not ours, whose steps take a turn of the loop each.


def new_uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()  # type: ignore[no-any-return]


@pytest.fixture(params=[OwnLoop, new_uvloop, None], ids=["selector", "uvloop", "debug"])
def foreign(request: pytest.FixtureRequest) -> None:
    """Have new loops made by others, or be in debug mode, where no step is taken without a turn either."""
    if request.param is new_uvloop:
        pytest.importorskip("uvloop")
    configure(
        backend_options={"loop_factory": request.param, "debug": True if request.param is None else None}
    )


def in_a_loop(function: Callable[[], Any]) -> Any:
    """Call a function inside a loop, from where its calls go to another new loop."""

    async def call() -> Any:
        return function()

    with Runner() as runner:
        return runner.run(call(), WATCHDOG)


@pytest.fixture(params=[in_new_thread, in_a_loop])
def place(request: pytest.FixtureRequest, foreign: None) -> Iterator[Place]:
    yield request.param
    gc.collect()


@coroutine
async def slow(log: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        log.append("cleaned up")


@generator
async def count(to: int, log: list[str] | None = None) -> AsyncIterator[int]:
    try:
        for number in range(to):
            await asyncio.sleep(0)
            yield number
    finally:
        await asyncio.sleep(0)
        if log is not None:
            log.append("cleaned up")


@generator
async def echo() -> Any:
    said = yield "ready"
    while True:
        try:
            await asyncio.sleep(0)
            said = yield said
        except KeyError as error:
            said = error.args[0]


@contextmanager
async def lent(log: list[str]) -> AsyncIterator[asyncio.AbstractEventLoop]:
    await asyncio.sleep(0)
    try:
        yield asyncio.get_running_loop()
    except ZeroDivisionError:
        log.append("suppressed")
    finally:
        await asyncio.sleep(0)
        log.append("cleaned up")


def test_coroutine(place: Place) -> None:
    @coroutine
    async def double(number: int) -> int:
        if number:
            await asyncio.sleep(0)
        return 2 * number

    assert place(lambda: [double(0).run(), double(1).run(), run(double(2)), double(3).run(WATCHDOG)]) == [
        0,
        2,
        4,
        6,
    ]


def test_error_of_a_coroutine(place: Place) -> None:
    error = LookupError("mine")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(LookupError) as raised:
        place(lambda: run(fail()))
    assert raised.value is error


def test_context_given(place: Place) -> None:
    async def change() -> None:
        await asyncio.sleep(0)
        variable.set("changed")

    def call() -> list[str]:
        context = copy_context()
        run(change(), context=context)
        return [variable.get(), context[variable]]

    assert place(call) == ["unset", "changed"]


def test_context_entered_already(place: Place) -> None:
    def call() -> None:
        context = copy_context()
        coro = of_the_loop()
        with pytest.raises(RuntimeError, match="entered already"):
            context.run(run, coro, context=context)
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED

    place(call)


@pytest.mark.parametrize("timeout", [0.01, 0, -1])
def test_timeout(place: Place, timeout: float) -> None:
    log: list[str] = []
    with pytest.raises(TimeoutError) as raised:
        place(lambda: slow(log).run(timeout))
    assert log == ["cleaned up"]
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)


def test_the_first_step_is_taken_before_the_time_is_up_however_late_the_loop_is() -> None:
    uvloop = pytest.importorskip("uvloop")

    class Late(uvloop.Loop):  # type: ignore[misc]
        def call_later(self, delay: float, *args: Any) -> Any:
            try:
                return super().call_later(delay, *args)
            finally:
                time.sleep(min(delay, 0.02))

    log: list[str] = []
    configure(backend_options={"loop_factory": Late})
    with pytest.raises(TimeoutError):
        in_new_thread(lambda: slow(log).run(0.01))
    assert log == ["cleaned up"]


def test_submit(place: Place) -> None:
    assert isinstance(
        place(lambda: coroutine(of_the_loop)().submit().result(WATCHDOG)), asyncio.AbstractEventLoop
    )


def test_submitted_and_cancelled(place: Place) -> None:
    log: list[str] = []

    def call() -> bool:
        begun, ended = threading.Event(), threading.Event()

        @coroutine
        async def wait() -> None:
            try:
                begun.set()
                await slow(log)
            finally:
                ended.set()

        future = wait().submit()
        assert begun.wait(WATCHDOG)
        future.cancel()
        assert ended.wait(WATCHDOG)
        return future.cancelled()

    assert place(call) is True
    assert log == ["cleaned up"]


def test_a_coroutine_that_cancels_itself(place: Place) -> None:
    async def give_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("enough")
        await asyncio.sleep(3600)

    with pytest.raises(asyncio.CancelledError):
        place(lambda: run(give_up()))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("suspensions", [0, 1])
def test_interrupts_raised_by_a_coroutine(
    place: Place, error: type[BaseException], suspensions: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def interrupt() -> None:
        for _ in range(suspensions):
            await asyncio.sleep(0)
        raise error(3)

    def call() -> object:
        with pytest.raises(error) as raised:
            run(interrupt())
        assert raised.value.args == (3,)
        return run(of_the_loop())

    assert place(call) is not None, "the loop goes on"
    gc.collect()
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_raised_by_a_generator(
    place: Place, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    @generator
    async def interrupted() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0)
        raise error(3)

    def call() -> object:
        numbers = interrupted()
        assert next(numbers) == 1
        with pytest.raises(error) as raised:
            next(numbers)
        assert raised.value.args == (3,)
        assert next(numbers, "ended") == "ended"
        return run(of_the_loop())

    assert place(call) is not None, "the loop goes on"
    gc.collect()
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("when", ["entering", "exiting"])
def test_interrupts_raised_by_a_context_manager(
    place: Place, error: type[BaseException], when: str, caplog: pytest.LogCaptureFixture
) -> None:
    @contextmanager
    async def interrupted() -> AsyncIterator[None]:
        await asyncio.sleep(0)
        if when == "entering":
            raise error(3)
        yield
        await asyncio.sleep(0)
        raise error(3)

    def call() -> object:
        with pytest.raises(error) as raised, interrupted():
            assert when == "exiting"
        assert raised.value.args == (3,)
        return run(of_the_loop())

    assert place(call) is not None, "the loop goes on"
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_generator(place: Place) -> None:
    def call() -> list[object]:
        said = echo()
        talk = [next(said), said.send("hello"), said.throw(KeyError("ouch"))]
        said.close()
        return [*count(3), *talk, next(said, "ended")]

    assert place(call) == [0, 1, 2, "ready", "hello", "ouch", "ended"]


def test_left_generator_is_cleaned_up(place: Place) -> None:
    closed: list[str] = []
    dropped: list[str] = []

    def call() -> None:
        for number in count(3, closed):
            assert number == 0
            break
        collect_dropped()
        numbers = count(3, dropped)
        assert next(numbers) == 0
        numbers.close()

    place(call)
    gc.collect()
    assert (closed, dropped) == (["cleaned up"], ["cleaned up"])


def test_iterator(place: Place) -> None:
    class Countdown(AnySyncIterator[int]):
        left = 3

        async def __anext__(self) -> int:
            await asyncio.sleep(0)
            if self.left == 0:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert place(lambda: list(Countdown())) == [2, 1, 0]


def test_a_timeout_around_yields(place: Place) -> None:
    @generator
    async def hurried() -> AsyncIterator[int]:
        try:
            async with asyncio.timeout(0.01):
                yield 1
                await asyncio.sleep(3600)
        except TimeoutError:
            yield 2

    assert place(lambda: list(hurried())) == [1, 2]


def test_one_task_and_one_context_from_enter_to_exit(place: Place) -> None:
    @contextmanager
    async def in_one() -> AsyncIterator[None]:
        token, task = variable.set("set"), asyncio.current_task()
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
            yield
        assert asyncio.current_task() is task
        variable.reset(token)

    def call() -> str:
        with in_one():
            return variable.get()

    assert place(call) == "unset"


def test_context_manager(place: Place) -> None:
    log: list[str] = []

    def call() -> None:
        with lent(log) as loop:
            assert run(of_the_loop()) is loop
            log.append("body")
        with lent(log):
            raise ZeroDivisionError

    place(call)
    assert log == ["body", "cleaned up", "suppressed", "cleaned up"]


def test_tasks_go_on_during_the_body_of_a_with(place: Place) -> None:
    @contextmanager
    async def heart() -> AsyncIterator[tuple[threading.Event, threading.Event]]:
        in_body, beaten = threading.Event(), threading.Event()

        async def beat() -> None:
            while not in_body.is_set():
                await asyncio.sleep(0.001)
            beaten.set()

        task = asyncio.create_task(beat())
        yield in_body, beaten
        await task

    def call() -> bool:
        with heart() as (in_body, beaten):
            in_body.set()
            return beaten.wait(WATCHDOG)

    assert place(call)


def test_a_server_answers_during_the_body_of_a_with(place: Place) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()

    @contextmanager
    async def serving() -> AsyncIterator[tuple[str, int]]:
        server = await asyncio.start_server(shout, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()

    def call() -> list[bytes]:
        with serving() as address, socket.create_connection(address, WATCHDOG) as client:
            answers = []
            for line in b"one\n", b"two\n":
                client.sendall(line)
                answers.append(run(recv(client)))
                client.sendall(line)
                answers.append(client.recv(100))
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b""
            return answers

    async def recv(client: socket.socket) -> bytes:
        return await asyncio.to_thread(client.recv, 100)

    assert place(call) == [b"ONE\n", b"ONE\n", b"TWO\n", b"TWO\n"]


def test_a_task_that_fails_cancels_the_body_of_its_group(place: Place) -> None:
    @contextmanager
    async def group_of_one() -> AsyncIterator[threading.Event]:
        in_body, failed = threading.Event(), threading.Event()

        async def fail() -> None:
            while not in_body.is_set():
                await asyncio.sleep(0.001)
            failed.set()
            raise LookupError("mine")

        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            in_body.failed = failed  # type: ignore[attr-defined]
            yield in_body

    def call() -> None:
        with group_of_one() as in_body:
            in_body.set()
            assert in_body.failed.wait(WATCHDOG)  # type: ignore[attr-defined]

    with pytest.raises(ExceptionGroup) as raised:
        place(call)
    assert [type(error) for error in raised.value.exceptions] == [LookupError]


def test_a_task_left_behind_goes_on_in_the_next_call(foreign: None) -> None:
    async def leave() -> "asyncio.Task[str]":
        return asyncio.create_task(late())

    async def late() -> str:
        await asyncio.sleep(0)
        return "late"

    async def fetch(task: "asyncio.Task[str]") -> str:
        return await task

    assert in_new_thread(lambda: run(fetch(run(leave())))) == "late"


def test_several_threads_step_one_generator(foreign: None) -> None:
    def call() -> list[int]:
        numbers = count(3)
        return [next(numbers), in_new_thread(lambda: next(numbers)), next(numbers)]

    assert in_new_thread(call) == [0, 1, 2]


def test_a_thread_whose_loop_is_closed_while_its_helper_turns_it_gets_another_one(foreign: None) -> None:
    @contextmanager
    async def beating() -> AsyncIterator[asyncio.AbstractEventLoop]:
        beats = asyncio.create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
        yield asyncio.get_running_loop()
        beats.cancel()

    def call() -> int:
        def turned_when_closed() -> None:
            loop.close()
            closed.set()
            run_forever()

        manager, closed = beating(), threading.Event()
        loop = manager.__enter__()
        run_forever = loop.run_forever
        try:
            loop.run_forever = turned_when_closed  # type: ignore[method-assign]
        except AttributeError:
            pytest.skip("uvloop's cannot be patched")
        loop.call_soon_threadsafe(loop.stop)  # the helper turns it
        assert closed.wait(60)
        with pytest.raises(RuntimeError, match="closed"):
            manager.__exit__(None, None, None)
        return next(count(1))

    assert in_new_thread(call) == 0


# In a process of its own, whose exit tells too.
THREADS_THAT_END = """
import asyncio, gc, sys, threading
import anysync

@anysync.contextmanager
async def heart():
    task = asyncio.create_task(asyncio.sleep(3600))
    yield
    task.cancel()

def work():
    exec(sys.argv[1])

for factory in None, asyncio.SelectorEventLoop:
    anysync.configure(backend_options={"loop_factory": factory})
    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
gc.collect()
for thread in set(threading.enumerate()) - {threading.main_thread()}:
    thread.join(5)  # it may be at its very end
print(len(threading.enumerate()))
"""


@pytest.mark.parametrize(
    "work",
    ["anysync.run(asyncio.sleep(0))", "anysync.run(asyncio.to_thread(int))", "with heart(): pass"],
    ids=["nothing", "executor", "helper"],
)
def test_threads_that_have_ended_leave_nothing_behind(work: str) -> None:
    command = [sys.executable, "-W", "error", "-c", THREADS_THAT_END, work]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (ran.stdout, complaints(ran)) == ("1\n", [])


def test_a_loop_factory_that_returns_no_loop_is_refused() -> None:
    runner = Runner(backend_options={"loop_factory": lambda: None})
    with pytest.raises(TypeError, match="loop_factory must return an event loop, not None"), runner:
        pass
