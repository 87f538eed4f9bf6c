"""What browser tests need and the machine lacks becomes a skip with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forwarder.demo.browser.driven import missing

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("VCFWD_BROWSER_ALL"):
        long = pytest.mark.skip(reason="it is long: make test-browser-all runs it")
        for item in items:
            if item.path.is_relative_to(HERE) and item.get_closest_marker("slow"):
                item.add_marker(long)
    reason = missing(("chromium", "firefox"))
    if reason is None:
        return
    skip = pytest.mark.skip(reason=reason)
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("root"):
            item.add_marker(skip)
