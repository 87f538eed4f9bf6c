"""Pictures of each codec as a packet shows them: what an offer says, how a payload begins, and the
number by which a decoder knows the picture."""

from __future__ import annotations

import struct

CODECS = ("vp8", "vp9", "h264", "av1")
DEPENDENCY = 12  # id of the header extension, in the offer
KEY_HEAD = bytes.fromhex("1000009d012a4001b400")
"""The frame tag with P 0, start code and size of a VP8 key frame (RFC 6386 section 9.1)."""
BITS = {"vp8": 15, "vp9": 15, "av1": 16}
"""Of the picture's number; H.264 has none."""

_NAMES = {
    "vp8": "VP8",
    "vp9": "VP9",
    "h264": "H264",
    "av1": "AV1",
}
_CONFIGS = {
    "vp9": "a=fmtp:96 profile-id=0\r\n",
    "h264": "a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n",
    "av1": "a=fmtp:96 level-idx=5;profile=0;tier=0\r\n"
    f"a=extmap:{DEPENDENCY} https://aomediacodec.github.io/av1-rtp-spec/"
    "#dependency-descriptor-rtp-header-extension\r\n",
}


def offering(offer: str, codec: str) -> str:
    """The offer of VP8 as one of this codec."""
    line = "a=rtpmap:96 {}/90000\r\n"
    assert line.format("VP8") in offer
    new = line.format(_NAMES[codec]) + _CONFIGS.get(codec, "")
    return offer.replace(line.format("VP8"), new)


def begin(codec: str, picture: int, part: int, parts: int, *, key: bool) -> bytes:
    """The descriptor of a part of a picture, and what makes a first part the begin of a key one."""
    first, last = part == 0, part == parts - 1
    if codec == "vp8":  # RFC 7741 section 4.2: X, S; I; 15 bits
        head = struct.pack("!BBH", 0x80 | first << 4, 0x80, 0x8000 | picture & 0x7FFF)
        return head + ((KEY_HEAD if key else b"\x11" + KEY_HEAD[1:3]) if first else b"")
    if codec == "vp9":  # RFC 9628 section 4.2: I, P, B, E; 15 bits
        flags = 0x80 | (not key) << 6 | first << 3 | last << 2
        return struct.pack("!BH", flags, 0x8000 | picture & 0x7FFF)
    if codec == "h264":  # RFC 6184 section 5.8: FU-A of one slice, whose first macroblock is 0
        unit = 5 if key else 1
        return bytes([0x7C if key else 0x5C, first << 7 | last << 6 | unit]) + b"\x88" * first
    # AV1 RTP specification section 4.4: Z, Y, W 1, N; then one OBU_FRAME
    starts = 0x08 if key and first else 0
    return bytes([(not first) << 7 | (not last) << 6 | 0x10 | starts]) + b"\x30" * first


def dependency(picture: int, part: int, parts: int) -> bytes:
    """The mandatory part of a Dependency Descriptor as an element (AV1 RTP specification A.8.1)."""
    flags = (part == 0) << 7 | (part == parts - 1) << 6
    return struct.pack("!BBH", DEPENDENCY << 4 | 2, flags, picture & 0xFFFF)


def number(codec: str, packet: bytes, payload: bytes) -> int:
    """Of the picture, out of a clear packet."""
    if codec == "vp8":
        return int.from_bytes(payload[2:4], "big") & 0x7FFF
    if codec == "vp9":
        return int.from_bytes(payload[1:3], "big") & 0x7FFF
    assert codec == "av1"
    return int.from_bytes(_element(packet, DEPENDENCY)[1:3], "big")


def _element(packet: bytes, wanted: int) -> bytes:
    """A header extension of the one-byte form (RFC 8285 section 4.2)."""
    at = 12 + 4 * (packet[0] & 15)
    assert packet[0] & 0x10 and packet[at : at + 2] == b"\xbe\xde"
    end = at + 4 + 4 * int.from_bytes(packet[at + 2 : at + 4], "big")
    at += 4
    while at < end:
        size = (packet[at] & 15) + 1 if packet[at] else 0
        if packet[at] >> 4 == wanted:
            return packet[at + 1 : at + 1 + size]
        at += 1 + size
    raise AssertionError(f"no extension {wanted} in {packet[:40].hex()}")
