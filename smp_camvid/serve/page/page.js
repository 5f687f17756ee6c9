// The page: from a picture that is dropped, pasted or chosen to what is seen and kept.

import { Layer } from "./layer.js";
import { fillLegend, percent } from "./legend.js";
import * as server from "./server.js";

const el = (id) => document.getElementById(id);
const layer = new Layer(el("layer"));

let file = null; // the picture in use, kept so that another model can have it
let shown = null; // what the server said of it
let pictureUrl = "";
let running = new AbortController();
let mostBytes = Infinity;

// --- words ---

function tellProblem(error) {
  if (error?.name === "AbortError") return;
  if (error && !(error instanceof server.Refused)) console.error(error);
  el("problem").textContent = error ? error.message : "";
  el("problem").hidden = !error;
}

/** Runs `work`; what goes wrong is shown. */
async function telling(work) {
  tellProblem(null);
  try {
    return await work();
  } catch (error) {
    tellProblem(error);
  }
}

let clock = 0;

function showBusy(busy) {
  clearInterval(clock);
  document.body.classList.toggle("computing", busy);
  if (!busy) return;
  const began = Date.now();
  const tick = () => {
    const seconds = Math.round((Date.now() - began) / 1000);
    el("doing").textContent = seconds < 2 ? "Looking …" : `Looking … ${seconds} s`;
  };
  clock = setInterval(tick, 500);
  tick();
  el("status").textContent = "Looking at the picture.";
}

// --- from a file to the picture ---

async function take(chosen) {
  if (!chosen) return;
  if (chosen.size > mostBytes) {
    const size = Math.ceil(chosen.size / 2 ** 20);
    const most = Math.floor(mostBytes / 2 ** 20);
    tellProblem(new server.Refused(`${chosen.name} has ${size} MB; ${most} MB are the most.`));
    return;
  }
  file = chosen;
  running.abort();
  running = new AbortController();
  await telling(() => look(chosen, running.signal));
}

async function look(chosen, signal) {
  const model = el("model").value;
  const label = el("model").selectedOptions[0]?.textContent;
  showBusy(true);
  try {
    const answer = await server.segment(chosen, model, signal);
    const [picture, classes] = await Promise.all([
      server.viewPicture(answer.id, signal),
      server.viewClasses(answer.id, signal),
    ]);
    await show(chosen, { ...answer, model: label }, picture, classes);
  } catch (error) {
    if (!signal.aborted && shown) file = shown.file; // another model should have what is seen
    throw error;
  } finally {
    if (!signal.aborted) showBusy(false);
  }
}

async function show(chosen, answer, picture, classes) {
  const [height, width] = answer.size;
  URL.revokeObjectURL(pictureUrl);
  pictureUrl = URL.createObjectURL(picture);
  el("picture").src = pictureUrl;
  el("picture").alt = `Your picture ${chosen.name}`;
  await el("picture").decode();
  shown = { ...answer, file: chosen, stem: chosen.name.replace(/\.[^.]*$/, "") || "picture" };
  el("frame").style.setProperty("--aspect", width / height);
  layer.show(classes, answer.view_size, answer.classes.map((one) => one.color));
  fillLegend(el("legend"), answer.classes, choose);
  el("all").hidden = true;
  el("caption").textContent =
    [chosen.name, `${width} × ${height}`, ...answer.notes, answer.model,
      `${answer.seconds.toFixed(1)} s on ${answer.device}`].join(" · ");
  el("status").textContent = `Done. ${inWords(answer.classes)}`;
  document.body.dataset.state = "shown";
}

function inWords(classes) {
  const found = classes.filter((one) => one.share > 0).sort((a, b) => b.share - a.share);
  return found.map((one) => `${one.name} ${percent(one.share)}`).join(", ");
}

// --- what is seen ---

function choose(chosen) {
  layer.paint(chosen);
  el("all").hidden = chosen.size === 0;
}

function fade() {
  const value = el("opacity").value;
  el("layer").style.opacity = value / 100;
  el("percent").textContent = el("strength").textContent = `${value} %`;
}

function nameUnder(event) {
  const box = el("frame").getBoundingClientRect();
  const index = layer.at((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  el("under").textContent = shown?.classes[index]?.name ?? "";
  el("under").hidden = !shown;
}

async function keep(button) {
  const kind = button.dataset.file;
  button.disabled = true;
  const blob = await telling(() => server.download(shown.id, kind, el("opacity").value));
  button.disabled = false;
  button.focus();
  if (!blob) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${shown.stem}_${kind}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// --- wiring ---

async function start() {
  fade();
  const { models, most_bytes } = await server.models();
  mostBytes = most_bytes;
  el("most").textContent = `, up to ${Math.floor(most_bytes / 2 ** 20)}\u00a0MB`;
  el("model").replaceChildren(...models.map(({ id, label }) => new Option(label, id)));
}

el("file").addEventListener("change", () => {
  take(el("file").files[0]);
  el("file").value = ""; // the same file again is a change too
});
el("model").addEventListener("change", () => take(file));
el("opacity").addEventListener("input", fade);
el("all").addEventListener("click", () => {
  for (const button of el("legend").querySelectorAll('[aria-pressed="true"]')) button.click();
});
el("frame").addEventListener("pointermove", nameUnder);
el("frame").addEventListener("pointerdown", nameUnder);
el("frame").addEventListener("pointerleave", () => { el("under").hidden = true; });
for (const button of document.querySelectorAll("[data-file]")) {
  button.addEventListener("click", () => keep(button));
}

addEventListener("paste", (event) => take(event.clipboardData?.files[0]));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files[0]);
});
addEventListener("hashchange", () => location.reload()); // another key

telling(start);
