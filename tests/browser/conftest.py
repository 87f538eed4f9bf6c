"""What browser tests need and the machine lacks becomes a skip with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forwarder.demo.browser.driven import missing

HERE = Path(__file__).parent
QUICK = "VCFWD_BROWSER_QUICK"  # set by `make test`


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get(QUICK):
        long = pytest.mark.skip(reason=f"it is long, and {QUICK} is set: make test-browser-all")
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests that passed have printed: seconds, gaps, and what was done once more and why."""
    root = terminalreporter.config.rootpath
    told = [
        (report.nodeid, report.capstdout)
        for report in terminalreporter.getreports("passed")
        if report.when == "call" and report.capstdout
        if (root / report.nodeid.partition("::")[0]).is_relative_to(HERE)
    ]
    if told:
        terminalreporter.section("what browser tests measured")
    for name, words in told:
        terminalreporter.write_line(name.rpartition("/")[2])
        for line in words.splitlines():
            terminalreporter.write_line(f"    {line}")
