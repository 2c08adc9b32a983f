// Inside Airflow's frame: take over its theme, and let links to Airflow leave the frame. Loaded before the page is painted.
"use strict";

const chosen = () => {
  try {
    const theme = localStorage.getItem("theme"); // where Airflow's own switch keeps "light", "dark" or "system"
    return theme === "light" || theme === "dark" ? theme : "";
  } catch {
    return "";
  }
};
const applyTheme = () => {
  document.documentElement.dataset.theme = chosen();
};
applyTheme();
addEventListener("storage", (event) => {
  if (event.key === "theme") applyTheme();
});

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-airflow]");
  if (!link || window.parent === window || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  // The frame may not navigate its parent, but a link of the parent's own document may.
  const outer = window.parent.document.createElement("a");
  outer.href = link.href;
  window.parent.document.body.append(outer);
  outer.click();
  outer.remove();
});
