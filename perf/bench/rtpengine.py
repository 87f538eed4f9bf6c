"""rtpengine from Debian as a relay: publish and subscribe calls over its ng protocol (bencode on
UDP), SDES keys, RTP/SAVP with AEAD_AES_128_GCM.

Ten publishers by default, since one stream of hundreds of megabits is not what it is made for, and
a fresh call for each trial: it kills streams under overload.  In the forwarder's namespace, user
space only.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import time
from pathlib import Path
from typing import Any, ClassVar

from perf.bench import keys
from perf.bench.lab import PORT_BASE, RELAY_CORE, SOURCE_PORT, PerfError, entered
from perf.bench.relay import Relay

NG_PORT = 22222
ANSWER_S = 2.0
CRYPTO = {"gcm": "AEAD_AES_128_GCM", "sha1": "AES_CM_128_HMAC_SHA1_80"}


def bencode(value: Any) -> bytes:
    """Strings, numbers, lists and dictionaries (keys in order)."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(bencode(each) for each in value) + b"e"
    if isinstance(value, dict):
        pairs = sorted(value.items())
        return b"d" + b"".join(bencode(k) + bencode(v) for k, v in pairs) + b"e"
    raise TypeError(f"{type(value).__name__} has no bencode")


def bdecode(raw: bytes) -> Any:
    """The value of a whole message; ValueError where it is none.  Strings are text."""
    value, at = _bdecode(raw, 0)
    if at != len(raw):
        raise ValueError(f"{len(raw) - at} bytes behind the value")
    return value


def _bdecode(raw: bytes, at: int) -> tuple[Any, int]:
    kind = raw[at : at + 1]
    if kind == b"i":
        end = raw.index(b"e", at)
        return int(raw[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        items, at = [], at + 1
        while raw[at : at + 1] != b"e":
            item, at = _bdecode(raw, at)
            items.append(item)
        if kind == b"l":
            return items, at + 1
        return dict(zip(items[::2], items[1::2], strict=True)), at + 1
    end = raw.index(b":", at)
    size = int(raw[at:end])
    return raw[end + 1 : end + 1 + size].decode("utf-8", "replace"), end + 1 + size


class Ng:
    """One control socket; each command is answered or PerfError."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._number = sock, 0
        sock.settimeout(ANSWER_S)

    def __call__(self, command: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        cookie = f"{os.getpid()}_{self._number}"
        body = {"command": command} | {k.replace("_", "-"): v for k, v in fields.items()}
        self._sock.send(cookie.encode() + b" " + bencode(body))
        try:
            while True:
                got, _, raw = self._sock.recv(65536).partition(b" ")
                if got.decode() == cookie:
                    break
        except OSError as error:
            raise PerfError(f"rtpengine does not answer `{command}`: {error}") from error
        answer: dict[str, Any] = bdecode(raw)
        if answer.get("result") not in ("ok", "pong"):
            raise PerfError(f"rtpengine refused `{command}`: {answer.get('error-reason', answer)}")
        return answer


def sdp(ip: str, port: int, suite: str, key: bytes, salt: bytes, direction: str) -> str:
    """One stream, RTP/SAVP, the key in clear (SDES, RFC 4568).

    It is called opus because publishing refuses codecs that rtpengine does not know; it passes
    packets of a codec that both ends have on as they are.
    """
    inline = base64.b64encode(key + salt).decode()
    lines = [
        "v=0", f"o=- 1 1 IN IP4 {ip}", "s=-", f"c=IN IP4 {ip}", "t=0 0",
        f"m=audio {port} RTP/SAVP 96", "a=rtpmap:96 opus/48000/2", f"a={direction}", "a=rtcp-mux",
        f"a=crypto:1 {CRYPTO[suite]} inline:{inline}",
    ]  # fmt: skip
    return "\r\n".join(lines) + "\r\n"


def media_port(text: str) -> int:
    found = re.search(r"^m=audio (\d+) ", text, re.M)
    if not found or not int(found[1]):
        raise PerfError(f"rtpengine gave no port: {text!r}")
    return int(found[1])


def media_key(text: str, suite: str) -> tuple[bytes, bytes]:
    """The master key and salt that rtpengine seals with."""
    found = re.search(rf"^a=crypto:\d+ {CRYPTO[suite]} inline:([A-Za-z0-9+/=]+)", text, re.M)
    if not found:
        raise PerfError(f"rtpengine did not take {CRYPTO[suite]}: {text!r}")
    raw = base64.b64decode(found[1] + "=" * (-len(found[1]) % 4))
    return raw[:16], raw[16:]


class Rtpengine(Relay):
    name: ClassVar[str] = "rtpengine"
    fresh: ClassVar[bool] = True
    sealed_in: ClassVar[bool] = True

    def start(self) -> None:
        program = shutil.which("rtpengine")
        if program is None:
            raise PerfError("rtpengine is missing: run `make perf-deps`")
        n = self.lab.names
        argv = [
            program, f"--interface=pub/{n['in_ip']}", f"--interface=sub/{n['out_ip']}",
            f"--listen-ng=127.0.0.1:{NG_PORT}", "--table=-1", "--foreground", "--log-stderr",
            "--log-level=2", "--num-threads=1", "--port-min=30000", "--port-max=50000",
            "--delete-delay=0", "--timeout=60", "--silent-timeout=60",
        ]  # fmt: skip
        self._child = self.lab.start("fwd", argv, core=RELAY_CORE, quiet=True)
        with entered(self.lab.netns("fwd")):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.connect(("127.0.0.1", NG_PORT))
        self._sock, self._ng, self._call = sock, Ng(sock), 0
        self._ports: list[int] = []
        self._await()
        self.take_class()
        self.renew()

    def _await(self) -> None:
        end = time.monotonic() + 10
        while True:
            try:
                self._ng("ping")
                return
            except PerfError:
                if self._child.poll() is not None or time.monotonic() > end:
                    raise PerfError("rtpengine does not start; run it by hand to see why") from None
                time.sleep(0.05)

    def renew(self) -> None:
        """Drops the last calls and makes one for each publisher, with its subscribers."""
        for p in range(self.case.publishers if self._call else 0):
            self._ng("delete", call_id=f"{self._call}-{p}", delete_delay=0)
        self._call += 1
        self._sealed_with: list[tuple[int, bytes, bytes]] = []
        self._ports = [self._publish(p) for p in range(self.case.publishers)]
        self.index = 0

    def _publish(self, p: int) -> int:
        c, n, call = self.case, self.lab.names, f"{self._call}-{p}"
        self._offer(p, "first")
        for s in range(c.copies):
            r = p * c.copies + s
            asked = self._ng("subscribe request", call_id=call, from_tag="pub", interface="sub",
                             flags=["SDES-no-AEAD_AES_256_GCM"])  # fmt: skip
            self._sealed_with.append((PORT_BASE + r, *media_key(asked["sdp"], c.suite)))
            key, salt = keys.pair(c.suite, c.publishers + r, "rx")
            answer = sdp(n["sub_ip"], PORT_BASE + r, c.suite, key, salt, "recvonly")
            self._ng("subscribe answer", call_id=call, to_tag=asked["to-tag"], sdp=answer)
        return self._offer(p, "rx")

    def _offer(self, p: int, which: str) -> int:
        """Publishes with a key; the port to send to.

        Subscribers are given the key that the publisher had when they came, and rtpengine passes
        packets on unopened while the two are the same: so the publisher changes its own, and
        every copy is opened and sealed as it is elsewhere.  The receiver's samples prove it.
        """
        c, n = self.case, self.lab.names
        key, salt = keys.pair(c.suite, p, which)
        offer = sdp(n["pub_ip"], SOURCE_PORT + p, c.suite, key, salt, "sendonly")
        said = self._ng("publish", call_id=f"{self._call}-{p}", from_tag="pub", sdp=offer,
                        interface="pub")  # fmt: skip
        return media_port(said["sdp"])

    def key_file(self) -> Path:
        path = self.lab.folder / f"rtpengine-{self._call}.keys"
        lines = (f"{port} {self.case.suite} {key.hex()} {salt.hex()}\n"
                 for port, key, salt in self._sealed_with)  # fmt: skip
        path.write_text("".join(lines))
        return path

    def destination(self) -> dict[str, Any]:
        ports = ",".join(str(port) for port in self._ports)
        return {"dst_ip": self.lab.names["in_ip"], "dst_port": ports, "src_port": SOURCE_PORT}

    def threads(self) -> list[int]:
        return [int(task) for task in os.listdir(f"/proc/{self._child.pid}/task")]

    def stop(self) -> dict[str, Any]:
        self._sock.close()
        self.lab.end(self._child)
        return {}
