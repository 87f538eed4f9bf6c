"""The API over TCP with TLS, and over a Unix socket for this host's command line.

uvicorn runs on the supervisor's loop, without its signal handlers: who stops the node stops this.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import uvicorn

from forwarder.errors import HostError
from forwarder.signaling.api import local_admin
from forwarder.signaling.asgi_h3 import AsgiApp
from forwarder.signaling.bounds import PatientProtocol
from forwarder.signaling.certs import Certificate

CONNECTIONS_MAX: Final = 512  # on each listener; beyond, 503
KEEP_ALIVE_S: Final = 5  # seconds of an idle connection
HEADERS_MAX: Final = 32 * 1024  # bytes of the request line and headers
SHUTDOWN_S: Final = 1  # seconds for requests under way at the end
BACKLOG: Final = 128
UNIX_PATH_MAX: Final = 107  # bytes (unix(7))


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Listeners of the API; start once, stop once."""

    def __init__(
        self,
        app: AsgiApp,
        *,
        addresses: Sequence[str],
        port: int,
        certificate: Certificate | None,
        unix_path: Path | None,
    ) -> None:
        """Without a certificate TCP is in clear (tests, or behind a proxy).  `port` 0: any."""
        self._app = app
        self._addresses = tuple(addresses)
        self._port = port
        self._certificate = certificate
        self._unix_path = unix_path
        self._servers: list[_Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.ports: tuple[int, ...] = ()
        # uvicorn tells of each start and stop; the node tells of its own.
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    async def start(self) -> None:
        """Listens; HostError if an address or the path cannot be taken."""
        sockets: list[socket.socket] = []
        try:
            for address in self._addresses:
                sockets.append(_tcp(address, self._port))
            local = _unix(self._unix_path) if self._unix_path is not None else None
        except HostError:
            for one in sockets:
                one.close()
            raise
        self.ports = tuple(one.getsockname()[1] for one in sockets)
        if sockets:
            await self._serve(self._app, sockets, self._certificate)
        if local is not None:
            await self._serve(local_admin(self._app), [local], None)

    def set_certificate(self, certificate: Certificate) -> None:
        """For connections from now on."""
        self._certificate = certificate
        for server in self._servers:
            if server.config.ssl is not None:
                server.config.ssl.load_cert_chain(certificate.cert_file, certificate.key_file)

    async def stop(self) -> None:
        """Ends the listeners; requests under way get SHUTDOWN_S."""
        for server in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._unix_path is not None and self._servers:
            self._unix_path.unlink(missing_ok=True)
        self._servers.clear()
        self._tasks.clear()

    async def _serve(
        self, app: AsgiApp, sockets: list[socket.socket], certificate: Certificate | None
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="none",
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
            h11_max_incomplete_event_size=HEADERS_MAX,
            ssl_certfile=certificate.cert_file if certificate is not None else None,
            ssl_keyfile=certificate.key_file if certificate is not None else None,
        )
        server = _Server(config)
        task = asyncio.get_running_loop().create_task(server.serve(sockets))
        self._servers.append(server)
        self._tasks.append(task)
        while not server.started:
            if task.done():
                task.result()
                raise HostError("the HTTP API ended while it started")
            await asyncio.sleep(0)


def _tcp(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(socket.getaddrinfo(address, port, family, type=socket.SOCK_STREAM)[0][4])
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        hint = "; is another server there?" if exc.errno == errno.EADDRINUSE else ""
        raise HostError(
            f"api: cannot listen on {address} port {port}: {exc.strerror}{hint}"
        ) from exc
    sock.setblocking(False)
    return sock


def _unix(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise HostError(
            f"{path}: a socket's path has at most {UNIX_PATH_MAX} bytes; shorten run_dir"
        )
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # From its first moment on the socket must be nobody else's, so the mask, not chmod.
    mask = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise HostError(f"{path}: cannot listen there: {exc.strerror}") from exc
    finally:
        os.umask(mask)
    sock.setblocking(False)
    return sock


def _clear_stale(path: Path) -> None:
    """Removes the socket of a node that is dead; HostError if the node lives."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise HostError(f"{path}: is no socket; move it away")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as exc:
            raise HostError(f"{path}: cannot tell whether a node lives: {exc.strerror}") from exc
    raise HostError(f"{path}: another vcfwd answers there; stop it first")
