// SPDX-License-Identifier: MIT
// The bare test page: one participant.  It publishes a canvas and a tone, views others, and reads
// from every rendered frame whose picture it is.  Files: code.js what is sent, views.js what is
// observed, session.js the join by session, this one WHIP, WHEP and what the lab calls.
//
// lab.start()    canvas, painter and tone         lab.publish()  WHIP: an offer, an answer
// lab.view()     WHEP: an offer, an answer        lab.snapshot() statistics and codes so far
// lab.joinSession()  both ways at once, the slots led by messages
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

// The offer without transport-wide numbers: what is sent is then told of by receiver reports alone.
function withoutFeedback(sdp) {
  const gone = [/^a=rtcp-fb:\S+ transport-cc/, /^a=extmap:\S+ \S+transport-wide-cc/];
  return sdp.split("\n").filter((line) => !gone.some((pattern) => pattern.test(line))).join("\n");
}

// The offer's text, set as the local description.
async function offered(pc, { repair = true, feedback = true }) {
  const less = (sdp) => [[repair, withoutRepair], [feedback, withoutFeedback]]
    .reduce((text, [kept, without]) => kept ? text : without(text), sdp);
  const { sdp } = await pc.createOffer();
  await pc.setLocalDescription({ type: "offer", sdp: less(sdp) });
  return less(pc.localDescription.sdp);
}

// One offer, one answer (RFC 9725 section 4.2; WHEP likewise).  The resource's URL, or an error
// with the node's own words.
async function exchange(pc, { url, token, ...less }) {
  const offer = await offered(pc, less);
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
    this.views = new Map(); // {view, screen, pc, mids} by the id that the publisher paints
    this.states = []; // [ms, connection state] of each change
  }

  async start(options) {
    this.painter = new Painter(options);
    this.tone = await tone(options.id);
    return { audio: this.tone.state };
  }

  canSend(codec) {
    const { codecs } = RTCRtpSender.getCapabilities("video");
    return codecs.some(({ mimeType }) => mimeType.toLowerCase() === `video/${codec}`);
  }

  // Offers this codec alone, with its repair: the node answers by the room's order, not by ours.
  offerOnly(transceiver, codec) {
    const names = [`video/${codec}`, "video/rtx", "video/red", "video/ulpfec"];
    const kept = RTCRtpSender.getCapabilities("video").codecs
      .filter((c) => names.includes(c.mimeType.toLowerCase()));
    if (!this.canSend(codec)) throw new Error(`this browser cannot send ${codec}`);
    transceiver.setCodecPreferences(kept);
  }

  peer() {
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    pc.addEventListener("connectionstatechange", () => this.states.push([performance.now(), pc.connectionState]));
    return pc;
  }

  addMedia(pc, { codec, encodings = null }) {
    const stream = new MediaStream([this.tone.track, this.painter.track]);
    pc.addTransceiver(this.tone.track, { direction: "sendonly", streams: [stream] });
    const how = { direction: "sendonly", streams: [stream], ...(encodings && { sendEncodings: encodings }) };
    const video = pc.addTransceiver(this.painter.track, how);
    this.offerOnly(video, codec);
    this.encoded = new EncodedTap(video.sender, this.painter);
  }

  addView(pc, from) {
    const entry = { view: new View(from), pc };
    pc.addEventListener("track", ({ track, receiver }) => {
      if (track.kind === "audio") {
        play(track);
      } else {
        entry.screen = new Screen(track, receiver);
        entry.screen.show(entry.view);
      }
    });
    this.views.set(from, entry);
    return entry.view;
  }

  async join(pc, { timeoutMs, ...where }) {
    const beganMs = performance.now(), leg = { pc, token: where.token };
    this.legs.push(leg);
    leg.resource = await exchange(pc, where);
    await connected(pc, timeoutMs);
    return { join_ms: performance.now() - beganMs, resource: leg.resource };
  }

  async publish({ codec, encodings, ...where }) {
    const pc = this.publishing = this.peer();
    this.addMedia(pc, { codec, encodings });
    const joined = await this.join(pc, where);
    this.painter.mediaAt = this.painter.number;
    return joined;
  }

  async view({ from, ...where }) {
    const pc = this.peer();
    pc.addTransceiver("audio", { direction: "recvonly" });
    pc.addTransceiver("video", { direction: "recvonly" });
    const beganMs = performance.now(), view = this.addView(pc, from);
    const joined = await this.join(pc, where);
    await this.pictures([from], where.timeoutMs);
    return { ...joined, first_frame_ms: view.firstMs - beganMs };
  }

  // Until something of each of these publishers was rendered, or is known to be undecodable here.
  // The ms since the join by session began.
  async pictures(ids, timeoutMs) {
    const beganMs = performance.now();
    const missing = () => ids.filter((id) => {
      const view = this.views.get(id)?.view;
      return view?.firstMs === undefined && view?.state !== "codec_unsupported";
    });
    while (missing().length) {
      if (performance.now() - beganMs > timeoutMs) {
        const known = { session: this.session?.about(), names: [...this.session?.names ?? []] };
        throw new Error(`no picture of ${missing()} after ${timeoutMs} ms: ${JSON.stringify(known)} ` +
          JSON.stringify(await statistics(this.views.values().next().value?.pc ?? this.publishing)));
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return Object.fromEntries(ids.map((id) => [id, (this.views.get(id).view.firstMs ?? 0) - this.beganMs]));
  }

  // A join by session; see session.js.
  async joinSession(options) {
    this.session = new Session(this, options);
    this.beganMs = performance.now();
    return await this.session.join();
  }

  // Publisher and viewer in one page, without a node: shows that page and browser can do it.
  async selfTest({ codec, timeoutMs }) {
    const there = this.publishing = this.peer(), here = this.peer();
    for (const [one, other] of [[there, here], [here, there]]) {
      this.legs.push({ pc: one });
      one.addEventListener("icecandidate", ({ candidate }) => candidate && other.addIceCandidate(candidate));
    }
    this.addMedia(there, { codec });
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
    for (const [, { view, pc, mids }] of this.views) {
      const found = await statistics(pc);
      found.rtp = found.rtp.filter((entry) => !mids || mids.includes(entry.mid));
      views.push({ ...view.snapshot(), statistics: found });
    }
    return {
      publish: await this.published(), encoded: this.encoded?.frames() ?? [],
      ...this.painter.progress(), views, session: this.session?.about() ?? null, states: this.states,
    };
  }

  // The statistics of what is sent.
  async published() {
    const found = await statistics(this.publishing);
    found.rtp = found.rtp.filter((entry) => entry.packetsSent !== undefined);
    return found;
  }

  // Publishers send no more RTP; viewers play what is on its way.  Without a track alone, Firefox
  // would send the last picture again after a second, which viewers count as a freeze.
  async hush() {
    clearInterval(this.session?.listening);
    this.painter.stop();
    await Promise.all(this.publishing.getSenders().filter(({ track }) => track).map(async (sender) => {
      const parameters = sender.getParameters();
      for (const encoding of parameters.encodings) encoding.active = false;
      await sender.setParameters(parameters);
      await sender.replaceTrack(null);
    }));
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
    await this.session?.leave();
    return statuses;
  }
}

window.lab = new Lab();
