"""A Chromium in a network namespace, led by Playwright over a pipe.

Playwright starts `nsenter`, which becomes Chromium: one Playwright driver leads browsers on every
host.  Everything here is bounded in time; DemoError tells which browser failed at what.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forwarder.demo.browser.driven import (
    CALL_S,
    CLOSE_S,
    LAUNCH_S,
    ORIGIN,
    VIEWPORT,
    failed,
    note,
    page_file,
)
from forwarder.demo.browser.options import BINARIES
from forwarder.demo.namespaces import Host
from forwarder.demo.options import DemoError

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Playwright, Route

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
    kind: str = "chromium"

    @classmethod
    async def open(
        cls, made: AsyncExitStack, driver: Playwright, name: str, host: Host, profile: Path
    ) -> Chromium:
        """Starts it and loads the page; `made` closes it."""
        nsenter = shutil.which("nsenter")
        if nsenter is None:
            raise DemoError("there is no nsenter: install util-linux")
        program, *arguments = host.command(
            str(BINARIES["chromium"]), *FLAGS, f"--user-data-dir={profile}"
        )
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
            raise failed(name, "start", error, []) from error
        return cls(name, browser.version, page, console)

    async def call(self, method: str, *arguments: Any, timeout_s: float = CALL_S) -> Any:
        """`lab.METHOD(...ARGUMENTS)` in the page."""
        return await self._run(f"(...a) => lab.{method}(...a)", method, arguments, timeout_s)

    async def evaluate(self, script: str, *arguments: Any, timeout_s: float = CALL_S) -> Any:
        """The value of a function's source text, called with the arguments."""
        return await self._run(script, "evaluate", arguments, timeout_s)

    async def _run(self, script: str, what: str, arguments: Any, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await self.page.evaluate(f"(a) => ({script})(...a)", list(arguments))
        except Exception as error:
            raise failed(self.name, what, error, self.console) from error

    async def reload(self) -> None:
        """Loads the page anew, as F5 does."""
        try:
            await self.page.reload(timeout=LAUNCH_S * 1000)
        except Exception as error:
            raise failed(self.name, "reload", error, self.console) from error

    async def screenshot(self, path: Path) -> None:
        try:
            await self.page.screenshot(path=path, timeout=CALL_S * 1000)
        except Exception as error:
            raise failed(self.name, "screenshot", error, self.console) from error


async def _page(browser: Browser) -> tuple[Page, list[str]]:
    context = await browser.new_context(
        ignore_https_errors=True, viewport={"width": VIEWPORT[0], "height": VIEWPORT[1]}
    )

    async def serve(route: Route) -> None:
        if found := page_file(route.request.url):
            await route.fulfill(status=200, content_type=found[0], body=found[1])
        else:
            await route.fulfill(status=404, body="")

    await context.route(f"{ORIGIN}/**", serve)
    page = await context.new_page()
    console: list[str] = []

    page.on("console", lambda message: note(console, f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: note(console, f"exception: {error}"))
    page.on("crash", lambda _: note(console, "the page crashed"))
    await page.goto(f"{ORIGIN}/page.html")
    return page, console


async def _close(browser: Browser) -> None:
    """Playwright kills what does not close."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await browser.close()
    except Exception:  # gone already; the driver's end reaps it
        return
