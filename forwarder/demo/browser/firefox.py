"""A Firefox in a network namespace, led over its own WebDriver BiDi port.

Playwright drives only a Firefox of its own making; BiDi drives Debian's.  Everything here is
bounded in time; DemoError tells which browser failed at what.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forwarder.demo.browser.bidi import Bidi
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
from forwarder.demo.children import Child
from forwarder.demo.namespaces import Host
from forwarder.demo.options import DemoError

POLL_S = 0.1
# An empty profile otherwise calls home, asks questions and keeps a silent page still.
PREFERENCES: dict[str, bool | int | str] = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.startup.page": 0,
    "browser.tabs.remote.separatePrivilegedContentProcess": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.ipc.processCount": 1,
    "dom.ipc.processPrelaunch.enabled": False,
    "extensions.update.enabled": False,
    "fission.autostart": False,
    # A page that is taken for one in the background would be painted once a second.
    "dom.min_background_timeout_value": 4,
    "layout.testing.top-level-always-active": True,
    "layout.throttled_frame_rate": 60,
    "media.autoplay.blocking_policy": 0,
    "media.autoplay.block-webaudio": False,
    "media.autoplay.default": 0,
    "media.gmp-manager.updateEnabled": False,
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    "media.volume_scale": "0.0",
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.trr.mode": 5,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}


@dataclass
class Firefox:
    """One browser with one page; its profile lies in `profile`."""

    name: str
    version: str
    console: list[str]
    _bidi: Bidi
    _context: str
    kind: str = "firefox"

    @classmethod
    async def open(cls, made: AsyncExitStack, name: str, host: Host, profile: Path) -> Firefox:
        """Starts it and loads the page; `made` closes it."""
        console: list[str] = []
        try:
            async with asyncio.timeout(LAUNCH_S):
                bidi = await made.enter_async_context(_started(name, host, profile))
                session = await bidi.command(
                    "session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}}
                )
                context = await _page(bidi, console)
        except Exception as error:
            raise failed(name, "start", error, console) from error
        version = str(session["capabilities"]["browserVersion"])
        return cls(name, version, console, bidi, context)

    async def call(self, method: str, *arguments: Any, timeout_s: float = CALL_S) -> Any:
        """`lab.METHOD(...ARGUMENTS)` in the page."""
        return await self._run(f"(...a) => lab.{method}(...a)", method, arguments, timeout_s)

    async def evaluate(self, script: str, *arguments: Any, timeout_s: float = CALL_S) -> Any:
        """The value of a function's source text, called with the arguments."""
        return await self._run(script, "evaluate", arguments, timeout_s)

    async def _run(self, script: str, what: str, arguments: Any, timeout_s: float) -> Any:
        # As text both ways: BiDi's own form of values is an order of size larger.
        function = f"async (a) => JSON.stringify((await ({script})(...JSON.parse(a))) ?? null)"
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._bidi.command(
                    "script.callFunction",
                    functionDeclaration=function,
                    awaitPromise=True,
                    target={"context": self._context},
                    arguments=[{"type": "string", "value": json.dumps(list(arguments))}],
                )
                if answer["type"] != "success":
                    raise DemoError(str(answer["exceptionDetails"]["text"]))
                return json.loads(answer["result"]["value"])
        except Exception as error:
            raise failed(self.name, what, error, self.console) from error

    async def reload(self) -> None:
        """Loads the page anew, as F5 does."""
        try:
            async with asyncio.timeout(LAUNCH_S):
                await self._bidi.command(
                    "browsingContext.reload", context=self._context, wait="complete"
                )
        except Exception as error:
            raise failed(self.name, "reload", error, self.console) from error

    async def screenshot(self, path: Path) -> None:
        try:
            async with asyncio.timeout(CALL_S):
                shot = await self._bidi.command(
                    "browsingContext.captureScreenshot", context=self._context
                )
        except Exception as error:
            raise failed(self.name, "screenshot", error, self.console) from error
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))


@asynccontextmanager
async def _started(name: str, host: Host, profile: Path) -> AsyncIterator[Bidi]:
    """The process and a connection to it."""
    _write(profile)
    log = profile / "firefox.log"
    command = [str(BINARIES["firefox"]), "--headless", "--no-remote", "--profile", str(profile)]
    command += ["--remote-debugging-port", "0", "about:blank"]
    env = {"HOME": str(profile), "MOZ_HEADLESS_WIDTH": str(VIEWPORT[0] + 40)}
    env |= {"MOZ_HEADLESS_HEIGHT": str(VIEWPORT[1] + 160), "MOZ_DISABLE_CONTENT_SANDBOX": "1"}
    env |= {"MOZ_CRASHREPORTER_DISABLE": "1", "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
    child = await Child.start(name, host, command, log, env)
    bidi: Bidi | None = None
    try:
        port = await _port(child)
        bidi = await Bidi.open(host.name, port, LAUNCH_S)
        yield bidi
    finally:
        if bidi is not None:
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await bidi.command("browser.close")
            await bidi.close()
        with suppress(DemoError):
            await child.wait(CLOSE_S if bidi is not None else POLL_S)
        await child.end()


def _write(profile: Path) -> None:
    """The profile's preferences."""
    profile.mkdir(parents=True)
    lines = (f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in PREFERENCES.items())
    (profile / "user.js").write_text("".join(lines))


async def _port(child: Child) -> int:
    """Firefox says on stderr where it listens."""
    while True:
        if found := re.search(r"WebDriver BiDi listening on ws://[^:]+:(\d+)", child.tail()):
            return int(found[1])
        if child.ended:
            raise DemoError(f"it ended: {child.tail()}")
        await asyncio.sleep(POLL_S)


async def _page(bidi: Bidi, console: list[str]) -> str:
    """The context that shows the page."""

    async def serve(event: dict[str, Any]) -> None:
        if not event["isBlocked"]:
            return
        request = event["request"]
        found = page_file(request["url"])
        headers = [("Content-Type", found[0] if found else "text/plain")]
        await bidi.command(
            "network.provideResponse",
            request=request["request"],
            statusCode=200 if found else 404,
            reasonPhrase="OK" if found else "Not Found",
            headers=[
                {"name": key, "value": {"type": "string", "value": value}} for key, value in headers
            ],
            body={"type": "string", "value": found[1] if found else ""},
        )

    bidi.on["network.beforeRequestSent"] = serve
    bidi.on["log.entryAdded"] = lambda entry: note(
        console, f"{entry.get('level', 'log')}: {entry.get('text')}"
    )
    await bidi.command("session.subscribe", events=list(bidi.on))
    await bidi.command(
        "network.addIntercept",
        phases=["beforeRequestSent"],
        urlPatterns=[{"type": "pattern", "protocol": "https", "hostname": ORIGIN[8:]}],
    )
    tree = await bidi.command("browsingContext.getTree", maxDepth=0)
    context = str(tree["contexts"][0]["context"])
    await bidi.command(
        "browsingContext.setViewport",
        context=context,
        viewport={"width": VIEWPORT[0], "height": VIEWPORT[1]},
    )
    await bidi.command(
        "browsingContext.navigate", context=context, url=f"{ORIGIN}/page.html", wait="complete"
    )
    return context
