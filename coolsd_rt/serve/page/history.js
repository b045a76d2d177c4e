// The images of this session, newest first, in memory alone.
// Knows entries: {prompt, seed, model, settings, mode, together, results}. Does not know how an image is drawn.

import { el } from "./dom.js";

const MOST = 60; // entries: older ones are forgotten, and their images freed

export class History {
  /** section: hidden while empty. open: called with the entry that was chosen. */
  constructor(section, list, open) {
    this.section = section;
    this.list = list;
    this.open = open;
    this.entries = [];
  }

  /** shown: whether the entry is on the stage. */
  add(entry, shown) {
    entry.node = this.#item(entry);
    this.entries.unshift(entry);
    this.list.prepend(entry.node);
    for (const old of this.entries.splice(MOST)) {
      old.node.remove();
      for (const { url } of old.results) URL.revokeObjectURL(url);
    }
    this.section.hidden = false;
    if (shown) this.mark(entry);
  }

  /** Mark the entry that is on the stage; null: none is. */
  mark(entry) {
    for (const { node } of this.entries) node.querySelector("button").removeAttribute("aria-current");
    entry?.node.querySelector("button").setAttribute("aria-current", "true");
  }

  #item(entry) {
    const images = entry.results.map(({ url }) => el("img", { src: url, alt: "", class: "crisp" }));
    const names = entry.results.map(({ job }) => job.title).join(" and ");
    const label = `Show again: ${entry.prompt}, ${names}, seed ${entry.seed}`;
    const words = [el("span", { class: "what" }, entry.prompt), el("span", { class: "soft" }, `seed ${entry.seed}`)];
    const button = el("button", { type: "button", "aria-label": label, title: label, onclick: () => this.open(entry) });
    button.append(el("span", { class: "thumbs" }, ...images), ...words);
    return el("li", {}, button);
  }
}
