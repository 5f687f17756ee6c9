// Values under the pointer, or where the arrow keys have moved to.

const short = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(3))));

/** The values of all lines at `x`, as far as they have one there. */
const valuesAt = (chart, x) => chart.series.map((line) => line.y[line.x.indexOf(x)]);

function readable(plot) {
  const chart = page.charts[plot.dataset.chart];
  const places = [...new Set(chart.series.flatMap((line) => line.x))].sort((a, b) => a - b);
  if (!places.length) return;
  const area = plot.querySelector(".area");
  const cursor = plot.querySelector(".cursor");
  const items = all("[data-series]", plot);
  const where = plot.querySelector(".where");
  const atRest = [...items.map((item) => item.querySelector("b").textContent), where.textContent];
  const [low, high] = chart.span;
  let at = places.length - 1;

  function show(index) {
    at = Math.min(places.length - 1, Math.max(0, index));
    const x = places[at];
    const values = valuesAt(chart, x).map(short);
    const name = `${chart.x_name} ${chart.labels[x - 1] ?? x}`;
    items.forEach((item, i) => { item.querySelector("b").textContent = values[i]; });
    where.textContent = name;
    const share = `${(100 * (x - low)) / (high - low)}%`;
    cursor.setAttribute("x1", share);
    cursor.setAttribute("x2", share);
    cursor.setAttribute("visibility", "visible");
    area.setAttribute("aria-valuenow", x);
    area.setAttribute("aria-valuetext", `${name}: ${chart.series.map((line, i) => `${line.name} ${values[i]}`.trim()).join(", ")}`);
  }

  function rest() {
    items.forEach((item, i) => { item.querySelector("b").textContent = atRest[i]; });
    where.textContent = atRest.at(-1);
    cursor.setAttribute("visibility", "hidden");
  }

  function point(event) {
    const box = area.getBoundingClientRect();
    const x = low + ((event.clientX - box.left) / box.width) * (high - low);
    show(places.reduce((best, place, i) => (Math.abs(place - x) < Math.abs(places[best] - x) ? i : best), 0));
  }

  const far = Math.max(1, Math.round(places.length / 10));
  const moves = {
    ArrowLeft: () => at - 1, ArrowDown: () => at - 1, ArrowRight: () => at + 1, ArrowUp: () => at + 1,
    PageDown: () => at - far, PageUp: () => at + far, Home: () => 0, End: () => places.length - 1,
  };
  const words = plot.querySelector(".axes").getAttribute("aria-label");
  const described = {
    tabindex: 0, role: "slider", "aria-label": words, "aria-valuemin": places[0], "aria-valuemax": places.at(-1),
    "aria-valuenow": places.at(-1), "aria-valuetext": `${chart.x_name} ${places.at(-1)}`,
  };
  for (const [name, value] of Object.entries(described)) area.setAttribute(name, value);
  area.addEventListener("pointermove", point);
  area.addEventListener("pointerdown", point);
  area.addEventListener("pointerleave", () => { if (document.activeElement !== area) rest(); });
  area.addEventListener("focus", () => { if (area.matches(":focus-visible")) show(at); });
  area.addEventListener("blur", rest);
  area.addEventListener("keydown", (event) => {
    if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    show(moves[event.key]());
  });
}

for (const plot of all(".plot")) readable(plot);
