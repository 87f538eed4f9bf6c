"""Structured logs on standard error: text for people, JSON lines for machines.

A log record is a message and fields: `log.info("room created", extra=fields(room=room_id))`.
Nothing on a packet's way logs; what a remote can provoke is limited to BURST records of one
message each WINDOW_S seconds, and the number left out is said with the next one.
Secrets never go into a field.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

WINDOW_S = 10.0
BURST = 20
MESSAGES_MAX = 1024  # distinct messages the limiter remembers


def fields(**values: Any) -> dict[str, Any]:
    """The `extra` argument of a log call."""
    return {"fields": values}


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = getattr(record, "fields", {})
    return found


class TextFormatter(logging.Formatter):
    """`12:00:00.123 info  room created room=abc`."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        pairs = "".join(f" {key}={value}" for key, value in _fields_of(record).items())
        text = (
            f"{stamp}.{int(record.msecs):03d} {record.levelname.lower():<7} "
            f"{record.getMessage()}{pairs}"
        )
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (seconds), `level`, `logger`, `message`, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields_of(record),
        }
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row, default=str, separators=(",", ":"))


class RateLimit(logging.Filter):
    """At most BURST records of one message (before formatting) in WINDOW_S seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = f"{record.name}:{record.msg}"
        began, count = self._seen.get(key, (record.created, 0))
        if record.created - began >= WINDOW_S:
            if count > BURST:
                record.fields = {**_fields_of(record), "left_out": count - BURST}
            began, count = record.created, 0
        if len(self._seen) >= MESSAGES_MAX and key not in self._seen:
            self._seen.clear()
        self._seen[key] = (began, count + 1)
        return count < BURST


def configure(level: str = "info", style: Literal["text", "json"] = "text") -> None:
    """Sets the root logger up: standard error, one handler, rate limited."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("quic", "http3", "asyncio", "uvicorn.access", "pyroute2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
