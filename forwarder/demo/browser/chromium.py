"""A Chromium in a network namespace, led by Playwright over a pipe.

Playwright starts `nsenter`, which becomes Chromium: one Playwright driver leads browsers on every
host.  Everything here is bounded in time; DemoError tells which browser failed at what.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forwarder.demo.browser.options import CHROMIUM
from forwarder.demo.namespaces import Host
from forwarder.demo.options import DemoError

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Playwright, Route

LAUNCH_S = 60.0  # cold start of Chromium on two loaded cores
CALL_S = 20.0  # one call into the page, unless the caller knows better
CLOSE_S = 10.0
CONSOLE_KEPT = 20  # lines of the page's console that an error quotes
# The page is not of the node's origin, so that CORS is in play; the name resolves nowhere: the
# request is answered here.  https, for what browsers keep to secure contexts.
ORIGIN = "https://vcfwd-lab.test"
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # the lab runs as root
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--metrics-recording-only",
    "--password-store=basic",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--ignore-certificate-errors",  # the node's certificate is its own
    # A page in the background would paint and render once a second.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    # The node lives on a private address, the page on a public name.
    "--disable-features=LocalNetworkAccessChecks,Translate,MediaRouter,OptimizationHints",
    "--window-size=1100,820",
)


def missing() -> str | None:
    """What the lab needs and this machine lacks, as a sentence; None if all is there."""
    if os.geteuid() != 0:
        return "browsers run in network namespaces: run it as root"
    if not CHROMIUM.exists():
        return f"there is no {CHROMIUM}: run 'make browser-debs' as root once"
    try:
        importlib.import_module("playwright")
    except ImportError:
        return "Playwright is missing: install the extra `browser`"
    return None


@asynccontextmanager
async def playwright() -> AsyncIterator[Playwright]:
    """The driver process that all browsers of one run share."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        yield driver


@dataclass
class Chromium:
    """One browser with one page; its profile lies in `profile`."""

    name: str
    version: str
    page: Page
    console: list[str]

    @classmethod
    async def open(
        cls, made: AsyncExitStack, driver: Playwright, name: str, host: Host, profile: Path
    ) -> Chromium:
        """Starts it and loads the page; `made` closes it."""
        nsenter = shutil.which("nsenter")
        if nsenter is None:
            raise DemoError("there is no nsenter: install util-linux")
        program, *arguments = host.command(str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}")
        try:
            browser = await driver.chromium.launch(
                executable_path=nsenter if program == "nsenter" else program,
                args=[*arguments, "about:blank"],
                ignore_default_args=True,
                chromium_sandbox=False,
                timeout=LAUNCH_S * 1000,
                env={**os.environ, "HOME": str(profile), "DBUS_SESSION_BUS_ADDRESS": "disabled:"},
                handle_sigint=False,
                handle_sigterm=False,
                handle_sighup=False,
            )
            made.push_async_callback(_close, browser)
            async with asyncio.timeout(LAUNCH_S):
                page, console = await _page(browser)
        except Exception as error:
            raise _failed(name, "start", error, []) from error
        return cls(name, browser.version, page, console)

    async def call(self, method: str, *arguments: Any, timeout_s: float = CALL_S) -> Any:
        """`lab.METHOD(...ARGUMENTS)` in the page."""
        script = f"(a) => lab.{method}(...a)"
        try:
            async with asyncio.timeout(timeout_s):
                return await self.page.evaluate(script, list(arguments))
        except Exception as error:
            raise _failed(self.name, method, error, self.console) from error

    async def screenshot(self, path: Path) -> None:
        try:
            await self.page.screenshot(path=path, timeout=CALL_S * 1000)
        except Exception as error:
            raise _failed(self.name, "screenshot", error, self.console) from error


async def _page(browser: Browser) -> tuple[Page, list[str]]:
    context = await browser.new_context(
        ignore_https_errors=True, viewport={"width": 1060, "height": 640}
    )
    files = importlib.resources.files("forwarder.demo.browser")
    types = {"page.html": "text/html", "page.js": "text/javascript"}

    async def serve(route: Route) -> None:
        name = route.request.url.removeprefix(f"{ORIGIN}/")
        if name in types:
            body = (files / name).read_text()
            await route.fulfill(status=200, content_type=types[name], body=body)
        else:
            await route.fulfill(status=404, body="")

    await context.route(f"{ORIGIN}/**", serve)
    page = await context.new_page()
    console: list[str] = []

    def note(line: str) -> None:
        console.append(line)
        del console[:-CONSOLE_KEPT]

    page.on("console", lambda message: note(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: note(f"exception: {error}"))
    page.on("crash", lambda _: note("the page crashed"))
    await page.goto(f"{ORIGIN}/page.html")
    return page, console


async def _close(browser: Browser) -> None:
    """Playwright kills what does not close."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await browser.close()
    except Exception:  # gone already; the driver's end reaps it
        return


def _failed(name: str, what: str, error: Exception, console: list[str]) -> DemoError:
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    lines = "".join(f"\n  {line}" for line in console)
    return DemoError(f"{name}: {what} failed: {words}{lines}")
