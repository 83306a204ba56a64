"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures"), twins = read("dark-twins");
  const root = document.documentElement, button = document.getElementById("theme");
  const panels = [...document.querySelectorAll(".panel")];
  const system = matchMedia("(prefers-color-scheme: dark)"), touch = matchMedia("(pointer: coarse)").matches;
  const config = {
    displaylogo: false, scrollZoom: false, displayModeBar: touch ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "toImage", "pan2d", "zoom2d"],
  };
  let choice = null;
  try { choice = localStorage.getItem("workhorse-theme"); } catch (_) { /* a page from a file may have no storage */ }
  const isDark = () => (choice ? choice === "dark" : system.matches);

  // A figure is written in the light theme's colours; in the dark each of them has a twin.
  function themed(value, dark) {
    if (typeof value === "string") return dark && Object.hasOwn(twins, value) ? twins[value] : value;
    if (Array.isArray(value)) return value.map((item) => themed(item, dark));
    if (value && typeof value === "object" && !ArrayBuffer.isView(value)) {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, themed(item, dark)]));
    }
    return value;
  }

  function draw(panel, dark, tallness = 1) {
    const { data, layout } = figures[panel.dataset.figure][Number(panel.dataset.panel)];
    const width = Math.max(120, panel.clientWidth);
    const size = { width, height: layout.height * tallness, dragmode: touch ? false : "zoom" };
    panel.dataset.width = width;
    Plotly.react(panel, themed(data, dark), { ...themed(layout, dark), ...size }, config);
    panel.dataset.drawn = "true";
  }

  function fit() {
    for (const panel of panels) {
      if (panel.dataset.drawn && panel.clientWidth && Number(panel.dataset.width) !== panel.clientWidth) {
        panel.dataset.width = panel.clientWidth;
        Plotly.relayout(panel, { width: Math.max(120, panel.clientWidth) });
      }
    }
  }

  function setTheme() {
    const dark = isDark();
    if (choice) root.dataset.theme = choice;
    button.textContent = dark ? "Light" : "Dark";
    for (const panel of panels) if (panel.dataset.drawn) draw(panel, dark);
  }

  button.addEventListener("click", () => {
    choice = isDark() ? "light" : "dark";
    try { localStorage.setItem("workhorse-theme", choice); } catch (_) { /* then it lasts as long as the page */ }
    setTheme();
  });
  system.addEventListener("change", setTheme);

  for (const key of document.querySelectorAll("button.key")) {
    key.addEventListener("click", () => {
      const shown = key.getAttribute("aria-pressed") === "false";
      key.setAttribute("aria-pressed", String(shown));
      for (const panel of panels.filter((panel) => panel.dataset.figure === key.dataset.figure)) {
        const { data } = figures[key.dataset.figure][Number(panel.dataset.panel)];
        for (const trace of data) if (trace.legendgroup === key.dataset.group) trace.visible = shown;
        if (panel.dataset.drawn) draw(panel, isDark());
      }
    });
  }

  for (const copy of document.querySelectorAll(".copy")) {
    copy.addEventListener("click", async () => {
      const code = copy.parentElement.querySelector("pre");
      try {
        await navigator.clipboard.writeText(code.textContent);
        copy.textContent = "Copied";
      } catch (_) {
        getSelection().selectAllChildren(code);
        copy.textContent = "Selected";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
  }

  // Paper is light and narrow; what has not been drawn yet is drawn now.
  addEventListener("beforeprint", () => {
    root.classList.add("printing");
    for (const folded of document.querySelectorAll("details:not([open])")) {
      folded.open = true;
      folded.dataset.folded = "true";
    }
    for (const panel of panels) {
      panel.style.minHeight = "0";
      draw(panel, false, 0.8);
    }
  });
  addEventListener("afterprint", () => {
    root.classList.remove("printing");
    for (const folded of document.querySelectorAll("details[data-folded]")) {
      folded.open = false;
      delete folded.dataset.folded;
    }
    for (const panel of panels) draw(panel, isDark());
  });

  for (const folded of document.querySelectorAll("details")) folded.addEventListener("toggle", fit);
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(fit, 120); });

  setTheme();
  const queue = panels.slice();
  (function next() {
    const panel = queue.shift();
    if (!panel) { fit(); root.dataset.ready = "true"; return; }
    if (!panel.dataset.drawn) draw(panel, isDark());
    setTimeout(next, 0);
  })();
})();
