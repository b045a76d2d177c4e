// The form "Law and sampling": makes its fields, reads them, restores them.
// Knows the form. Does not know requests: fields.js makes them of the values.

import { DRAFTS, FLOOR, KINDS, NUMBERS, SEED, defaultsOf, isLossless, lengthFor } from "./fields.js";
import { el } from "./dom.js";

const MOST_SEED = 2n ** 64n - 1n;

export class Controls {
  /** form: where the fields go. disclosure: the <details> around it, opened when a value in it is wrong. */
  constructor(form, disclosure) {
    this.form = form;
    this.disclosure = disclosure;
    this.defaults = defaultsOf(null);
    this.#build();
    form.addEventListener("input", (event) => {
      if (event.target.name === "draft") this.#field("draft_length").value = String(lengthFor(event.target.value, this.defaults));
      this.#follow();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** Take an engine's own values. */
  setModel(model) {
    this.defaults = defaultsOf(model);
    this.#option("draft", "built", this.defaults.draft === "built");
    this.#option("kind", "custom", this.defaults.kind === "custom");
    this.restore({ ...this.defaults, seed: this.values().seed });
  }

  /** The values as they are, an empty number as the engine's own. seed: a text of digits, or "". */
  values() {
    const values = {};
    for (const name of Object.keys(NUMBERS)) {
      const text = this.#field(name).value.trim();
      values[name] = text === "" ? this.defaults[name] : Number(text);
    }
    for (const name of ["kind", "draft"]) values[name] = this.#field(name).value;
    values.floor = this.#field("floor").checked;
    values.seed = this.#field("seed").value.trim();
    return values;
  }

  restore(values) {
    for (const name of [...Object.keys(NUMBERS), "kind", "draft"]) this.#field(name).value = String(values[name]);
    this.#field("floor").checked = values.floor;
    this.#field("seed").value = values.seed ?? "";
    this.#follow();
  }

  setSeed(seed) {
    this.#field("seed").value = seed;
  }

  /** Whether all values can be sent. Shows the first that cannot. */
  check() {
    const seed = this.#field("seed");
    const text = seed.value.trim();
    const right = text === "" || (/^\d{1,20}$/.test(text) && BigInt(text) <= MOST_SEED);
    seed.setCustomValidity(right ? "" : "A whole number from 0 to 18446744073709551615, or nothing.");
    // A step is what an arrow key adds; between the steps every number will do.
    const numbers = Object.keys(NUMBERS).filter((name) => !NUMBERS[name].whole).map((name) => this.#field(name));
    for (const input of numbers) input.step = "any";
    const valid = this.form.checkValidity();
    if (!valid) {
      this.disclosure.open = true;
      this.form.reportValidity();
    }
    for (const input of numbers) input.step = String(NUMBERS[input.name].step);
    return valid;
  }

  #field(name) {
    return this.form.elements.namedItem(name);
  }

  #option(name, value, there) {
    const option = [...this.#field(name).options].find((one) => one.value === value);
    option.hidden = option.disabled = !there;
  }

  #build() {
    const dice = el("button", { type: "button", class: "dice", "aria-label": "Roll a new seed", title: "Roll a new seed", onclick: () => this.#roll() }, "⚄");
    const seed = el("input", { type: "text", inputmode: "numeric", placeholder: "random", autocomplete: "off" });
    const reset = el("button", { type: "button", name: "reset", onclick: () => this.#reset() }, "Reset to the engine's own");
    this.verdict = el("p", { class: "verdict", role: "status" });
    this.form.append(
      el("fieldset", {}, el("legend", { class: "hidden" }, "Seed"), this.#row("seed", SEED.label, SEED.help, seed, dice)),
      el(
        "fieldset",
        {},
        el("legend", {}, "Law: which drafts are accepted"),
        this.#choice("kind", "Schedule", KINDS),
        ...["delta", "beta", "nu"].map((name) => this.#number(name)),
        this.#floor(),
        this.verdict,
      ),
      el("fieldset", {}, el("legend", {}, "Drafts"), this.#choice("draft", "Draft source", DRAFTS), this.#number("draft_length")),
      el("fieldset", {}, el("legend", {}, "Sampling, for both decoders"), ...["guidance_scale", "temperature", "top_k", "top_p"].map((name) => this.#number(name))),
      el("p", { class: "reset" }, reset),
    );
  }

  #row(name, label, help, input, beside = null) {
    input.id = `field-${name}`;
    input.name = name;
    input.setAttribute("aria-describedby", `help-${name}`);
    return el(
      "div",
      { class: "field", "data-name": name },
      el("label", { for: input.id }, label),
      el("div", { class: "value" }, beside, input),
      el("p", { id: `help-${name}`, class: "soft" }, help),
    );
  }

  #number(name) {
    const { label, help, min, max, step, slide, whole } = NUMBERS[name];
    const input = el("input", { type: "number", min, max, step, inputmode: whole ? "numeric" : "decimal" });
    if (!slide) return this.#row(name, label, help, input);
    // For pointers alone: whoever uses keys or a screen reader has the number, which takes the arrows too.
    const slider = el("input", { type: "range", min: slide[0], max: slide[1], step, tabindex: -1, "aria-hidden": "true" });
    slider.addEventListener("input", () => {
      input.value = slider.value;
    });
    return this.#row(name, label, help, input, slider);
  }

  #choice(name, label, choices) {
    const options = Object.entries(choices).map(([value, { label: text }]) => el("option", { value }, text));
    return this.#row(name, label, "", el("select", {}, ...options));
  }

  #floor() {
    const input = el("input", { type: "checkbox", id: "field-floor", name: "floor", "aria-describedby": "help-floor" });
    const help = el("p", { id: "help-floor", class: "soft" }, FLOOR.help);
    return el("div", { class: "field check", "data-name": "floor" }, el("label", { for: "field-floor" }, input, ` ${FLOOR.label}`), help);
  }

  /** Everything that depends on a value: sentences, fields that a kind has, sliders, marks of change. */
  #follow() {
    const values = this.values();
    const kind = KINDS[values.kind] ?? KINDS.none;
    this.form.querySelector("#help-kind").textContent = kind.help;
    this.form.querySelector("#help-draft").textContent = DRAFTS[values.draft]?.help ?? "";
    for (const row of this.form.querySelectorAll(".field")) {
      const { name } = row.dataset;
      if (["delta", "beta", "nu", "floor"].includes(name)) row.hidden = !kind.fields.includes(name);
      const isSeed = name === "seed";
      row.classList.toggle("changed", !isSeed && !row.hidden && values[name] !== this.defaults[name]);
      const slider = row.querySelector("input[type=range]");
      if (slider) slider.value = String(values[name]);
      for (const input of row.querySelectorAll("input, select")) input.disabled = row.hidden;
    }
    this.verdict.textContent = isLossless(values, this.defaults)
      ? "Lossless: drafts change how fast an image is drawn, not which images are likely."
      : `Relaxed: faster, and images stray somewhat from the model's own. Rule ${this.defaults.rule}, resampler ${this.defaults.resampler}.`;
    this.#field("reset").disabled = !this.form.querySelector(".field.changed");
  }

  #roll() {
    this.setSeed(newSeed());
  }

  #reset() {
    this.restore({ ...this.defaults, seed: this.values().seed });
  }
}

/** A random seed, short enough to be read out. */
export function newSeed() {
  return String(crypto.getRandomValues(new Uint32Array(1))[0]);
}
