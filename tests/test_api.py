"""The public names, what they take, and that a program written for AnySync 1.0.2 runs unchanged."""

import asyncio
import contextlib
import copy
import gc
import inspect
import os
import pickle
import subprocess
import sys
import types
import warnings
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Generic, TypeVar, get_args, get_origin

import pytest
import sniffio

import anysync
from anysync import (
    AnySyncContextManager,
    AnySyncCoroutine,
    AnySyncGenerator,
    AnySyncIterator,
    core,
    run,
    wrap_async_context_manager,
    wrap_async_generator,
    wrap_async_iterator,
    wrap_coroutine,
)

T = TypeVar("T")


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program]
    quiet = {"PYTHONASYNCIODEBUG": ""}  # which tells of each slow step
    return subprocess.run(
        command, env=os.environ | quiet | environment, capture_output=True, text=True, timeout=50
    )


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def numbers() -> AsyncIterator[int]:
    yield 1
    yield 2


@asynccontextmanager
async def borrowed() -> AsyncIterator[str]:
    yield "thing"


class Numbers:
    """An async iterator that is not a generator."""

    def __aiter__(self) -> "Numbers":
        return self

    async def __anext__(self) -> int:
        raise StopAsyncIteration


class OnlyIterable:
    def __aiter__(self) -> AsyncIterator[int]:
        return numbers()


# names and their documentation


def test_all_is_the_public_names() -> None:
    public = {
        name for name, it in vars(anysync).items() if not (name.startswith("_") or inspect.ismodule(it))
    }
    assert sorted(anysync.__all__) == sorted(public)


def test_core_has_the_same_names_and_which_core_runs() -> None:
    assert set(core.__all__) == {*anysync.__all__, "name"}
    for name in anysync.__all__:
        assert getattr(core, name) is getattr(anysync, name)
    assert core.name in ("pure", "compiled")


def test_the_version_is_readable() -> None:
    assert anysync.__version__.startswith("1.")


@pytest.mark.parametrize("name", anysync.__all__)
def test_every_public_object_has_a_docstring(name: str) -> None:
    thing = getattr(anysync, name)
    assert thing.__doc__
    if isinstance(thing, type):
        for method, function in vars(thing).items():
            if not method.startswith("_") and (callable(function) or isinstance(function, property)):
                assert inspect.getdoc(getattr(thing, method)), f"{name}.{method}"


@pytest.mark.parametrize("module", [anysync, core])
def test_the_modules_have_docstrings(module: types.ModuleType) -> None:
    assert module.__doc__


# what 1.0.2 had

FUNCTIONS_OF_1_0_2 = {
    "run": "awaitable",  # 1.0.2 took coroutines only, and said "coro"
    "coroutine": "func",
    "iterator": "func",
    "generator": "func",
    "contextmanager": "func",
    "wrap_coroutine": "coroutine",
    "wrap_async_iterator": "iterator",
    "wrap_async_generator": "generator",
    "wrap_async_context_manager": "manager",
}
ARGUMENTS = {
    "run": answer,
    "coroutine": lambda: answer,
    "iterator": lambda: numbers,
    "generator": lambda: numbers,
    "contextmanager": lambda: numbers,
    "wrap_coroutine": answer,
    "wrap_async_iterator": numbers,
    "wrap_async_generator": numbers,
    "wrap_async_context_manager": borrowed,
}
METHODS_OF_1_0_2 = {
    "AnySyncCoroutine": "__init__ __await__ run send throw close",
    "AnySyncIterator": "__aiter__ __anext__ __iter__ __next__",
    "AnySyncGenerator": "__aiter__ __anext__ __iter__ __next__ asend athrow aclose send throw close",
    "AnySyncContextManager": "__enter__ __exit__ __aenter__ __aexit__",
}


@pytest.mark.parametrize("module", [anysync, core])
@pytest.mark.parametrize("name", [*FUNCTIONS_OF_1_0_2, *METHODS_OF_1_0_2])
def test_the_names_of_1_0_2_are_there(module: types.ModuleType, name: str) -> None:
    assert hasattr(module, name)


@pytest.mark.parametrize("name", FUNCTIONS_OF_1_0_2)
@pytest.mark.parametrize("by_keyword", [False, True], ids=["positional", "keyword"])
def test_the_functions_of_1_0_2_take_their_argument_as_they_did(name: str, by_keyword: bool) -> None:
    parameter, argument = FUNCTIONS_OF_1_0_2[name], ARGUMENTS[name]()
    function = getattr(anysync, name)
    try:
        assert (function(**{parameter: argument}) if by_keyword else function(argument)) is not None
    finally:
        if inspect.iscoroutine(argument):
            argument.close()


@pytest.mark.parametrize("name", METHODS_OF_1_0_2)
def test_the_methods_of_1_0_2_are_there(name: str) -> None:
    for method in METHODS_OF_1_0_2[name].split():
        assert callable(getattr(getattr(anysync, name), method))


def test_the_coroutine_class_takes_its_argument_as_it_did() -> None:
    assert AnySyncCoroutine(coro=answer()).run() == 42
    coro = answer()
    wrapped = AnySyncCoroutine(coro)
    assert wrapped.coro is coro
    assert wrapped.run(timeout=50) == 42
    assert AnySyncCoroutine(answer()).run(50) == 42


def test_the_generator_methods_take_their_argument_as_they_did() -> None:
    async def echo() -> Any:
        said = yield "ready"
        while True:
            said = yield said

    async def in_async_code() -> list[object]:
        async with contextlib.aclosing(wrap_async_generator(echo())) as generator:
            return [await anext(generator), await generator.asend(value=1)]

    generator = wrap_async_generator(echo())
    assert [next(generator), generator.send(value=1), generator.send(2)] == ["ready", 1, 2]
    generator.close()
    assert asyncio.run(in_async_code()) == ["ready", 1]


class Page(AnySyncIterator[int]):
    """Its `__aiter__` returns another iterator at each call, as that of an iterable may."""

    async def __aiter__(self) -> AsyncIterator[int]:  # type: ignore[override]
        yield 1
        yield 2

    async def __anext__(self) -> int:
        raise StopAsyncIteration


def test_for_iterates_what_aiter_returns_as_async_for_does() -> None:
    async def in_async_code() -> list[int]:
        return [item async for item in page]

    page = Page()
    assert [item for item in page] == asyncio.run(in_async_code()) == [1, 2]  # noqa: C416
    assert [item for item in page] == [1, 2], "again"  # noqa: C416


# Runs on anysync 1.0.2 and prints the same there.
PROGRAM = """
import asyncio
import contextvars
from collections.abc import AsyncIterator, AsyncGenerator, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import TypeVar

import anysync
from anysync import (
    AnySyncContextManager, AnySyncCoroutine, AnySyncGenerator, contextmanager, coroutine, generator,
    iterator, run, wrap_async_context_manager, wrap_async_generator, wrap_async_iterator, wrap_coroutine,
)
from anysync.core import AnySyncIterator

T = TypeVar("T")

@coroutine
async def double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x

@iterator
async def letters():
    for letter in "abc":
        await asyncio.sleep(0)
        yield letter

@generator
async def echo():
    said = yield "ready"
    while said != "stop":
        try:
            said = yield said
        except KeyError as error:
            said = f"caught {error}"

@contextmanager
async def lent(log):
    log.append("enter")
    try:
        yield "thing"
    except ZeroDivisionError:
        log.append("suppressed")
    finally:
        await asyncio.sleep(0)
        log.append("exit")

class Door(AnySyncContextManager[str]):
    async def __aenter__(self) -> str:
        self.variable = contextvars.ContextVar("variable")
        self.token = self.variable.set("open")
        return "door"

    async def __aexit__(self, typ=None, val=None, tb=None, /):
        self.variable.reset(self.token)
        return typ is KeyError

class Page(AnySyncIterator[T]):
    def __init__(self, items):
        self.items = items
        self.left = list(items)

    async def __aiter__(self):
        for item in self.items:
            await asyncio.sleep(0)
            yield item

    async def __anext__(self) -> T:
        await asyncio.sleep(0)
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)

class Total(AnySyncGenerator[int, int]):
    total = 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self.asend(0)

    async def asend(self, value):
        await asyncio.sleep(0)
        if value < 0:
            raise StopAsyncIteration
        self.total += value
        return self.total

    async def athrow(self, typ, val=None, tb=None, /):
        raise val or typ

@asynccontextmanager
async def of_contextlib():
    yield "of contextlib"

async def bare(*items):
    for item in items:
        await asyncio.sleep(0)
        yield item

async def slow():
    await asyncio.sleep(3600)

def in_sync_code():
    print(double(1).run(), run(double(2)), wrap_coroutine(double(3)).run(), double(4).run(timeout=60))
    print(AnySyncCoroutine(double(5).coro).run())
    print(list(letters()), [letter for letter in wrap_async_iterator(bare(1, 2))], next(letters()))
    for letter in letters():
        print("first", letter)
        break
    gen = echo()
    print(next(gen), gen.send("hello"), gen.throw(KeyError, KeyError("ouch")), gen.throw(KeyError("again")))
    try:
        gen.send("stop")
    except StopIteration:
        print("stopped")
    print(list(wrap_async_generator(bare(3, 4))))
    gen = wrap_async_generator(bare(5))
    next(gen)
    try:
        gen.throw(ValueError("mine"))
    except ValueError as error:
        print("raised", error)
    log = []
    with lent(log) as thing:
        log.append(thing)
        1 / 0
    print(log)
    with wrap_async_context_manager(of_contextlib()) as thing:
        print(thing)
    with Door() as door:
        print(door)
        raise KeyError
    manager = lent([])
    with manager:
        pass
    try:
        with manager:
            pass
    except RuntimeError:
        print("once only")
    page = Page("xy")
    print(list(page), list(page), next(page), next(page))
    try:
        next(page)
    except StopIteration:
        print("no more")
    total = Total()
    print(next(total), total.send(2), total.send(3))
    try:
        total.send(-1)
    except StopIteration:
        print("end of total")
    try:
        total.throw(OSError("given"))
    except OSError as error:
        print(error)

async def in_async_code():
    in_sync_code()
    print(await double(1), await asyncio.create_task(wrap_coroutine(double(2))))
    print(await asyncio.gather(double(3)))
    print([letter async for letter in letters()], [item async for item in wrap_async_iterator(bare(1))])
    gen = echo()
    print(await anext(gen), await gen.asend("hello"), await gen.athrow(KeyError, KeyError("ouch")))
    print(await gen.athrow(KeyError("again")))
    await gen.aclose()
    log = []
    async with lent(log) as thing, Door() as door, wrap_async_context_manager(of_contextlib()) as other:
        print(thing, door, other)
    print(log, [item async for item in Page("xy")], await anext(Page("z")), await Total().asend(7))
    try:
        wrap_coroutine(slow()).run(timeout=0.01)
    except TimeoutError:
        print("too slow")

def kinds():
    coro, gen, manager = double(1), echo(), lent([])
    print(isinstance(coro, AnySyncCoroutine), isinstance(coro, Coroutine))
    print(isinstance(gen, AnySyncGenerator), isinstance(gen, AnySyncIterator))
    print([isinstance(gen, kind) for kind in (AsyncIterator, AsyncGenerator, Iterator, Generator)])
    print([isinstance(manager, kind) for kind in (AnySyncContextManager, AbstractContextManager)])
    print(isinstance(manager, AbstractAsyncContextManager), isinstance(letters(), AnySyncIterator))
    print(wrap_coroutine(coro) is coro, wrap_async_generator(gen) is gen, wrap_async_iterator(gen) is gen)
    print(wrap_async_context_manager(manager) is manager)
    print(double.__name__, echo.__wrapped__.__name__, coro.run(), isinstance(anysync.__version__, str))
    print(coro.send.__name__, coro.throw.__name__, coro.close.__name__)

def stepped_by_hand():
    coro = double(4)
    coro.send(None)
    try:
        coro.send(None)
    except StopIteration as stop:
        print("by hand", stop.value)
    coro = double(4)
    coro.send(None)
    try:
        coro.throw(ValueError("thrown"))
    except ValueError as error:
        print(error)
    coro = double(4)
    coro.close()

in_sync_code()
asyncio.run(in_async_code())
kinds()
stepped_by_hand()
print("done")
"""

SYNC_CODE_OF_PROGRAM = """\
2 4 6 8
10
['a', 'b', 'c'] [1, 2] a
first a
ready hello caught 'ouch' caught 'again'
stopped
[3, 4]
raised mine
['enter', 'thing', 'suppressed', 'exit']
of contextlib
door
once only
['x', 'y'] ['x', 'y'] x y
no more
0 2 5
end of total
given
"""

OUTPUT_OF_PROGRAM = f"""\
{SYNC_CODE_OF_PROGRAM}{SYNC_CODE_OF_PROGRAM}2 4
[6]
['a', 'b', 'c'] [1]
ready hello caught 'ouch'
caught 'again'
thing door of contextlib
['enter', 'exit'] ['x', 'y'] z 7
too slow
True True
True True
[True, True, True, True]
[True, True]
True True
True True True
True
double echo 2 True
send throw close
by hand 8
thrown
done
"""


def test_a_program_written_for_1_0_2_runs_unchanged() -> None:
    ran = python(PROGRAM)
    assert ran.stderr == ""
    assert ran.stdout == OUTPUT_OF_PROGRAM
    assert ran.returncode == 0


# subscripting


@pytest.mark.parametrize(
    "alias",
    [
        AnySyncCoroutine[int],
        AnySyncCoroutine[int, str, bytes],
        AnySyncIterator[int],
        AnySyncGenerator[int],
        AnySyncGenerator[int, str],
        AnySyncContextManager[int],
        AnySyncContextManager[int, bool],
    ],
    ids=str,
)
def test_the_classes_can_be_subscripted(alias: Any) -> None:
    assert get_origin(alias) in (AnySyncCoroutine, AnySyncIterator, AnySyncGenerator, AnySyncContextManager)
    assert get_args(alias)[0] is int


def test_a_subclass_of_a_subscripted_class_works() -> None:
    class Once(AnySyncIterator[T], Generic[T]):
        def __init__(self, item: T) -> None:
            self.items = [item]

        async def __anext__(self) -> T:
            if not self.items:
                raise StopAsyncIteration
            return self.items.pop()

    assert list(Once[int](1)) == [1]
    assert get_args(Once[int]) == (int,)


# wrap_* and run, with what they take and what they do not


def test_what_is_wrapped_already_is_returned_as_it_is() -> None:
    coro, iterator, generator = (
        wrap_coroutine(answer()),
        wrap_async_iterator(Numbers()),
        wrap_async_generator(numbers()),
    )
    manager = wrap_async_context_manager(borrowed())
    assert wrap_coroutine(coro) is coro
    assert wrap_async_iterator(iterator) is iterator
    assert wrap_async_generator(generator) is generator
    assert wrap_async_iterator(generator) is generator
    assert wrap_async_context_manager(manager) is manager
    coro.close()


async def wait() -> None:
    await asyncio.sleep(0)


class Countdown(AnySyncIterator[int]):
    __slots__ = ("step",)

    def __init__(self) -> None:
        self.left, self.step, self.closed = 3, 1, False

    async def __anext__(self) -> int:
        self.left -= self.step
        return self.left

    async def aclose(self) -> None:
        self.closed = True


class Lent(AnySyncContextManager[int]):
    async def __aenter__(self) -> int:
        return 7

    async def __aexit__(self, *error: object) -> None: ...


@pytest.mark.parametrize(
    "make_copy", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))]
)
def test_a_copy_has_yet_to_begin(make_copy: Any) -> None:
    original = Countdown()
    assert next(original) == 2
    copied = make_copy(original)
    assert next(copied) == next(original) == 1
    del copied
    gc.collect()
    assert not original.closed
    assert next(original) == 0
    manager = Lent()
    for _ in range(2):
        with manager as outer, make_copy(manager) as inner:
            assert outer == inner == 7


def test_a_copy_of_a_manager_is_on_its_backend() -> None:
    @anysync.contextmanager(backend="trio")
    async def here() -> AsyncIterator[str]:
        yield sniffio.current_async_library()

    with copy.copy(here()) as library:
        assert library == "trio"


@pytest.mark.parametrize(
    "make_copy", [copy.copy, copy.deepcopy, pickle.dumps, partial(pickle.dumps, protocol=0)]
)
def test_a_coroutine_cannot_be_copied(make_copy: Any) -> None:
    coro = wrap_coroutine(answer())
    with pytest.raises(TypeError, match="cannot pickle 'AnySyncCoroutine' object"):
        make_copy(coro)
    coro.close()


@pytest.mark.parametrize(
    ("wrap", "expected", "thing", "remedy"),
    [
        (wrap_coroutine, "a coroutine", answer, "call it first"),
        (wrap_coroutine, "a coroutine", numbers(), "wrap_async_generator"),
        (wrap_coroutine, "a coroutine", Numbers(), "wrap_async_iterator"),
        (wrap_coroutine, "a coroutine", borrowed(), "wrap_async_context_manager"),
        (wrap_async_iterator, "an async iterator", numbers, "call it first"),
        (wrap_async_iterator, "an async iterator", OnlyIterable(), "use aiter() on it first"),
        (wrap_async_iterator, "an async iterator", borrowed(), "wrap_async_context_manager"),
        (wrap_async_generator, "an async generator", numbers, "call it first"),
        (wrap_async_generator, "an async generator", Numbers(), "wrap_async_iterator"),
        (wrap_async_generator, "an async generator", OnlyIterable(), "use aiter() on it first"),
        (wrap_async_generator, "an async generator", wrap_async_iterator(Numbers()), "wrap_async_iterator"),
        (wrap_async_context_manager, "an async context manager", borrowed, "call it first"),
        (wrap_async_context_manager, "an async context manager", numbers(), "`contextmanager`"),
        (wrap_async_context_manager, "an async context manager", Numbers(), "wrap_async_iterator"),
        (AnySyncCoroutine, "a coroutine", None, "nothing here takes one"),
        (AnySyncCoroutine, "a coroutine", answer, "call it first"),
        (run, "an awaitable", answer, "call it first"),
        (run, "an awaitable", Future(), "call its result()"),
        (run, "an awaitable", numbers(), "wrap_async_generator"),
        (run, "an awaitable", Numbers(), "wrap_async_iterator"),
        (run, "an awaitable", borrowed(), "wrap_async_context_manager"),
    ],
    ids=lambda x: getattr(x, "__name__", x if isinstance(x, str) else type(x).__name__),
)
def test_the_wrong_object_is_refused_with_the_remedy(
    wrap: Any, expected: str, thing: object, remedy: str
) -> None:
    with pytest.raises(TypeError) as refused:
        wrap(thing)
    assert str(refused.value).startswith(f"expected {expected}, not {thing!r}: ")
    assert remedy in str(refused.value)


def test_an_awaitable_that_is_no_coroutine_is_for_run() -> None:
    class Awaited:
        def __await__(self) -> Any:
            return answer().__await__()

    with pytest.raises(TypeError, match=r"expected a coroutine, not .*: .*anysync\.run\(\)"):
        wrap_coroutine(Awaited())  # type: ignore[arg-type]
    assert run(Awaited()) == 42


@pytest.mark.parametrize(
    "wrap", [wrap_coroutine, wrap_async_iterator, wrap_async_generator, wrap_async_context_manager]
)
@pytest.mark.parametrize("thing", [None, 42, [1, 2]], ids=repr)
def test_objects_of_no_async_kind_are_refused(wrap: Any, thing: object) -> None:
    with pytest.raises(TypeError) as refused:
        wrap(thing)
    assert f"not {thing!r}" in str(refused.value)


@pytest.mark.parametrize("decorate", [lambda coro: coro, wrap_coroutine], ids=["bare", "wrapped"])
@pytest.mark.parametrize("wrap", [wrap_async_iterator, wrap_async_generator, wrap_async_context_manager])
def test_a_coroutine_in_place_of_another_object_is_refused_and_closed(wrap: Any, decorate: Any) -> None:
    coro = wait()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(TypeError, match="it must be awaited first"):
            wrap(decorate(coro))
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
        del coro
        gc.collect()
    assert not [warning for warning in caught if "never awaited" in str(warning.message)]


# importing


@pytest.mark.parametrize("module", ["asyncio", "anyio", "inspect", "concurrent.futures"])
def test_importing_anysync_does_not_import(module: str) -> None:
    ran = python(
        "import sys\n"
        "before = set(sys.modules)\n"
        "import anysync\n"
        f"print({module!r} in set(sys.modules) - before)"
    )
    assert (ran.stdout, ran.stderr) == ("False\n", "")


def test_anyio_is_not_needed_to_run_a_coroutine() -> None:
    ran = python(
        "import sys; sys.modules['anyio'] = None\n"
        "import anysync\n"
        "@anysync.coroutine\n"
        "async def f(): return 42\n"
        "print(f().run())"
    )
    assert (ran.stdout, ran.stderr) == ("42\n", "")


USES = pytest.mark.parametrize(
    "use",
    [
        "import anysync",
        "import anysync.core",
        "from anysync import core",
        "import anysync\nasync def f(): pass\nanysync.run(f())",
        "import anysync\nanysync.Runner().loop",
    ],
    ids=["anysync", "core", "from", "run", "runner"],
)


MISSING = "import sys; sys.modules['anysync._fastloop'] = None\n"


@USES
def test_a_demanded_extension_that_is_missing_is_an_error(use: str) -> None:
    ran = python(MISSING + use, ANYSYNC_EXTENSION="1")
    assert ran.returncode == 1
    assert "\nImportError: ANYSYNC_EXTENSION=1 asks for the compiled core" in ran.stderr
    assert "never awaited" not in ran.stderr


@USES
@pytest.mark.parametrize("value", ["2", "yes", " "])
def test_an_unknown_value_of_the_variable_is_an_error(use: str, value: str) -> None:
    ran = python(use, ANYSYNC_EXTENSION=value)
    assert ran.returncode == 1
    assert f"\nImportError: ANYSYNC_EXTENSION must be 0, 1 or unset, not {value!r}" in ran.stderr
    assert "never awaited" not in ran.stderr


def test_without_the_extension_the_pure_core_serves() -> None:
    ran = python(f"{MISSING}from anysync import core; print(core.name)", ANYSYNC_EXTENSION="")
    assert (ran.stdout, ran.stderr) == ("pure\n", "")


def test_the_pure_core_can_be_demanded() -> None:
    ran = python("from anysync import core; print(core.name)", ANYSYNC_EXTENSION="0")
    assert (ran.stdout, ran.stderr) == ("pure\n", "")


def test_the_variable_may_be_empty() -> None:
    ran = python("from anysync import core; print(core.name)", ANYSYNC_EXTENSION="")
    assert ran.stdout in ("pure\n", "compiled\n")
    assert ran.stderr == ""
