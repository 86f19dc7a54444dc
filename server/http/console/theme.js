// Before the page is drawn: the theme that was chosen here earlier; without one, the system's.
"use strict";

const kThemeKey = "nsa-theme";

function applyTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

try {
  applyTheme(localStorage.getItem(kThemeKey));
} catch {
  // Storage may be forbidden.
}

addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const label = () => button.setAttribute("aria-label", isDark() ? "Light theme" : "Dark theme");
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    applyTheme(theme);
    try {
      localStorage.setItem(kThemeKey, theme);
    } catch {
      // As above: the choice then holds for this page only.
    }
    label();
    dispatchEvent(new Event("themechange"));
  });
  label();
});
