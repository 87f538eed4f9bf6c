"""`vcfwd tune`: makes this host ready, keeps it so, and takes all of it back."""

from __future__ import annotations

import io
import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from forwarder.config import Config
    from forwarder.host.audit import Audit
    from forwarder.host.journal import Journal
    from forwarder.host.root import Host
    from forwarder.host.site import Survey

UNTOLD: Final = 2
BAD_ARGUMENTS: Final = 3
# click's, under whichever name typer keeps it
_UsageError: Any = typer.BadParameter.__mro__[1]


class Group(TyperGroup):
    """Wrong arguments end with 3: a check's 1 and 2 mean something else."""

    def make_context(self, *args: Any, **more: Any) -> Any:
        with _usage():
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):  # files and their names have any bytes
            sys.stdout.reconfigure(errors="backslashreplace")
        with _usage():
            return super().invoke(ctx)


@contextmanager
def _usage() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        error.exit_code = BAD_ARGUMENTS
        raise


app = typer.Typer(
    cls=Group, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    help="Makes this host ready for the data plane, and takes all of it back.",
)  # fmt: skip

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Configuration file (TOML).", envvar="VCFWD_CONFIG")
]
Root = Annotated[Path, typer.Option("--root", help="A host that `tune capture` took down.")]
Nic = Annotated[list[str] | None, typer.Option("--nic", help="An interface; repeat it for more.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")]
Stages = Annotated[list[str] | None, typer.Argument(metavar="[STAGE]...", show_default=False)]
HERE = Path("/")


class Place:
    """A host with its configuration, journal and audit trail."""

    def __init__(self, config: Path | None, root: Path) -> None:
        from forwarder import config as configuration
        from forwarder.host.audit import Audit
        from forwarder.host.journal import Journal
        from forwarder.host.root import Host

        self.given = config is not None
        # It is about the host, whoever asks: no directories of a user's own.
        self.config: Config = configuration.load(config, euid=0)
        self.host: Host = Host(root)
        self.folder = self.host.path(f"{self.config.node.state_dir}/tune")
        self.journal: Journal = Journal(self.folder, self.host.boot_id())
        self.audit: Audit = Audit(self.host, self.folder)
        self.options = ["--root", str(root.resolve())]
        if config is not None:
            self.options += ["--config", str(config.resolve())]

    def survey(self, nics: list[str] | None, *, confirmed: bool = False) -> Survey:
        from forwarder.host import site

        return site.survey(
            self.host, self.config, nics or (), given=self.given, confirmed=confirmed
        )


@contextmanager
def _told(command: str, *, arguments: bool = False, otherwise: int = 1) -> Iterator[None]:
    """Errors as one sentence on stderr; 3 for wrong arguments (`arguments`: whatever it is)."""
    from forwarder.errors import ConfigError, VcfwdError
    from forwarder.host.devices import NoSuchNic
    from forwarder.host.layout import WrongCores
    from forwarder.host.root import NoCapture
    from forwarder.host.stages import NoSuchStage

    try:
        yield
    except ConfigError as error:
        for fault in error.faults:
            print(f"vcfwd tune {command}: {fault}", file=sys.stderr)
        raise typer.Exit(BAD_ARGUMENTS) from error
    except VcfwdError as error:
        print(f"vcfwd tune {command}: {error}", file=sys.stderr)
        named = NoSuchNic | NoSuchStage | WrongCores | NoCapture
        wrong = arguments or isinstance(error, named)
        raise typer.Exit(BAD_ARGUMENTS if wrong else otherwise) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"vcfwd tune {command}: {where}{error.strerror or error}", file=sys.stderr)
        raise typer.Exit(otherwise) from error


@contextmanager
def _opened(
    command: str, config: Path | None, root: Path, nics: list[str] | None, *,
    confirmed: bool = False, otherwise: int = 1,
) -> Iterator[tuple[Place, Survey]]:  # fmt: skip
    """The place and what the command is about.  A place that is not there is a wrong argument, as
    are names of what the host does not have; a host that cannot be read ends with `otherwise`."""
    with _told(command, arguments=True):
        place = Place(config, root)
    with _told(command, otherwise=otherwise):
        yield place, place.survey(nics, confirmed=confirmed)


@app.command()
def show(config: ConfigFile = None, root: Root = HERE, json_: Json = False) -> None:
    """The host as it is: NUMA nodes, cores, SMT, caches, NICs, isolation.

    Example: vcfwd tune show --json
    """
    from forwarder.host import facts
    from forwarder.host.describe import shown

    with _told("show", arguments=True):
        host = Place(config, root).host
    with _told("show"):
        found = facts.gather(host)
    if json_:
        print(json.dumps(facts.as_json(found)))
        return
    for line in shown(found):
        print(line)


@app.command()
def plan(
    nic: Nic = None, config: ConfigFile = None, root: Root = HERE, json_: Json = False
) -> None:
    """Which cores do what, and every step: now -> wanted, why, its risk, the line by hand.

    With --json the sentences that explain the cores go to standard error.

    Example: vcfwd tune plan --nic eth1
    """
    from forwarder.host.describe import plan_json, plan_lines, plan_notes

    with _opened("plan", config, root, nic) as (_, survey):
        if json_:
            for note in plan_notes(survey):
                print(note, file=sys.stderr)
            print(json.dumps(plan_json(survey)))
            return
        for line in plan_lines(survey):
            print(line)


@app.command()
def check(
    stage: Stages = None, nic: Nic = None, config: ConfigFile = None, root: Root = HERE,
    json_: Json = False,
) -> None:  # fmt: skip
    """One sentence for each stage; no privileges, nothing is changed.

    Exit status: 0 all is well, 1 something is to be done, 2 it could not be told, 3 the arguments
    are wrong.

    Example: vcfwd tune check sysctls irq
    """
    from forwarder.host import verdicts
    from forwarder.host.stages import select

    with _told("check", arguments=True):
        chosen = select(stage or ())
    with _opened("check", config, root, nic, otherwise=UNTOLD) as (_, survey):
        found = verdicts.check(survey.site, chosen)
    status = verdicts.status(found)
    if json_:
        stages = [{"stage": v.stage, "state": v.state, "sentence": v.sentence} for v in found]
        print(json.dumps({"status": status, "notes": survey.notes, "stages": stages}))
    else:
        for note in survey.notes:
            print(note)
        for verdict in found:
            print(f"{verdict.stage:<12} {verdict.state:<14} {verdict.sentence}")
    raise typer.Exit(status)


@app.command()
def apply(
    stage: Stages = None, nic: Nic = None, config: ConfigFile = None, root: Root = HERE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the shell lines, write nothing.")
    ] = False,
    confirm_: Annotated[
        int | None, typer.Option("--confirm", metavar="SECONDS", min=5, max=3600,
        help="Take it back unless `tune confirm` comes in time."),
    ] = None,
) -> None:  # fmt: skip
    """Makes every step, or those of some stages; what was there is journaled first.

    Stops at the first failure and says how to go on.

    Example: vcfwd tune apply --dry-run
    """
    from forwarder.host import apply as applying
    from forwarder.host import confirm as confirming
    from forwarder.host.stages import select

    with _told("apply", arguments=True):
        chosen = select(stage or ())
    sure = confirm_ is not None
    with _opened("apply", config, root, nic, confirmed=sure) as (place, survey):
        site = survey.site
        for note in survey.notes:
            print(note, file=sys.stderr)
        if dry_run:
            for step in applying.unmet(site, chosen):
                print(step.shell)
            return
        applying.may_apply(site, chosen)
        run = uuid.uuid4().hex[:12]
        with place.journal.locked():
            _print_notes(place)
            if confirm_ is not None:
                confirming.arm(place.host, place.folder, run, confirm_, place.options)
            done = applying.apply(site, chosen, place.journal, place.audit, print, run)
        print(f"{done.changed} settings changed; `vcfwd tune revert` takes them back")
        if confirm_ is not None:
            print(f"taken back in {confirm_} s unless you say: vcfwd tune confirm")


@app.command()
def confirm(config: ConfigFile = None, root: Root = HERE) -> None:
    """Keeps what `apply --confirm SECONDS` did."""
    from forwarder.host import confirm as confirming

    with _told("confirm"):
        place = Place(config, root)
        run = confirming.confirm(place.host, place.folder)
        place.audit.add("confirm", "kept", run=run)
        print("kept")


@app.command()
def revert(
    config: ConfigFile = None, root: Root = HERE,
    force: Annotated[
        bool, typer.Option("--force", help="Also what somebody else has changed since.")
    ] = False,
    unconfirmed: Annotated[str | None, typer.Option(hidden=True)] = None,
    after: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:  # fmt: skip
    """Back to the values that were there before the first apply, in reverse, each read back.

    Example: vcfwd tune revert
    """
    import time

    from forwarder.host import apply as applying
    from forwarder.host import confirm as confirming

    with _told("revert"):
        place = Place(config, root)
        if unconfirmed is not None:
            time.sleep(after)
            if confirming.pending(place.folder) != unconfirmed:
                return
        # The apply that is to be taken back may still be at it.
        with place.journal.locked(wait=unconfirmed is not None):
            _print_notes(place)
            done = applying.revert(
                place.host, place.journal, place.audit, print, force=force,
                only=lambda entry: unconfirmed in (None, entry.apply),
            )  # fmt: skip
            confirming.settle(place.folder)
    print(f"{done.changed} settings put back, {done.left} left alone, {done.failed} failed")
    if done.left or done.failed:
        raise typer.Exit(1)


@app.command()
def log(config: ConfigFile = None, root: Root = HERE, json_: Json = False) -> None:
    """The audit trail: who, when, what, with what result."""
    from forwarder.cli.output import when

    with _told("log"):
        lines = Place(config, root).audit.read()
    if json_:
        print(json.dumps(lines))
        return
    for line in lines:
        print(f"{when(line['time'])}  {line['who']}  {line['what']}: {line['result']}")


@app.command()
def watch(
    config: ConfigFile = None, root: Root = HERE,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600.0, help="Seconds between two looks.")
    ] = 10.0,
    count: Annotated[int, typer.Option(min=0, help="How many looks; 0: until Ctrl-C.")] = 0,
    spin_ms: Annotated[
        int, typer.Option(min=0, max=1000, help="Measure spin gaps that long at each look.")
    ] = 0,
    json_: Annotated[bool, typer.Option("--json", help="One JSON line for each look.")] = False,
) -> None:  # fmt: skip
    """Keeps what was applied, and tells what disturbs the workers' cores.

    Puts back what drifts (three times an hour, then says who fights), at once when a link changes;
    holds /dev/cpu_dma_latency meanwhile.

    Example: vcfwd tune watch --interval 5
    """
    from forwarder.host.keeper import keep

    with _opened("watch", config, root, None) as (place, survey):
        keep(
            place.host, place.journal, place.audit, survey.site.layout.cpus,
            lambda nics: place.survey(list(nics)).site,
            interval=interval, count=count, spin_ms=spin_ms, json_=json_,
        )  # fmt: skip


@app.command()
def capture(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")],
    config: ConfigFile = None,
    root: Root = HERE,
) -> None:
    """This host as files that --root reads; addresses, serials and secrets are taken out.

    Example: vcfwd tune capture /tmp/this-host
    """
    from forwarder import config as configuration
    from forwarder.host.capture import capture as take

    with _told("capture", arguments=True):
        settings = configuration.load(config)
    with _told("capture"):
        print(f"{take(folder, settings, root)} files in {folder}")


def _print_notes(place: Place) -> None:
    for note in place.journal.notes:
        print(note, file=sys.stderr)
