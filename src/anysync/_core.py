"""Picks the core: the only module that knows that there is a choice.

`ANYSYNC_EXTENSION` has one meaning when building and when importing: unset, use the extension if it
is there; `0`, never; `1`, always, and a missing extension is an error. So far there is no extension.

The names come with their first use, since the core imports asyncio, which `import anysync` does not.
"""

import os
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ._pyloop import (
        Call,
        Mailbox,
        check_free,
        drop_frame,
        keep_for_good,
        raise_as_is,
        running,
        start,
        wait,
    )

    name: Literal["pure", "compiled"]

__all__ = [
    "Call",
    "Mailbox",
    "check_free",
    "drop_frame",
    "keep_for_good",
    "name",
    "raise_as_is",
    "running",
    "start",
    "wait",
]

_extension = os.environ.get("ANYSYNC_EXTENSION", "")
if _extension not in ("", "0", "1"):
    raise ImportError(f"ANYSYNC_EXTENSION must be 0, 1 or unset, not {_extension!r}")
if _extension == "1":
    raise ImportError(
        "ANYSYNC_EXTENSION=1 asks for the compiled core, and this installation has none: "
        "unset the variable, or set it to 0, to use the pure-Python core"
    )


def __getattr__(attribute: str) -> Any:
    if attribute not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    from . import _pyloop

    found = {name: getattr(_pyloop, name) for name in __all__ if name != "name"}
    globals().update(found, name="pure")
    return globals()[attribute]
