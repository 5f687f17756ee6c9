// The list of classes with their shares, largest first; pressing one shows it alone.

export const percent = (share) =>
  share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;

/** Fills `list`; `onChoice` gets the Set of pressed indices whenever it changes. */
export function fillLegend(list, classes, onChoice) {
  const chosen = new Set();
  const order = classes.map((_, index) => index).sort((a, b) => classes[b].share - classes[a].share);
  const press = (button, index) => {
    if (!chosen.delete(index)) chosen.add(index);
    button.setAttribute("aria-pressed", String(chosen.has(index)));
    onChoice(chosen);
  };
  list.replaceChildren(...order.map((index) => entry(classes[index], (button) => press(button, index))));
}

function entry({ name, color, share }, onPress) {
  const item = document.createElement("li");
  item.classList.toggle("absent", share === 0);
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.style.setProperty("--color", `rgb(${color.join(" ")})`);
  button.style.setProperty("--share", `${100 * share}%`);
  const bar = part("bar");
  bar.append(document.createElement("i"));
  button.append(part("swatch"), part("name", name), part("share", percent(share)), bar);
  button.addEventListener("click", () => onPress(button));
  item.append(button);
  return item;
}

// Names come from files that others made: as text, never as markup.
function part(kind, text = "") {
  const span = document.createElement("span");
  span.className = kind;
  span.textContent = text;
  return span;
}
