// The map of an image's tokens: in which round each was decided, and how many drafts that round accepted.
// Knows accepted, num_drafts and the grid. Does not know where the numbers come from.
//
// Token 0 comes from the prefill. Round r then decides accepted[r] + 1 tokens: its accepted drafts, and one that the
// large model draws itself, after a rejection (accepted < num_drafts) or as a bonus.

import { el, svg } from "./dom.js";
import { histogram } from "./compare.js";

// Anchors of cividis, which people with any colour vision read as dark to light.
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];

/** The colour of `count` accepted drafts of at most `most`. */
export function colourOf(count, most) {
  const place = (most ? count / most : 0) * (CIVIDIS.length - 1);
  const [low, high] = [CIVIDIS[Math.floor(place)], CIVIDIS[Math.ceil(place)]];
  const part = (at) => {
    const [a, b] = [low, high].map((hex) => Number.parseInt(hex.slice(at, at + 2), 16));
    return Math.round(a + (b - a) * (place % 1));
  };
  return `rgb(${part(1)}, ${part(3)}, ${part(5)})`;
}

/** What a token is: "first", "draft", "rejected", "bonus", or "plain" (a round without drafts). */
function kindsOf(accepted, numDrafts) {
  if (numDrafts === 0) return ["plain"];
  return [...new Array(accepted).fill("draft"), accepted < numDrafts ? "rejected" : "bonus"];
}

export class HeatMap {
  /** grid: [rows, columns]; tokens: more than the grid has cells if each row ends with a token of its own. */
  constructor([rows, columns], tokens) {
    this.rows = rows;
    this.columns = columns;
    this.tokens = tokens;
    this.perRow = tokens >= rows * (columns + 1) ? columns + 1 : columns;
    this.accepted = [];
    this.numDrafts = [];
    this.cells = [];
    this.node = svg("svg", { class: "heat", viewBox: `0 0 ${columns} ${rows}`, role: "img", preserveAspectRatio: "none" });
    this.groups = Array.from({ length: rows }, () => this.node.appendChild(svg("g")));
    this.most = 0;
    this.add([], []);
  }

  /** Take further rounds. */
  add(accepted, numDrafts) {
    if (!this.cells.length && accepted.length) this.#cell("first", 0, 0);
    this.#scale(Math.max(this.most, ...numDrafts, ...accepted));
    accepted.forEach((count, i) => {
      this.accepted.push(count);
      this.numDrafts.push(numDrafts[i]);
      for (const kind of kindsOf(count, numDrafts[i])) this.#cell(kind, count, this.accepted.length);
    });
    this.node.setAttribute("aria-label", this.summary);
  }

  /** Rows from the top that the image shows already: their cells are under it unless the map is switched on. */
  cover(rows) {
    this.groups.forEach((group, row) => group.classList.toggle("covered", row < rows));
  }

  get decided() {
    return this.cells.length;
  }

  get summary() {
    const of = (kind) => this.cells.filter((cell) => cell.kind === kind).length;
    return (
      `Heat map of ${this.rows} rows of ${this.columns} tokens. Of ${this.decided} decided tokens ` +
      `${of("draft")} are accepted drafts, ${of("rejected")} were drawn by the large model after a rejection, ` +
      `${of("bonus")} as a bonus where all drafts were accepted, ${of("plain") + of("first")} without drafts.`
    );
  }

  /** The numbers as tables, for those who cannot see the map or want them exactly. */
  numbers() {
    const rounds = histogram(this.accepted, this.numDrafts).map(({ accepted, rounds: count }) => [accepted, count]);
    const rows = this.groups.map((_, row) => {
      const cells = this.cells.filter((cell) => cell.row === row);
      return [row + 1, cells.filter((cell) => cell.kind === "draft").length, cells.length];
    });
    return [
      el("p", {}, this.summary),
      table("Rounds by drafts accepted", ["Accepted", "Rounds"], rounds),
      table("Rows of the image, from the top", ["Row", "Accepted drafts", "Tokens"], rows),
    ];
  }

  #scale(most) {
    if (most === this.most) return;
    this.most = most;
    for (const cell of this.cells) this.#paint(cell);
  }

  #paint(cell) {
    const bare = cell.kind === "plain" || cell.kind === "first";
    if (bare) cell.node?.setAttribute("class", "bare");
    else cell.node?.setAttribute("fill", colourOf(cell.count, this.most));
  }

  #cell(kind, count, round) {
    const index = this.cells.length;
    if (index >= this.tokens) return; // the last round may decide more than is left
    const row = Math.floor(index / this.perRow);
    const column = index % this.perRow;
    const cell = { kind, count, round, row, node: null };
    this.cells.push(cell);
    if (row >= this.rows || column >= this.columns) return; // the end of a line, which has no place in the image
    cell.node = svg("rect", { x: column, y: row, width: 1, height: 1 });
    this.#paint(cell);
    this.groups[row].append(cell.node);
    if (kind === "rejected") this.groups[row].append(svg("circle", { cx: column + 0.5, cy: row + 0.5, r: 0.17 }));
  }
}

function table(caption, heads, rows) {
  const head = el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text)));
  const body = rows.map((row) => el("tr", {}, ...row.map((value) => el("td", {}, String(value)))));
  return el("table", {}, el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, ...body));
}

/** What the colours and the mark mean. */
export function legendOf(most) {
  const swatch = (count) => {
    const box = svg("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" }, svg("rect", { width: 1, height: 1, fill: colourOf(count, most) }));
    return el("li", {}, box, String(count));
  };
  const mark = svg("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" }, svg("rect", { width: 1, height: 1, fill: colourOf(1, 3) }), svg("circle", { cx: 0.5, cy: 0.5, r: 0.22 }));
  const bare = svg("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" }, svg("rect", { width: 1, height: 1, class: "bare" }));
  return [
    el("p", {}, "Drafts accepted in the round that decided the token:"),
    el("ul", {}, ...Array.from({ length: most + 1 }, (_, count) => swatch(count))),
    el("ul", {}, el("li", {}, mark, "a draft was rejected here"), el("li", {}, bare, "decided without drafts")),
  ];
}
