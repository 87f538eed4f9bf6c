"""A node: everything of `vcfwd up`, started in order and stopped in reverse.

Law: start() either comes up whole or raises one sentence and leaves nothing behind; stop() ends
both processes.  A supervisor that is killed instead is followed by one that finds the data plane,
the rooms, the sessions' secrets and the flows as they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from forwarder.clock import Clock, SystemClock
from forwarder.config import Config
from forwarder.dataplane.commands import CommandClient
from forwarder.dataplane.events import Event, SourceActive
from forwarder.dataplane.sockets import Group
from forwarder.errors import ConfigError
from forwarder.ice import IceLite
from forwarder.ice.dtls import DtlsServer
from forwarder.net.mirror import Mirror
from forwarder.rooms.admission import Limits
from forwarder.rooms.core import Rooms
from forwarder.signaling import api
from forwarder.signaling.http import HttpServer
from forwarder.signaling.hub import Hub
from forwarder.signaling.server import QuicServer
from forwarder.signaling.session import Counters
from forwarder.signaling.tokens import Tokens, check_keys, signing_keys
from forwarder.signaling.turn import Turn
from forwarder.store.store import Store
from forwarder.supervisor import identity, status
from forwarder.supervisor.backend import RoomsBackend
from forwarder.supervisor.browsers import Browsers
from forwarder.supervisor.datapath import DataPath, open_datapath
from forwarder.supervisor.drain import Drain
from forwarder.supervisor.greeting import greeting
from forwarder.supervisor.legpaths import LegPaths
from forwarder.supervisor.reconcile import Reconciler
from forwarder.supervisor.senses import Senses
from forwarder.supervisor.slowpath import SlowPath
from forwarder.table import Tuple5
from forwarder.telemetry import metrics
from forwarder.telemetry.logs import fields

log = logging.getLogger(__name__)

TICK_S = 0.5
RENEW_S = 3600.0
API_SOCKET = "api.sock"
GC_YOUNG = 20_000  # new objects between collections: a full node has millions of live ones


class Node:
    """One appliance on this host."""

    def __init__(
        self,
        config: Config,
        *,
        dev: bool = False,
        clock: Clock | None = None,
        service: bool = False,
    ) -> None:
        """`service`: the data plane is started by a service manager, see let_go()."""
        self._config = config
        self._dev = dev
        self._service = service
        self._clock = clock or SystemClock()
        self._closing = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._rates = status.Rates()
        self._ice = IceLite()
        self._quic = Counters()
        self._events: Counter[str] = Counter()
        self._last_gap_ms: float | None = None
        self._began = 0.0
        self._stopped = False
        self._servers: list[QuicServer] = []

    # ---- start ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Raises VcfwdError with a sentence; stop() must be called in any case."""
        config = self._config
        self._began = self._clock.now()
        for note in config.notes:
            log.warning("%s", note)
        keys = signing_keys(config.api.token_keys)
        check_keys(keys, dev=self._dev)
        self._tokens = Tokens(keys, clock=self._clock, leeway_s=config.api.token_leeway_s)
        self._certificate = identity.certificate(config, self._clock)
        self._dtls = DtlsServer(identity.dtls(config, self._clock), config.ice.max_half_open)
        self._store = Store(Path(config.node.state_dir), Path(config.node.run_dir))
        self._closing.callback(self._store.close)
        self._datapath = await open_datapath(
            config,
            on_restarted=self._on_restarted,
            on_failed=self._on_failed,
            service=self._service,
        )
        self._closing.push_async_callback(self._datapath.shutdown)
        # Without the living data plane the send indices are gone, and old keys with them.
        self._rooms, faults = self._store.load(
            Limits.of(config), self._clock.now(), sessions=self._datapath.adopted
        )
        for fault in faults:
            log.warning("%s", fault)
        self.drain = Drain(self._rooms, self._clock)
        await self._start_table()
        await self._start_signaling()
        self._backend.opened()
        self._tasks += [
            asyncio.create_task(self._reconciler.run(), name="reconcile"),
            asyncio.create_task(self._tick(), name="tick"),
            asyncio.create_task(self._senses.run(), name="senses"),
            asyncio.create_task(self._renew(), name="renew-certificate"),
        ]
        # What was loaded until here lives as long as the process: the collector need not walk it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_YOUNG, 20, 100)
        log.info(
            "ready",
            extra=fields(url=self.url, path=self._datapath.choice.path, dataplane=self.plane_pid),
        )

    async def _start_table(self) -> None:
        datapath, config = self._datapath, self._config
        client = CommandClient(
            datapath.plane,
            on_event=self._on_event,
            on_overflow=self._on_overflow,
        )
        self._closing.callback(client.close)
        xdp = bool(datapath.plane.setup.interfaces)
        mirror = Mirror(
            [item.name for item in datapath.plane.setup.interfaces],
            on_change=lambda _: self._reconciler.routes_changed(),
        )
        if xdp:
            mirror.start()
            self._closing.callback(mirror.close)
        setup = datapath.plane.setup
        self._paths = LegPaths(
            datapath.steering, mirror.header_for if xdp else None, setup.interfaces, setup.workers
        )
        self._reconciler = Reconciler(
            self._rooms,
            client,
            self._paths,
            self._store,
            on_in_force=self._on_in_force,
            on_index_lost=self._on_index_lost,
            on_identity=self._on_identity,
        )
        datapath.plane.on_lost.append(self._reconciler.lost)
        advertised = config.network.advertised_addresses
        addresses = [(str(ip_address(ip)), config.network.port) for ip in advertised]
        self._backend = RoomsBackend(
            self._rooms,
            self._ice,
            self._reconciler,
            self._clock,
            self,
            addresses=addresses,
            guard=datapath.steering,
        )
        self._browsers = Browsers(
            self._rooms,
            self._ice,
            self._dtls,
            self._reconciler,
            self._clock,
            announce=self._backend.announce,
            addresses=addresses,
        )
        self._backend.on_event = self._browsers.on_event
        self._backend.offers = self._browsers
        self._backend.turn = Turn.of(config.ice, self._clock)
        self._senses = Senses(self._rooms, datapath.plane, self._clock, self._backend.announce)
        self._closing.callback(self._browsers.close)
        self._take_up_legs()
        await self._reconciler.begin(adopted=datapath.adopted)

    def _take_up_legs(self) -> None:
        """Participants that an earlier supervisor left: they have the grace period to resume."""
        now = self._clock.now()
        for participant in list(self._rooms.participants()):
            self._ice.add(
                participant.id,
                participant.ufrag,
                participant.password,
                tuples=participant.tuples,
                nominated=participant.nominated,
                now=now,
            )
            self._rooms.session_lost(participant.id, now)
        self._browsers.take_up()
        self._rooms.drain_events()

    async def _start_signaling(self) -> None:
        config = self._config
        self._hub = Hub(
            self._backend, max_sessions=config.signaling.max_sessions, counters=self._quic
        )
        app = api.build(
            self._backend,
            self._tokens,
            metrics=self._metrics if config.metrics.enabled else None,
            metrics_path=config.metrics.path,
            cors_origins=config.api.cors_origins,
            webrtc=self._browsers,
            drain=self.drain,
            turn=self._backend.turn,
        )
        self._slow = SlowPath(
            self._clock, self._ice, self._backend.tuples_changed, self._browsers.datagram
        )
        self._closing.callback(self._slow.close)
        for group in self._datapath.plane.groups:
            server = self._quic_server(group, app)
            self._servers.append(server)
            self._closing.callback(server.close)
            self._slow.add(group.slow, server)
        http = HttpServer(
            app,
            addresses=config.api.addresses,
            port=config.api.port,
            certificate=self._certificate,
            unix_path=Path(config.node.run_dir) / API_SOCKET,
        )
        await http.start()
        self._http = http
        self._closing.push_async_callback(http.stop)

    def _quic_server(self, group: Group, app: Any) -> QuicServer:
        steering, local = self._datapath.steering, group.local

        def validated(address: Any) -> None:
            if steering is not None:
                steering.admit(Tuple5(address[0], address[1], local.ip, local.port))

        def closed(address: Any) -> None:
            if steering is not None:
                steering.dismiss(Tuple5(address[0], address[1], local.ip, local.port))

        return QuicServer(
            hub=self._hub,
            tokens=self._tokens,
            certificate=self._certificate,
            local=(local.ip, local.port),
            send=self._slow.sender(group.slow),
            app=app,
            on_validated=validated,
            on_closed=closed,
            idle_timeout_s=self._config.signaling.idle_timeout_s,
            join_timeout_s=self._config.signaling.join_timeout_s,
        )

    # ---- stop -------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Ends both processes; sessions are told.  A second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._servers:
            self._hub.close_all("the node stops")
            await asyncio.sleep(0)  # the farewell leaves with the next turn of the loop
        await self._closing.aclose()

    def let_go(self) -> None:
        """Of everything, as it is: no session is told, nothing in the kernel changes.  What follows
        is the end of this process, and another supervisor that takes it all over."""
        self._stopped = True
        self._store.close()

    # ---- what happens -----------------------------------------------------------------------

    def _on_restarted(self, gap_ms: float) -> None:
        self._last_gap_ms = round(gap_ms, 1)
        log.warning("the data plane serves again", extra=fields(gap_ms=self._last_gap_ms))
        self._reconciler.restarted()

    def _on_overflow(self) -> None:
        self._reconciler.overflowed()

    def _on_failed(self, sentence: str) -> None:
        log.error("the data plane cannot be started: %s", sentence)

    def _on_event(self, event: Event) -> None:
        self._events[type(event).__name__] += 1
        self._senses.on_event(event)
        if isinstance(event, SourceActive):
            log.debug("a source is active", extra=fields(source=event.source))

    def _on_in_force(self, leg: int) -> None:
        participant = self._rooms.participant_by_leg(leg)
        if participant is not None:
            self._backend.leg_in_force(participant.id)

    def _on_index_lost(self, leg: int) -> None:
        """New keys are needed, so the client must join anew."""
        participant = self._rooms.participant_by_leg(leg)
        if participant is not None:
            self._rooms.leave(
                participant.id, "its send indices were lost: join again", self._clock.now()
            )
            self._backend.announce()

    def _on_identity(self, sentence: str) -> None:
        log.error("%s; starting the data plane anew", sentence)
        task = asyncio.ensure_future(self._restart_dataplane(sentence))
        self._tasks.append(task)

    async def _restart_dataplane(self, why: str) -> None:
        await self._datapath.plane.restart(why)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self._backend.tick()
                self.drain.tick()
            except Exception:  # the next one is needed all the same: consent, grace, empty rooms
                log.exception("a tick failed")

    async def _renew(self) -> None:
        """The development certificate lives less than 14 days: renew it in time."""
        while not self._config.api.cert_file:
            await asyncio.sleep(RENEW_S)
            try:
                fresh = identity.certificate(self._config, self._clock)
            except (ConfigError, OSError) as error:  # two days remain to mend it
                log.error("the certificate cannot be renewed: %s", error)
                continue
            if fresh.sha256 != self._certificate.sha256:
                self._certificate = fresh
                self._http.set_certificate(fresh)
                for server in self._servers:
                    server.set_certificate(fresh)
                log.warning("certificate renewed", extra=fields(sha256=fresh.sha256.hex()))

    # ---- what others ask --------------------------------------------------------------------

    @property
    def rooms(self) -> Rooms:
        return self._rooms

    @property
    def plane_pid(self) -> int:
        return self._datapath.plane.pid

    @property
    def datapath(self) -> DataPath:
        return self._datapath

    @property
    def url(self) -> str:
        address = ip_address(self._config.network.advertised_addresses[0])
        host = f"[{address}]" if address.version == 6 else str(address)
        return f"https://{host}:{self._config.network.port}"

    def _status(self) -> dict[str, Any]:
        return status.compose(
            name=self._config.node.name,
            url=self.url,
            uptime_s=self._clock.now() - self._began,
            rooms=self._rooms,
            datapath=self._datapath,
            rates=self._rates,
            unresolved=self._paths.unresolved,
            slow_path=self._slow.counters,
            ice=self._ice.counters,
            dtls=self._dtls.counters,
            quic=self._quic.values,
            table=self._reconciler.counters,
            last_gap_ms=self._last_gap_ms,
        )

    async def status(self) -> dict[str, Any]:
        """What `vcfwd status` and /v1/status show; see status.py."""
        return self._status()

    def _metrics(self) -> bytes:
        return metrics.render(self._status())

    def greeting(self) -> list[str]:
        """What `vcfwd up` prints when it is ready."""
        return greeting(self.url, self._datapath, self._certificate)
