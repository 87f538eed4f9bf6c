"""A node behind two hosts, and crowds of bare WebRTC clients on them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import bare_peer
import pytest
from node_kit import Site, up

from forwarder.demo.namespaces import Host, Lab

JOINED_S = 150.0  # within which a crowd has joined


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Iterator[Site]:
    """Of a node that is up, on the `lab` of the test."""
    made = Site(tmp_path / "node", lab.fwd, lab.fwd_addresses, lab.interfaces, 4433)
    with up(made):
        yield made


class Crowd:
    """bare_peer.py as a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def joined(self) -> dict[str, Any]:
        """What it says once all have joined or failed."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), JOINED_S)
        return dict(json.loads(line))


@contextlib.asynccontextmanager
async def crowd(host: Host, site: Site, address: str, **order: Any) -> AsyncIterator[Crowd]:
    """So many clients on one host, at this address of the node; they are gone afterwards."""
    order |= {
        "url": site.url(address),
        "ca": str(site.base / "state" / "dev-cert.pem"),
        "room": "r",
    }
    process = await asyncio.create_subprocess_exec(
        *host.command(sys.executable, bare_peer.__file__, json.dumps(order)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Crowd(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
