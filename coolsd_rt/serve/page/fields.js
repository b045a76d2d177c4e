// What can be set of the law and the sampling, and what each means in a sentence.
// Knows names, ranges and words. Does not know the page; the ranges are those of the server, which checks them again.

/** Kinds of schedules: the fields each has, and its sentence. */
export const KINDS = {
  exponential: {
    label: "Exponential",
    fields: ["delta", "nu", "floor"],
    help: "The paper's: most generous with the first draft of a round, stricter by the same factor with each later one.",
  },
  linear: {
    label: "Linear",
    fields: ["delta", "floor"],
    help: "Most generous with the first draft of a round, stricter by the same amount with each later one.",
  },
  uniform: { label: "Uniform", fields: ["delta", "floor"], help: "Equally generous with every draft of a round." },
  excess: {
    label: "Excess",
    fields: ["beta", "nu"],
    help: "Never stricter than the classic rule; the generosity above it shrinks with each draft of a round.",
  },
  none: {
    label: "None",
    fields: [],
    help: "The classic rule of speculative decoding, without relaxation.",
  },
  custom: { label: "Custom", fields: [], help: "The list of factors that this engine was built with." },
};

/** Where drafts come from. */
export const DRAFTS = {
  built: { label: "Built draft", words: "", help: "The small draft network that was built into this engine." },
  jacobi: { label: "Jacobi", words: "Jacobi ", help: "No draft network: guesses are what the large model itself said in its last step." },
  "jacobi-coupled": {
    label: "Coupled Jacobi",
    words: "coupled Jacobi ",
    help: "As Jacobi; a guess stays where the large model's old and new odds agree, so that more guesses come true.",
  },
  "jacobi-gumbel": {
    label: "Gumbel Jacobi",
    words: "Gumbel Jacobi ",
    help: "As Jacobi, with the same random numbers at the same position, so that more guesses come true.",
  },
  ngram: { label: "N-gram lookup", words: "n-gram ", help: "No draft network: guesses are what followed the last tokens the time before." },
};

/** Guesses of a Jacobi window and of a lookup, where the server is not told another length. */
const JACOBI_WINDOW = 15;
const NGRAM_LENGTH = 5;

/** Numbers. slide: ends of the slider beside the field. */
export const NUMBERS = {
  delta: {
    label: "Delta",
    help: "Relaxation: the mean factor on a draft's chance to be accepted. Higher accepts more drafts and strays further from the model.",
    min: 0, max: 1e6, step: 0.05, slide: [0.5, 3], fallback: 1.1,
  },
  beta: {
    label: "Beta",
    help: "How far above the classic rule the first draft of a round begins. 0 adds nothing.",
    min: 0, max: 1e6, step: 0.05, slide: [0, 3], fallback: 0.5,
  },
  nu: {
    label: "Nu",
    help: "Decay: how quickly the generosity falls along a round. 0 keeps it the same; the paper uses 0.7.",
    min: 0, max: 1e6, step: 0.05, slide: [0, 2], fallback: 0.7,
  },
  draft_length: {
    label: "Draft length",
    help: "Tokens guessed in each round before the large model checks them.",
    min: 1, max: 65536, step: 1, slide: [1, 12], whole: true, fallback: 5,
  },
  guidance_scale: {
    label: "Guidance scale",
    help: "How strongly the prompt pulls. 1 switches guidance off.",
    min: 1, max: 1000, step: 0.1, slide: [1, 10], fallback: 1,
  },
  temperature: {
    label: "Temperature",
    help: "Below 1 prefers likely tokens, above 1 takes more chances.",
    min: 0.001, max: 1000, step: 0.05, slide: [0.1, 2], fallback: 1,
  },
  top_k: {
    label: "Top-k",
    help: "Keep only the k likeliest tokens at each position. 0 keeps all.",
    min: 0, max: 1048576, step: 1, whole: true, fallback: 0,
  },
  top_p: {
    label: "Top-p",
    help: "Keep the likeliest tokens that together have this probability. 1 keeps all.",
    min: 0.000001, max: 1, step: 0.01, slide: [0.05, 1], fallback: 1,
  },
};

export const FLOOR = {
  label: "Floor of 1",
  help: "No draft is treated more strictly than by the classic rule. It costs no quality and accepts more.",
};

export const SEED = {
  label: "Seed",
  help: "Same prompt, settings and seed: same image. Empty: a new seed for each draw.",
};

/** Resamplers that are exact without relaxation, with the rule "ratio". */
const EXACT = ["optimal", "waterfill", "residual"];

/** Values of the controls, from what /v1/models says an engine was built with. */
export function defaultsOf(model) {
  const told = model?.coolsd?.defaults ?? {};
  const sampling = told.sampling ?? {};
  const schedule = typeof told.schedule === "string" ? { kind: told.schedule } : (told.schedule ?? { kind: "none" });
  const draft = typeof told.draft === "string" ? { kind: told.draft } : (told.draft ?? {});
  const source = (draft.kind ?? "jacobi").replace("_", "-"); // a drafter's name
  const number = (name, value) => value ?? NUMBERS[name].fallback;
  return {
    kind: schedule.kind,
    delta: number("delta", schedule.delta),
    beta: number("beta", schedule.beta),
    nu: number("nu", schedule.nu),
    floor: schedule.floor !== null && schedule.floor !== undefined,
    draft: source in DRAFTS ? source : "built",
    draft_length: number("draft_length", draft.length ?? told.draft_length),
    guidance_scale: number("guidance_scale", sampling.guidance_scale ?? sampling.cfg_scale),
    temperature: number("temperature", sampling.temperature),
    top_k: number("top_k", sampling.top_k),
    top_p: number("top_p", sampling.top_p),
    floorValue: schedule.floor ?? 1,
    rule: told.acceptance?.rule ?? told.acceptance ?? "ratio",
    resampler: told.resampler?.kind ?? told.resampler ?? "optimal",
  };
}

const LAW = ["kind", "delta", "beta", "nu", "floor"];
const SAMPLING = ["guidance_scale", "temperature", "top_k", "top_p"];

function changed(values, defaults, names) {
  return names.filter((name) => values[name] !== defaults[name]);
}

/** The fields of a request that differ from the engine's own. plain: those of plain decoding alone. */
export function overridesOf(values, defaults, plain) {
  const out = {};
  for (const name of changed(values, defaults, SAMPLING)) out[name] = values[name];
  if (plain) return out;
  const used = ["kind", ...(KINDS[values.kind]?.fields ?? [])];
  if (changed(values, defaults, LAW.filter((name) => used.includes(name))).length) out.schedule = scheduleOf(values, defaults);
  const other = values.draft !== defaults.draft; // has a length of its own on the server unless it is told one
  if (other) out.draft = values.draft;
  if (other || values.draft_length !== defaults.draft_length) out.draft_length = values.draft_length;
  return out;
}

/** The draft length that goes with a source. */
export function lengthFor(draft, { draft: own, draft_length: built }) {
  if (draft === own) return built;
  return draft === "ngram" ? NGRAM_LENGTH : JACOBI_WINDOW;
}

function scheduleOf(values, defaults) {
  const schedule = { kind: values.kind };
  for (const name of KINDS[values.kind].fields) {
    schedule[name] = name === "floor" ? (values.floor ? defaults.floorValue : null) : values[name];
  }
  return schedule;
}

/** Whether the law leaves the distribution of images as the model has it. */
export function isLossless(values, defaults) {
  return values.kind === "none" && defaults.rule === "ratio" && EXACT.includes(defaults.resampler);
}

/** The law in a few words. */
export function lawWords(values, defaults) {
  const kind = isLossless(values, defaults)
    ? "lossless"
    : values.kind === "excess"
      ? `excess, beta ${values.beta}`
      : ["none", "custom"].includes(values.kind)
        ? `${values.kind}, rule ${defaults.rule}`
        : `${values.kind}, delta ${values.delta}`;
  return `${kind}, ${values.draft_length} ${DRAFTS[values.draft].words}drafts`;
}
