// Frames with truth, prediction and what is wrong over them; the slider goes from one to the next.

const VOID = 255;
const FIRST = 200; // the prediction: what a report is opened for
const chosen = new Set(); // classes seen alone; all when empty
const shots = all("[data-shot]").map((figure) => ({ figure, ...page.shots[figure.dataset.shot] }));

/** Base64 of zlib-compressed bytes -> the bytes. */
async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const isShown = (index) => chosen.size === 0 || chosen.has(index);

/** Fills a canvas; `colorOf(place)` gives red, green, blue, or nothing for a pixel left out. */
function paint(canvas, [height, width], colorOf) {
  Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  for (let place = 0; place < width * height; place++) {
    const color = colorOf(place);
    if (!color) continue;
    image.data.set(color, 4 * place);
    image.data[4 * place + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function paintShot(shot) {
  const { figure, size, truth } = shot;
  const prediction = shot.predictions[view.model];
  const colors = page.classes.map((one) => rgb(one[view.palette]));
  const errors = Object.fromEntries(Object.entries(page.errors).map(([what, hex]) => [what, rgb(hex)]));
  const layer = (name) => figure.querySelector(`[data-layer="${name}"] canvas`);
  const hatch = rgb(page.hatch.color);
  const isStripe = (place) => ((place % size[1]) + Math.floor(place / size[1])) % page.hatch.period < page.hatch.period / 2;
  const unlabelled = chosen.size ? null : errors.void;
  const classColor = (index) => (index === VOID ? unlabelled : isShown(index) ? colors[index] : null);
  paint(layer("truth"), size, (place) => classColor(truth[place]));
  paint(layer("prediction"), size, (place) => classColor(prediction[place]));
  paint(layer("errors"), size, (place) => {
    const [is, found] = [truth[place], prediction[place]];
    if (chosen.size && !chosen.has(is) && !(is !== VOID && chosen.has(found))) return null;
    if (is === VOID) return isStripe(place) ? errors.void : hatch;
    return is === found ? errors.right : errors.wrong;
  });
  const canvas = layer("prediction");
  canvas.setAttribute("aria-label", canvas.dataset[`words-${view.model}`]);
}

function paintShots() {
  for (const shot of shots) if (shot.ready) paintShot(shot);
}

/** `value`: 0 is the frame, 100 the truth, 200 the prediction, 300 the errors; between, both. */
function slide({ figure }, value) {
  const covered = [0, 1, 2, 3].map((step) => (step ? Math.min(100, Math.max(0, value - 100 * (step - 1))) : 100));
  all(".layer", figure).forEach((layer, step) => {
    if (step) layer.style.clipPath = `inset(0 ${100 - covered[step]}% 0 ${covered[step + 1] ?? 0}%)`;
  });
  // The tag of a picture that is pushed aside goes with what is left of it.
  all(".tag", figure).forEach((tag, step) => {
    tag.style.left = `calc(${covered[step + 1] ?? 0}% + 8px)`;
  });
  const input = figure.querySelector("input");
  const [step, part] = [Math.floor(value / 100), value % 100];
  input.value = value;
  input.setAttribute("aria-valuetext", part ? `${page.stops[step]}, ${part} % covered by ${page.stops[step + 1]}` : page.stops[step]);
}

/** What truth and prediction say of the pixel under the pointer. */
function nameUnder(shot, event) {
  const under = shot.figure.querySelector(".under");
  const box = shot.figure.querySelector(".layers").getBoundingClientRect();
  const [height, width] = shot.size;
  const column = Math.floor(((event.clientX - box.left) / box.width) * width);
  const row = Math.floor(((event.clientY - box.top) / box.height) * height);
  const inside = shot.ready && column >= 0 && row >= 0 && column < width && row < height;
  under.hidden = !inside;
  if (!inside) return;
  const place = row * width + column;
  const [is, found] = [shot.truth[place], shot.predictions[view.model][place]];
  const name = (index) => page.classes[index]?.name ?? "not labelled";
  under.textContent = is === found ? name(is) : `${name(is)}, called ${name(found)}`;
}

function wire(shot) {
  const layers = shot.figure.querySelector(".layers");
  const input = shot.figure.querySelector("input");
  input.addEventListener("input", () => slide(shot, Number(input.value)));
  input.addEventListener("keydown", (event) => {
    const value = Number(input.value);
    const moves = {
      ArrowRight: Math.min(300, value + 10), ArrowUp: Math.min(300, value + 10),
      ArrowLeft: Math.max(0, value - 10), ArrowDown: Math.max(0, value - 10),
      PageUp: Math.min(300, 100 * (Math.floor(value / 100) + 1)), PageDown: Math.max(0, 100 * (Math.ceil(value / 100) - 1)),
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    slide(shot, moves[event.key]);
  });
  layers.addEventListener("pointermove", (event) => nameUnder(shot, event));
  layers.addEventListener("pointerdown", (event) => nameUnder(shot, event));
  layers.addEventListener("pointerleave", () => { layers.querySelector(".under").hidden = true; });
}

async function start() {
  for (const [what, hex] of Object.entries(page.errors)) {
    for (const key of all(`.key.${what}`)) key.style.background = hex;
  }
  for (const shot of shots) {
    wire(shot);
    shot.truth = await unpacked(shot.truth);
    shot.predictions = await Promise.all(shot.predictions.map(unpacked));
    shot.ready = true;
    paintShot(shot);
    slide(shot, FIRST);
  }
  document.documentElement.classList.add("painted");
}

for (const button of all("[data-filter]")) {
  button.addEventListener("click", () => {
    const index = Number(button.dataset.filter);
    if (flip(button)) chosen.add(index);
    else chosen.delete(index);
    document.getElementById("all-classes").hidden = chosen.size === 0;
    paintShots();
  });
}
document.getElementById("all-classes")?.addEventListener("click", () => {
  for (const button of all('[data-filter][aria-pressed="true"]')) button.setAttribute("aria-pressed", "false");
  chosen.clear();
  document.getElementById("all-classes").hidden = true;
  paintShots();
  document.querySelector("[data-filter]").focus();
});
oneOf(all("[data-all]"), (button) => {
  for (const shot of shots) slide(shot, 100 * Number(button.dataset.all));
});

start();
