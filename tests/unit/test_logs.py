"""Structured logs: fields come through, floods are limited and said."""

from __future__ import annotations

import json
import logging

from forwarder.telemetry.logs import (
    BURST,
    WINDOW_S,
    JsonFormatter,
    RateLimit,
    TextFormatter,
    fields,
)


def record(message: str, created: float = 100.0, **values: object) -> logging.LogRecord:
    row = logging.LogRecord("vcfwd.test", logging.INFO, "", 0, message, (), None)
    row.created = created
    row.__dict__.update(fields(**values))
    return row


def test_json_lines_carry_the_fields() -> None:
    row = json.loads(JsonFormatter().format(record("room created", room="r1", n=3)))
    assert row["message"] == "room created"
    assert (row["room"], row["n"], row["level"]) == ("r1", 3, "info")


def test_text_carries_the_fields() -> None:
    assert (
        TextFormatter()
        .format(record("room created", room="r1"))
        .endswith("info    room created room=r1")
    )


def test_a_flood_of_one_message_is_limited_and_the_rest_is_counted() -> None:
    limit = RateLimit()
    passed = [limit.filter(record("flood")) for _ in range(BURST + 7)]
    assert sum(passed) == BURST
    assert limit.filter(record("other"))
    later = record("flood", created=100.0 + WINDOW_S)
    assert limit.filter(later)
    assert later.fields["left_out"] == 7  # type: ignore[attr-defined]
