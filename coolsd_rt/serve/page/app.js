// The page: connects the form, the lanes, the outcome, the history and the key.
// Knows the flow of a draw. The parts know the rest: api.js the server, lane.js an image, controls.js the law.

import * as failures from "./failures.js";
import { Controls, newSeed } from "./controls.js";
import { History } from "./history.js";
import { Lane } from "./lane.js";
import { Samples } from "./samples.js";
import { address, hasKey, models, stream } from "./api.js";
import { asCurl, asPython, slug } from "./snippets.js";
import { byId, counted, el, seconds } from "./dom.js";
import { lawWords, overridesOf } from "./fields.js";
import { legendOf } from "./heatmap.js";
import { outcome } from "./compare.js";
import { startTheme } from "./theme-button.js";

const TITLES = { plain: "Plain", cool: "COOL-SD" };
const PARTIALS = { together: 16, inTurn: 3 }; // each costs a run of the image decoder, which counts in the seconds

const page = Object.fromEntries(
  ["ask", "prompt", "stop", "model", "turns", "law", "status", "lanes", "outcome", "tools", "heat", "legend"].map((id) => [id, byId(id)]),
);
const controls = new Controls(byId("controls"), page.law);
const history = new History(byId("history"), byId("history-list"), showEntry);
const samples = new Samples((text) => {
  page.prompt.value = text;
  draw();
});

let served = []; // as /v1/models lists them
let lanes = [];
let running = null; // the AbortController of the draw that has the stage

// The model.

const currentModel = () => served.find(({ id }) => id === page.model.value) ?? served[0];

async function loadModels() {
  try {
    served = (await models()).filter(({ coolsd }) => coolsd.makes !== "text"); // this page draws
  } catch (error) {
    failures.show(error, loadModels);
    return;
  }
  failures.clear();
  page.model.replaceChildren(...served.map(({ id }) => el("option", { value: id }, id)));
  byId("model-field").hidden = served.length < 2;
  page.ask.hidden = byId("columns").hidden = !served.length;
  byId("texts-only").hidden = Boolean(served.length);
  if (served.length) takeModel();
}

function takeModel() {
  const model = currentModel();
  const { size, tokens, slots } = model.coolsd;
  const facts = [model.id, size.replace("x", " × "), counted(tokens, "token"), slots && counted(slots, "slot")];
  byId("facts").textContent = facts.filter(Boolean).join(" · ");
  page.law.hidden = false;
  controls.setModel(model);
  samples.setModel(model);
}

// A draw.

async function draw() {
  const prompt = page.prompt.value.trim();
  if (!prompt) {
    page.status.textContent = "Type a prompt first.";
    page.prompt.focus();
    return;
  }
  if (!served.length) await loadModels();
  if (!served.length || !controls.check()) return;
  running?.abort();
  const control = new AbortController();
  running = control;
  const settings = controls.values();
  const together = !page.turns.checked;
  const entry = { prompt, seed: settings.seed || newSeed(), model: currentModel(), settings, mode: modeNow(), together, results: [] };
  failures.clear();
  stage(jobsOf(entry), entry.model);
  page.stop.disabled = false;
  const failed = await run(entry, lanes, control);
  if (entry.results.length) history.add(entry, running === control);
  if (running !== control) return; // a newer draw has the stage
  leave();
  page.outcome.hidden = true;
  if (control.signal.aborted) page.status.textContent = "Stopped.";
  else if (failed.length) {
    page.status.textContent = "";
    failures.show(failed[0], draw);
  } else showOutcome(entry);
}

/** Nothing is drawn any more. */
function leave() {
  running = null;
  if (document.activeElement === page.stop) page.prompt.focus();
  page.stop.disabled = true;
}

function modeNow() {
  return page.ask.elements.namedItem("mode").value;
}

/** What each decoder is asked. */
function jobsOf({ prompt, seed, model, settings, mode }) {
  const names = mode === "both" ? ["plain", "cool"] : [mode];
  return names.map((name) => {
    const plain = name === "plain";
    const own = plain ? { plain: true } : { pacing: "manual" }; // as many drafts a round as the controls say
    const overrides = overridesOf(settings, controls.defaults, plain);
    return {
      name,
      title: TITLES[name],
      law: plain ? "no drafts" : lawWords(settings, controls.defaults),
      prompt,
      file: `${slug(prompt)}-${name}-${seed}.png`,
      request: { model: model.id, prompt, ...own, ...overrides, seed },
    };
  });
}

/** Put empty lanes on the stage. */
function stage(jobs, model) {
  for (const lane of lanes) lane.close();
  lanes = jobs.map((job) => new Lane(job, model, act));
  page.lanes.replaceChildren(...lanes.map(({ node }) => node));
  page.lanes.classList.toggle("two", lanes.length > 1);
  page.lanes.hidden = page.tools.hidden = false;
  page.outcome.hidden = lanes.length < 2;
  page.outcome.replaceChildren(el("p", { class: "soft" }, "The same seed, two decoders.")); // keeps the place
  samples.begin();
  setHeat(heatIsOn());
  history.mark(null);
}

/** Draw all lanes, at once or in turn; fills in the entry's results. Returns the failures. */
async function run(entry, mine, { signal }) {
  const partial_images = Math.min(entry.together ? PARTIALS.together : PARTIALS.inTurn, entry.model.coolsd.partial_images ?? PARTIALS);
  const failed = [];
  const tell = teller(mine);
  const one = async (lane) => {
    lane.begin();
    try {
      for await (const event of stream({ ...lane.job.request, partial_images, progress: true }, signal)) {
        lane.take(event);
        if (!signal.aborted) tell();
      }
    } catch (error) {
      if (signal.aborted) return lane.stop();
      lane.fail(failures.asFailure(error));
      failed.push(error);
    }
  };
  if (entry.together) await Promise.all(mine.map(one));
  else for (const lane of mine) if (!signal.aborted && !failed.length) await one(lane);
  entry.results = mine.map(({ result }) => result).filter(Boolean);
  return failed;
}

/** Progress in words, in quarters: a screen reader would not get through more. */
function teller(mine) {
  let said = "";
  return () => {
    const quarters = mine.map(({ share }) => Math.floor(4 * share)).join(" ");
    if (quarters === said) return;
    said = quarters;
    page.status.textContent = `Drawing: ${mine.map((lane) => `${lane.job.title} ${Math.round(100 * lane.share)}%`).join(", ")}`;
  };
}

function showOutcome({ results, together, mode }) {
  const [first, second] = results.map(({ figures }) => figures);
  drawLegend();
  page.status.textContent = `Finished: ${counted(first.rounds, "step")}, ${seconds(first.seconds)} s.`;
  page.outcome.hidden = mode !== "both" || !second;
  if (mode !== "both" || !second) return;
  const { headline, detail, caveat } = outcome(first, second, together);
  page.status.replaceChildren("Finished.", el("span", { class: "hidden" }, ` ${headline}`)); // read out, and seen below
  page.outcome.replaceChildren(el("p", { class: "headline" }, headline), el("p", { class: "soft" }, `${detail} ${caveat}`));
}

/** Show an entry of the history, and restore its settings. */
function showEntry(entry) {
  running?.abort();
  leave();
  failures.clear();
  page.prompt.value = entry.prompt;
  page.ask.elements.namedItem("mode").value = entry.mode;
  page.turns.checked = !entry.together;
  modeChanged();
  if (page.model.value !== entry.model.id) {
    page.model.value = entry.model.id;
    takeModel();
  }
  controls.restore({ ...entry.settings, seed: entry.seed });
  stage(entry.results.map(({ job }) => job), entry.model);
  entry.results.forEach((result, i) => lanes[i].show(result));
  history.mark(entry);
  showOutcome(entry);
  page.status.textContent = `Shown again: ${entry.prompt}, seed ${entry.seed}. Its settings are restored.`;
}

// The map of drafts.

const heatIsOn = () => page.heat.getAttribute("aria-pressed") === "true";

function setHeat(on) {
  page.heat.setAttribute("aria-pressed", String(on));
  page.legend.hidden = !on;
  for (const lane of lanes) lane.setHeat(on);
  drawLegend();
}

function drawLegend() {
  page.legend.replaceChildren(...legendOf(Math.max(1, ...lanes.map(({ map }) => map.most))));
}

// The request of an image, to be taken elsewhere.

async function act(action, { job: { request, title } }) {
  const curl = action === "curl";
  const text = curl ? asCurl(request, address("v1/images/generations"), hasKey()) : asPython(request, address("v1"), hasKey());
  try {
    await navigator.clipboard.writeText(text);
    page.status.textContent = `Copied the request of ${title} as ${curl ? "a curl command" : "Python"}.`;
  } catch {
    byId("copy-text").value = text; // a page that is neither local nor HTTPS has no clipboard
    byId("copy-dialog").showModal();
    byId("copy-text").select();
  }
}

function modeChanged() {
  byId("turns-field").hidden = modeNow() !== "both";
}

page.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  draw();
});
page.ask.addEventListener("change", (event) => event.target.name === "mode" && modeChanged());
page.model.addEventListener("change", takeModel);
page.stop.addEventListener("click", () => running?.abort());
page.heat.addEventListener("click", () => setHeat(!heatIsOn()));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});

startTheme(byId("theme"));
page.law.open = matchMedia("(min-width: 62rem)").matches;
loadModels();
