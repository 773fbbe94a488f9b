// A model's answer, drawn by what it is: labels and scores, entities, embeddings, else as it came.

import { el } from "./dom.js";

const SHOWN = 12;

// `labels` are the names of the scores, in their order, where the gateway knows them.
export function answer(outputs, labels) {
  return Object.entries(outputs)
    .sort(([a], [b]) => rank(a) - rank(b))
    .map(([name, value]) => el("div", { "data-output": name }, el("h4", {}, name), one(value, labels)));
}

// Rows of a batch, as a table.
export function table(rows) {
  const names = Object.keys(rows[0] ?? {});
  const heading = (name) => el("th", { scope: "col" }, name);
  const cell = (value) => el("td", {}, typeof value === "object" ? brief(value) : plain(value));
  const line = (row, index) => el("tr", {}, el("th", { scope: "row" }, index + 1), names.map((name) => cell(row[name])));
  return el(
    "div",
    { class: "scroll" },
    el("table", { class: "results" }, el("thead", {}, el("tr", {}, ["row", ...names].map(heading))), el("tbody", {}, rows.map(line))),
  );
}

const rank = (name) => ["label", "entities", "score", "scores"].indexOf(name) + 1 || 9;
const rounded = (value, digits) => (Number.isInteger(value) ? value : Number(value.toPrecision(digits)));
const plain = (value) => String(typeof value === "number" ? rounded(value, 5) : value);
const brief = (value) => JSON.stringify(value, (_, item) => (typeof item === "number" ? rounded(item, 4) : item)).slice(0, 120);
const isNumbers = (value) => Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === "number");
const isShares = (value) => value.length > 1 && value.length <= 1000 && value.every((item) => item >= 0 && item <= 1);

function one(value, labels) {
  if (isNumbers(value)) return isShares(value) ? bars(value, labels) : numbers(value);
  if (typeof value !== "string") return el("div", { class: "value" }, value !== null && typeof value === "object" ? brief(value) : plain(value));
  try {
    const rows = JSON.parse(value);
    if (Array.isArray(rows) && rows.length && typeof rows[0] === "object") return table(rows);
  } catch {
    // Text that is no JSON is shown as it is.
  }
  return el("div", { class: "value" }, value);
}

// Shares between 0 and 1, the largest first, each with a bar.
function bars(values, labels) {
  const name = (index) => (labels.length === values.length ? labels[index] : String(index));
  const sorted = values.map((value, index) => ({ value, name: name(index) })).sort((a, b) => b.value - a.value);
  const row = (share) => {
    const filled = el("span", {});
    filled.style.width = `${share.value * 100}%`;
    return [el("span", {}, share.name), el("span", { class: "bar", "aria-hidden": "true" }, filled), el("span", {}, share.value.toFixed(4))];
  };
  const rest = sorted.length - SHOWN;
  const shown = el("div", { class: "bars" }, sorted.slice(0, SHOWN).flatMap(row));
  return rest > 0 ? el("div", {}, shown, el("p", { class: "hint" }, `and ${rest} more`)) : shown;
}

function numbers(values) {
  const shown = values.slice(0, SHOWN).map(plain).join(", ");
  const more = values.length > SHOWN ? ", …" : "";
  return el("div", {}, el("p", { class: "hint" }, `${values.length} numbers`), el("code", {}, shown + more));
}
