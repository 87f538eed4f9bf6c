"""The node's DTLS certificate is another one after a restart of the supervisor: calls go on by the
one that they began with, and are told that one for ever; who comes gets the other."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from node_kit import Site, Up, until, up
from session_kit import Page
from webrtc_kit import impatient, on_loopback

from forwarder.signaling.certs import CERT_NAME, DTLS_DIR, KEY_NAME

pytestmark = pytest.mark.usefixtures("on_loopback", "impatient")
__all__ = ["impatient", "on_loopback"]


def fingerprints(answer: str | None) -> set[str]:
    return set(re.findall(r"^a=fingerprint:sha-256 (\S+)\r?$", answer or "", re.MULTILINE))


async def test_a_call_outlives_the_certificate_that_it_began_with(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with up(site) as first:
        async with (
            Page(site, "ada", brightness=60, pairs=1) as ada,
            Page(site, "bob", brightness=220, pairs=1) as bob,
            Page(site, "eve", brightness=140, pairs=2) as eve,
        ):
            await site.room()
            (old,) = fingerprints((await ada.join()).answer)
            assert fingerprints((await bob.join()).answer) == {old}
            slot = await ada.shows(bob.id)
            await ada.sees(slot.mid, 220)
            first.kill()
            for name in (CERT_NAME, KEY_NAME):
                (site.base / "state" / DTLS_DIR / name).unlink()
            second = Up(site)
            try:
                await asyncio.to_thread(second.ready)
                await until(lambda: len(ada.welcomes) == len(bob.welcomes) == 2, "both are back")
                (new,) = fingerprints((await eve.join()).answer)
                assert new != old
                await eve.sees((await eve.shows(ada.id)).mid, 60)
                ada.grow(1)
                for _ in range(2):  # what an answer keeps, the next one does too
                    assert fingerprints(await ada.offer_again()) == {old}
                # Both ways go on, and what is new comes by the old keys.
                await ada.sees((await ada.shows(eve.id)).mid, 140)
                await ada.sees(slot.mid, 220)
                await bob.sees((await bob.shows(ada.id)).mid, 60)
                assert ada.pc.connectionState == "connected"
                status = await asyncio.to_thread(site.status)
                assert status["dtls"]["completed"] == 1, status["dtls"]
                assert status["balanced"], status["imbalance"]
            finally:
                second.clean_up()
