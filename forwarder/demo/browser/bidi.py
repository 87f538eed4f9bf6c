"""WebDriver BiDi (W3C): commands and events as JSON over one WebSocket.

Only what leads one Firefox: its port lies on the loopback of the browser's network namespace, so
the socket is made there; once made it may be used from anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from forwarder.demo.options import DemoError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

MESSAGE_MAX = 64 * 1024 * 1024  # bytes; a screenshot or a long snapshot is one message
_CLONE_NEWNET = 0x40000000

Handler = Callable[[dict[str, Any]], Awaitable[None] | None]


def connect_inside(namespace: str, address: str, port: int, timeout_s: float) -> socket.socket:
    """A TCP connection made in that namespace ("" is ours).  Blocking: call it in a thread of its
    own, which it leaves in the namespace it came from."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if namespace:
            there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            try:
                if libc.setns(there, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"enter {namespace}")
            finally:
                os.close(there)
        return socket.create_connection((address, port), timeout=timeout_s)
    finally:
        libc.setns(home, _CLONE_NEWNET)
        os.close(home)


class Bidi:
    """One connection.  `on[method]` hears events of that name; errors raise DemoError."""

    def __init__(self, connection: ClientConnection) -> None:
        self.on: dict[str, Handler] = {}
        self._connection = connection
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, namespace: str, port: int, timeout_s: float) -> Bidi:
        from websockets.asyncio.client import connect

        sock = await asyncio.to_thread(connect_inside, namespace, "127.0.0.1", port, timeout_s)
        url = f"ws://127.0.0.1:{port}/session"
        return cls(
            await connect(
                url,
                sock=sock,
                max_size=MESSAGE_MAX,
                compression=None,
                ping_interval=None,  # a busy browser may be late; each call has a bound of its own
                open_timeout=timeout_s,
                proxy=None,
            )
        )

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result; the caller bounds the time."""
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._connection.send(
                json.dumps({"id": number, "method": method, "params": parameters})
            )
            return dict(await future)
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        self._reader.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self._reader, *self._tasks, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self._connection.close()

    async def _read(self) -> None:
        try:
            async for text in self._connection:
                self._take(json.loads(text))
        except Exception as error:
            self._end(f"{type(error).__name__}: {error}")
        else:
            self._end("the browser closed the connection")

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("type") == "event":
            handler = self.on.get(message["method"])
            if handler is not None and (work := handler(message["params"])) is not None:
                task = asyncio.ensure_future(_finish(work))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return
        future = self._waiting.get(message.get("id", 0))
        if future is None or future.done():
            return
        if message["type"] == "success":
            future.set_result(message["result"])
        else:
            future.set_exception(DemoError(f"{message['error']}: {message['message']}"))

    def _end(self, why: str) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(DemoError(why))


async def _finish(work: Awaitable[None]) -> None:
    """What a handler of an event began; one that fails shows as a call that never ends."""
    with contextlib.suppress(DemoError):
        await work
