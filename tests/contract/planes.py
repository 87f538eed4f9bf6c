"""The data planes that the contract tests run on: the fake, and the real process on sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forwarder.dataplane.fake import FakeCommandClient, FakeDataPlane
from forwarder.dataplane.setup import Local, Setup
from forwarder.errors import DataPlaneError
from forwarder.table import Leg, Queue, Route, Source, Suite, Tuple5

SETUP = Setup(
    locals=(Local("127.0.0.1", 0),),
    legs_max=16,
    sources_max=16,
    routes_max=64,
    history_audio=2,
    history_video=2,
)


@dataclass
class World:
    """A data plane and a client of it."""

    plane: Any
    client: Any


def leg(number: int = 1, **change: Any) -> Leg:
    """A leg that differs from others in all that must differ."""
    values: dict[str, Any] = {
        "id": number,
        "worker": 0,
        "key_id": 1000 + number,
        "suite": Suite.AEAD_AES_128_GCM,
        "rx_key": bytes([number]) * 16,
        "rx_salt": bytes([number + 1]) * 12,
        "tx_key": bytes([number + 2]) * 16,
        "tx_salt": bytes([number + 3]) * 12,
        "tuples": (Tuple5("127.0.0.1", 20000 + number, "127.0.0.1", 4433),),
        "nominated": 0,
    }
    return Leg(**(values | change))


def source(number: int = 1, **change: Any) -> Source:
    values = {"id": number, "leg": 1, "ssrc": 0x5000 + number, "queue": Queue.VIDEO}
    return Source(**(values | change))


def route(number: int = 1, **change: Any) -> Route:
    values = {
        "id": number, "leg": 2, "source": 1, "source_worker": 0, "out_ssrc": 0x9000 + number,
    }  # fmt: skip
    return Route(**(values | change))


@asynccontextmanager
async def fake_world(run_dir: Path, setup: Setup) -> AsyncIterator[World]:
    plane = FakeDataPlane(run_dir)
    await plane.start(setup)
    client = FakeCommandClient(plane)
    yield World(plane, client)
    client.close()
    await plane.shutdown()


def find_real() -> Path:
    """The built program; its absence is a skip with a reason."""
    process = pytest.importorskip("forwarder.dataplane.process", reason="_ring is not built")
    try:
        found: Path = process.find_binary()
        return found
    except DataPlaneError as error:
        pytest.skip(str(error))


@asynccontextmanager
async def real_world(run_dir: Path, setup: Setup) -> AsyncIterator[World]:
    find_real()
    from forwarder.dataplane.commands import CommandClient
    from forwarder.dataplane.process import DataPlane

    plane = DataPlane(run_dir)
    await plane.start(setup)
    client = CommandClient(plane)
    try:
        yield World(plane, client)
    finally:
        client.close()
        await plane.shutdown()


WORLDS: dict[str, Callable[[Path, Setup], Any]] = {"fake": fake_world, "real": real_world}
