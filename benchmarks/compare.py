"""Time this checkout beside the published anysync 1.0.2, and print a Markdown table of ratios."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
RIVAL = "anysync==1.0.2"


def output(*command):
    return subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def new_environment(python, name, package):
    """Return the interpreter of a new virtual environment that has the package."""
    env = HERE / ".envs" / name
    output(python, "-m", "venv", "--clear", env)
    python = env / ("Scripts" if os.name == "nt" else "bin") / "python"
    output(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "pyperf", package)
    return python


def measure(python, options, row, way):
    """Return the median microseconds of a row, from a fresh process."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory, "result.json")
        output(python, HERE / "rows.py", *options, "-o", result, row, way)
        (benchmark,) = json.loads(result.read_text())["benchmarks"]
    return 1e6 * median(value for run in benchmark["runs"] for value in run.get("values", ()))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="the interpreter to use")
    parser.add_argument("--pin", action="store_true", help="measure on one processor only (Linux)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="fresh processes for each number")
    args = parser.parse_args()
    os.environ.pop("PYTHONPATH", None)  # it could put the same anysync into both environments

    version = output(args.python, "-c", "import platform; print(platform.python_version())")
    rival = new_environment(args.python, f"{version}-rival", RIVAL)
    with tempfile.TemporaryDirectory() as directory:  # no leftovers of an earlier build get in
        leftovers = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "*.pyd")
        checkout = shutil.copytree(HERE.parent, Path(directory, "anysync"), ignore=leftovers)
        ours = new_environment(args.python, f"{version}-ours", checkout)

    options = ["-q", "--processes=1", "--values=5", "--inherit-environ=ANYSYNC_EXTENSION"]
    where = f"{os.cpu_count()} processors"
    if args.pin:
        processor = max(os.sched_getaffinity(0))
        options.append(f"--affinity={processor}")
        where += f", pinned to number {processor}"
    core = output(ours, "-I", "-c", "import anysync.core; print(anysync.core.name)")
    extension = os.environ.get("ANYSYNC_EXTENSION", "unset")
    print(f"Python {version}, {where}; {core} core (ANYSYNC_EXTENSION {extension}); {args.rounds} rounds\n")
    print("| | rival | rival, µs | ours, µs | rival / ours |\n|---|---|--:|--:|--:|", flush=True)

    for row, ways in json.loads(output(ours, HERE / "rows.py", "--list")).items():
        sides = {RIVAL: (rival, ways[0]), "ours": (ours, ways[0]), **{f"`{w}`": (ours, w) for w in ways[1:]}}
        times = {side: [] for side in sides}
        for _ in range(args.rounds):
            for side, (python, way) in sides.items():
                times[side].append(measure(python, options, row, way))
        our_time = median(times.pop("ours"))
        for side, time in ((side, median(values)) for side, values in times.items()):
            print(f"| {row} | {side} | {time:,.2f} | {our_time:,.2f} | {time / our_time:.2f} |", flush=True)


if __name__ == "__main__":
    main()
