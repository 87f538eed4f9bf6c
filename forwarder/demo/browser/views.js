// SPDX-License-Identifier: MIT
// What is observed: frames that left an encoder, frames that were rendered, the statistics.
"use strict";

const AGE_MAX_MS = 30000, READ_MAX = 200000, WRONG_KEPT = 8, ENCODED_MAX = 200000, CHANGE_MS = 3000;

// Tells the page of each encoded frame that passes: whose tap, its RTP timestamp and its stream.
const TAP = `onrtctransform = ({transformer}) => transformer.readable
  .pipeThrough(new TransformStream({transform(frame, out) {
    const about = frame.getMetadata();
    postMessage([transformer.options.at, about.rtpTimestamp ?? frame.timestamp, about.synchronizationSource ?? 0]);
    out.enqueue(frame);
  }})).pipeTo(transformer.writable).catch(() => {});`;
const taps = []; // who hears, in the order of the taps; one worker serves them all
let tapper = null;

// Calls with that of each encoded frame that passes a sender or a receiver.
function tap(end, hear) {
  if (!tapper) {
    tapper = new Worker(URL.createObjectURL(new Blob([TAP], { type: "text/javascript" })));
    tapper.onmessage = ({ data: [at, ...about] }) => taps[at](...about);
  }
  end.transform = new RTCRtpScriptTransform(tapper, { at: taps.push(hear) - 1 });
}

// Which painted frames were encoded, as far as times tell.  RTP timestamps run with the capture
// clock, so one offset (the median over all of: RTP time less the time of the latest painted frame
// at that moment) maps each to the painted frame nearest to it.  On a busy machine that may be the
// neighbour; result.py corrects it by what viewers read.  With simulcast, the layer that encoded
// most stands for all.
class EncodedTap {
  constructor(sender, painter) {
    this.painter = painter;
    this.streams = new Map(); // by SSRC, {rtp: unwrapped, ms: painted time of the newest frame then}
    tap(sender, (rtp, ssrc) => this.add(rtp, ssrc));
  }

  get seen() {
    return [...this.streams.values()].sort((one, other) => other.length - one.length)[0] ?? [];
  }

  add(rtp, ssrc) {
    if (!this.streams.has(ssrc)) this.streams.set(ssrc, []);
    const seen = this.streams.get(ssrc);
    if (seen.length >= ENCODED_MAX) return;
    const last = seen.at(-1);
    if (last) rtp = last.rtp + (((rtp - last.rtp) % 2 ** 32 + 2 ** 32 + 2 ** 31) % 2 ** 32) - 2 ** 31;
    seen.push({ rtp, ms: this.painter.paintedMs.at(-1) });
  }

  // [RTP timestamp, painted number] of each.
  frames() {
    const seen = this.seen;
    if (!seen.length) return [];
    const offsets = seen.map(({ rtp, ms }) => rtp / 90 - ms).sort((a, b) => a - b);
    const offset = offsets[offsets.length >> 1], painted = this.painter.paintedMs;
    let at = 0;
    const numbers = seen.map(({ rtp }) => {
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
    return numbers.map((number, k) => [((seen[k].rtp % 2 ** 32) + 2 ** 32) % 2 ** 32, number]);
  }
}

// What one viewer has seen of one publisher.
class View {
  constructor(from) {
    this.from = from;
    this.rendered = new Map(); // RTP timestamps of rendered frames by the number read from them
    this.decoded = new Set(); // numbers of all decoded frames, rendered or not
    this.unread = new Set(); // RTP timestamps of decoded frames without a legible code
    this.eachDecoded = false; // whether the browser hands out each decoded frame
    this.received = new Set(); // else: RTP timestamps of frames for the decoder
    this.layers = new Map(); // rendered frames by their height
    this.wrong = 0;
    this.wrongSeen = [];
    this.state = "playing"; // of its slot
  }

  take({ number }, rtp, height) {
    if (this.rendered.size >= READ_MAX || this.rendered.has(number)) return;
    this.rendered.set(number, rtp);
    this.layers.set(height, (this.layers.get(height) ?? 0) + 1);
    this.firstMs ??= performance.now();
  }

  snapshot() {
    return {
      from: this.from, wrong: this.wrong, wrong_seen: this.wrongSeen, wrong_picture: this.wrongPicture ?? null,
      rendered: [...this.rendered].map(([number, rtp]) => [rtp, number]),
      decoded: [...new Set([...this.rendered.keys(), ...this.decoded])], unread: [...this.unread],
      each_decoded: this.eachDecoded, received: [...this.received],
      layers: Object.fromEntries(this.layers), state: this.state,
    };
  }
}

// One place for a picture.  `view` is whose picture is due in it; one that has just gone may still
// be on its way for a moment.
class Screen {
  constructor(track, receiver) {
    this.reader = new Reader();
    this.view = this.before = null;
    this.callbacks = 0;
    this.video = document.createElement("video");
    Object.assign(this.video, { autoplay: true, playsInline: true, muted: true });
    this.video.srcObject = new MediaStream([track]);
    document.body.append(this.video);
    this.onFrame = (_, { rtpTimestamp, height }) => {
      this.callbacks++;
      this.rendered(this.video, rtpTimestamp, height);
      this.video.requestVideoFrameCallback(this.onFrame);
    };
    this.video.requestVideoFrameCallback(this.onFrame);
    this.watch(track, receiver).catch(() => {});
  }

  show(view) {
    if (view === this.view) return;
    this.before = this.view ?? this.before;
    this.changedMs = performance.now();
    this.view = view;
  }

  // The account that this code belongs to, null for a picture that must not be here.
  owner(code) {
    const age = code && (clockMs() - code.clock + CLOCK_MODULUS) % CLOCK_MODULUS;
    if (!code || age > AGE_MAX_MS) return null;
    if (code.id === this.view?.from) return this.view;
    const fresh = performance.now() - this.changedMs < CHANGE_MS;
    return fresh && code.id === this.before?.from ? this.before : null;
  }

  rendered(image, rtp, height) {
    const code = this.reader.read(image), view = this.owner(code);
    if (code === undefined) return;
    if (view) {
      view.take(code, rtp, height);
    } else if (this.view) {
      this.view.wrong++;
      this.view.wrongPicture ??= this.reader.canvas.toDataURL();
      const age = code && (clockMs() - code.clock + CLOCK_MODULUS) % CLOCK_MODULUS;
      if (this.view.wrongSeen.length < WRONG_KEPT) this.view.wrongSeen.push({ code, age, at: this.callbacks });
    }
  }

  // Rendering may skip a decoded frame.  Chromium hands out each, and all are read; Firefox does not:
  // there those that arrived whole are noted.
  async watch(track, receiver) {
    if (typeof MediaStreamTrackProcessor === "undefined") {
      tap(receiver, (rtp) => this.view && this.view.received.size < READ_MAX && this.view.received.add(rtp));
      return;
    }
    const frames = new MediaStreamTrackProcessor({ track, maxBufferSize: 60 }).readable.getReader();
    for (;;) {
      const { value, done } = await frames.read();
      if (done) return;
      const code = this.reader.read(value), rtp = value.metadata?.().rtpTimestamp;
      value.close();
      const view = code ? this.owner(code) : this.view;
      if (!view || view.decoded.size + view.unread.size >= READ_MAX) continue;
      view.eachDecoded = true;
      if (code) view.decoded.add(code.number);
      else if (rtp !== undefined) view.unread.add(rtp);
    }
  }

  close() {
    this.video.remove();
  }
}

// Sound must be played to be counted.
function play(track) {
  const audio = document.createElement("audio");
  Object.assign(audio, { autoplay: true, srcObject: new MediaStream([track]) });
  document.body.append(audio);
  return audio;
}

const WANTED = {
  "inbound-rtp": ["kind", "mid", "ssrc", "packetsReceived", "packetsLost", "framesDecoded", "framesDropped", "freezeCount",
    "frameWidth", "frameHeight", "totalAudioEnergy", "nackCount", "pliCount", "retransmittedPacketsReceived",
    "keyFramesDecoded", "totalFreezesDuration", "bytesReceived", "totalSamplesReceived", "concealedSamples", "jitterBufferDelay"],
  "outbound-rtp": ["kind", "mid", "packetsSent", "framesEncoded", "framesSent", "nackCount", "pliCount", "firCount",
    "retransmittedPacketsSent", "qualityLimitationReason", "qualityLimitationDurations", "frameWidth",
    "frameHeight", "rid", "targetBitrate", "bytesSent"],
  "transport": ["srtpCipher", "dtlsState", "dtlsRole", "iceState", "tlsVersion", "selectedCandidatePairChanges"],
};

// Bytes that have come, RTCP included; null when the browser does not count them.  Firefox counts them
// for each candidate pair, not for the transport.
function arrivedBytes(report) {
  const told = [...report.values()].filter(({ bytesReceived }) => bytesReceived !== undefined);
  const of = (wanted) => told.filter(({ type }) => type === wanted).map(({ bytesReceived }) => bytesReceived);
  const counts = of("transport").length ? of("transport") : of("candidate-pair");
  return counts.length ? counts.reduce((sum, count) => sum + count, 0) : null;
}

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
