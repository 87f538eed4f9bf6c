"""Mutations of texts and of datagrams, from a seed: the same case is the same input for ever."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

CASES = int(os.environ.get("VCFWD_FUZZ_CASES", "0"))
"""Cases of each fuzzer; 0: as many as fit into a test run.  For long runs; cases go on from 0."""

WORDS = [
    b"",
    b"-1",
    b"0",
    b"1e400",
    b"nan",
    b"007",
    b"9" * 30,
    b"a" * 300,
    b"\xc2\x85",
    b"\xe2\x80\xa8",
]
WORDS += [b"\x00", b"%s%n", b"~", b";", b",", b"=", b"*", b"\xd9\xa3", b"1_0", b"+1", b"\xff"]


def cases(few: int) -> range:
    return range(CASES or few)


def mutated_text(chance: random.Random, originals: Sequence[bytes]) -> bytes:
    """An original with up to 8 lines lost, doubled, moved, broken or mixed with another's."""
    lines = chance.choice(originals).split(b"\r\n")
    for _ in range(chance.randrange(1, 9)):
        at = chance.randrange(len(lines))
        match chance.randrange(7):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, chance.choice(lines))
            case 2:
                line = bytearray(lines[at] or b"a")
                line[chance.randrange(len(line))] = chance.randrange(256)
                lines[at] = bytes(line)
            case 3:
                words = lines[at].split(b" ")
                words[chance.randrange(len(words))] = chance.choice(WORDS)
                lines[at] = b" ".join(words)
            case 4:
                name, _, _ = lines[at].partition(b":")
                lines[at] = name + b":" + chance.choice(WORDS)
            case 5:
                lines.insert(chance.randrange(len(lines)), lines.pop(at))
            case 6:
                others = chance.choice(originals).split(b"\r\n")
                lines.insert(at, chance.choice(others))
        if len(lines) < 2:
            break
    text = b"\r\n".join(lines)
    return text[: chance.randrange(len(text) + 1)] if chance.random() < 0.05 else text


def mutated_bytes(chance: random.Random, original: bytes) -> bytes:
    """An original with up to 6 bytes changed, a piece lost, doubled or put in."""
    data = bytearray(original)
    for _ in range(chance.randrange(1, 7)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0 | 1:
                if at < len(data):
                    data[at] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
            case 2:
                del data[at : at + chance.randrange(1, 9)]
            case 3:
                data[at:at] = data[at : at + chance.randrange(1, 40)]
            case 4:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
    return bytes(data)
