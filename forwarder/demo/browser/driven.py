"""What each driven browser is to the lab, and the page that all of them load."""

from __future__ import annotations

import importlib.resources
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from forwarder.demo.browser.options import BINARIES
from forwarder.demo.options import DemoError

LAUNCH_S = 60.0  # cold start of a browser on two loaded cores
CALL_S = 20.0  # one call into the page, unless the caller knows better
CLOSE_S = 10.0
CONSOLE_KEPT = 20  # lines of the page's console that an error quotes
VIEWPORT = (1060, 640)
# The page is not of the node's origin, so that CORS is in play; the name resolves nowhere: the
# driver answers the request.  https, for what browsers keep to secure contexts.
ORIGIN = "https://vcfwd-lab.test"
_TYPES = {".html": "text/html", ".js": "text/javascript"}
_FILES = ("page.html", "code.js", "views.js", "session.js", "page.js")
_LIBRARIES = {"chromium": "playwright", "firefox": "websockets"}


class Driven(Protocol):
    """One browser with one page."""

    @property
    def kind(self) -> str: ...

    @property
    def version(self) -> str: ...

    async def call(self, method: str, *arguments: Any, timeout_s: float = CALL_S) -> Any:
        """`lab.METHOD(...ARGUMENTS)` in the page."""

    async def evaluate(self, script: str, *arguments: Any, timeout_s: float = CALL_S) -> Any:
        """The value of a function's source text, called with the arguments."""

    async def reload(self) -> None:
        """Loads the page anew, as F5 does."""

    async def screenshot(self, path: Path) -> None: ...


def missing(kinds: Iterable[str] = ("chromium",)) -> str | None:
    """What the lab needs and this machine lacks, as a sentence; None if all is there."""
    if os.geteuid() != 0:
        return "browsers run in network namespaces: run it as root"
    for kind in sorted(set(kinds)):
        if not BINARIES[kind].exists():
            return f"there is no {BINARIES[kind]}: run 'make browser-debs' as root once"
        if importlib.util.find_spec(_LIBRARIES[kind]) is None:
            return f"{_LIBRARIES[kind]} is missing: install the extra `browser`"
    return None


def page_file(url: str) -> tuple[str, str] | None:
    """(content type, text) of what the page's origin serves there; None: nothing."""
    name = url.removeprefix(f"{ORIGIN}/")
    if name not in _FILES:
        return None
    return _TYPES[Path(name).suffix], (
        importlib.resources.files("forwarder.demo.browser") / name
    ).read_text()


def failed(name: str, what: str, error: Exception, console: list[str]) -> DemoError:
    """The error that tells which browser failed at what, with the page's last words."""
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    lines = "".join(f"\n  {line}" for line in console)
    return DemoError(f"{name}: {what} failed: {words}{lines}")


def note(console: list[str], line: str) -> None:
    """Keeps the newest lines."""
    console.append(line)
    del console[:-CONSOLE_KEPT]
