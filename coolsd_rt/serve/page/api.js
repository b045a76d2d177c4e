// Talks to the server: the list of models, the stream of an image, and errors in words with what to do.
// Knows the HTTP contract and the key. Does not know the page.

import { counted } from "./dom.js";
import { eventsOf } from "./sse.js";

const KEY = "coolsd-key";
const DONE = "[DONE]";

/** An error to be shown. code: its HTTP status; 0: there was no answer. */
export class Failure extends Error {
  constructor(code, message, advice = "") {
    super(message);
    this.name = "Failure";
    this.code = code;
    this.advice = advice;
  }

  get text() {
    return this.advice ? `${this.message} ${this.advice}` : this.message;
  }
}

// The key of this tab, for as long as the tab lives.
let key = null;
try {
  key = sessionStorage.getItem(KEY);
} catch {
  // Storage is switched off: the key is asked for again after a reload.
}

export function hasKey() {
  return Boolean(key);
}

export function keepKey(value) {
  key = value || null;
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // It stays in memory.
  }
}

/** The address of a route, beside the page, also behind a proxy with a path of its own. */
export function address(route) {
  return new URL(route, document.baseURI).href;
}

/** A request as JSON. The seed is a text of digits: it has 64 bits, and a number of JavaScript 53. */
export function bodyOf(request) {
  const { seed, ...others } = request;
  const text = JSON.stringify(others);
  return seed === undefined ? text : `${text.slice(0, -1)},"seed":${seed}}`;
}

/** The models of the server, as /v1/models lists them. */
export async function models() {
  const answer = await send("v1/models", {});
  return (await answer.json()).data;
}

/** The events of an image's stream. Raises Failure, or AbortError if `signal` says so. */
export async function* stream(request, signal) {
  const body = bodyOf({ ...request, stream: true });
  const answer = await send("v1/images/generations", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body,
    signal,
  });
  let finished = false;
  try {
    for await (const data of eventsOf(answer.body)) {
      if (data === DONE) break;
      const event = JSON.parse(data);
      if (event.error) throw failureOf(event.error.status ?? 500, event.error.message);
      finished ||= event.type === "image_generation.completed";
      yield event;
    }
  } catch (error) {
    if (error instanceof SyntaxError) throw new Failure(0, "The server sent what this page cannot read.", "Reload the page, then try again.");
    throw isOurs(error) ? error : gone();
  }
  if (!finished) throw new Failure(0, "The server ended before the image was finished.", "Draw it again.");
}

function isOurs(error) {
  return error instanceof Failure || error.name === "AbortError";
}

function gone() {
  const advice = `Check that coolsd-rt serve is running at ${location.host}, then try again. Your settings are still here.`;
  return new Failure(0, "The server does not answer.", advice);
}

async function send(route, options) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let answer;
  try {
    answer = await fetch(address(route), { ...options, headers });
  } catch (error) {
    throw isOurs(error) ? error : gone();
  }
  if (answer.ok) return answer;
  let message = "";
  try {
    message = (await answer.json()).error.message;
  } catch {
    // A proxy's page, or nothing: the status is all there is to say.
  }
  throw failureOf(answer.status, message, answer.headers.get("Retry-After"));
}

/** What each status means to who sits before the page. */
export function failureOf(status, message, retryAfter = null) {
  const said = message ? sentence(message) : `The server answered ${status}.`;
  if (status === 401) {
    return hasKey()
      ? new Failure(401, "The server refused this key.", "Check it and enter it again.")
      : new Failure(401, "This server asks for a key.", "Enter it below.");
  }
  if (status === 429) return new Failure(429, "The server is busy: its queue is full.", whenAgain(retryAfter));
  if (status === 503) {
    return new Failure(503, said, "It is starting, restarting or shutting down: wait a few seconds, then try again.");
  }
  if (status === 504) return new Failure(504, "The image took longer than the server allows.", "Try again when it is less busy.");
  if (status >= 500) return new Failure(status, said, "Try again; if it stays so, the server's log says why.");
  return new Failure(status, said, status === 400 ? "Change it and draw again." : "");
}

function whenAgain(retryAfter) {
  const wait = Number.parseInt(retryAfter ?? "", 10);
  if (!(wait > 0)) return "Try again in a few seconds.";
  const at = new Date(Date.now() + wait * 1000).toLocaleTimeString([], { timeStyle: "medium" });
  return `Try again in ${counted(wait, "second")} (at ${at}).`;
}

function sentence(text) {
  const tidy = text.trim();
  return /[.!?]$/.test(tidy) ? tidy : `${tidy}.`;
}
