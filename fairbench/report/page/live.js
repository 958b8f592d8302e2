"use strict";
// A sweep as it goes: asks the server that sent the page, and shows new results when the reader is not busy.

const live = document.getElementById("live");
const part = (name) => live.querySelector(`.${name}`);

function clock(seconds) {
  const minutes = Math.round(seconds / 60);
  if (minutes >= 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return minutes ? `${minutes} min` : `${Math.round(seconds)} s`;
}

function list(name, texts) {
  part(name).hidden = !texts.length;
  part(name).querySelector("ul").replaceChildren(...texts.map((text) => element("li", text)));
}

function tell(state) {
  const left = state.left === null ? "" : `, about ${clock(state.left)} left`;
  const over = state.ended === state.total;
  part("now").textContent = over ? `All ${state.total} jobs have ended` : `${state.ended} of ${state.total} jobs have ended${left}`;
  part("bar").max = state.total || 1;
  part("bar").value = state.ended;
  list("running", state.running.map(({ name, seconds, losses }) => {
    const last = losses.at(-1);
    const far = last ? `step ${last[0]}, loss ${last[1].toFixed(3)}` : "getting ready";
    return `${name}: ${far}, for ${clock(seconds)}`;
  }));
  list("waiting", state.waiting);
  const waiting = state.total - state.ended - state.running.length;
  part("waiting").querySelector("summary").textContent = `${waiting} waiting`;
  list("failed", state.failed);
  part("problem").textContent = state.problem ? `The board cannot be built: ${state.problem}` : "";
  const records = state.running.flatMap(({ name, losses }) => losses.map(([x, y]) => ({ method: name, x, y })));
  const figure = live.querySelector("figure");
  figure.hidden = !records.length;
  const panel = figure.querySelector(".panel");
  charts.panels[panel.dataset.panel].records = records;
  if (records.length) views.has(panel) ? redraw(panel) : draw(panel);
}

function busy() {
  const filters = [...document.querySelectorAll(".filter input")];
  return drawer.open || filters.some((input) => input.value) || document.querySelector("section.table details[open]");
}

async function poll() {
  try {
    const state = await (await fetch("state.json")).json();
    tell(state);
    const fresh = part("fresh");
    if (state.version !== live.dataset.version) {
      if (!busy()) return location.reload();
      fresh.hidden = false;
    }
  } catch {
    part("now").textContent = "The server has ended; this is what it knew last";
  }
  setTimeout(poll, 2000);
}

part("fresh").addEventListener("click", () => location.reload());
poll();
