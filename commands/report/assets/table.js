// Tables that sort: a button in each heading. Cells without a number come last.

/** The number that a cell begins with, or its text. */
function cellValue(row, column) {
  const text = (row.cells[column]?.firstChild?.textContent ?? "").trim().replaceAll("\u2212", "-");
  const number = parseFloat(text);
  return Number.isNaN(number) ? text : number;
}

/** Negative if the first comes before the second in rising order. */
function compareValues(first, second) {
  if (typeof first === "number" && typeof second === "number") return first - second;
  return String(first).localeCompare(String(second), "en", { numeric: true });
}

const isMissing = (value) => value === "" || value === "–";

/** Sorts the rows of a table, rising or falling. */
function sortTable(table, column, falling) {
  const rows = [...table.tBodies[0].rows];
  const keyed = rows.map((row) => ({ row, value: cellValue(row, column) }));
  keyed.sort((a, b) => {
    if (isMissing(a.value) || isMissing(b.value)) return isMissing(a.value) - isMissing(b.value);
    return (falling ? -1 : 1) * compareValues(a.value, b.value);
  });
  table.tBodies[0].append(...keyed.map((entry) => entry.row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.querySelectorAll("th:not([colspan])")) {
    const column = Number(heading.dataset.column ?? heading.cellIndex);
    const button = made("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const falling = heading.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      sortTable(table, column, falling);
    });
  }
}
