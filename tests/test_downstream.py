"""The programs in `downstream/`: each uses one public name as those do who install AnySync.

Here they run, each in a process of its own; `.ci/run` has type checkers read them beside an installed wheel.
"""

import ast
import sys
from pathlib import Path

import pytest
from scripts import check, run_file

import anysync
from anysync import core

PROGRAMS = Path(__file__).parent / "downstream"
NAMES = {name: name for name in anysync.__all__}
NAMES |= {f"core_{name}": "core" for name in core.__all__ if name not in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_program_runs(name: str) -> None:
    check(run_file(PROGRAMS / f"use_{name}.py", options=("-W", "error")))


@pytest.mark.parametrize(("name", "imported"), NAMES.items())
def test_program_imports_its_name_and_else_only_the_standard_library(name: str, imported: str) -> None:
    modules, names = set[str](), set[str]()
    for node in ast.walk(ast.parse((PROGRAMS / f"use_{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom):
            modules.add(str(node.module).partition(".")[0])
            names.update(alias.name for alias in node.names if node.module == "anysync")
        elif isinstance(node, ast.Import):
            modules.update(alias.name.partition(".")[0] for alias in node.names)
    assert imported in names
    assert modules - sys.stdlib_module_names == {"anysync"}


def test_each_public_name_has_one_program() -> None:
    assert {path.stem for path in PROGRAMS.iterdir() if path.suffix == ".py"} == {f"use_{n}" for n in NAMES}
