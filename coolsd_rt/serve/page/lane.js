// One decoder's image while it is drawn and after: picture, figures, map of drafts, actions.
// Knows how a lane looks. Does not know the server: events and results are given to it.

import { HeatMap } from "./heatmap.js";
import { acceptLength } from "./compare.js";
import { byId, bytesOf, seconds } from "./dom.js";

const SMALL = 160; // pixels a side: images up to this are shown as crisp squares
const MOST = 512; // pixels of the page that an image takes at most, along its longer side
const HEIGHT = 0.39; // and of the window's height, so that the figures below it are seen too

/** The longest side that fits into `room` and shows each pixel as a whole number of the screen's. */
export function fitted(side, room, ratio) {
  const most = Math.min(room, Math.max(MOST, side));
  const factor = Math.floor((most * ratio) / side);
  return factor >= 1 ? (side * factor) / ratio : most;
}

export class Lane {
  /** job: {name, title, law, prompt, request}; model: as /v1/models lists it; act: called with an action's name. */
  constructor(job, model, act) {
    this.job = job;
    const { grid, tokens, size } = model.coolsd;
    [this.width, this.height] = size.split("x").map(Number);
    this.tokens = tokens;
    this.totalRows = grid[0];
    this.result = null;
    this.map = new HeatMap(grid, tokens);
    this.node = byId("lane-template").content.firstElementChild.cloneNode(true);
    this.node.dataset.lane = job.name;
    this.image = this.#part("img");
    this.image.classList.toggle("crisp", Math.max(this.width, this.height) <= SMALL);
    this.#part("h2").textContent = job.title;
    this.#part(".law").textContent = `${job.law}, seed ${job.request.seed}`;
    this.#part("progress").setAttribute("aria-label", `${job.title}: tokens decided`);
    this.#part(".frame").append(this.map.node);
    this.node.addEventListener("click", (event) => {
      const action = event.target.closest("button[data-action]")?.dataset.action;
      if (action) act(action, this);
    });
    this.resizing = new ResizeObserver(() => this.#fit());
    this.resizing.observe(this.#part(".fit"));
    this.#state("Waiting for its turn");
  }

  /** Take an event of the stream. */
  take(event) {
    if (event.type === "image_generation.partial_image") this.#partial(event);
    else if (event.type === "image_generation.progress") this.#progress(event);
    else if (event.type === "image_generation.completed") this.#completed(event);
  }

  begin() {
    this.node.classList.add("busy");
    this.#state("Waiting for a slot");
  }

  stop() {
    this.#end(`Stopped at ${this.map.decided} of ${this.tokens} tokens`);
  }

  fail(failure) {
    this.node.classList.add("failed");
    this.#end(`Not finished. ${failure.message}`);
  }

  /** Show a result of before. */
  show(result) {
    this.map.add(result.figures.accepted, result.figures.num_drafts);
    this.#finish(result);
  }

  setHeat(on) {
    this.map.node.classList.toggle("on", on);
  }

  /** Free what an unfinished image holds. A result's image belongs to the history. */
  close() {
    this.resizing.disconnect();
    if (this.partialUrl) URL.revokeObjectURL(this.partialUrl);
  }

  get share() {
    return Math.min(1, this.map.decided / this.tokens);
  }

  #part(selector) {
    return this.node.querySelector(selector);
  }

  #state(text) {
    this.#part(".state").textContent = text;
  }

  #fit() {
    const width = this.#part(".fit").clientWidth;
    if (!width) return;
    const room = Math.min(width, Math.max(160, HEIGHT * window.innerHeight));
    const long = Math.max(this.width, this.height);
    const side = fitted(long, room, window.devicePixelRatio || 1);
    const { style } = this.#part(".frame");
    style.width = `${(side * this.width) / long}px`;
    style.height = `${(side * this.height) / long}px`;
    style.setProperty("--cells", String(this.map.columns));
  }

  #partial(event) {
    const before = this.partialUrl;
    this.partialUrl = urlOf(bytesOf(event.b64_json), event.output_format);
    const rows = event.coolsd?.rows ?? 0;
    const total = event.coolsd?.total_rows ?? this.totalRows;
    // Below the finished rows the server's image is blank; the frame shows through instead.
    this.#picture(this.partialUrl, `inset(0 0 ${100 - (100 * rows) / total}% 0)`);
    this.image.alt = `${this.job.prompt}, unfinished: ${rows} of ${total} rows`;
    this.map.cover(rows);
    if (before) URL.revokeObjectURL(before);
  }

  #picture(url, clip) {
    this.image.src = url;
    this.image.style.clipPath = clip;
    this.image.hidden = false;
  }

  #progress(event) {
    this.map.add(event.accepted, event.num_drafts);
    this.#part("progress").value = event.decided / event.tokens;
    this.#state(`${event.decided} of ${event.tokens} tokens`);
    this.#figures({
      speed: event.decided / event.seconds,
      length: acceptLength(this.map.accepted),
      steps: this.map.accepted.length,
      seconds: event.seconds,
    });
  }

  #completed(event) {
    const figures = event.coolsd;
    const known = this.map.accepted.length;
    this.map.add(figures.accepted.slice(known), figures.num_drafts.slice(known));
    const bytes = bytesOf(event.b64_json);
    this.#finish({ job: this.job, figures, bytes, url: urlOf(bytes, event.output_format) });
  }

  #finish(result) {
    this.result = result;
    const { figures, url } = result;
    this.map.cover(this.totalRows);
    this.#picture(url, "none");
    this.image.alt = `${this.job.prompt}, drawn by ${this.job.title} with seed ${this.job.request.seed}`;
    this.#part("progress").value = 1;
    this.#figures({
      speed: figures.tokens_per_second,
      length: figures.mean_acceptance_length,
      steps: figures.rounds,
      seconds: figures.seconds,
    });
    const download = this.#part("[data-action=download]");
    download.href = url;
    download.download = this.job.file;
    this.#part(".actions").hidden = false;
    this.#part(".numbers").hidden = false;
    this.#part(".numbers div").replaceChildren(...this.map.numbers());
    const waited = figures.seconds_queue >= 0.1 ? `, after ${seconds(figures.seconds_queue)} s in the queue` : "";
    const warnings = (figures.warnings ?? []).map((text) => ` ${text}`).join("");
    this.#end(`${figures.tokens} tokens${waited}; image decoder ${seconds(figures.seconds_decode)} s.${warnings}`);
    this.node.classList.add("done");
  }

  #figures({ speed, length, steps, seconds: spent }) {
    const write = (name, text) => {
      this.#part(`[data-figure=${name}]`).textContent = text;
    };
    write("speed", Number.isFinite(speed) ? speed.toFixed(0) : "–");
    write("length", Number.isFinite(length) ? length.toFixed(2) : "–");
    write("steps", String(steps));
    write("seconds", seconds(spent));
  }

  #end(text) {
    this.node.classList.remove("busy");
    this.#state(text);
  }
}

function urlOf(bytes, format) {
  return URL.createObjectURL(new Blob([bytes], { type: `image/${format ?? "png"}` }));
}
