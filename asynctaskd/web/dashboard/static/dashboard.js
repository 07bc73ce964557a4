// Comforts. Each page can be read, and each form sent, without this file.
"use strict";

const THEMES = ["system", "light", "dark"];

function theme() {
  return document.documentElement.dataset.theme || "system";
}

function setTheme(next) {
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("theme", next);
  } catch (error) { /* it holds for this page, then */ }
}

function themeSwitch(button) {
  const tell = () => { button.textContent = `Theme: ${theme()}`; };
  button.hidden = false;
  tell();
  button.addEventListener("click", () => {
    setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
    tell();
  });
}

let isLive = true;

function liveSwitch(button) {
  button.hidden = false;
  button.addEventListener("click", () => {
    isLive = !isLive;
    button.setAttribute("aria-pressed", String(isLive));
    button.textContent = isLive ? "Live" : "Paused";
  });
}

// Nobody looks at a hidden page, and a page must not change under somebody who selects text in it.
function holdsStill() {
  const selection = document.getSelection();
  return !isLive || document.hidden || (selection !== null && !selection.isCollapsed);
}

function isWriting(target) {
  return target.closest("input, textarea, select, [contenteditable]") !== null;
}

function step(by) {
  const rows = [...document.querySelectorAll("table.rows tbody a:first-of-type")].filter((one) => one.closest("td, th").cellIndex === 0);
  if (!rows.length) return;
  const now = rows.indexOf(document.activeElement);
  const next = rows[Math.min(Math.max(now + by, 0), rows.length - 1)];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isWriting(event.target)) return;
  const search = document.querySelector("[data-search]");
  if (event.key === "/" && search) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
});

document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.requestConfig.triggeringEvent === undefined && holdsStill()) event.preventDefault();
});

// What scrolls sideways stays where it was, and so does the focus.
document.addEventListener("htmx:beforeSwap", (event) => {
  const scrolled = [...event.target.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  event.target.dataset.scrolled = JSON.stringify(scrolled);
});
document.addEventListener("htmx:afterSwap", (event) => {
  const scrolled = JSON.parse(event.target.dataset.scrolled || "[]");
  event.target.querySelectorAll(".scroll").forEach((one, nth) => { one.scrollLeft = scrolled[nth] || 0; });
});

const themeButton = document.getElementById("theme");
if (themeButton) themeSwitch(themeButton);
const liveButton = document.getElementById("live");
if (liveButton) liveSwitch(liveButton);
