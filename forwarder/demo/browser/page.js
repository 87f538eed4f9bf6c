// SPDX-License-Identifier: MIT
// The bare test page: one participant.  It publishes a canvas and a tone, views others, and reads
// from every rendered frame whose picture it is.  Files: code.js what is sent, views.js what is
// observed, this one WHIP and WHEP.
//
// lab.start()    canvas, painter and tone         lab.publish()  WHIP: an offer, an answer
// lab.view()     WHEP: an offer, an answer        lab.snapshot() statistics and codes so far
// lab.hush()     the publisher sends no more      lab.leave()    DELETE and close
"use strict";

// The offer without NACK and RTX.  Chromium receives by its own offer, so that this is its local
// description too.
function withoutRepair(sdp) {
  const rtx = [...sdp.matchAll(/^a=rtpmap:(\d+) rtx\//gmi)].map((found) => found[1]);
  const paired = [...sdp.matchAll(/^a=ssrc-group:FID \d+ (\d+)/gm)].map((found) => found[1]);
  const about = (kind, values) => values.length ? [new RegExp(`^a=${kind}:(${values.join("|")})[ \\r]`)] : [];
  const gone = [/^a=rtcp-fb:\S+ nack\r?$/, /^a=ssrc-group:FID /,
    ...about("(rtpmap|fmtp|rtcp-fb)", rtx), ...about("ssrc", paired)];
  return sdp.split("\n").filter((line) => !gone.some((pattern) => pattern.test(line)))
    .map((line) => line.startsWith("m=")
      ? line.trimEnd().split(" ").filter((word, at) => at < 3 || !rtx.includes(word)).join(" ") + "\r" : line)
    .join("\n");
}

// The offer's text, set as the local description.
async function offered(pc, repair) {
  const { sdp } = await pc.createOffer();
  await pc.setLocalDescription({ type: "offer", sdp: repair ? sdp : withoutRepair(sdp) });
  return repair ? pc.localDescription.sdp : withoutRepair(pc.localDescription.sdp);
}

// One offer, one answer (RFC 9725 section 4.2; WHEP likewise).  The resource's URL, or an error
// with the node's own words.
async function exchange(pc, url, token, repair) {
  const offer = await offered(pc, repair);
  const answer = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/sdp", Authorization: `Bearer ${token}` },
    body: offer,
  });
  const text = await answer.text();
  if (answer.status !== 201) throw new Error(`POST ${url}: ${answer.status} ${text.slice(0, 500)}`);
  const location = answer.headers.get("Location");
  if (!location) throw new Error(`POST ${url}: 201 without a Location that the page may read`);
  await pc.setRemoteDescription({ type: "answer", sdp: text });
  return new URL(location, answer.url).href;
}

function connected(pc, timeoutMs) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`not connected after ${timeoutMs} ms: ICE ${pc.iceConnectionState}, ` +
        `connection ${pc.connectionState}`)), timeoutMs);
    const check = () => {
      if (pc.connectionState === "connected") { clearTimeout(timer); resolve(); }
      if (pc.connectionState === "failed") { clearTimeout(timer); reject(new Error("connection failed")); }
    };
    pc.addEventListener("connectionstatechange", check);
    check();
  });
}

class Lab {
  constructor() {
    this.legs = []; // {pc, resource, token}
    this.views = new Map();
  }

  async start(options) {
    this.painter = new Painter(options);
    this.tone = await tone(options.id);
    return { audio: this.tone.state };
  }

  // Offers this codec alone, with its repair: the node answers by the room's order, not by ours.
  offerOnly(transceiver, codec) {
    const names = [`video/${codec}`, "video/rtx", "video/red", "video/ulpfec"];
    const kept = RTCRtpSender.getCapabilities("video").codecs
      .filter((c) => names.includes(c.mimeType.toLowerCase()));
    if (!kept.some((c) => c.mimeType.toLowerCase() === names[0])) {
      throw new Error(`this browser cannot send ${codec}`);
    }
    transceiver.setCodecPreferences(kept);
  }

  addMedia(pc, codec) {
    const stream = new MediaStream([this.tone.track, this.painter.track]);
    pc.addTransceiver(this.tone.track, { direction: "sendonly", streams: [stream] });
    const video = pc.addTransceiver(this.painter.track, { direction: "sendonly", streams: [stream] });
    this.offerOnly(video, codec);
    this.encoded = new EncodedTap(video.sender, this.painter);
  }

  addView(pc, from) {
    const stream = new MediaStream(), view = new View(from, stream);
    pc.addEventListener("track", ({ track, receiver }) => {
      stream.addTrack(track);
      if (track.kind === "video") view.watch(track, receiver).catch(() => {});
    });
    this.views.set(from, { view, pc });
    return view;
  }

  async join(pc, { url, token, repair = true, timeoutMs }) {
    const beganMs = performance.now(), leg = { pc, token };
    this.legs.push(leg);
    leg.resource = await exchange(pc, url, token, repair);
    await connected(pc, timeoutMs);
    return { join_ms: performance.now() - beganMs, resource: leg.resource };
  }

  async publish({ codec, ...where }) {
    const pc = this.publishing = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.addMedia(pc, codec);
    const joined = await this.join(pc, where);
    this.painter.mediaAt = this.painter.number;
    return joined;
  }

  async view({ from, ...where }) {
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    pc.addTransceiver("audio", { direction: "recvonly" });
    pc.addTransceiver("video", { direction: "recvonly" });
    const beganMs = performance.now(), view = this.addView(pc, from);
    const joined = await this.join(pc, where);
    while (view.firstMs === undefined) {
      if (performance.now() - beganMs > where.timeoutMs) {
        throw new Error(`no picture of ${from} after ${where.timeoutMs} ms: ${JSON.stringify(await statistics(pc))}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return { ...joined, first_frame_ms: view.firstMs - beganMs };
  }

  // Publisher and viewer in one page, without a node: shows that page and browser can do it.
  async selfTest({ codec, timeoutMs }) {
    const there = this.publishing = new RTCPeerConnection(), here = new RTCPeerConnection();
    for (const [one, other] of [[there, here], [here, there]]) {
      this.legs.push({ pc: one });
      one.addEventListener("icecandidate", ({ candidate }) => candidate && other.addIceCandidate(candidate));
    }
    this.addMedia(there, codec);
    this.addView(here, this.painter.id);
    await there.setLocalDescription(await there.createOffer());
    await here.setRemoteDescription(there.localDescription);
    await here.setLocalDescription(await here.createAnswer());
    await there.setRemoteDescription(here.localDescription);
    await Promise.all([connected(there, timeoutMs), connected(here, timeoutMs)]);
  }

  counts() {
    return {
      painted: this.painter.number,
      rendered: [...this.views].map(([from, { view }]) => [from, view.rendered.size]),
    };
  }

  async snapshot() {
    const views = [];
    for (const [from, { view, pc }] of this.views) {
      views.push({ ...view.snapshot(), statistics: await statistics(pc) });
    }
    return {
      publish: await statistics(this.publishing), encoded: this.encoded.frames(),
      ...this.painter.progress(), views,
    };
  }

  // Publishers send no more RTP; viewers play what is on its way.
  async hush() {
    this.painter.stop();
    for (const sender of this.publishing.getSenders()) await sender.replaceTrack(null);
  }

  // DELETE each resource (RFC 9725 section 4.2), then close.  The statuses.
  async leave() {
    const statuses = [];
    for (const { pc, resource, token } of this.legs.splice(0)) {
      if (resource) {
        const headers = { Authorization: `Bearer ${token}` };
        statuses.push((await fetch(resource, { method: "DELETE", headers })).status);
      }
      pc.close();
    }
    return statuses;
  }
}

window.lab = new Lab();
