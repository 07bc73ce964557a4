// Before anything is drawn: the theme that was chosen, where it isn't the system's.
"use strict";
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch (error) { /* storage is off: the system's theme it is */ }
