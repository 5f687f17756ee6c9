// Tables that sort by the column whose name is pressed, and what the per cent of a matrix are of.

const cellOf = (row, column) => row.children[column];

function keyOf(cell, kind) {
  if (kind === "text") return cell.textContent.trim();
  const value = cell.querySelector("data")?.value;
  return value ? Number(value) : NaN;
}

/** Rows without a value stay at the end, whichever way the others go. */
function compareKeys(a, b, sign) {
  if (typeof a === "string") return (a === "") - (b === "") || sign * a.localeCompare(b);
  return Number.isNaN(a) - Number.isNaN(b) || sign * (a - b);
}

function sortBy(table, head) {
  const column = [...head.parentNode.children].indexOf(head);
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of all("[aria-sort]", table)) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [keyOf(cellOf(row, column), head.dataset.sort), row]);
  rows.sort((a, b) => compareKeys(a[0], b[0], down ? -1 : 1));
  body.replaceChildren(...rows.map(([, row]) => row));
}

for (const table of all(".sortable")) {
  for (const head of all("th[data-sort]", table)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sortBy(table, head));
    head.replaceChildren(button);
  }
}

/** As `html_view.cell` has it. */
function shade(cell, total) {
  const share = total ? Number(cell.dataset.pixels) / total : 0;
  cell.textContent = share < 0.001 ? "" : share < 0.005 ? "<1" : (100 * share).toFixed(0);
  cell.className = `h${Math.round(10 * Math.sqrt(share))}`;
}

oneOf(all("[data-share]"), ({ dataset }) => {
  for (const said of all("[data-said]")) said.hidden = said.dataset.said !== dataset.share;
  for (const table of all(".matrix")) {
    const cells = [...table.tBodies[0].rows].map((row) => all("td", row));
    const lines = dataset.share === "row" ? cells : cells[0].map((_, i) => cells.map((row) => row[i]));
    for (const line of lines) {
      const total = line.reduce((sum, cell) => sum + Number(cell.dataset.pixels), 0);
      for (const cell of line) shade(cell, total);
    }
  }
});
