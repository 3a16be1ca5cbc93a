// The loudspeakers of live.py, read behind controls.js. Chunks come as numbers and are played one behind the other, to
// the sample: the audio context runs at the music's own rate, and every chunk begins on the sample after the last one's.

const READY = 0.4; // seconds that lie ready before the sound begins, or begins again
const MARGIN = 0.08; // seconds by which the clock that a page sees may be late: what begins in the past begins wrong
const REPORT = 200; // milliseconds between two reports of what has been heard
const GREETINGS = [0, 1000, 4000]; // milliseconds after it is shown
const SHOWN = 12; // seconds of the picture, of which the last part is still to be heard
const PEAKS = 20; // a second
const INK = { wave: "#0072b2", now: "#111111", switch: "#b34700", paper: "#ffffff" };

class Loudspeakers {
  constructor(rate) {
    this.context = new AudioContext({ sampleRate: rate });
    this.context.resume();
    this.rate = rate;
    this.waiting = []; // chunks without a place in time yet
    this.frame = null; // of the context, at which the next chunk begins
    this.made = 0; // samples that have come
    this.dry = 0; // how often there was nothing to play
    this.peaks = [];
    this.switches = [];
  }

  take(samples) {
    this.mark(samples);
    const buffer = this.context.createBuffer(1, samples.length, this.rate);
    buffer.copyToChannel(samples, 0);
    this.waiting.push(buffer);
    this.made += samples.length;
    const soon = Math.ceil((this.context.currentTime + MARGIN) * this.rate);
    if (this.frame !== null && this.frame < soon) {
      this.dry += 1;
      this.frame = null;
    }
    const ready = this.waiting.reduce((sum, each) => sum + each.length, 0);
    if (this.frame === null && ready < READY * this.rate) return;
    this.frame ??= soon + Math.round(MARGIN * this.rate);
    for (const each of this.waiting.splice(0)) {
      const source = this.context.createBufferSource();
      source.buffer = each;
      source.connect(this.context.destination);
      source.start(this.frame / this.rate);
      this.frame += each.length;
    }
  }

  // Seconds that have been heard.
  heard() {
    const waiting = this.waiting.reduce((sum, each) => sum + each.length, 0);
    const ahead = this.frame === null ? 0 : Math.max(0, this.frame - this.context.currentTime * this.rate);
    return Math.max(0, this.made - waiting - ahead) / this.rate;
  }

  mark(samples) {
    const length = this.rate / PEAKS;
    for (let start = 0; start < samples.length; start += length) {
      let peak = 0;
      for (const sample of samples.subarray(start, start + length)) peak = Math.max(peak, Math.abs(sample));
      this.peaks.push([(this.made + start) / this.rate, peak]);
    }
    this.peaks = this.peaks.slice(-SHOWN * PEAKS);
  }

  close() {
    this.context.close();
  }
}

function drawSound(canvas, sound) {
  const pen = canvas.getContext("2d"), { width, height } = canvas;
  pen.fillStyle = INK.paper;
  pen.fillRect(0, 0, width, height);
  if (!sound) return;
  const heard = sound.heard(), start = Math.max(0, heard - SHOWN + 2);
  const place = (seconds) => ((seconds - start) / SHOWN) * width;
  const loudest = Math.max(0.05, ...sound.peaks.map(([, peak]) => peak));
  pen.fillStyle = INK.wave;
  for (const [seconds, peak] of sound.peaks) {
    const half = Math.max(1, (peak / loudest) * height / 2);
    pen.fillRect(place(seconds), height / 2 - half, Math.max(1, width / SHOWN / PEAKS - 1), 2 * half);
  }
  pen.font = "13px sans-serif";
  for (const { seconds, prompt } of sound.switches) {
    if (seconds < start) continue;
    const x = place(seconds), room = pen.measureText(prompt).width + 4;
    pen.fillStyle = INK.switch;
    pen.fillRect(x, 0, 2, height);
    pen.fillStyle = INK.paper;
    pen.fillRect(x + 3, 0, room, 16);
    pen.fillStyle = INK.switch;
    pen.fillText(prompt, x + 5, 12);
  }
  pen.fillStyle = INK.now;
  pen.fillRect(place(heard), 0, 1, height);
}

function speaker(model, el) {
  const id = newId();
  const label = create("label", { for: id }, model.get("description"));
  const box = create("input", { id, type: "text", value: model.get("prompt"), title: "What to play; Enter says it to the music" });
  const button = create("button", { type: "button", class: "jupyter-button" }, "Play");
  const canvas = create("canvas", { width: 600, height: 80, role: "img" });
  let sound = null, played = 0, timer = null;
  const name = () => {
    button.textContent = sound ? "Stop" : "Play";
    const last = sound?.switches.at(-1);
    canvas.setAttribute("aria-label", !sound ? "The sound, once it plays" :
      "The last seconds of the sound" + (last ? `; a line marks where “${last.prompt}” begins` : ""));
    drawSound(canvas, sound);
  };
  const stop = () => {
    clearInterval(timer);
    sound?.close();
    sound = null;
    name();
  };
  const report = () => {
    model.send({ kind: "heard", number: played, seconds: sound.heard(), dry: sound.dry });
    drawSound(canvas, sound);
  };
  button.addEventListener("click", () => {
    if (sound) {
      model.send({ kind: "stop" });
      return stop();
    }
    sound = new Loudspeakers(model.get("rate")); // here and not later: browsers let sound begin with a click only
    played = Date.now();
    model.send({ kind: "play", number: played, prompt: box.value });
    timer = setInterval(report, REPORT);
    name();
  });
  const receive = (message, buffers) => {
    if (!sound || message.number !== played) return; // of a session that has been stopped
    if (message.kind === "end") stop();
    if (message.kind === "switch") {
      sound.switches.push(message);
      name();
    }
    if (message.kind !== "sound") return;
    const bytes = buffers[0];
    const first = sound.made === 0;
    sound.take(new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)));
    if (first) report();
  };
  model.on("msg:custom", receive);
  box.addEventListener("change", () => model.send({ kind: "change", prompt: box.value }));
  // Enter would be JupyterLab's, which goes to the cell's source.
  el.addEventListener("keydown", (event) => { if (event.key === "Enter") event.stopPropagation(); });
  el.append(create("div", {}, label, box), button, canvas);
  name();
  // live.py says why; JupyterLab may still be making the shell that it addresses.
  const greetings = GREETINGS.map((wait) => setTimeout(() => model.send({ kind: "here" }), wait));
  return () => {
    model.off("msg:custom", receive);
    greetings.forEach(clearTimeout);
    if (sound) model.send({ kind: "stop" });
    stop();
  };
}

KINDS.speaker = speaker;
