"use strict";
// Sorting, filtering, the drawer and the drawings of a leaderboard. Text from data is only ever set as text.

const charts = JSON.parse(document.getElementById("charts").textContent);
const views = new Map(); // panel -> its drawing
const shown = new Map(); // table -> names of the methods that pass its filter; absent: all

// ── drawings ──────────────────────────────────────────────────────────────────────────────────────

function recordsOf(panel) {
  const { records, one, table } = charts.panels[panel.dataset.panel];
  if (one) {
    const method = panel.closest("figure").querySelector("select").value;
    return records.filter((record) => record.method === method);
  }
  const passing = shown.get(table);
  const wanted = new Set();
  return records.filter(({ method }) => {
    if (passing && !passing.has(method)) return false;
    if (!wanted.has(method) && wanted.size === charts.most) return false;
    wanted.add(method);
    return true;
  });
}

function methods(records) {
  return new Set(records.map(({ method }) => method)).size;
}

async function draw(panel) {
  const { spec, step } = charts.panels[panel.dataset.panel];
  const source = recordsOf(panel);
  if (views.has(panel) || !source.length) return;
  views.set(panel, null);
  const height = step ? step * methods(source) : spec.height;
  const own = { ...spec, height, datasets: { ...spec.datasets, source } };
  let drawn;
  for (let columns = 5; columns && !(drawn && legendFits(panel)); columns -= 1) {
    drawn?.finalize();
    const config = { ...charts.config, legend: { ...charts.config.legend, columns } };
    const options = { ast: true, actions: false, renderer: "svg", logLevel: 1, config, tooltip: { disableDefaultStyle: true } };
    drawn = await vegaEmbed(panel, own, options);
  }
  views.set(panel, drawn.view);
  panel.dataset.drawn = "";
}

function legendFits(panel) {
  const { right } = panel.getBoundingClientRect();
  return [...panel.querySelectorAll(".role-legend text")].every((text) => text.getBoundingClientRect().right <= right + 1);
}

function redraw(panel) {
  const view = views.get(panel);
  const source = recordsOf(panel);
  if (!view || !source.length) return;
  const { step } = charts.panels[panel.dataset.panel];
  if (step) view.height(step * methods(source));
  view.data("source", source).resize().runAsync();
}

const panels = [...document.querySelectorAll(".panel")];
const near = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
    near.unobserve(target);
    draw(target);
  }),
  { rootMargin: "600px" },
);
panels.forEach((panel) => near.observe(panel));

document.querySelectorAll("figure select").forEach((select) =>
  select.addEventListener("change", () => select.closest("figure").querySelectorAll(".panel").forEach(redraw)),
);

// ── tables ────────────────────────────────────────────────────────────────────────────────────────

const tables = new Map(); // table -> { passing: rows that pass a filter, or null; all: whether all lines are wanted }
const collator = new Intl.Collator("en", { numeric: true });

// Show the lines that pass, at first no more than a reader can use, and offer the rest.
function show(table) {
  const state = tables.get(table);
  let count = 0;
  for (const row of table.tBodies[0].rows) {
    const passes = !state.passing || row.dataset.row === undefined || state.passing.has(row.dataset.row);
    row.hidden = !passes || (!state.all && count >= charts.lines);
    count += passes;
  }
  state.more.hidden = state.all || count <= charts.lines;
  state.more.textContent = `Show all ${count.toLocaleString("en")}`;
}

function numberIn(text) {
  const found = text.replace(/−/g, "-").replace(/,(?=\d{3})/g, "").match(/^[^\d-]*(-?\d+(\.\d+)?)/);
  if (!found) return null;
  return Number(found[1]) - (text.startsWith("<") ? 1e-9 : 0);
}

function compare(a, b) {
  return a.number !== null && b.number !== null ? a.number - b.number : collator.compare(a.text, b.text);
}

function sort(header) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const column = header.cellIndex;
  const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const lines = [...body.rows].map((row) => {
    const text = row.cells[column].textContent.trim();
    return { row, text, number: numberIn(text), empty: text === "–" || text === "" };
  });
  lines.sort((a, b) => a.empty - b.empty || sign * compare(a, b));
  body.replaceChildren(...lines.map(({ row }) => row));
  show(table);
}

function button(cell, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.append(...cell.childNodes);
  made.addEventListener("click", act);
  cell.append(made);
}

document.querySelectorAll("section.table table").forEach((table) => {
  const more = element("button", "");
  more.type = "button";
  more.className = "more";
  const state = { passing: null, all: false, more };
  more.addEventListener("click", () => {
    state.all = true;
    show(table);
  });
  table.parentElement.after(more);
  tables.set(table, state);
  show(table);
  table.querySelectorAll("thead th").forEach((header) => button(header, () => sort(header)));
});

document.querySelectorAll("section.table").forEach((section) => {
  const input = section.querySelector(".filter input");
  if (!input) return;
  const output = section.querySelector(".filter output");
  const number = section.dataset.table;
  const own = [...section.querySelectorAll("table")];
  const lines = [...section.querySelector("table.lead").tBodies[0].rows].map((row) => ({
    row: row.dataset.row,
    text: row.textContent.toLowerCase(),
  }));
  let waiting;
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const hits = lines.filter(({ text }) => words.every((word) => text.includes(word)));
    const passing = words.length ? new Set(hits.map(({ row }) => row)) : null;
    const counts = [hits.length, lines.length].map((count) => count.toLocaleString("en"));
    output.textContent = passing ? counts.join(" of ") : "";
    own.forEach((table) => {
      tables.get(table).passing = passing;
      show(table);
    });
    if (passing) shown.set(number, new Set([...passing].map((row) => drawers()[number][row].name)));
    else shown.delete(number);
    section.querySelectorAll("figure:not(:has(select)) .panel").forEach(redraw);
  };
  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(apply, 120);
  });
  if (input.value) apply(); // what a browser kept from before
});

// ── the drawer ────────────────────────────────────────────────────────────────────────────────────

function drawers() {
  drawers.read ??= JSON.parse(document.getElementById("drawers").textContent);
  return drawers.read;
}

const drawer = document.getElementById("drawer");

function element(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

function open(row) {
  const { name, parts } = drawers()[row.closest("section").dataset.table][row.dataset.row];
  document.getElementById("drawer-title").textContent = name;
  document.getElementById("drawer-body").replaceChildren(
    ...parts.flatMap(([title, terms]) => {
      const list = document.createElement("dl");
      terms.forEach(([term, text]) => list.append(element("dt", term), element("dd", text)));
      return [element("h3", title), list];
    }),
  );
  drawer.showModal();
  drawer.scrollTop = 0;
}

document.querySelectorAll("tr[data-row] > .name").forEach((cell) => button(cell, () => {}));
document.querySelectorAll("section.table tbody").forEach((body) =>
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-row]");
    if (row && !String(getSelection())) open(row);
  }),
);
drawer.querySelector(".close").addEventListener("click", () => drawer.close());
drawer.addEventListener("click", (event) => {
  const box = drawer.getBoundingClientRect();
  if (event.target === drawer && event.clientX < box.left) drawer.close();
});

// ── print ─────────────────────────────────────────────────────────────────────────────────────────

addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  panels.forEach(draw);
});
