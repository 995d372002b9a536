"""Call async code from sync code: `await f()` in one world, `f().run()` in the other."""

from ._decorators import anysync, contextmanager, coroutine, generator, iterator
from ._iterators import AnySyncGenerator, AnySyncIterator, wrap_async_generator, wrap_async_iterator
from ._managers import AnySyncContextManager, wrap_async_context_manager
from ._objects import AnySyncCoroutine, run, wrap_coroutine
from ._runner import Runner, configure

__version__: str = "1.1.0"

__all__ = [
    "AnySyncContextManager",
    "AnySyncCoroutine",
    "AnySyncGenerator",
    "AnySyncIterator",
    "Runner",
    "anysync",
    "configure",
    "contextmanager",
    "coroutine",
    "generator",
    "iterator",
    "run",
    "wrap_async_context_manager",
    "wrap_async_generator",
    "wrap_async_iterator",
    "wrap_coroutine",
]

from . import core as core  # last: it shows the names above once more
