"""What a value of the configuration must be: one check a kind, as dataclass fields.

Law: a check is pure, never raises whatever TOML gives it, and answers None or the end of the
sentence "it must be ...".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import field
from ipaddress import ip_address
from typing import Any, TypeAlias

INTERFACES_MAX = 8
"""Interfaces with AF_XDP sockets (VC_INTERFACES_MAX)."""
ADDRESSES_MAX = 8
"""Local addresses (VC_LOCALS_MAX)."""
WORKERS_MAX = 16
"""Worker threads (VC_WORKERS_MAX)."""
CPUS_MAX = 4096
"""Processors of a host."""
NODES_MAX = 1024
"""NUMA nodes of a host."""

Check: TypeAlias = Callable[[Any], "str | None"]
"""None, or what the value should be ("a number from 1 to 65535")."""


def whole(low: int, high: int, *, power_of_two: bool = False) -> Any:
    kind = "a power of two" if power_of_two else "a whole number"

    def check(value: Any) -> str | None:
        ok = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        if ok and power_of_two:
            ok = value & (value - 1) == 0
        return None if ok else f"{kind} from {low:,} to {high:,}"

    return field(metadata={"check": check})


def flag() -> Any:
    return checked(lambda value: None if isinstance(value, bool) else "true or false")


def checked(check: Check, *, secret: bool = False) -> Any:
    return field(metadata={"check": check}, repr=not secret)


def one_of(*names: str) -> Any:
    what = "one of " + ", ".join(f'"{name}"' for name in names)
    return checked(lambda value: None if value in names else what)


def text(pattern: str, what: str) -> Any:
    whole = re.compile(pattern)
    return checked(
        lambda value: None if isinstance(value, str) and whole.fullmatch(value) else what
    )


def is_path(value: Any) -> str | None:
    ok = isinstance(value, str) and value.startswith("/") and "\0" not in value
    return None if ok else "an absolute path"


def is_path_or_empty(value: Any) -> str | None:
    return None if value == "" or is_path(value) is None else "an absolute path, or empty"


def is_address(value: Any) -> bool:
    try:
        address = ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return address is not None and not address.is_unspecified and not address.is_multicast


def list_of(most: int, item: Callable[[Any], bool], what: str, *, least: int = 0) -> Any:
    size = f"up to {most}" if least == 0 else f"{least} to {most}"

    def check(value: Any) -> str | None:
        ok = isinstance(value, list) and least <= len(value) <= most and all(map(item, value))
        if ok and len({repr(entry) for entry in value}) != len(value):
            return f"a list of {size} {what}, each once"
        return None if ok else f"a list of {size} {what}"

    return field(metadata={"check": check})


def processors(most: int) -> Any:
    return list_of(most, lambda cpu: type(cpu) is int and 0 <= cpu < CPUS_MAX, "processor numbers")


def nearest(name: str, known: list[str]) -> str:
    """The end of a sentence about an unknown name: the known one that is like it, if any."""
    match = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {match[0]}?" if match else ""


def address_list(least: int = 0) -> Any:
    return list_of(ADDRESSES_MAX, is_address, "IP addresses (no wildcards)", least=least)


def is_interface(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[^\s/:]{1,15}", value) is not None


def is_nodes(value: Any) -> str | None:
    ok = isinstance(value, list) and len(value) <= INTERFACES_MAX
    if ok and all(type(node) is int and 0 <= node < NODES_MAX for node in value):
        return None
    return f"a list of up to {INTERFACES_MAX} numbers of NUMA nodes"


def is_origin(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\*|https?://[^\s/]{1,255}", value) is not None


def is_turn_url(value: Any) -> bool:
    """RFC 7065: turn:host[:port][?transport=udp|tcp], an IPv6 address in brackets."""
    host = r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})"
    form = rf"turns?:{host}(:[0-9]{{1,5}})?(\?transport=(udp|tcp))?"
    return isinstance(value, str) and re.fullmatch(form, value) is not None


def is_token_keys(value: Any) -> str | None:
    what = (
        "a list of 1 to 8 tables with kid (1 to 64 characters, each once) "
        "and secret (32 to 256 characters)"
    )
    if not isinstance(value, list) or not 1 <= len(value) <= 8:
        return what
    for entry in value:
        if not isinstance(entry, dict) or set(entry) != {"kid", "secret"}:
            return what
        if not all(isinstance(entry[name], str) for name in entry):
            return what
        if not 1 <= len(entry["kid"]) <= 64 or not 32 <= len(entry["secret"]) <= 256:
            return what
    return None if len({entry["kid"] for entry in value}) == len(value) else what
