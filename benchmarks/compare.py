"""Measure this checkout beside its rivals; print the tables, and write them and a chart into `results/`."""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from math import isnan, nan
from pathlib import Path
from statistics import median

from chart import chart, figure
from rows import (
    EVERYWHERE,
    IMPORTING,
    IN_LOOP,
    NO_LOOP,
    ON_TRIO,
    ON_UVLOOP,
    OURS,
    PORTAL,
    PUBLISHED,
    ROWS,
    TRIO_PORTAL,
)

HERE = Path(__file__).resolve().parent
CORES = {"compiled": "1", "pure": "0"}  # and the ANYSYNC_EXTENSION that asks for it
PYPERF = ["-q", "--processes=1", "--values=3", "--min-time=0.05", "--inherit-environ=ANYSYNC_EXTENSION"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="the interpreter to use")
    parser.add_argument("--cores", choices=[*CORES, "both"], default="both", help="of this checkout")
    parser.add_argument("--pin", action="store_true", help="measure on one processor only")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="fresh processes for each number")
    parser.add_argument("--libraries", action="store_true", help="the table of asyncio, uvloop and trio")
    parser.add_argument("--rows", default="", metavar="SUBSTRING", help="only these; then nothing is written")
    args = parser.parse_args()
    args.cores = list(CORES) if args.cores == "both" else [args.cores]
    return args


def output(*command, extension=""):
    """Return what a command prints, run with the ANYSYNC_EXTENSION."""
    environ = os.environ | {"ANYSYNC_EXTENSION": extension}
    done = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True, env=environ)
    return done.stdout.strip()


def environment(python, name, *requirements):
    """Return the interpreter of an environment of that name, which is kept for the next time."""
    python_there = HERE / ".envs" / name / "bin" / "python"
    if not python_there.exists():
        output(python, "-m", "venv", HERE / ".envs" / name)
    install(python_there, *requirements)
    return python_there


def install(python, *what, extension=""):
    output(python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *what, extension=extension)


def prepare(python, version, cores):
    """Return two interpreters: that of this checkout and the rivals, and that of the rival with our name."""
    pins = HERE / "rivals.txt"
    published = environment(
        python, f"{version}-published", "-c", pins, "pyperf", PUBLISHED.replace(" ", "==")
    )
    here = environment(python, version, "-r", pins)
    with tempfile.TemporaryDirectory() as directory:  # no leftovers of an earlier build get in
        leftovers = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "*.pyd", "*.c")
        checkout = shutil.copytree(HERE.parent, Path(directory, "anysync"), ignore=leftovers)
        extension = CORES[cores[0]]  # the pure core is in every build
        install(here, "--force-reinstall", "--no-deps", "--no-build-isolation", checkout, extension=extension)
    for core in cores:
        found = output(
            here, "-I", "-c", "import anysync.core; print(anysync.core.name)", extension=CORES[core]
        )
        if found != core:
            sys.exit(f"the {core} core was asked for, and the {found} core runs")
    return here, published


def time(python, row, side, extension="", table="rivals"):
    """Return the microseconds of a row, from a fresh process, or NaN if the side refuses."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory, "result.json")
        output(python, HERE / "timing.py", *PYPERF, "-o", result, table, row, side, extension=extension)
        if not result.exists():
            return nan
        (benchmark,) = json.loads(result.read_text())["benchmarks"]
    return 1e6 * median(value for run in benchmark["runs"] for value in run.get("values", ()))


def number(python, script, argument, extension):
    """Return what one of the scripts here prints, from a fresh process."""
    return float(output(python, HERE / script, argument, extension=extension))


def interleaved(rounds, measures):
    """Return the median of each measure, all taken in turns: what slows the machine down slows them all."""
    taken = [{name: measure() for name, measure in measures.items()} for _ in range(rounds)]
    return {name: median(turn[name] for turn in taken) for name in measures}


def line(*cells):
    return f"| {' | '.join(cells)} |"


def rivals_table(args, here, published, times):
    """Measure each row, keep its times, and yield the lines of the table."""
    columns = [*(f"{core}, µs" for core in args.cores), "rival", "µs", *(f"/ {core}" for core in args.cores)]
    yield line("", *columns, "goal")
    yield line("---", *["---" if column == "rival" else "--:" for column in columns], "--:")
    for title, row in ROWS.items():
        if args.rows not in title:
            continue
        sides = {core: (here, OURS, CORES[core]) for core in args.cores}
        for rival in [*row.goals, *row.floors]:
            sides[rival] = (published, OURS) if rival == PUBLISHED else (here, rival)
        took = times[title] = interleaved(
            args.rounds, {name: partial(time, python, title, *way) for name, (python, *way) in sides.items()}
        )
        first = [title, *(figure(took[core]) for core in args.cores)]
        for rival in row.goals:
            ratios = ["" if isnan(took[rival]) else figure(took[rival] / took[core]) for core in args.cores]
            goal = (row.pinned if args.pin else row.goals).get(rival)
            yield line(*first, rival, figure(took[rival]), *ratios, "" if goal is None else str(goal))
            first = ["" for _ in first]


def own_table(args, version, here, times):
    """Yield the lines of the table of what is not compared with a rival."""
    yield line("", *args.cores, "goal")
    yield line("---", *["--:" for _ in args.cores], "--:")
    for title, took in times.items():
        for floor, goal in ROWS[title].floors.items():
            what = f"{title}, as a multiple of {floor} ({figure(took[floor])} µs)"
            yield line(what, *(figure(took[core] / took[floor]) for core in args.cores), f"at most {goal}")
        if title == IMPORTING:
            yield line(f"{title}, ms", *(figure(took[core] / 1000) for core in args.cores), "at most 15")

    threads, goal = (2, "at least 1.7") if version.endswith("t") else (16, "at least 0.9")  # t: free-threaded
    title = f"calls a second of {threads} threads in sync code, as a multiple of one's"
    scripts = {title: ("threads.py", threads, goal, args.rounds)}
    for title, row in ROWS.items():
        if row.growth:  # one round: it takes long, and hardly varies
            what = f"{title}: KiB more after {row.growth * row.items:,}"
            scripts[what] = ("growth.py", title, "under 1024", 1)
    for title, (script, argument, goal, rounds) in scripts.items():
        if args.rows in title:
            ours = {core: partial(number, here, script, argument, CORES[core]) for core in args.cores}
            yield line(title, *map(figure, interleaved(rounds, ours).values()), goal)


def everywhere_table(args, here):
    """Yield the lines of the table of asyncio, uvloop and trio, each beside anyio's portal."""
    ours = {"asyncio": OURS, "uvloop": ON_UVLOOP, "trio": ON_TRIO}
    portals = {"portal on asyncio": PORTAL, "on trio": TRIO_PORTAL}
    yield line("µs", *ours, *portals, "portal / ours, asyncio", "trio")
    yield line("---", *["--:" for _ in [*ours, *portals]], "--:", "--:")
    for title, row in EVERYWHERE.items():
        if args.rows not in title:
            continue
        sides = {name: side for name, side in {**ours, **portals}.items() if side in row.ways}
        took = interleaved(
            args.rounds,
            {
                name: partial(time, here, title, side, CORES[args.cores[0]], "everywhere")
                for name, side in sides.items()
            },
        )
        ratios = [
            figure(took[portal] / took[library]) if portal in took else ""
            for portal, library in zip(portals, ("asyncio", "trio"), strict=True)
        ]
        yield line(
            title, *(figure(took[name]) if name in took else "" for name in [*ours, *portals]), *ratios
        )


def report(args, version, here, published, times):
    yield from conditions(args, version)
    if args.libraries:
        yield from everywhere_table(args, here)
        return
    yield from rivals_table(args, here, published, times)
    yield ""
    yield from own_table(args, version, here, times)


def conditions(args, version):
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    pinned = ", pinned to one" if args.pin else ""
    yield f"Python {version}, {machine}{pinned}; cores: {', '.join(args.cores)}; rounds: {args.rounds}."
    yield ""


def main():
    args = arguments()
    os.environ.pop("PYTHONPATH", None)  # it could put the same anysync into both environments
    ask = "import platform, sys; print(platform.python_version() + sys.abiflags)"
    version = output(args.python, "-c", ask)
    here, published = prepare(args.python, version, args.cores)
    if args.pin:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # and all processes that this one starts

    times, lines = {}, []
    for text in report(args, version, here, published, times):
        print(text, flush=True)
        lines.append(text + "\n")
    if not args.rows:
        name = version.rsplit(".", 1)[0] + "t" * version.endswith("t") + "-pinned" * args.pin
        results = HERE / "results"
        results.mkdir(exist_ok=True)
        if args.libraries:
            (results / f"{name}-libraries.md").write_text("".join(lines))
            return
        (results / f"{name}.md").write_text("".join(lines))
        ours = {core: f"AnySync, {core}" for core in args.cores}
        sides = ours | {rival: rival for rival in ROWS[NO_LOOP].goals}
        panels = {row: {name: times[row][side] for side, name in sides.items()} for row in (NO_LOOP, IN_LOOP)}
        (results / f"{name}.svg").write_text(chart(panels, ours.values()))


if __name__ == "__main__":
    main()
