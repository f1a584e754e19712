"use strict";
// Everything on the page is there without this script. It adds: which algorithm to look at, light or dark, sorting.

function group(legend, choices, chosen, choose) {
  const fieldset = document.createElement("fieldset");
  const name = document.createElement("legend");
  name.textContent = legend;
  fieldset.append(name);
  const press = (value) => {
    for (const button of fieldset.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.value === value));
    choose(value);
  };
  for (const [value, text] of choices) {
    const button = document.createElement("button");
    button.type = "button";
    button.value = value;
    button.textContent = text;
    button.addEventListener("click", () => press(value));
    fieldset.append(button);
  }
  press(chosen);
  document.getElementById("controls").append(fieldset);
}

function sortable(table) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b);
  };
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const isNumeric = [...body.rows].some((row) => typeof key(row, column) === "number");
      const [first, second] = isNumeric ? ["descending", "ascending"] : ["ascending", "descending"];
      const direction = header.getAttribute("aria-sort") === first ? second : first;
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", direction);
      const sign = direction === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      const isEmpty = (value) => value === "" || value === "–";
      rows.sort(([a], [b]) => (isEmpty(a) || isEmpty(b) ? isEmpty(a) - isEmpty(b) : sign * compare(a, b)));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

const variants = [...document.querySelectorAll(".variant")];
const algorithms = [...new Set(variants.map((section) => section.dataset.algorithm))];
if (algorithms.length > 1)
  group("algorithm shown in the sections below", algorithms.map((name) => [name, name]), algorithms[0], (name) => {
    for (const section of variants) section.hidden = section.dataset.algorithm !== name;
  });
group("colours", [["auto", "as the system"], ["light", "light"], ["dark", "dark"]], "auto", (name) => {
  document.documentElement.dataset.theme = name;
});
const all = [...document.querySelectorAll("details")];
const unfold = document.createElement("button");
unfold.type = "button";
unfold.textContent = "unfold all";
unfold.addEventListener("click", () => {
  const isOpen = all.every((section) => section.open);
  for (const section of all) section.open = !isOpen;
  unfold.textContent = isOpen ? "unfold all" : "fold all";
});
document.getElementById("controls").append(unfold);
document.getElementById("controls").hidden = false;
document.querySelectorAll("#details table").forEach(sortable);
