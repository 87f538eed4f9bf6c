// SPDX-License-Identifier: MIT
// What a participant sends: a canvas with a code, and a tone; and how the code is read.
//
// The code: 16 x 4 cells of 16 x 16 pixels from (32, 112) on in a picture of 320 x 180, in
// proportion at other sizes; black or white, most significant bit first: id 8, frame number 20,
// clock in ms 20, CRC-16/CCITT 16.  A cell is one macroblock, so that a starved encoder still gets
// it right.  The clock is the machine's, modulo 2^20: browsers of one machine share it.
"use strict";

const COLUMNS = 16, ROWS = 4, CELL = 16, LEFT = 32, TOP = 112, WIDTH = 320, HEIGHT = 180;
const CLOCK_MODULUS = 1 << 20, NUMBER_MODULUS = 1 << 20;
const PAINTED_MAX = 200000, TONE_MS = 1000;

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

  // The code; null when there is none; undefined when the browser had nothing to draw, as right at
  // the start of a video element.
  read(image) {
    this.g.clearRect(0, 0, WIDTH, HEIGHT);
    this.g.drawImage(image, 0, 0, WIDTH, HEIGHT);
    const pixels = this.g.getImageData(0, TOP, WIDTH, ROWS * CELL).data;
    if (pixels[3] === 0) return undefined;
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

// Random pixels, which no encoder can make small: one large picture, shown from another corner for
// each frame.  At full contrast VP8 at its coarsest takes 1.5 Mb/s already: it would pay for each
// key frame by dropping pictures for a second or two, which no viewer can tell from a freeze.
const CONTRAST = 1 / 3;

class Noise {
  constructor(width, height) {
    this.canvas = document.createElement("canvas");
    Object.assign(this, { width, height });
    Object.assign(this.canvas, { width: 2 * width, height: 2 * height });
    const g = this.canvas.getContext("2d"), pixels = g.createImageData(2 * width, 2 * height);
    for (let at = 0; at < pixels.data.length; at += 65536) {
      crypto.getRandomValues(pixels.data.subarray(at, at + 65536));
    }
    for (let at = 0; at < pixels.data.length; at++) {
      pixels.data[at] = at % 4 === 3 ? 255 : 128 + (pixels.data[at] - 128) * CONTRAST;
    }
    g.putImageData(pixels, 0, 0);
  }

  paint(g, number) {
    const x = (number * 7919) % this.width, y = (number * 104729) % this.height;
    g.drawImage(this.canvas, x, y, this.width, this.height, 0, 0, this.width, this.height);
  }
}

// Paints at a steady rate and remembers when each frame was painted.
class Painter {
  constructor({ id, name, width, height, fps, noise }) {
    Object.assign(this, { id, name, width, height, fps, noise: noise && new Noise(width, height), number: 0, mediaAt: 0 });
    this.paintedMs = []; // by number, performance.now()
    this.canvas = document.createElement("canvas");
    this.canvas.width = width;
    this.canvas.height = height;
    this.g = this.canvas.getContext("2d");
    document.body.append(this.canvas);
    this.paint(); // a canvas without a context or content cannot be captured
    this.stream = this.canvas.captureStream(0);
    this.track = this.stream.getVideoTracks()[0];
    this.capture = this.track.requestFrame ? this.track : this.stream; // Firefox has it on the stream
    this.begin();
  }

  begin() {
    this.beganMs = performance.now();
    this.beganAt = this.number;
    this.timer = setInterval(() => {
      if (this.number >= PAINTED_MAX) return;
      this.paint();
      this.capture.requestFrame();
    }, 1000 / this.fps);
  }

  paint() {
    const { g, width, height, id } = this, number = this.number++;
    if (this.noise) this.noise.paint(g, number);
    else g.fillStyle = `hsl(${(id * 67) % 360} 55% 40%)`;
    if (!this.noise) g.fillRect(0, 0, width, height);
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

// A tone of its own for each participant; nobody hears it.  Firefox starts no AudioContext on a
// machine without a sound device: there its own fake microphone sounds.
async function tone(id) {
  const context = new AudioContext();
  const started = context.resume().then(() => context.state);
  const late = new Promise((resolve) => setTimeout(resolve, TONE_MS, "late"));
  if (await Promise.race([started, late]) !== "running") {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, fake: true });
    return { state: "fake", track: stream.getAudioTracks()[0] };
  }
  const oscillator = context.createOscillator(), gain = context.createGain();
  oscillator.frequency.value = 220 + 55 * id;
  gain.gain.value = 0.2;
  const end = context.createMediaStreamDestination();
  oscillator.connect(gain).connect(end);
  oscillator.start();
  return { state: context.state, context, track: end.stream.getAudioTracks()[0] };
}
