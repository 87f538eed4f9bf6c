"""A tap on every datagram of a call over resends, switches of layers and kill -9 of each process:
no (key, SSRC, index) has two ciphertexts.  For AES-GCM one such pair gives the keys away (RFC 7714
section 8.1), so the wire decides here, not anybody's counters."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import httpx
from bare_peer import RTX, VP8
from layer_kit import Seat, Studio
from node_kit import Site, Up, until, up
from webrtc_kit import http

SWITCHES = 20
KILL_PLANE, KILL_SUPERVISOR = (4, 11), (8, 15)  # after so many switches
ASK_S = 0.03


async def ask_again(seats: list[Seat]) -> None:
    """Each asks for some of the last 80 numbers, again and again."""
    rng = random.Random(5)
    while True:
        for seat in seats:
            if packets := seat.of(VP8):
                seat.ask([(packets[-1].seq - rng.randrange(80)) & 0xFFFF for _ in range(3)])
        await asyncio.sleep(ASK_S)


async def flows(seats: list[Seat], packets: int = 20) -> None:
    """Until so many packets that come from now on have come to each."""
    had = [len(seat.of(VP8)) for seat in seats]
    await until(
        lambda: all(len(s.of(VP8)) > n + packets for s, n in zip(seats, had, strict=True)),
        "pictures come",
    )


async def restart_plane(site: Site) -> None:
    (pid,) = site.dataplanes()
    os.kill(pid, signal.SIGKILL)

    def another() -> bool:
        found = site.dataplanes()
        return len(found) == 1 and found != [pid]

    await until(another, "another data plane runs")


async def restart_supervisor(site: Site, old: Up, seats: list[Seat]) -> Up:
    back = [seat.back for seat in seats]
    old.kill()
    await flows(seats)  # nobody is there but the data plane
    new = Up(site)
    await asyncio.to_thread(new.ready)
    await until(
        lambda: all(s.back > n for s, n in zip(seats, back, strict=True)), "sessions are back"
    )
    return new


async def test_no_index_is_sealed_twice(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with up(site) as supervisor:
        lives = [supervisor]
        try:
            async with (
                http(site) as client,
                Studio(site.token("studio")) as studio,
                Seat(site, "eve") as eve,
                Seat(site, "bob", repair=False) as bob,
            ):
                await call(site, client, studio, [eve, bob], lives)
        finally:
            for life in lives[1:]:
                life.clean_up()


async def call(
    site: Site, client: httpx.AsyncClient, studio: Studio, seats: list[Seat], lives: list[Up]
) -> None:
    await site.room()
    await studio.connect(client)
    async with studio.filming_live():
        for seat in seats:
            await seat.connect(client)
        await flows(seats, 60)
        asking = asyncio.create_task(ask_again(seats))
        for turn in range(SWITCHES):
            for seat in seats:
                await seat.wish(turn % 2)
            for seat in seats:
                await seat.sees(turn % 2, 20)
            if turn in KILL_PLANE:
                await restart_plane(site)
                await flows(seats)
            if turn in KILL_SUPERVISOR:
                lives.append(await restart_supervisor(site, lives[-1], seats))
        await flows(seats)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        for seat in seats:
            await seat.leave()
    eve, bob = seats
    for who in (studio, eve, bob):
        tap = who.tap
        assert tap.packets > 20 and not tap.full
        assert tap.reused == 0, f"{tap.reused} indices were sealed twice"
    print(f"{eve.tap.packets} packets, {len(eve.of(RTX))} by RTX, {bob.again} came twice")
    assert [seat.unopened for seat in seats] == [0, 0], "the keys are not those of the join"
    assert len(eve.of(RTX)) > 50 and bob.again > 20
