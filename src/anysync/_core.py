"""Picks the compiled core when it is there, its pure-Python twin otherwise.

`ANYSYNC_EXTENSION` has one meaning when building and when importing: unset, use the extension if it
is there; `0`, never; `1`, always, and a missing extension is an error.
"""

import os
from typing import Final

_extension = os.environ.get("ANYSYNC_EXTENSION")
if _extension not in (None, "", "0", "1"):
    raise ImportError(f"ANYSYNC_EXTENSION must be 0, 1 or unset, not {_extension!r}")
if _extension == "1":
    raise ImportError(
        "ANYSYNC_EXTENSION=1 asks for the compiled core, and this installation has none: "
        "unset the variable, or set it to 0, to use the pure-Python core"
    )

from ._pyloop import (  # noqa: E402
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

name: Final = "pure"

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
