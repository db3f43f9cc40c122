"use strict";
// No part of this page needs the script: without it tables keep their order and pictures lie side by side.
document.documentElement.classList.add("js");

function keyOf(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent.trim() : cell.dataset.value;
}

function compareRows(column, numeric, turn) {
  return (a, b) => {
    const [x, y] = [keyOf(a, column), keyOf(b, column)];
    if ((x === "") !== (y === "")) return x === "" ? 1 : -1; // what is not known comes last, either way
    return turn * (numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true }));
  };
}

function sortBy(table, header) {
  const numeric = header.dataset.sort === "number";
  const descending = header.getAttribute("aria-sort") ? header.getAttribute("aria-sort") === "ascending" : numeric;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].sort(compareRows(header.cellIndex, numeric, descending ? -1 : 1));
  table.tBodies[0].append(...rows);
}

function makeSortable(table) {
  for (const header of table.querySelectorAll("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sortBy(table, header));
  }
}

function makeFilters(table, tools) {
  const search = tools.querySelector("#pair-search");
  const split = tools.querySelector("#pair-split");
  const rows = [...table.tBodies[0].rows];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = !split || !split.value || row.dataset.split === split.value;
      row.hidden = !(fits && words.every((word) => texts.get(row).includes(word)));
      shown += row.hidden ? 0 : 1;
    }
    tools.querySelector("#pair-count").textContent = `${shown} of ${rows.length} pairs`;
  }
  search.addEventListener("input", filter);
  if (split) split.addEventListener("change", filter);
  tools.hidden = false;
  filter();
}

document.addEventListener("DOMContentLoaded", () => {
  const pairs = document.querySelector("#pair-table");
  for (const table of document.querySelectorAll("#pair-table, table.sortable")) makeSortable(table);
  if (pairs) makeFilters(pairs, document.querySelector("#pair-tools"));
});
