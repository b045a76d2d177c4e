// Shows an error in words with what to do, and asks for the key where one is missing.
// Knows the alert and the key's form. Does not know what failed: it is given what to try again.

import { Failure, failureOf, keepKey } from "./api.js";
import { byId, el } from "./dom.js";

const alert = byId("alert");
const form = byId("key-form");
const field = byId("key");
let again = () => {};

/** Any error as a Failure. */
export function asFailure(error) {
  return error instanceof Failure ? error : failureOf(500, String(error.message));
}

/** retry: what "Try again", or a new key, does. */
export function show(error, retry) {
  const failure = asFailure(error);
  again = retry;
  const needsKey = failure.code === 401;
  const pointless = needsKey || [400, 404, 413].includes(failure.code);
  const button = el("button", { type: "button", onclick: () => again() }, "Try again");
  alert.replaceChildren(el("p", {}, failure.text), ...(pointless ? [] : [button]));
  alert.hidden = false;
  form.hidden = !needsKey;
  if (needsKey) field.focus();
}

export function clear() {
  alert.hidden = true;
  alert.replaceChildren();
  form.hidden = true;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(field.value.trim());
  field.value = "";
  clear();
  byId("prompt").focus();
  again();
});
