"""The compiled core, an optional extension; everything else is in pyproject.toml.

`ANYSYNC_EXTENSION` unset: built if it can be; `0`: not built; `1`: built, or the build fails.
"""

import os
import sys

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

mode = os.environ.get("ANYSYNC_EXTENSION", "")
if mode not in ("", "0", "1"):
    sys.exit(f"ANYSYNC_EXTENSION must be 0, 1 or unset, not {mode!r}")
compiled = mode == "1" or (mode == "" and sys.implementation.name == "cpython")


class Build(build_ext):
    """Forgets the extension if it could not be built."""

    def run(self):
        super().run()
        built = [ext for ext in self.extensions if os.path.exists(self.get_ext_fullpath(ext.name))]
        self.extensions = self.distribution.ext_modules = built


class Wheel(bdist_wheel):
    """A wheel without the extension is one for every Python: that is known once `build` has run."""

    def run_command(self, command):
        super().run_command(command)
        self.root_is_pure = not self.distribution.has_ext_modules()


setup(
    cmdclass={"build_ext": Build, "bdist_wheel": Wheel},
    ext_modules=[
        Extension("anysync._fastloop", ["anysync_ext/_fastloop.pyx"], optional=mode != "1"),
    ][:compiled],
)
