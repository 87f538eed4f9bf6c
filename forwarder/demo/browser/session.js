// SPDX-License-Identifier: MIT
// Joining by session: one WebTransport session to /v1/join for words, one peer connection for media
// both ways.  The protocol is told in forwarder/signaling/messages.py.
"use strict";

const PING_MS = 1000, SILENCE_MS = 2500, RETRY_MS = [100, 200, 400, 800, 1600], MESSAGE_MAX = 4 << 20;
// The node's reports alone come more often; "disconnected" would be told of after 5 s.
const MEDIA_SILENCE_MS = 1200, LISTEN_MS = 200;

// One WebTransport session: length-prefixed JSON, requests with answers.
class Control {
  constructor(url, certHash, hear) {
    const value = Uint8Array.from(certHash.match(/../g), (byte) => parseInt(byte, 16));
    this.hear = hear;
    this.next = 1;
    this.waiting = new Map();
    this.heardMs = performance.now();
    this.transport = new WebTransport(url, { serverCertificateHashes: [{ algorithm: "sha-256", value }] });
    this.ended = this.transport.closed.then(() => "closed", (error) => String(error)).then((why) => this.end(why));
  }

  async open() {
    await this.transport.ready;
    const { readable, writable } = await this.transport.createBidirectionalStream();
    this.writer = writable.getWriter();
    this.read(readable.getReader()).catch((error) => this.end(String(error)));
    this.timer = setInterval(() => this.beat(), PING_MS);
  }

  async request(type, fields = {}) {
    const id = this.next++, body = new TextEncoder().encode(JSON.stringify({ type, id, ...fields }));
    const frame = new Uint8Array(4 + body.length);
    new DataView(frame.buffer).setUint32(0, body.length);
    frame.set(body, 4);
    const answer = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    answer.catch(() => {}); // it may be refused while the frame is on its way
    await this.writer.write(frame);
    return await answer;
  }

  async read(reader) {
    let held = new Uint8Array(0);
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return this.end("the node ended the stream");
      const joined = new Uint8Array(held.length + value.length);
      joined.set(held);
      joined.set(value, held.length);
      held = joined;
      while (held.length >= 4) {
        const size = new DataView(held.buffer, held.byteOffset).getUint32(0);
        if (size > MESSAGE_MAX) throw new Error(`a message of ${size} bytes`);
        if (held.length < 4 + size) break;
        this.take(JSON.parse(new TextDecoder().decode(held.subarray(4, 4 + size))));
        held = held.subarray(4 + size);
      }
    }
  }

  take(message) {
    this.heardMs = performance.now();
    this.hear(message); // before whoever waits for it goes on: the next message may lie behind it
    const waiting = this.waiting.get(message.re);
    if (!waiting) return;
    this.waiting.delete(message.re);
    if (message.type === "error") waiting.reject(new Error(`${message.code}: ${message.message}`));
    else waiting.resolve(message);
  }

  beat() {
    if (performance.now() - this.heardMs > SILENCE_MS) this.end("silence");
    else this.request("ping").catch(() => {});
  }

  // Once, whatever the reason; every request that waits is refused with it.
  end(why) {
    if (this.why) return;
    this.why = why;
    clearInterval(this.timer);
    for (const { reject } of this.waiting.values()) reject(new Error(`the session was lost: ${why}`));
    try { this.transport.close(); } catch { /* it is closed */ }
    this.onEnd?.(why);
  }
}

class Session {
  // options: {url, token, certHash, pairs, voices, codec, encodings, repair, feedback,
  //           publish, timeoutMs, holdGrowth}; with the last the lab calls grow() when it is time
  constructor(lab, options) {
    Object.assign(this, { lab, options, screens: new Map(), slots: new Map(), names: new Map() });
    this.resumes = [];
    this.lost = [];
    this.messages = { slot: 0, grow: 0, speaker: 0 };
    this.pairs = 0;
    this.offers = this.restarts = 0;
    this.answers = []; // SDP, the first that of the join
    this.turn = new Promise((resolve) => { this.joined = resolve; });
    this.speaker = null;
  }

  async join() {
    const { lab, options } = this, beganMs = performance.now();
    const pc = this.pc = lab.publishing = lab.peer();
    if (options.publish) lab.addMedia(pc, options);
    this.addPairs(options.pairs);
    for (let k = 0; k < options.voices; k++) pc.addTransceiver("audio", { direction: "recvonly" });
    await this.open(`${options.url}?token=${encodeURIComponent(options.token)}`);
    const offer = await offered(pc, options);
    const welcome = await this.control.request("join", { v: 1, client: "vcfwd test page", offer });
    await pc.setRemoteDescription({ type: "answer", sdp: welcome.answer });
    this.answers.push(welcome.answer);
    this.joined();
    await connected(pc, options.timeoutMs);
    lab.painter.mediaAt = lab.painter.number;
    this.deafSince = performance.now();
    this.listening = setInterval(() => this.listen(), LISTEN_MS);
    return { join_ms: performance.now() - beganMs, participant_id: welcome.participant_id };
  }

  async open(url) {
    const control = new Control(url, this.options.certHash, (message) => this.hear(message));
    const late = setTimeout(() => control.end("no session in time"), this.options.timeoutMs);
    try {
      await control.open();
    } finally {
      clearTimeout(late);
    }
    control.onEnd = (why) => this.again(why);
    this.control = control;
    if (control.why) throw new Error(control.why);
  }

  welcomed({ participant_id, resume, participants, slots }) {
    this.participant = participant_id;
    this.secret = resume;
    for (const { id, name } of participants) this.names.set(id, name);
    for (const slot of slots) this.fill(slot);
  }

  addPairs(count) {
    for (; this.pairs < count; this.pairs++) {
      this.pc.addTransceiver("audio", { direction: "recvonly" });
      this.pc.addTransceiver("video", { direction: "recvonly" });
    }
  }

  hear(message) {
    if (message.type in this.messages) this.messages[message.type]++;
    if (message.type === "welcome") this.welcomed(message);
    if (message.type === "participant_joined") this.names.set(message.participant.id, message.participant.name);
    if (message.type === "slot") this.fill(message);
    if (message.type === "speaker") this.speaker = message.participant_id ?? null;
    if (message.type === "grow") this.asked = message.pairs;
    if (message.type === "grow" && !this.options.holdGrowth) {
      this.grow(message.pairs).catch((error) => console.error(`grow: ${error}`));
    }
    if (message.type === "closing") this.closing = message.reason;
  }

  // What a slot shows from now on.
  fill(slot) {
    this.slots.set(slot.mid, slot);
    const transceiver = this.pc.getTransceivers().find(({ mid }) => mid === slot.mid);
    if (!transceiver) return; // its line is still being negotiated; grow() comes back to it
    const { receiver } = transceiver, known = this.screens.get(slot.mid);
    if (slot.kind === "audio") {
      // Each element that plays has a thread of its own, whether anything sounds or not.
      if (!known && slot.state === "playing") this.screens.set(slot.mid, play(receiver.track));
    } else {
      const screen = known ?? new Screen(receiver.track, receiver); // it must see the first frame
      this.screens.set(slot.mid, screen);
      const view = slot.participant_id && this.viewOf(slot.participant_id);
      if (view) view.state = slot.state;
      screen.show(slot.state === "playing" ? view : null);
    }
    for (const [from, entry] of this.lab.views) entry.mids = this.midsOf(from) ?? entry.mids;
  }

  // The account of a participant: it paints the number at the end of its name.
  viewOf(participant) {
    const from = this.idOf(participant);
    if (!this.lab.views.has(from)) this.lab.views.set(from, { view: new View(from), pc: this.pc, mids: [] });
    return this.lab.views.get(from).view;
  }

  idOf(participant) {
    return Number(/(\d+)$/.exec(this.names.get(participant) ?? "")?.[1] ?? -1);
  }

  midsOf(from) {
    const mids = [...this.slots.values()]
      .filter(({ state, participant_id }) => state === "playing" && this.idOf(participant_id) === from)
      .map(({ mid }) => mid);
    return mids.length ? mids : null;
  }

  // One exchange at a time: "grow" may lie right behind the welcome, whose answer is not set yet.
  negotiate() {
    const done = this.turn.then(async () => {
      const offer = await offered(this.pc, this.options);
      const { sdp } = await this.control.request("offer", { sdp: offer });
      await this.pc.setRemoteDescription({ type: "answer", sdp });
      this.answers.push(sdp);
    });
    this.turn = done.catch(() => {});
    return done;
  }

  async grow(pairs) {
    this.addPairs(pairs);
    this.offers++;
    await this.negotiate();
    for (const slot of this.slots.values()) this.fill(slot);
  }

  // Chromium binds its socket to an address and gathers once: when the address goes, nothing but an
  // ICE restart finds the new one.
  async listen() {
    const bytes = arrivedBytes(await this.pc.getStats()), now = performance.now();
    if (bytes !== this.heardBytes || bytes === null) {
      this.heardBytes = bytes;
      this.deafSince = now;
    }
    if (now - this.deafSince < MEDIA_SILENCE_MS || this.pc.signalingState !== "stable") return;
    this.deafSince = now;
    this.restarts++;
    this.pc.restartIce();
    await this.negotiate().catch((error) => console.error(`ICE restart: ${error}`));
  }

  // The session is gone, the peer connection is not: comes back on the same leg.
  async again(why) {
    if (this.left) return;
    this.lost.push(why);
    for (const wait of [...RETRY_MS, ...RETRY_MS.map(() => RETRY_MS.at(-1))]) {
      await new Promise((resolve) => setTimeout(resolve, wait));
      if (this.left) return;
      try {
        await this.open(this.options.url);
        const welcome = await this.control.request("join", { v: 1, client: "vcfwd test page", resume: this.secret });
        this.resumes.push({ participant_id: welcome.participant_id, resumed: welcome.resumed });
        return;
      } catch (error) {
        this.lost.push(String(error));
        if (this.control) { this.control.onEnd = null; this.control.end("given up"); }
      }
    }
  }

  about() {
    return {
      participant_id: this.participant, resumes: this.resumes, lost: this.lost, messages: this.messages,
      slots: [...this.slots.values()], offers: this.offers, restarts: this.restarts, pairs: this.pairs, asked: this.asked ?? 0, speaker: this.speaker,
      lines: this.pc.getTransceivers().length, closing: this.closing ?? null,
    };
  }

  async leave() {
    this.left = true;
    clearInterval(this.listening);
    await Promise.race([this.control.request("leave").catch(() => {}), this.control.ended]);
    this.control.end("left");
    this.pc.close();
  }
}
