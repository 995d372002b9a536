"""What may be decorated, what a decorated function still says of itself, and what the others are told."""

import asyncio
import gc
import inspect
import pickle
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import Any, Self, cast

import pytest
import sniffio

from anysync import (
    AnySyncContextManager,
    AnySyncCoroutine,
    AnySyncGenerator,
    AnySyncIterator,
    anysync,
    contextmanager,
    coroutine,
    generator,
    iterator,
)

DECORATORS = [anysync, coroutine, generator, iterator, contextmanager]
is_coroutine_function = (
    inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction
)


async def double(number: int, *, plus: int = 0) -> int:
    """Return twice the number."""
    await asyncio.sleep(0)
    return 2 * number + plus


async def count(to: int) -> AsyncIterator[int]:
    """Count from zero."""
    for number in range(to):
        await asyncio.sleep(0)
        yield number


def counting(to: int) -> AsyncIterator[int]:
    """Return what counts."""
    return aiter(count(to))


async def lend(thing: int) -> AsyncIterator[int]:
    """Lend the thing."""
    await asyncio.sleep(0)
    yield thing


double_in_both = coroutine(double)
count_in_both = generator(count)
counting_in_both = iterator(counting)
lend_in_both = contextmanager(lend)

by_both = pytest.mark.parametrize(
    ("decorated", "bare"),
    [(double_in_both, double), (count_in_both, count), (counting_in_both, counting), (lend_in_both, lend)],
    ids=lambda func: func.__name__,
)


class Shelf:
    made = 3

    def __init__(self, thing: int) -> None:
        self.thing = thing

    @anysync
    async def take(self, plus: int = 0) -> int:
        await asyncio.sleep(0)
        return self.thing + plus

    @classmethod
    @anysync
    async def how_many(cls) -> int:
        await asyncio.sleep(0)
        return cls.made

    @staticmethod
    @anysync
    async def wood() -> str:
        await asyncio.sleep(0)
        return "oak"

    @anysync
    async def things(self) -> AsyncIterator[int]:
        for plus in range(3):
            yield self.thing + plus

    @iterator
    def more_things(self) -> AsyncIterator[int]:
        return aiter(self.things())

    @contextmanager
    async def lent(self) -> AsyncIterator[int]:
        yield self.thing


class Called:
    """Callable, with an async `__call__`."""

    async def __call__(self, number: int) -> int:
        await asyncio.sleep(0)
        return number + 1


class CalledToCount:
    """Callable, with an async generator for `__call__`."""

    async def __call__(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number


def test_methods() -> None:
    shelf = Shelf(5)
    assert shelf.take(1).run() == 6
    assert Shelf.take(shelf, plus=2).run() == 7
    assert list(shelf.things()) == [5, 6, 7]
    assert list(shelf.more_things()) == [5, 6, 7]
    with shelf.lent() as thing:
        assert thing == 5


async def in_async_code(shelf: Shelf) -> list[object]:
    async with shelf.lent() as thing:
        return [
            await shelf.take(1),
            [x async for x in shelf.things()],
            [x async for x in shelf.more_things()],
            thing,
        ]


def test_methods_in_async_code() -> None:
    assert asyncio.run(in_async_code(Shelf(5))) == [6, [5, 6, 7], [5, 6, 7], 5]


def test_class_and_static_methods() -> None:
    class Small(Shelf):
        made = 1

    assert Shelf.how_many().run() == Shelf(0).how_many().run() == 3
    assert Small.how_many().run() == 1
    assert Shelf.wood().run() == Shelf(0).wood().run() == "oak"


def test_a_bound_method_can_be_decorated() -> None:
    class Plain:
        async def me(self) -> object:
            return self

    plain = Plain()
    assert coroutine(plain.me)().run() is plain


@pytest.mark.parametrize("decorator", [anysync, coroutine])
def test_callables_with_an_async_call(decorator: Any) -> None:
    decorated = decorator(Called())
    assert decorated(1).run() == 2
    assert decorated.__doc__ == Called.__doc__
    assert is_coroutine_function(decorated)


@pytest.mark.parametrize("decorator", [anysync, generator, iterator])
def test_callables_with_an_async_generator_call(decorator: Any) -> None:
    assert list(decorator(CalledToCount())(3)) == [0, 1, 2]


def test_contextmanager_of_a_callable() -> None:
    class Lending:
        async def __call__(self) -> AsyncIterator[str]:
            yield "lent"

    with contextmanager(Lending())() as thing:
        assert thing == "lent"


def test_partial() -> None:
    assert anysync(partial(double, plus=1))(2).run() == 5
    assert list(anysync(partial(count, 2))()) == [0, 1]
    assert list(iterator(partial(counting, 2))()) == [0, 1]
    with contextmanager(partial(lend, 4))() as thing:
        assert thing == 4


def test_partial_of_a_decorated_function() -> None:
    assert partial(double_in_both, 2, plus=1)().run() == 5
    assert coroutine(partial(double_in_both, 2))(plus=1).run() == 5


def test_signature_of_a_decorated_partial() -> None:
    assert str(inspect.signature(coroutine(partial(double, 1)))) == "(*, plus: int = 0) -> int"


@by_both
def test_a_decorated_function_says_what_the_bare_one_says(decorated: Any, bare: Any) -> None:
    assert decorated is not bare
    assert decorated.__wrapped__ is bare
    assert inspect.signature(decorated) == inspect.signature(bare)
    for name in "__name__", "__qualname__", "__module__", "__doc__", "__annotations__":
        assert getattr(decorated, name) == getattr(bare, name)


def test_the_attributes_of_the_function_are_kept() -> None:
    async def f() -> None: ...

    f.route = "/f"  # type: ignore[attr-defined]
    assert coroutine(f).route == "/f"  # type: ignore[attr-defined]


@anysync
async def by_name() -> str:
    return "found"


def test_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(by_name)) is by_name
    assert pickle.loads(pickle.dumps(partial(by_name)))().run() == "found"
    assert pickle.loads(pickle.dumps(Shelf(5).take))(1).run() == 6


@pytest.mark.parametrize(
    "function",
    [double_in_both, by_name, Shelf.take, Shelf(1).take, Shelf.how_many, Shelf.wood],
    ids=repr,
)
def test_frameworks_see_a_coroutine_function(function: object) -> None:
    assert is_coroutine_function(function)


@pytest.mark.parametrize("function", [count_in_both, counting_in_both, lend_in_both], ids=repr)
def test_frameworks_see_no_coroutine_function_in_the_others(function: object) -> None:
    assert not is_coroutine_function(function)


def test_anysync_picks_by_what_it_decorates() -> None:
    coro = anysync(double)(1)
    assert type(coro) is AnySyncCoroutine
    assert coro.run() == 2
    assert isinstance(anysync(count)(1), AnySyncGenerator)


def test_each_decorator_returns_its_own_object() -> None:
    assert isinstance(count_in_both(1), AnySyncGenerator)
    assert isinstance(counting_in_both(1), AnySyncIterator)
    assert isinstance(lend_in_both(1), AnySyncContextManager)


def test_the_wrong_arguments_raise_at_the_call() -> None:
    for decorated in double_in_both, count_in_both, counting_in_both, lend_in_both:
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            decorated()  # type: ignore[operator]


def test_the_iterator_decorator_wants_an_async_iterator_at_the_call() -> None:
    with pytest.raises(TypeError, match=r"expected an async iterator, not \[1\]"):
        iterator(lambda: [1])()  # type: ignore[arg-type, return-value]


# what is decorated already


@pytest.mark.parametrize(
    ("decorator", "decorated"),
    [
        (coroutine, double_in_both),
        (generator, count_in_both),
        (iterator, counting_in_both),
        (iterator, count_in_both),
        (contextmanager, lend_in_both),
        (anysync, double_in_both),
        (anysync, count_in_both),
        (anysync, counting_in_both),
        (anysync, lend_in_both),
    ],
    ids=lambda f: f.__name__,
)
def test_a_function_decorated_already_is_returned_as_it_is(decorator: Any, decorated: object) -> None:
    assert decorator(decorated) is decorated


@anysync
async def here() -> str:
    return sniffio.current_async_library()


@anysync
async def here_in_a_generator() -> AsyncIterator[str]:
    yield sniffio.current_async_library()


@contextmanager
async def here_in_a_manager() -> AsyncIterator[str]:
    yield sniffio.current_async_library()


class Placed:
    @anysync
    async def here(self) -> str:
        return sniffio.current_async_library()


@pytest.mark.parametrize("decorator", [anysync, coroutine])
def test_a_backend_counts_for_a_coroutine_function_decorated_already(decorator: Any) -> None:
    for function in (here, Placed().here):
        assert decorator(backend="trio")(function)().run() == "trio"
        assert decorator(backend="asyncio")(decorator(backend="trio")(function))().run() == "asyncio"
    assert here().run() == "asyncio"


@pytest.mark.parametrize("decorator", [anysync, generator, iterator])
def test_a_backend_counts_for_a_generator_function_decorated_already(decorator: Any) -> None:
    again = decorator(backend="trio")(here_in_a_generator)
    assert [*again()] == ["trio"]
    assert [*decorator(backend="asyncio")(again)()] == [*here_in_a_generator()] == ["asyncio"]


@pytest.mark.parametrize("decorator", [anysync, contextmanager])
def test_a_backend_counts_for_a_context_manager_decorated_already(decorator: Any) -> None:
    again = decorator(backend="trio")(here_in_a_manager)
    with again() as on_trio, here_in_a_manager() as as_before:
        assert (on_trio, as_before) == ("trio", "asyncio")

    async def enter() -> str:
        async with again() as library:
            return cast("str", library)

    assert asyncio.run(enter()) == "asyncio"


def test_a_decorated_bound_method_is_returned_as_it_is() -> None:
    take = Shelf(5).take
    assert coroutine(take) is take


def logged(function: Any) -> Any:
    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> list[object]:
        return ["logged", await function(*args, **kwargs)]

    return wrapper


def logged_by_a_sync_function(function: Any) -> Any:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        async def log() -> list[object]:
            return ["logged", await function(*args, **kwargs)]

        return log()

    return wrapper


@pytest.mark.parametrize("log", [logged, logged_by_a_sync_function])
@pytest.mark.parametrize("decorator", [anysync, coroutine])
def test_a_wrapper_around_a_decorated_function_is_decorated_anew(
    decorator: Any, log: Callable[..., Any]
) -> None:
    wrapper = log(double_in_both)
    decorated = decorator(wrapper)
    assert decorated is not wrapper
    assert decorated.__wrapped__ is wrapper
    assert decorated(2).run() == ["logged", 4]


@pytest.mark.parametrize("decorator", [anysync, generator])
def test_a_wrapper_around_a_decorated_generator_is_decorated_anew(decorator: Any) -> None:
    @wraps(count_in_both)
    async def negative(to: int) -> AsyncIterator[int]:
        async for number in count_in_both(to):
            yield -number

    assert list(decorator(negative)(3)) == [0, -1, -2]


@pytest.mark.parametrize(
    ("decorator", "decorated", "by"),
    [
        (coroutine, count_in_both, "generator"),
        (coroutine, counting_in_both, "iterator"),
        (coroutine, lend_in_both, "contextmanager"),
        (generator, double_in_both, "coroutine"),
        (generator, counting_in_both, "iterator"),
        (generator, lend_in_both, "contextmanager"),
        (iterator, double_in_both, "coroutine"),
        (iterator, lend_in_both, "contextmanager"),
        (contextmanager, double_in_both, "coroutine"),
        (contextmanager, count_in_both, "generator"),
        (contextmanager, counting_in_both, "iterator"),
    ],
    ids=lambda f: getattr(f, "__name__", f),
)
def test_a_function_decorated_as_another_kind_is_refused(decorator: Any, decorated: Any, by: str) -> None:
    with pytest.raises(TypeError) as refused:
        decorator(decorated)
    assert f"@{decorator.__name__} expects " in str(refused.value)
    assert f"not a function decorated with @{by} (<function {decorated.__name__} at " in str(refused.value)
    assert str(refused.value).endswith("): keep one of the two")


# what cannot be decorated


def sync_function() -> int:
    return 1


def sync_generator() -> Any:
    yield 1


class Async:
    async def __call__(self) -> None: ...


SYNC = ["not a sync function", "make it `async def`"]
OF_A_CLASS = ["not the class Async", "decorate its methods"]
NOTHING = ["not an object of type NoneType (None)", "decorate a function"]


@pytest.mark.parametrize(
    ("decorator", "thing", "says"),
    [
        *[(decorator, Async, OF_A_CLASS) for decorator in DECORATORS],
        *[(decorator, None, NOTHING) for decorator in DECORATORS],
        *[(decorator, sync_function, SYNC) for decorator in DECORATORS if decorator is not iterator],
        *[(decorator, sync_generator, SYNC) for decorator in DECORATORS if decorator is not iterator],
        (anysync, len, SYNC),
        (coroutine, count, ["not an async generator function", "@anysync.generator"]),
        (generator, double, ["not a coroutine function", "@anysync.coroutine", "`yield`"]),
        (iterator, double, ["not a coroutine function", "@anysync.coroutine", "`yield`"]),
        (contextmanager, double, ["not a coroutine function", "`yield`"]),
        (generator, Called(), ["not a coroutine function", "@anysync.coroutine"]),
        (coroutine, CalledToCount(), ["not an async generator function", "@anysync.generator"]),
        (generator, partial(double, 1), ["not a coroutine function", "@anysync.coroutine"]),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_misuse_says_what_was_expected_what_came_and_the_remedy(
    decorator: Any, thing: Any, says: list[str]
) -> None:
    with pytest.raises(TypeError) as refused:
        decorator(thing)
    message = str(refused.value)
    expected = {
        anysync: "an `async def` function, with or without `yield`",
        coroutine: "a coroutine function (`async def`)",
        generator: "an async generator function (`async def` with `yield`)",
        iterator: "a function that returns an async iterator",
        contextmanager: "an async generator function (`async def` with `yield`)",
    }[decorator]
    assert message.startswith(f"@{decorator.__name__} expects {expected}, not ")
    assert repr(thing) in message
    came, *remedies = says
    assert came in message.partition(": ")[0]
    for remedy in remedies:
        assert remedy in message.rpartition("): ")[2]


@pytest.mark.parametrize("method", [classmethod, staticmethod])
@pytest.mark.parametrize("decorator", DECORATORS)
def test_class_and_static_methods_in_the_wrong_order(decorator: Any, method: Any) -> None:
    function = double if decorator in (anysync, coroutine) else count
    with pytest.raises(TypeError) as refused:
        decorator(method(function))
    assert f"not a {method.__name__} (" in str(refused.value)
    assert str(refused.value).endswith(f"put @{method.__name__} above @{decorator.__name__}")


@pytest.mark.parametrize("make", [double, double_in_both], ids=["bare", "decorated"])
@pytest.mark.parametrize("decorator", DECORATORS)
def test_a_coroutine_is_refused_and_closed(decorator: Any, make: Any) -> None:
    coro = make(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(
            TypeError, match=r"not a coroutine \(.*\): .*the function that makes it.*anysync\.run\(\)"
        ):
            decorator(coro)
        bare = getattr(coro, "coro", coro)
        assert inspect.getcoroutinestate(bare) == inspect.CORO_CLOSED
        del coro, bare
        gc.collect()
    assert not [warning for warning in caught if "never awaited" in str(warning.message)]


@pytest.mark.parametrize(
    "make", [count, count_in_both, counting_in_both], ids=["bare", "generator", "iterator"]
)
@pytest.mark.parametrize("decorator", DECORATORS)
def test_an_async_iterator_is_refused(decorator: Any, make: Any) -> None:
    with pytest.raises(
        TypeError, match=r"not an async iterator \(.*\): .*the function that makes it.*wrap_async_"
    ):
        decorator(make(1))


@pytest.mark.parametrize("decorator", DECORATORS)
def test_an_async_context_manager_is_refused(decorator: Any) -> None:
    # those of contextlib can be called, as decorators
    for manager in asynccontextmanager(lend)(1), lend_in_both(1):
        with pytest.raises(
            TypeError, match=r"not an async context manager \(.*\): use wrap_async_context_manager"
        ):
            decorator(manager)


def test_a_callable_that_is_a_context_manager_too_is_decorated_by_its_call() -> None:
    class Client:
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def __call__(self) -> int:
            return 4

    decorated: Any = coroutine(Client())
    assert decorated().run() == 4


def test_a_backend_reaches_what_an_iterators_own_aiter_returns():
    class Libraries(AnySyncIterator[str]):
        async def __aiter__(self):
            yield sniffio.current_async_library()

        async def __anext__(self):
            raise StopAsyncIteration

    @iterator(backend="trio")
    def libraries():
        return Libraries()

    assert list(libraries()) == ["trio"]
