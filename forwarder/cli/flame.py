"""`vcfwd flame`: flamegraphs of the data plane, the supervisor and the kernel."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from forwarder.cli.admin import Admin, RunDir, errors_told

if TYPE_CHECKING:
    from forwarder.telemetry.flame.record import Result

CHOICES = ("dataplane", "supervisor", "kernel", "all")


def flame(
    seconds: Annotated[
        float, typer.Option(min=1.0, max=600.0, help="How long samples are taken.")
    ] = 10.0,
    target: Annotated[str, typer.Option(help="dataplane, supervisor, kernel or all.")] = "all",
    off_cpu: Annotated[
        bool, typer.Option("--off-cpu", help="Where threads wait, instead of where they work.")
    ] = False,
    load: Annotated[
        bool, typer.Option("--load", help="A node of its own under load, instead of this host's.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where the files go.")] = Path("flame-out"),
    diff: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Compares two *.folded files, or two folders of them.", metavar="A B"),
    ] = None,
    run_dir: RunDir = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Samples stacks 499 times a second and draws them.

    For each target: folded stacks, an interactive SVG and a speedscope JSON.  By BCC where it and
    kernel headers are installed, else by perf; Python frames by py-spy.  Needs root.  The top is
    by time of its own: of a process its own functions, to which the kernel's work in a system
    call counts; of the kernel the kernel's functions.

    Example: vcfwd flame --seconds 5 --load
    """
    from forwarder.errors import VcfwdError

    if target not in CHOICES:
        _fail(f"--target {target}: it must be one of {', '.join(CHOICES)}", 2)
    try:
        if diff is not None:
            _diff(*diff, out, json_=json_)
            return
        with errors_told("flame"):
            result = _record(seconds, target, out, run_dir, off_cpu=off_cpu, load=load)
    except VcfwdError as error:
        _fail(str(error), 1)
    _tell(result, json_=json_)
    if not result.graphs:
        raise typer.Exit(1)


def _record(
    seconds: float, target: str, out: Path, run_dir: Path | None, *, off_cpu: bool, load: bool
) -> Result:
    from forwarder.telemetry.flame import record
    from forwarder.telemetry.flame.load import Load

    targets: tuple[str, ...] = record.TARGETS if target == "all" else (target,)
    if off_cpu and target == "all":
        targets = ("dataplane", "supervisor")
    record.backend(off_cpu=off_cpu)  # before a load is started for nothing

    def run(where: Path | None) -> Result:
        status = Admin(where).request("GET", "/v1/status")
        pids = {"supervisor": int(status["pid"]), "dataplane": int(status["dataplane"]["pid"])}
        result = record.record(pids, targets, seconds, off_cpu=off_cpu)
        restarts = Admin(where).request("GET", "/v1/status")["dataplane"]["restarts"]
        if restarts != status["dataplane"]["restarts"]:
            result.notes.append("the data plane was restarted meanwhile: samples are missing")
        what = "waits" if off_cpu else "work"
        record.write(result, out, f"vcfwd {status['version']}, {status['path']}, {what}")
        return result

    if not load:
        return run(run_dir)
    with Load() as beside:
        result = run(beside.run_dir)
    result.load = beside.summary
    return result


def _tell(result: Result, *, json_: bool) -> None:
    from forwarder.cli.output import emit_json, emit_table

    if json_:
        emit_json(result.document())
        return
    for graph in result.graphs:
        rows = [[name, f"{share:.1%}"] for name, share in graph.top]
        title = f"{graph.name}: {len(graph.samples):,} samples by {result.backend}"
        emit_table(["function", "time"], rows, title=title)
    if result.lost:
        print(f"{result.lost} samples were lost: the machine was too busy to take them")
    for note in result.notes:
        print(note)
    for path in result.files:
        print(path)


def _diff(before: Path, after: Path, out: Path, *, json_: bool) -> None:
    from forwarder.cli.output import emit_json, emit_table
    from forwarder.telemetry.flame import record

    rows, files = record.diff(before, after, out)
    if json_:
        changes = [
            {"frame": name, "before": round(old, 4), "after": round(new, 4)}
            for name, old, new in rows
        ]
        emit_json({"changes": changes, "files": [str(path) for path in files]})
        return
    table = [[name, f"{old:.1%}", f"{new:.1%}", f"{new - old:+.1%}"] for name, old, new in rows]
    emit_table(["function", "before", "after", "change"], table)
    for path in files:
        print(path)


def _fail(message: str, status: int) -> NoReturn:
    print(f"vcfwd flame: {message}", file=sys.stderr)
    raise typer.Exit(status)
