// Sets the colour scheme before the first paint, so that the page does not flash. A classic script in <head>.
// Knows the choice of this browser ("light", "dark", or none: what the system says). The button is made in app.js.
"use strict";
try {
  const chosen = localStorage.getItem("coolsd-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is switched off: the system's scheme stands.
}
