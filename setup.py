"""The compiled core, an optional extension; everything else is in pyproject.toml.

`ANYSYNC_EXTENSION` unset: built if it can be; `0`: not built; `1`: built, or the build fails.
"""

import os
import sys

from setuptools import Extension, setup

mode = os.environ.get("ANYSYNC_EXTENSION", "")
if mode not in ("", "0", "1"):
    sys.exit(f"ANYSYNC_EXTENSION must be 0, 1 or unset, not {mode!r}")
compiled = mode == "1" or (mode == "" and sys.implementation.name == "cpython")

setup(
    ext_modules=[
        Extension("anysync._fastloop", ["anysync_ext/_fastloop.pyx"], optional=mode != "1"),
    ][:compiled]
)
