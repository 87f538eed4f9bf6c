"""`vcfwd status`, `room` and `token` against a node that runs, and when none does."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_kit import PATIENCE_S, Site, call_on, up

from forwarder.client import Client
from forwarder.client.subscribe import DecodeMode


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("node"))
    with up(made):
        yield made


def vcfwd(site: Site, *arguments: str) -> str:
    """Its stdout; the command must succeed."""
    status, out, err = run(site.run_dir, *arguments)
    assert status == 0, err
    assert err == ""
    return out


def run(run_dir: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "forwarder.cli.app", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, "VCFWD_RUN_DIR": str(run_dir), "COLUMNS": "100"},
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def classes(pid: int) -> set[int]:
    """Scheduling classes of a data plane's workers."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    workers = [task for task in tasks if (task / "comm").read_text().startswith("vcfwd-w")]
    return {os.sched_getscheduler(int(task.name)) for task in workers}


async def test_status_of_a_call(site: Site) -> None:
    async with call_on(site, "called") as call:
        await call.end()
        found = json.loads(await asyncio.to_thread(vcfwd, site, "status", "--json"))
        text = await asyncio.to_thread(vcfwd, site, "status")
    assert found["balanced"] is True and found["imbalance"] == ""
    counters = found["counters"]
    drops = sum(found["drops"].values())
    assert counters["rx"] == counters["routed"] + counters["consumed"] + drops
    assert counters["copies"] == (
        counters["transmitted"] + counters["queued"] + sum(found["copy_drops"].values())
    )
    assert counters["routed"] >= call.sent > 0
    assert found["rooms"]["participants"] == 2
    assert found["memory"]["pools"]["histories"]["bytes"] > 0
    # The class that is told is the one that the workers have.
    fifo = found["dataplane"]["scheduler"].startswith("fifo")
    assert classes(found["dataplane"]["pid"]) == {os.SCHED_FIFO if fifo else os.SCHED_OTHER}
    assert f"{found['dataplane']['scheduler']}: {found['dataplane']['scheduler_why']}" in text
    # People see: path and why, rooms, legs, rates, drops, memory by pool, the balance.
    for words in ("data path", "udp", found["why"], "participants 2", "live 2", "packets/s"):
        assert words in text, f"{words!r} is missing"
    assert "drops" in text and "histories" in text
    (balance,) = [line for line in text.splitlines() if line.startswith("balanced")]
    assert balance.split() == ["balanced", "yes"]


def test_a_room_and_a_token_from_the_shell(site: Site) -> None:
    wanted = ("--max-active", "3", "--codecs", "h264, vp8")
    assert vcfwd(site, "room", "create", "standup", *wanted) == "standup\n"
    listed = json.loads(vcfwd(site, "room", "list", "--json"))
    (entry,) = [room for room in listed if room["id"] == "standup"]
    assert (entry["max_active"], entry["active"]) == (3, 0)
    assert entry["codecs"] == ["h264", "vp8"]
    assert "codecs   h264, vp8\n" in vcfwd(site, "room", "show", "standup")
    token = vcfwd(site, "token", "create", "--room", "standup", "--role", "host", "--name", "Ada")

    async def join() -> None:
        async with Client(
            site.url(), token.strip(), cert_hash=site.cert_hash, decode=DecodeMode.NONE
        ) as ada:
            assert ada.welcome is not None and ada.welcome.room_id == "standup"
            shown = json.loads(
                await asyncio.to_thread(vcfwd, site, "room", "show", "standup", "--json")
            )
            assert [(p["name"], p["role"]) for p in shown["participants"]] == [("Ada", "host")]
            text = await asyncio.to_thread(vcfwd, site, "room", "show", "standup")
            assert "Ada" in text and "1 of 3" in text
            assert "standup" in await asyncio.to_thread(vcfwd, site, "room", "list")
            await asyncio.to_thread(vcfwd, site, "room", "close", "standup")
            async with asyncio.timeout(PATIENCE_S):
                while ada.control.closed_by_node is None:
                    await asyncio.sleep(0.02)

    asyncio.run(join())
    status, _, err = run(site.run_dir, "room", "show", "standup")
    assert status == 1 and err == "vcfwd room show: there is no room 'standup'\n"


def test_an_admin_token(site: Site) -> None:
    made = json.loads(vcfwd(site, "token", "create", "--admin", "--ttl", "60", "--json"))
    claims = site.tokens().verify_admin(made["token"])
    assert claims.subject == "admin"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["room", "create", "no room"], 1, "body.id"),
        (["room", "close", "nowhere"], 1, "there is no room 'nowhere'"),
        (["token", "create", "--room", "nowhere"], 1, "there is no room nowhere"),
        (["token", "create"], 2, "give either --room ROOM or --admin"),
        (["token", "create", "--room", "a", "--admin"], 2, "give either --room ROOM or --admin"),
        (["room", "create", "big", "--max-active", "99999999"], 1, "max_active"),
        (["room", "create", "odd", "--codecs", "h265"], 1, "codecs"),
    ],
)
def test_what_the_node_refuses(site: Site, arguments: list[str], status: int, words: str) -> None:
    found, out, err = run(site.run_dir, *arguments)
    assert (found, out) == (status, "")
    assert words in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["status", "--json"], ["room", "list"], ["token", "create", "--admin"]]
)
def test_when_no_node_runs(tmp_path: Path, arguments: list[str]) -> None:
    status, out, err = run(tmp_path, *arguments)
    assert (status, out) == (1, "")
    assert f"no vcfwd answers on {tmp_path}/api.sock: is `vcfwd up` running?" in err


def test_a_node_that_was_killed(tmp_path: Path) -> None:
    """Its socket is left in the run directory, but nobody listens."""
    site = Site(tmp_path)
    with up(site) as node:
        node.kill()
        assert (site.run_dir / "api.sock").is_socket()
        status, _, err = run(site.run_dir, "status")
        assert status == 1 and "is `vcfwd up` running?" in err
