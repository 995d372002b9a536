"""A library that tells in its bug reports which core runs, and knows each that there is."""

import os
from typing import Literal, assert_never, assert_type

from anysync import core


def advice(name: Literal["pure", "compiled"]) -> str:
    match name:
        case "compiled":
            return "nothing to do"
        case "pure":
            return "install a C compiler, then AnySync again"
        case _:
            assert_never(name)


wanted = {"0": "pure", "1": "compiled"}.get(os.environ.get("ANYSYNC_EXTENSION", ""), core.name)
assert assert_type(core.name, Literal["pure", "compiled"]) == wanted
assert advice(core.name).startswith({"pure": "install", "compiled": "nothing"}[core.name])
