"""Writes the offers that this machine's Chromium makes: python tests/unit/sdp/capture.py FOLDER.

Run it when the browser is renewed, look at what changed, and keep what is new as fixtures.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

EXECUTABLE = "/usr/bin/chromium"
TRACKS = """
    const canvas = Object.assign(document.createElement('canvas'), {width: 320, height: 180});
    canvas.getContext('2d').fillRect(0, 0, 9, 9);
    const video = canvas.captureStream(5).getVideoTracks()[0];
    const audio = new AudioContext().createMediaStreamDestination().stream.getAudioTracks()[0];
    const pc = new RTCPeerConnection({bundlePolicy: POLICY});
    const offer = async () => {
        const made = await pc.createOffer();
        await pc.setLocalDescription(made);
        return made.sdp;
    };
"""
PUBLISH = """
    for (const track of [audio, video]) pc.addTransceiver(track, {direction: 'sendonly'});
"""
SIMULCAST = """
    pc.addTransceiver(audio, {direction: 'sendonly'});
    pc.addTransceiver(video, {direction: 'sendonly', sendEncodings: [
        {rid: 'q', scaleResolutionDownBy: 4}, {rid: 'h', scaleResolutionDownBy: 2}, {rid: 'f'}]});
"""
VIEW = "for (const kind of ['audio', 'video']) pc.addTransceiver(kind, {direction: 'recvonly'});"
SLOTS = """
    for (let n = 0; n < PAIRS; n++)
        for (const kind of ['audio', 'video']) pc.addTransceiver(kind, {direction: 'recvonly'});
    for (let n = 0; n < 3; n++) pc.addTransceiver('audio', {direction: 'recvonly'});
"""
OFFERS = {
    "chromium-whip": ("balanced", PUBLISH),
    "chromium-whip-bundle": ("max-bundle", PUBLISH + "pc.createDataChannel('x');"),
    "chromium-simulcast": ("max-bundle", SIMULCAST),
    "chromium-whep": ("balanced", VIEW),
    "chromium-session": ("max-bundle", SIMULCAST + SLOTS.replace("PAIRS", "9")),
    "chromium-session-25": ("max-bundle", SIMULCAST + SLOTS.replace("PAIRS", "25")),
}


def main(folder: Path) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=EXECUTABLE, args=["--no-sandbox", "--headless=new"]
        )
        page = browser.new_page()
        for name, (policy, body) in OFFERS.items():
            tracks = TRACKS.replace("POLICY", repr(policy))
            text = page.evaluate(f"async () => {{{tracks}{body} return offer();}}")
            (folder / f"{name}.sdp").write_text(text.replace("\r\n", "\n"))
            print(name, len(text), "bytes", text.count("\n"), "lines", browser.version)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
