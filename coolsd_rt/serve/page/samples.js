// Example prompts as buttons: large in the empty state, a line below the prompt later.
// Knows the prompts of a model. Does not know what a click draws.

import { byId, el } from "./dom.js";

const SHOWN = 6;

export class Samples {
  /** draw: called with the prompt that was chosen. */
  constructor(draw) {
    this.draw = draw;
    this.all = [];
    this.begun = false;
  }

  setModel(model) {
    this.all = model.coolsd.samples ?? [];
    byId("invitation").hidden = !this.all.length;
    this.offer();
  }

  /** The empty state is over. */
  begin() {
    if (this.begun) return;
    this.begun = true;
    byId("empty").hidden = true;
    byId("samples-empty").replaceChildren();
    this.offer();
  }

  /** Show some, others than before if there are. */
  offer() {
    const chips = shuffled(this.all).slice(0, SHOWN).map((text) => chip(text, { onclick: () => this.draw(text) }));
    if (this.all.length > SHOWN) chips.push(chip("others…", { class: "chip more", "aria-label": "Other examples", onclick: () => this.#others() }));
    const list = el("ul", { class: "chips", "aria-label": "Example prompts" }, ...chips.map((one) => el("li", {}, one)));
    byId("samples-line").hidden = !this.begun || !this.all.length;
    byId(this.begun ? "samples-line" : "samples-empty").replaceChildren(list);
  }

  #others() {
    this.offer();
    document.querySelector(".chip.more").focus();
  }
}

function chip(text, attributes) {
  return el("button", { type: "button", class: "chip", ...attributes }, text);
}

function shuffled(list) {
  const out = [...list];
  for (let i = out.length - 1; i > 0; i -= 1) {
    const k = Math.floor(Math.random() * (i + 1));
    [out[i], out[k]] = [out[k], out[i]];
  }
  return out;
}
