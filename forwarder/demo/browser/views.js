// SPDX-License-Identifier: MIT
// What is observed: frames that left an encoder, frames that were rendered, the statistics.
"use strict";

const AGE_MAX_MS = 30000, READ_MAX = 200000, WRONG_KEPT = 8, ENCODED_MAX = 200000;

// Tells the page of each encoded frame that passes: its RTP timestamp.
const TAP = `onrtctransform = ({transformer}) => transformer.readable
  .pipeThrough(new TransformStream({transform(frame, out) {
    postMessage(frame.getMetadata().rtpTimestamp ?? frame.timestamp);
    out.enqueue(frame);
  }})).pipeTo(transformer.writable).catch(() => {});`;

// Calls with the RTP timestamp of each encoded frame that passes a sender or a receiver.
function tap(end, hear) {
  const worker = new Worker(URL.createObjectURL(new Blob([TAP], { type: "text/javascript" })));
  worker.onmessage = ({ data }) => hear(data);
  end.transform = new RTCRtpScriptTransform(worker, {});
}

// Which painted frames were encoded, as far as times tell.  RTP timestamps run with the capture
// clock, so one offset (the median over all of: RTP time less the time of the latest painted frame
// at that moment) maps each to the painted frame nearest to it.  On a busy machine that may be the
// neighbour; result.py corrects it by what viewers read.
class EncodedTap {
  constructor(sender, painter) {
    this.painter = painter;
    this.seen = []; // {rtp: unwrapped, ms: painted time of the newest frame then}
    tap(sender, (rtp) => this.add(rtp));
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
    this.received = new Set(); // RTP timestamps of frames for the decoder, where those are not known
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
  // Firefox does not: there the frames that go into the decoder are noted.
  async watch(track, receiver) {
    if (typeof MediaStreamTrackProcessor === "undefined") {
      tap(receiver, (rtp) => this.received.size < READ_MAX && this.received.add(rtp));
      return;
    }
    const frames = new MediaStreamTrackProcessor({ track, maxBufferSize: 60 }).readable.getReader();
    for (;;) {
      const { value, done } = await frames.read();
      if (done) return;
      const code = this.reader.read(value);
      value.close();
      if (code && code.id === this.from && this.decoded.size < READ_MAX) this.decoded.add(code.number);
    }
  }

  snapshot() {
    return {
      from: this.from, wrong: this.wrong, wrong_seen: this.wrongSeen, wrong_picture: this.wrongPicture ?? null,
      rendered: [...this.rendered].map(([number, rtp]) => [rtp, number]),
      decoded: [...new Set([...this.rendered.keys(), ...this.decoded])], received: [...this.received],
    };
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
