import asyncio
import os
import runpy
import subprocess
import sys

import pytest

from anysync import __main__, core


def test_the_self_check_passes_and_tells_which_core_ran(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main() == 0
    told = capsys.readouterr().out
    assert f"{core.name} core" in told
    assert told.count("ok ") == 6
    assert "FAILED" not in told


def test_the_self_check_tells_what_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "with_connection", lambda port: "something else")
    assert __main__.main() == 2
    assert capsys.readouterr().out.count("FAILED with cm()") == 2


def test_the_module_exits_with_what_the_self_check_found(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited, pytest.warns(RuntimeWarning, match="sys.modules"):
        runpy.run_module("anysync", run_name="__main__")
    assert exited.value.code == 0
    assert asyncio.run(asyncio.sleep(0, "the loop is free again")) is not None
    assert "ok " in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_self_check_passes_with_either_backend_for_plain_code(backend: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "anysync"],
        capture_output=True,
        text=True,
        timeout=50,
        env=os.environ | {"ANYSYNC_BACKEND": backend},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("ok ") == 6
