// The button that switches between the light and the dark scheme.
// Knows the root's data-theme, which style.css reads and theme.js restores. Does not know colours.

const dark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
}

export function startTheme(button) {
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Switch to light colours" : "Switch to dark colours");
  };
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    root.dataset.theme = next;
    try {
      localStorage.setItem("coolsd-theme", next);
    } catch {
      // Storage is switched off: the choice lasts until a reload.
    }
    show();
  });
  dark.addEventListener("change", show);
  show();
}
