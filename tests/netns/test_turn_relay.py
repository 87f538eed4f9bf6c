"""A client whose network drops every UDP packet publishes and views by way of a TURN server.

coturn (Debian's) shares its secret with the node; the client knows nothing but its token: the
servers come from the Link headers that OPTIONS answers, and its relay is reached over TCP or TLS.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection
from nets import Pair, entered, ip, veth_pair
from node_kit import Site, up, wait_for

from forwarder.demo.namespaces import Host

sys.path.append(str(Path(__file__).parents[1] / "contract"))
from webrtc_kit import publisher, viewer

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn is not installed"),
]
SECRET = "what coturn and the node both know"
PORTS = {"turn": 3478, "turns": 5349}
NODE_PORT = 4433
NODE, TURN = "10.77.0.1", "10.77.0.9"
PATIENCE_S = 60.0


@pytest.fixture
def pair() -> Iterator[Pair]:
    with veth_pair("vctturn") as made:
        ip("addr", "add", f"{TURN}/24", "dev", "v0", netns=made.near)
        yield made


@pytest.fixture(params=PORTS)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(pair: Pair, tmp_path: Path, scheme: str) -> Iterator[Site]:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    change: dict[str, dict[str, Any]] = {
        "network": {"path": "udp"},
        "ice": {
            "urls": [f"{scheme}:{TURN}:{PORTS[scheme]}?transport=tcp"],
            "secret_file": str(secret),
        },
    }
    made = Site(tmp_path / "node", Host(pair.near, NODE), [NODE], [], NODE_PORT, change)
    yield made
    made.clean_up()


def certificate(folder: Path) -> list[str]:
    """coturn's words for a certificate of its own, `turn.pem`."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=turn", "-addext", f"subjectAltName=IP:{TURN}",
         "-keyout", folder / "turn.key", "-out", folder / "turn.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return [f"--cert={folder}/turn.pem", f"--pkey={folder}/turn.key"]


@contextmanager
def coturn(pair: Pair, folder: Path, scheme: str) -> Iterator[Path]:
    """Its log.  It listens for this scheme alone."""
    log = folder / "turn.log"
    port = PORTS[scheme]
    command = ["ip", "netns", "exec", pair.near, "turnserver", "-n", "--use-auth-secret"]
    command += [f"--static-auth-secret={SECRET}", "--realm=test", f"--listening-ip={TURN}"]
    command += [f"--relay-ip={TURN}", f"--{'tls-' * (scheme == 'turns')}listening-port={port}"]
    command += [*certificate(folder), "--no-tcp"] if scheme == "turns" else ["--no-tls"]
    command += ["--no-dtls"]
    command += ["--no-cli", "--log-file=stdout", f"--pidfile={folder}/turn.pid", "--verbose"]
    command += [f"--db={folder}/turn.db"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
    try:
        wait_for(lambda: f":{port} " in ss(pair) or process.poll() is not None, "coturn listens")
        assert process.poll() is None, log.read_text()
        yield log
    finally:
        process.terminate()
        process.wait(10)


def ss(pair: Pair) -> str:
    with entered(pair.near):
        return subprocess.run(["ss", "-tln"], capture_output=True, text=True, check=True).stdout


DROP = """
    #include <linux/bpf.h>
    #include <linux/if_ether.h>
    #include <linux/in.h>
    #include <linux/pkt_cls.h>
    #include <bpf/bpf_endian.h>
    #include <bpf/bpf_helpers.h>
    SEC("tc") int drop_udp(struct __sk_buff *skb)
    {
        __u8 next = 0;
        if (skb->protocol == bpf_htons(ETH_P_IP)) {
            bpf_skb_load_bytes(skb, ETH_HLEN + 9, &next, 1);
        } else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
            bpf_skb_load_bytes(skb, ETH_HLEN + 6, &next, 1);
        }
        return next == IPPROTO_UDP ? TC_ACT_SHOT : TC_ACT_OK;
    }
    char _license[] SEC("license") = "GPL";
"""


def drop_udp(pair: Pair, folder: Path) -> None:
    """Whatever UDP the client sends or is sent is lost."""
    source, built = folder / "drop.bpf.c", folder / "drop.bpf.o"
    source.write_text(DROP)
    arch = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    command = ["clang", "-O2", "-g", "-target", "bpf", arch, "-c", source, "-o", built]
    subprocess.run(command, check=True)
    tc(pair, "qdisc", "add", "dev", "v0", "clsact")
    for way in ("ingress", "egress"):
        match = ["bpf", "direct-action", "obj", str(built), "sec", "tc"]
        tc(pair, "filter", "add", "dev", "v0", way, *match)


def tc(pair: Pair, *arguments: str) -> None:
    done = subprocess.run(
        ["tc", "-n", pair.far, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def udp_counters(pair: Pair) -> dict[str, int]:
    """Of the client's namespace."""
    with entered(pair.far):
        names, values = (
            line.split()[1:]
            for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
            if line.startswith("Udp:")
        )
    return dict(zip(names, map(int, values), strict=True))


async def servers(site: Site, token: str) -> list[RTCIceServer]:
    """From the Link headers, as a WHIP client reads them."""
    async with client_of(site) as http:
        bare = await http.options("/whip/r")
        assert "link" not in bare.headers
        answer = await http.options("/whip/r", headers={"authorization": f"Bearer {token}"})
    found = []
    for link in answer.headers.get_list("link"):
        url, *rest = link.split("; ")
        values = dict(item.split("=", 1) for item in rest)
        assert values["rel"] == '"ice-server"'
        username, credential = (values[n].strip('"') for n in ("username", "credential"))
        found.append(RTCIceServer(url.strip("<>"), username, credential))
    return found


def client_of(site: Site) -> httpx.AsyncClient:
    trust = ssl.create_default_context(cafile=str(site.base / "state" / "dev-cert.pem"))
    return httpx.AsyncClient(base_url=site.url(), verify=trust, trust_env=False, timeout=20)


async def call(site: Site) -> list[int]:
    """Publishes and views until sound and pictures come; how bright the pictures are."""
    given = await servers(site, site.token("n"))
    assert len(given) == 1
    async with client_of(site) as http, publisher(site) as source, viewer(site) as sink:
        for peer in (source, sink):
            await with_servers(peer, given)
            await peer.join(http)
        async with asyncio.timeout(PATIENCE_S):
            while min(sink.frames.values()) < 10:
                await asyncio.sleep(0.1)
        return sink.brightness


async def with_servers(peer: Any, given: list[RTCIceServer]) -> None:
    """The same transceivers on a connection that knows the servers."""
    old = peer.pc
    peer.pc = RTCPeerConnection(RTCConfiguration(iceServers=given))
    peer.pc.on("track", peer._on_track)
    for item in old.getTransceivers():
        peer.pc.addTransceiver(item.sender.track or item.kind, direction=item.direction)
    await old.close()


def far(pair: Pair, work: Any) -> Any:
    """Runs a coroutine in the client's namespace, in a thread of its own."""
    outcome: list[Any] = []

    def run() -> None:
        with entered(pair.far):
            try:
                outcome.append(asyncio.run(work))
            except BaseException as error:
                outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE_S * 2)
    assert outcome, "it did not end"
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def test_a_call_over_tcp_where_udp_is_dropped(
    pair: Pair, site: Site, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_udp(pair, tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "turn.pem"))  # what the client trusts
    with coturn(pair, tmp_path, scheme) as log, up(site):
        with entered(pair.near):
            site.request("POST", "/v1/rooms", {"id": "r"})
        brightness = far(pair, call(site))
        assert all(abs(value - 200) < 20 for value in brightness[3:])
        text = log.read_text()
    assert text.count("ALLOCATE processed, success") >= 2
    seen = udp_counters(pair)
    assert seen["InDatagrams"] == 0
    assert seen["SndbufErrors"] > 0  # it did try without the relay, and lost
