// What the page knows, and the choices that hold for all of it: model, palette, train and val.

const page = JSON.parse(document.getElementById("page-data").textContent);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const view = { model: 0, palette: "color" };

document.documentElement.classList.add("scripted");

/** Of a group of buttons one is pressed; `onChoice` gets it, and is called when that changes. */
function oneOf(buttons, onChoice) {
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      onChoice(button);
    });
  }
}

/** Pressed or not; returns which. */
function flip(button) {
  const pressed = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(pressed));
  return pressed;
}

oneOf(all("[data-palette]"), (button) => {
  view.palette = button.dataset.palette;
  for (const rect of all("[data-class]")) rect.setAttribute("fill", page.classes[rect.dataset.class][view.palette]);
  paintShots();
});

oneOf(all("[data-show-model]"), (button) => {
  view.model = Number(button.dataset.showModel);
  for (const panel of all("[data-model]")) panel.hidden = Number(panel.dataset.model) !== view.model;
  paintShots();
});

for (const button of all("[data-toggle-split]")) {
  button.addEventListener("click", () => {
    const shown = flip(button);
    document.getElementById("curves").classList.toggle(`without-${button.dataset.toggleSplit}`, !shown);
  });
}

document.getElementById("class-curve")?.addEventListener("change", ({ target }) => {
  for (const plot of all("[data-curve]")) plot.hidden = plot.dataset.curve !== target.value;
});

// Which section is read: the last one whose head has passed under the bar.
const links = all("nav .links a");
function markSection() {
  const passed = links.filter((link) => document.querySelector(link.hash).getBoundingClientRect().top < 140);
  const here = passed.at(-1) ?? links[0];
  for (const link of links) {
    link.classList.toggle("here", link === here);
    if (link === here) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}
addEventListener("scroll", markSection, { passive: true });
markSection();

// On paper nothing can be unfolded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = all("details:not([open])").filter((one) => !one.querySelector(".tall"));
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});
