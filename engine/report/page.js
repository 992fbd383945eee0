"use strict";
// Sorting, filters, the details of runs, and figures at full size. Texts from results only ever become text nodes.

const collator = new Intl.Collator("en", { numeric: true });
let runs = null;

/** The embedded runs, parsed when first needed. */
function data() {
  runs ??= JSON.parse(document.getElementById("runs").textContent);
  return runs;
}

/** An element with attributes; strings among the children become text. */
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A number with at most so many digits after the point; a dash for none. */
function shown(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en-US", { maximumFractionDigits: digits });
}

function fixed(value, digits = 4) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

/** A metric in points; a loss as it is, and ECE with three digits. */
function score(metric, value) {
  if (metric === "ECE" && value) return value.toPrecision(3);
  if (data().plain.includes(metric) || value === null || value === undefined) return fixed(value);
  return fixed(100 * value, 2);
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

// ---------------------------------------------------------------- sorting

/** What a cell is sorted by: a number, a text, or null for nothing. */
function sortKey(cell) {
  const nodes = [...(cell?.childNodes ?? [])].filter((node) => node.nodeName !== "SUP"); // a footnote is no digit
  const text = (cell?.dataset.value ?? nodes.map((node) => node.textContent).join("")).trim();
  if (text === "" || text === "–" || text === "-") return null;
  const number = /^[-+]?[\d.][\d.,]*(e[-+]?\d+)?(?=$|[\s±%*])/i.exec(text);
  return number ? Number(number[0].replaceAll(",", "")) : text;
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null); // nothing comes last either way
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * collator.compare(String(a), String(b));
}

/** Sort by a column: numbers largest first, texts from A, and the other way at the next click. */
function sortBy(table, column) {
  const headers = [...table.tHead.rows].at(-1).cells;
  const header = headers[column];
  const whole = table.classList.contains("runs"); // a row and its details stay together
  const units = [...(whole ? table.tBodies : table.tBodies[0].rows)];
  const keys = new Map(units.map((unit) => [unit, sortKey((whole ? unit.rows[0] : unit).cells[column])]));
  const numeric = [...keys.values()].every((key) => typeof key !== "string");
  const before = header.getAttribute("aria-sort");
  const order = before ? (before === "ascending" ? "descending" : "ascending") : numeric ? "descending" : "ascending";
  for (const other of headers) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  units.sort((a, b) => compare(keys.get(a), keys.get(b), sign));
  (whole ? table : table.tBodies[0]).append(...units);
}

/** The last header row gets buttons, unless cells span columns or rows there or below. */
function makeSortable(table) {
  const headers = [...(table.tHead?.rows ?? [])].at(-1)?.cells ?? [];
  const below = [...table.tBodies].flatMap((body) => [...body.rows]).flatMap((row) => [...row.cells]);
  if ([...headers, ...below].some((cell) => cell.colSpan > 1 || cell.rowSpan > 1)) return;
  [...headers].forEach((header, column) => {
    const button = make("button", { type: "button" }, ...header.childNodes);
    button.addEventListener("click", () => sortBy(table, column));
    header.append(button);
    if (below[column]?.tagName === "TH") header.classList.add("label"); // above names of rows
  });
}

// ---------------------------------------------------------------- filter

/** A box above a table: rows that lack one of its words are hidden. */
function addFilter(table) {
  const input = make("input", { type: "search", placeholder: table.dataset.filter, "aria-label": table.dataset.filter });
  const count = make("span", { class: "dim", "aria-live": "polite" });
  const bodies = [...table.tBodies];
  const texts = bodies.map((body) => body.textContent.toLowerCase());
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    bodies.forEach((body, i) => { body.hidden = !words.every((word) => texts[i].includes(word)); });
    const left = bodies.filter((body) => !body.hidden).length;
    count.textContent = `${left} of ${bodies.length} configurations`;
  };
  input.addEventListener("input", apply);
  table.parentElement.before(make("div", { class: "filter" }, input, count));
  apply();
}

// ---------------------------------------------------------------- details

/** A table from texts and elements; texts from the given column on are numbers. */
function grid(headers, rows, firstNumber = 0) {
  const left = headers.map((_, i) => i < firstNumber || rows.some((row) => row[i] instanceof Element));
  const kind = (column) => (left[column] ? {} : { class: "n" });
  const head = make("tr", {}, ...headers.map((text, i) => make("th", { scope: "col", ...kind(i) }, text)));
  const body = rows.map((row) => make("tr", {}, ...row.map((cell, i) => make("td", kind(i), cell))));
  return make("div", { class: "box" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

/** Shares of the experts as one bar; the numbers are in its label. Experts count from 1, as in the figures. */
function bar(shares) {
  const { colours } = data();
  const text = shares.map((share, expert) => `expert ${expert + 1} ${percent(share)}`).join(", ");
  const parts = shares.map((share, expert) => {
    const part = make("i", {});
    part.style.width = `${100 * share}%`;
    part.style.background = colours[expert % colours.length];
    return part;
  });
  return make("span", { class: "bar", role: "img", "aria-label": text, title: text }, ...parts);
}

function withNumbers(shares) {
  return make("span", { class: "shares" }, bar(shares), make("span", { class: "dim" }, shares.map(percent).join(" · ")));
}

/** One row per seed with what was measured. */
function seedsTable(all) {
  const metrics = [...new Set(all.flatMap((run) => ["test", "valid"].flatMap((split) => Object.keys(run.metrics[split]))))];
  const headers = ["Seed", ...["Test", "Valid"].flatMap((split) => metrics.map((metric) => `${split} ${metric}`)),
    "Parameters", "MFLOPs / sample", "Train samples/s", "Test samples/s", "Serving ms", "Peak MB", "Fit s", "Total s", "Device"];
  const rows = all.map((run) => [
    String(run.seed),
    ...["test", "valid"].flatMap((split) => metrics.map((metric) => score(metric, run.metrics[split][metric]))),
    shown(run.num_parameters), shown(run.flops_per_sample / 1e6, 3), shown(run.train_samples_per_s, 0),
    shown(run.test_samples_per_s, 0), shown(run.serving_ms, 1), shown(run.peak_memory_bytes && run.peak_memory_bytes / 1e6, 0),
    shown(run.seconds.fit, 1), shown(run.seconds.total, 1), run.device,
  ]);
  return grid(headers, rows);
}

/** Every evaluation during training, see embedded.py for the order of its parts. */
function stagesTable(run) {
  const branches = [...new Set(run.log.flatMap((entry) => Object.keys(entry[7])))];
  const headers = ["Stage", "Epoch", "Train loss", ...run.logged.map((metric) => `Valid ${metric}`), "Best", "Learning rate", "Samples/s",
    ...branches.flatMap((name) => [`Load of ${name} experts`, "Entropy", "Switch rate"])];
  const rows = run.log.map(([stage, epoch, loss, metrics, best, rate, speed, routing]) => [
    stage, shown(epoch), fixed(loss), ...metrics.map((value, i) => score(run.logged[i], value)), best ? "✓" : "", String(rate ?? "–"), shown(speed, 0),
    ...branches.flatMap((name) => {
      if (!routing[name]) return ["", "", ""];
      const [shares, entropy, switched] = routing[name];
      return [bar(shares), fixed(entropy, 3), fixed(switched, 3)];
    }),
  ]);
  return grid(headers, rows, 1);
}

/** A value of the routing report: dead experts, cosines between experts, their shares, or a number. */
function routingValue(key, value) {
  if (key === "dead") return value.map((expert) => expert + 1).join(", ") || "none";
  if (Array.isArray(value) && Array.isArray(value[0])) {
    const head = make("tr", {}, make("th", {}), ...value.map((_, i) => make("th", { scope: "col" }, String(i + 1))));
    const rows = value.map((row, i) => make("tr", {}, make("th", { scope: "row" }, String(i + 1)), ...row.map((x) => make("td", {}, fixed(x, 2)))));
    return make("table", { class: "cosines" }, head, ...rows);
  }
  return Array.isArray(value) ? withNumbers(value) : shown(value);
}

function routingTables(run) {
  return Object.entries(run.routing).map(([name, branch]) => {
    const rows = Object.entries(branch).filter(([, value]) => value !== null);
    return make("div", {}, make("h4", {}, `Routing on test: ${name} experts`),
      grid(["What", "Value"], rows.map(([key, value]) => [key.replaceAll("_", " "), routingValue(key, value)]), 2));
  });
}

function runDetails(run, open) {
  const text = (title, content) => make("div", {}, make("h4", {}, title), make("pre", { tabindex: "0" }, content));
  const details = make("details", open ? { open: "" } : {}, make("summary", {}, `Seed ${run.seed}`));
  const fill = () => {
    details.removeEventListener("toggle", fill);
    details.append(
      make("h4", {}, "Repeat it"), make("pre", {}, run.command),
      make("h4", {}, "Stages"), stagesTable(run),
      make("div", { class: "pair" }, ...routingTables(run)),
      make("div", { class: "pair" },
        text("Configuration", `seed: ${run.seed}\n${data().texts[run.config]}`),
        text("Versions", data().texts[run.versions])),
      make("p", { class: "dim" }, "Result: ", make("code", {}, run.file)),
    );
  };
  if (open) fill();
  else details.addEventListener("toggle", fill);
  return details;
}

/** Below an opened row, its runs; hidden when it is closed. */
function toggleRuns(body, details) {
  if (body.rows.length === 1) {
    const group = data().groups[Number(body.dataset.group)];
    const inside = make("div", { class: "inside" },
      make("p", {}, "Experiment ", make("code", {}, group.expid)),
      seedsTable(group.runs), ...group.runs.map((run, i) => runDetails(run, i === 0)));
    const cell = make("td", { colspan: body.rows[0].cells.length }, inside);
    body.append(make("tr", { class: "more" }, cell));
  }
  body.rows[1].hidden = !details.open;
}

// ---------------------------------------------------------------- figures

/** A figure becomes a button that shows it at full size; the next click, or Escape, closes it. */
function makeZoomable(image) {
  const button = make("button", { type: "button", class: "zoom", title: "Show at full size" });
  image.replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => {
    const close = make("button", { type: "button" }, "Close");
    const dialog = make("dialog", { "aria-label": image.alt }, close, image.cloneNode());
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  });
}

document.documentElement.classList.add("js");
for (const image of document.querySelectorAll("figure img")) makeZoomable(image);
for (const table of document.querySelectorAll("table.sortable, .fragment table")) makeSortable(table);
for (const table of document.querySelectorAll("table[data-filter]")) addFilter(table);
for (const body of document.querySelectorAll("tbody[data-group]")) {
  const details = body.querySelector("details");
  details.addEventListener("toggle", () => toggleRuns(body, details));
}
