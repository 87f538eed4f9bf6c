"""Start, adopt, watch and restart the data plane process.

Law: the process outlives this object unless shutdown() is called; sockets and memory are held by
both processes, so whichever restarts gets them from the other.  A restart keeps the descriptors
and the index store, wipes the rings, and leaves the table empty: whoever owns the table replays
it when `on_restarted` is called.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from forwarder.dataplane import contract
from forwarder.dataplane import counters as tallies
from forwarder.dataplane.abi import Segment
from forwarder.dataplane.control import Control, Ready
from forwarder.dataplane.parts import Parts, assemble, create, drain
from forwarder.dataplane.setup import Local, Setup, SetupFlags
from forwarder.dataplane.sockets import Group
from forwarder.dataplane.spawn import find_binary, last_words, served, spawn
from forwarder.dataplane.started import Started
from forwarder.dataplane.starved import STARVED_MAX_NS, Starvation
from forwarder.dataplane.tally import LegStats, RouteStats, Snapshot, SourceMeter, SourceStats
from forwarder.dataplane.watch import POLL_S, STALE_NS, Watch
from forwarder.errors import DataPlaneError, DataPlaneLost

log = logging.getLogger(__name__)

RESTART_PAUSE_S = (0.0, 0.1, 0.3, 1.0, 2.0)
"""Pauses before the attempts of one restart; the last one repeats."""
END_TIMEOUT_S = 4.0


class DataPlane:
    """One data plane of one run directory.

    `on_restarted(gap_ms)` is called once the process serves again with an empty table; gap_ms
    is the time in which no packet was forwarded, as far as the supervisor can tell.
    `on_failed(sentence)` is called for each attempt to restart that failed; attempts go on.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        binary: Path | None = None,
        on_restarted: Callable[[float], None] | None = None,
        on_failed: Callable[[str], None] | None = None,
        on_group: Callable[[Group], None] | None = None,
        on_process: Callable[[int], None] | None = None,
        watchdog_ms: int = STALE_NS // 1_000_000,
        service: bool = False,
    ) -> None:
        """`service`: somebody else (systemd) starts the process, and again when it was killed.
        `on_process`: called with the PID of each, before it is set up."""
        self.run_dir = run_dir
        self._service = service
        self._stale_ns = watchdog_ms * 1_000_000
        self.on_restarted = on_restarted
        self.on_failed = on_failed
        self.on_lost: list[Callable[[], None]] = []
        """Called at once when the process is known to be gone, before it is started again."""
        self.restarts = 0
        self.ready: Ready | None = None
        self._binary = binary
        self._on_group = on_group
        self._on_process = on_process
        self._parts: Parts | None = None
        self._control: Control | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._pidfd = -1
        self._ended = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._restarting = asyncio.Lock()
        self._lock_fd = -1

    # ---- what others read -------------------------------------------------------------------

    @property
    def parts(self) -> Parts:
        if self._parts is None:
            raise DataPlaneLost("the data plane was not started")
        return self._parts

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def setup(self) -> Setup:
        """As it runs: ports bound, whatever was adopted."""
        return self.parts.setup

    @property
    def locals(self) -> tuple[Local, ...]:
        return self.parts.setup.locals

    @property
    def groups(self) -> list[Group]:
        """The sockets of each local address; the slow ones are the supervisor's to read."""
        return self.parts.groups

    @property
    def segments(self) -> list[Segment]:
        return self.parts.segments

    @property
    def xsks_map(self) -> int | None:
        return self.parts.xsks_map

    def counters(self) -> Snapshot:
        """All counters, summed and for each worker."""
        return tallies.snapshot(self.segments)

    def leg_stats(self, worker: int, leg: int) -> LegStats:
        return tallies.leg_stats(self.segments[worker], leg)

    def source_stats(self, worker: int, source: int) -> SourceStats:
        return tallies.source_stats(self.segments[worker], source)

    def source_meters(self, worker: int, sources: Iterable[int]) -> dict[int, SourceMeter]:
        return tallies.source_meters(self.segments[worker], sources)

    def route_stats(self, worker: int, route: int) -> RouteStats:
        return tallies.route_stats(self.segments[worker], route)

    def ring(self, worker: int) -> None:
        """Rings a worker's bell if it sleeps; after pushes."""
        if self.parts.segments[worker].must_ring():
            os.eventfd_write(self.parts.cmd_bells[worker], 1)

    def event_bell(self, worker: int) -> int:
        return self.parts.evt_bells[worker]

    # ---- life -------------------------------------------------------------------------------

    async def start(self, setup: Setup, *, xsks_map: int | None = None) -> Started:
        """Adopts the data plane that serves the run directory, or starts one.

        An adopted one keeps its own set-up: compare `self.setup`.  Raises DataPlaneError,
        HostError.
        """
        self.take_lock()
        adopted = await self._adopt()
        if not adopted:
            self._parts = create(setup, xsks_map, self._on_group)
            try:
                await self._launch()
            except BaseException:
                self._parts.close()
                self._parts = None
                raise
        self._watcher = asyncio.create_task(self._watch(), name="dataplane-watch")
        changed = contract.changed(self.run_dir, self._on_disk) if adopted else ""
        return Started(adopted, self._pid, changed)

    def take_lock(self) -> None:
        """The run directory is ours until close(); DataPlaneError when it is another's.

        Whoever changes anything that its data plane shares with others takes it before."""
        if self._lock_fd >= 0:
            return
        self.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = os.open(
            self.run_dir / "supervisor.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            self._lock_fd = -1
            raise DataPlaneError(
                f"another supervisor serves {self.run_dir}: end it, or use another run directory"
            ) from None

    async def _adopt(self) -> bool:
        """Takes a data plane over that is set up; False when there is none.  DataPlaneError when
        it is of a build that does not fit: its calls go on, and it is not touched.

        One that was not set up yet (systemd may start it before us) is left to _launch; one
        that does not answer is ended.
        """
        if why := contract.misfit(self.run_dir, self._on_disk):
            raise DataPlaneError(why)
        control = Control.connect(self.run_dir)
        if control is None:
            return False
        pid = control.peer_pid()
        try:
            state = await control.state()
        except DataPlaneLost as error:
            log.warning("data plane %d is of no use (%s): ending it", pid, error)
            control.close()
            self._attend(pid)
            await self._kill()
            return False
        if state is None:
            control.close()
            return False
        self._parts = assemble(state.record, state.fds)
        self._control, self.ready = control, state.ready
        self._attend(pid)
        return True

    def _on_disk(self) -> str:
        """The version of the installed program; empty when it is not there."""
        try:
            return contract.version_of(self._binary or find_binary())
        except DataPlaneError:
            return ""

    async def _reach(self) -> Control:
        """A process that waits to be set up: somebody else's, or one that we start."""
        if self._service:
            control = await served(self.run_dir)
        else:
            found = Control.connect(self.run_dir)  # started by somebody else
            if found is None:
                self._child, control = spawn(self._binary or find_binary(), self.run_dir)
                self._attend(self._child.pid)
                return control
            control = found
        self._attend(control.peer_pid())
        return control

    async def _launch(self, *, hold: bool = False) -> None:
        """`hold`: the workers receive nothing until Begin, for a table is to be replayed."""
        parts = self.parts
        parts.record.flags = int(parts.setup.flags | (SetupFlags.HOLD if hold else SetupFlags.NONE))
        for segment in parts.segments:
            segment.format(parts.record)
        for bell in (*parts.cmd_bells, *parts.evt_bells):
            drain(bell)
        control = await self._reach()
        try:
            self.ready = await control.setup(parts.record, parts.labelled())
        except BaseException:
            control.close()
            await self._kill()
            raise
        self._control = control

    def _attend(self, pid: int) -> None:
        """From now on, `_ended` is set when the process is gone."""
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._ended.clear()
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)
        _tell(self._on_process, pid)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._child is not None and self._child.pid == self._pid:
            self._child.wait()
            self._child = None
        self._ended.set()

    async def _kill(self) -> None:
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await self._ended.wait()
        if self._control is not None:
            self._control.close()
            self._control = None

    async def restart(self, why: str = "asked to", *, pid: int | None = None) -> float:
        """Ends the process and starts it again with the same descriptors; returns the gap, ms.

        The table is empty afterwards.  Tries again, with pauses, until it succeeds.  With `pid`
        nothing is done when another process has taken its place.
        """
        async with self._restarting:
            if pid is not None and pid != self._pid:
                return 0.0
            alive = max(segment.alive_until_ns for segment in self.segments) / 1e9
            began = min(time.monotonic(), alive)
            log.warning("restarting the data plane %d: %s", self._pid, why)
            await self._kill()
            for lost in list(self.on_lost):
                _tell(lost)
            attempt = 0
            while True:
                await asyncio.sleep(RESTART_PAUSE_S[min(attempt, len(RESTART_PAUSE_S) - 1)])
                try:
                    await self._launch(hold=True)
                    break
                except DataPlaneError as error:
                    attempt += 1
                    log.error("the data plane does not start (attempt %d): %s", attempt, error)
                    _tell(self.on_failed, str(error))
            self.restarts += 1
            gap_ms = (time.monotonic() - began) * 1000
        _tell(self.on_restarted, gap_ms)
        return gap_ms

    async def _watch(self) -> None:
        watched = 0
        while True:
            if watched != self._pid:
                watched = self._pid
                watch, starvation = Watch(len(self.segments), self._stale_ns), Starvation(watched)
            try:
                async with asyncio.timeout(POLL_S):
                    await self._ended.wait()
            except TimeoutError:
                if self._restarting.locked():
                    continue
                alive = [segment.alive_until_ns for segment in self.segments]
                now_ns = time.monotonic_ns()
                stale = watch.stale(now_ns, alive)
                if stale is None:
                    starvation.forget()
                elif now_ns - alive[stale] > STARVED_MAX_NS or not starvation.waits(stale):
                    await self.restart(f"worker {stale} gave no sign of life", pid=watched)
            else:
                await self.restart(f"it ended; {last_words(self.run_dir)}", pid=watched)

    async def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    async def shutdown(self, *, again: bool = False) -> None:
        """Ends the data plane and closes everything.  `again`: start() follows; whoever keeps it as
        a service starts what was killed, and leaves alone what ended by itself."""
        await self._stop_watching()
        if self._control is not None and self._pidfd >= 0 and not (again and self._service):
            try:
                self._control.shutdown()
                async with asyncio.timeout(END_TIMEOUT_S):
                    await self._ended.wait()
            except (DataPlaneLost, TimeoutError):
                log.warning("the data plane %d did not end by itself", self._pid)
        await self._kill()
        await self.close()

    async def close(self) -> None:
        """Lets go of the data plane, which lives on until its orphan time is over."""
        await self._stop_watching()
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._child is not None:
            self._child.returncode = 0  # not waited for: it outlives us on purpose
            self._child = None
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._parts is not None:
            self._parts.close()
            self._parts = None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _tell(callback: Callable[..., None] | None, *args: object) -> None:
    """Calls back; a fault of the other side must not end the watching."""
    if callback is None:
        return
    try:
        callback(*args)
    except Exception:
        log.exception("a callback of the data plane's watcher failed")
