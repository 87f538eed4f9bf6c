// SPDX-License-Identifier: MIT
// The bare test page: one participant.  It publishes a canvas and a tone over WHIP, views others
// over WHEP, and reads from every rendered frame whose picture it is.
//
// lab.start()    canvas, painter and tone         lab.publish()  WHIP: an offer, an answer
// lab.view()     WHEP: an offer, an answer        lab.snapshot() statistics and codes so far
// lab.hush()     the publisher sends no more      lab.leave()    DELETE and close
//
// The code: 16 x 4 cells of 16 x 16 pixels from (32, 112) on in a picture of 320 x 180, in
// proportion at other sizes; black or white, most significant bit first: id 8, frame number 20,
// clock in ms 20, CRC-16/CCITT 16.  A cell is one macroblock, so that a starved encoder still gets
// it right.  The clock is the machine's, modulo 2^20: browsers of one machine share it.
"use strict";

const COLUMNS = 16, ROWS = 4, CELL = 16, LEFT = 32, TOP = 112, WIDTH = 320, HEIGHT = 180;
const CLOCK_MODULUS = 1 << 20, NUMBER_MODULUS = 1 << 20, AGE_MAX_MS = 30000;
const READ_MAX = 200000, WRONG_KEPT = 8, ENCODED_MAX = 200000;

const clockMs = () => Math.floor(performance.timeOrigin + performance.now()) % CLOCK_MODULUS;

function crc16(bits) {
  let crc = 0xffff;
  for (const bit of bits) {
    const top = (crc >> 15) ^ bit;
    crc = (crc << 1) & 0xffff;
    if (top) crc ^= 0x1021;
  }
  return crc;
}

function push(bits, value, width) {
  for (let i = width - 1; i >= 0; i--) bits.push((value >> i) & 1);
}

function take(bits, from, width) {
  return bits.slice(from, from + width).reduce((value, bit) => value * 2 + bit, 0);
}

function encodeCode(id, number, clock) {
  const bits = [];
  push(bits, id, 8);
  push(bits, number % NUMBER_MODULUS, 20);
  push(bits, clock, 20);
  push(bits, crc16(bits), 16);
  return bits;
}

// {id, number, clock}, or null when the check does not fit.
function decodeCode(bits) {
  if (crc16(bits.slice(0, 48)) !== take(bits, 48, 16)) return null;
  return { id: take(bits, 0, 8), number: take(bits, 8, 20), clock: take(bits, 28, 20) };
}

// The grey dot is for AV1: libaom in real-time mode leaves the residual of flat blocks out.
function paintCode(g, width, height, bits) {
  const x = width / WIDTH, y = height / HEIGHT;
  bits.forEach((bit, i) => {
    g.fillStyle = bit ? "#fff" : "#000";
    const column = i % COLUMNS, row = Math.floor(i / COLUMNS);
    const left = (LEFT + column * CELL) * x, top = (TOP + row * CELL) * y;
    g.fillRect(left, top, CELL * x, CELL * y);
    g.fillStyle = "#888";
    g.fillRect(left, top, 3 * x, 3 * y);
  });
}

// Reads codes out of anything that drawImage takes.
class Reader {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.canvas.width = WIDTH;
    this.canvas.height = HEIGHT;
    this.g = this.canvas.getContext("2d", { willReadFrequently: true });
  }

  read(image) {
    this.g.drawImage(image, 0, 0, WIDTH, HEIGHT);
    const pixels = this.g.getImageData(0, TOP, WIDTH, ROWS * CELL).data;
    const bits = [];
    for (let i = 0; i < COLUMNS * ROWS; i++) {
      const x = LEFT + (i % COLUMNS) * CELL, y = Math.floor(i / COLUMNS) * CELL;
      let sum = 0;
      for (let dy = 4; dy < 12; dy++) {
        for (let dx = 4; dx < 12; dx++) sum += pixels[4 * ((y + dy) * WIDTH + x + dx) + 1];
      }
      bits.push(sum > 64 * 128 ? 1 : 0);
    }
    return decodeCode(bits);
  }
}

// Paints at a steady rate and remembers when each frame was painted.
class Painter {
  constructor({ id, name, width, height, fps }) {
    Object.assign(this, { id, name, width, height, fps, number: 0, mediaAt: 0 });
    this.paintedMs = []; // by number, performance.now()
    this.canvas = document.createElement("canvas");
    this.canvas.width = width;
    this.canvas.height = height;
    this.g = this.canvas.getContext("2d");
    document.body.append(this.canvas);
    this.paint(); // a canvas without a context or content cannot be captured
    this.stream = this.canvas.captureStream(0);
    this.track = this.stream.getVideoTracks()[0];
    this.begin();
  }

  begin() {
    this.beganMs = performance.now();
    this.beganAt = this.number;
    this.timer = setInterval(() => {
      if (this.number >= READ_MAX) return;
      this.paint();
      this.track.requestFrame();
    }, 1000 / this.fps);
  }

  paint() {
    const { g, width, height, id } = this, number = this.number++;
    g.fillStyle = `hsl(${(id * 67) % 360} 55% 40%)`;
    g.fillRect(0, 0, width, height);
    g.fillStyle = "#fff";
    g.font = `${Math.round(height / 7)}px sans-serif`;
    g.fillText(`${this.name}  ${Math.floor(number / this.fps)} s`, width * 0.05, height * 0.25);
    g.fillRect((number * 4 * width / WIDTH) % width, height * 0.4, height * 0.1, height * 0.1);
    this.paintedMs.push(performance.now());
    paintCode(g, width, height, encodeCode(id, number, clockMs()));
  }

  // Frames painted, those that a timer that is never late would have painted, and the longest
  // pause between two since the media began.
  progress() {
    const until = this.endedMs ?? performance.now(), times = this.paintedMs;
    const due = Math.floor((until - this.beganMs) * this.fps / 1000);
    let pause = 0;
    for (let i = this.mediaAt + 1; i < times.length; i++) pause = Math.max(pause, times[i] - times[i - 1]);
    return { painted: this.number - this.beganAt, due, pause_ms: pause };
  }

  stop() {
    clearInterval(this.timer);
    this.endedMs ??= performance.now();
  }
}

// A tone of its own for each participant, never heard: --mute-audio.
function tone(id) {
  const context = new AudioContext();
  const oscillator = context.createOscillator(), gain = context.createGain();
  oscillator.frequency.value = 220 + 55 * id;
  gain.gain.value = 0.2;
  const end = context.createMediaStreamDestination();
  oscillator.connect(gain).connect(end);
  oscillator.start();
  return { context, track: end.stream.getAudioTracks()[0] };
}

// Tells the page of each encoded frame that leaves: its RTP timestamp.
const TAP = `onrtctransform = ({transformer}) => transformer.readable
  .pipeThrough(new TransformStream({transform(frame, out) {
    postMessage(frame.getMetadata().rtpTimestamp ?? frame.timestamp);
    out.enqueue(frame);
  }})).pipeTo(transformer.writable).catch(() => {});`;

// Which painted frames were encoded, as far as times tell.  RTP timestamps run with the capture
// clock, so one offset (the median over all of: RTP time less the time of the latest painted frame
// at that moment) maps each to the painted frame nearest to it.  On a busy machine that may be the
// neighbour; result.py corrects it by what viewers read.
class EncodedTap {
  constructor(sender, painter) {
    this.painter = painter;
    this.seen = []; // {rtp: unwrapped, ms: painted time of the newest frame then}
    this.worker = new Worker(URL.createObjectURL(new Blob([TAP], { type: "text/javascript" })));
    this.worker.onmessage = ({ data }) => this.add(data);
    sender.transform = new RTCRtpScriptTransform(this.worker, {});
  }

  add(rtp) {
    if (this.seen.length >= ENCODED_MAX) return;
    const last = this.seen.at(-1);
    if (last) rtp = last.rtp + (((rtp - last.rtp) % 2 ** 32 + 2 ** 32 + 2 ** 31) % 2 ** 32) - 2 ** 31;
    this.seen.push({ rtp, ms: this.painter.paintedMs.at(-1) });
  }

  // [RTP timestamp, painted number] of each.
  frames() {
    if (!this.seen.length) return [];
    const offsets = this.seen.map(({ rtp, ms }) => rtp / 90 - ms).sort((a, b) => a - b);
    const offset = offsets[offsets.length >> 1], painted = this.painter.paintedMs;
    let at = 0;
    const numbers = this.seen.map(({ rtp }) => {
      const ms = rtp / 90 - offset;
      while (at + 1 < painted.length && Math.abs(painted[at + 1] - ms) <= Math.abs(painted[at] - ms)) at++;
      return at;
    });
    // A busy page paints in bunches, where the nearest may be the neighbour: none is encoded twice.
    for (let k = 1; k < numbers.length; k++) numbers[k] = Math.max(numbers[k], numbers[k - 1] + 1);
    for (let k = numbers.length - 1, most = painted.length - 1; k >= 0; k--) {
      numbers[k] = Math.min(numbers[k], most);
      most = numbers[k] - 1;
    }
    return numbers.map((number, k) => [((this.seen[k].rtp % 2 ** 32) + 2 ** 32) % 2 ** 32, number]);
  }
}

// What one viewer sees of one publisher.
class View {
  constructor(from, stream) {
    this.from = from;
    this.reader = new Reader();
    this.rendered = new Map(); // RTP timestamps of rendered frames by the number read from them
    this.decoded = new Set(); // numbers of all decoded frames, rendered or not
    this.wrong = 0;
    this.wrongSeen = [];
    this.callbacks = 0;
    this.video = document.createElement("video");
    Object.assign(this.video, { autoplay: true, playsInline: true, srcObject: stream });
    document.body.append(this.video);
    this.onFrame = (_, { rtpTimestamp }) => {
      this.callbacks++;
      this.firstMs ??= performance.now();
      this.take(this.video, rtpTimestamp);
      this.video.requestVideoFrameCallback(this.onFrame);
    };
    this.video.requestVideoFrameCallback(this.onFrame);
  }

  take(image, rtp) {
    const code = this.reader.read(image);
    const age = code && (clockMs() - code.clock + CLOCK_MODULUS) % CLOCK_MODULUS;
    if (code && code.id === this.from && age <= AGE_MAX_MS) {
      if (this.rendered.size < READ_MAX && !this.rendered.has(code.number)) this.rendered.set(code.number, rtp);
      return;
    }
    this.wrong++;
    this.wrongPicture ??= this.reader.canvas.toDataURL();
    if (this.wrongSeen.length < WRONG_KEPT) this.wrongSeen.push({ code, age, at: this.callbacks });
  }

  // Rendering may skip a decoded frame; where the browser hands out each one, they are read too.
  async watch(track) {
    if (typeof MediaStreamTrackProcessor === "undefined") return;
    const frames = new MediaStreamTrackProcessor({ track, maxBufferSize: 60 }).readable.getReader();
    for (;;) {
      const { value, done } = await frames.read();
      if (done) return;
      const code = this.reader.read(value);
      value.close();
      if (code && code.id === this.from && this.decoded.size < READ_MAX) this.decoded.add(code.number);
    }
  }
}

const WANTED = {
  "inbound-rtp": ["kind", "packetsReceived", "packetsLost", "framesDecoded", "framesDropped", "freezeCount",
    "frameWidth", "frameHeight", "totalAudioEnergy", "nackCount", "pliCount", "retransmittedPacketsReceived",
    "keyFramesDecoded", "totalSamplesReceived", "concealedSamples", "jitterBufferDelay"],
  "outbound-rtp": ["kind", "packetsSent", "framesEncoded", "framesSent", "nackCount", "pliCount", "firCount",
    "retransmittedPacketsSent", "qualityLimitationReason", "qualityLimitationDurations", "frameWidth",
    "frameHeight", "rid", "targetBitrate"],
  "transport": ["srtpCipher", "dtlsState", "dtlsRole", "iceState", "tlsVersion", "selectedCandidatePairChanges"],
};

// {transport, rtp: [{kind, codec, ...}], availableOutgoingBitrate}
async function statistics(pc) {
  const report = await pc.getStats(), found = { state: pc.connectionState, rtp: [], transport: {} };
  for (const entry of report.values()) {
    const names = WANTED[entry.type];
    if (entry.type === "candidate-pair" && entry.nominated) {
      found.availableOutgoingBitrate = entry.availableOutgoingBitrate;
      found.roundTripTime = entry.currentRoundTripTime;
    }
    if (!names) continue;
    const kept = Object.fromEntries(names.filter((n) => entry[n] !== undefined).map((n) => [n, entry[n]]));
    if (entry.type === "transport") found.transport = kept;
    else found.rtp.push({ ...kept, codec: report.get(entry.codecId)?.mimeType ?? null });
  }
  return found;
}

// One offer, one answer (RFC 9725 section 4.2; WHEP likewise).  The resource's URL, or an error
// with the node's own words.
async function exchange(pc, url, token) {
  await pc.setLocalDescription(await pc.createOffer());
  const answer = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/sdp", Authorization: `Bearer ${token}` },
    body: pc.localDescription.sdp,
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

  start(options) {
    this.painter = new Painter(options);
    this.tone = tone(options.id);
    return { audio: this.tone.context.state };
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
    pc.addEventListener("track", ({ track }) => {
      stream.addTrack(track);
      if (track.kind === "video") view.watch(track).catch(() => {});
    });
    this.views.set(from, { view, pc });
    return view;
  }

  async join(pc, url, token, timeoutMs) {
    const beganMs = performance.now(), leg = { pc, token };
    this.legs.push(leg);
    leg.resource = await exchange(pc, url, token);
    await connected(pc, timeoutMs);
    return { join_ms: performance.now() - beganMs, resource: leg.resource };
  }

  async publish({ url, token, codec, timeoutMs }) {
    const pc = this.publishing = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.addMedia(pc, codec);
    const joined = await this.join(pc, url, token, timeoutMs);
    this.painter.mediaAt = this.painter.number;
    return joined;
  }

  async view({ from, url, token, timeoutMs }) {
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    pc.addTransceiver("audio", { direction: "recvonly" });
    pc.addTransceiver("video", { direction: "recvonly" });
    const beganMs = performance.now(), view = this.addView(pc, from);
    const joined = await this.join(pc, url, token, timeoutMs);
    while (view.firstMs === undefined) {
      if (performance.now() - beganMs > timeoutMs) {
        throw new Error(`no picture of ${from} after ${timeoutMs} ms: ${JSON.stringify(await statistics(pc))}`);
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
      views.push({
        from, wrong: view.wrong, wrong_seen: view.wrongSeen,
        wrong_picture: view.wrongPicture ?? null, rendered: [...view.rendered].map(([number, rtp]) => [rtp, number]),
        decoded: [...new Set([...view.rendered.keys(), ...view.decoded])], statistics: await statistics(pc),
      });
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
