"""What browser tests need and the machine lacks becomes a skip with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from forwarder.demo.browser.driven import missing

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing(("chromium", "firefox"))
    if reason is None:
        return
    skip = pytest.mark.skip(reason=reason)
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("root"):
            item.add_marker(skip)
