// A form to try a model, made from its inputs; one row, or a table of rows.

import { call, Failure, key, read } from "./api.js";
import { el } from "./dom.js";
import { field, isSingle, shape } from "./fields.js";
import { answer, table } from "./results.js";

export function tryForm(model) {
  return model.decoupled ? streamsOnly() : rowsForm(model);
}

const streamsOnly = () =>
  el("p", { class: "hint" }, "This model answers in a stream of tensors: ask it over gRPC, or with `conch infer --stream`.");

function rowsForm(model) {
  const asTable = model.kind === "table" && model.inputs.length > 1 && model.inputs.every(isSingle);
  const inputs = asTable ? grid(model) : single(model);
  const version = el("select", { id: "try-version" });
  let current = model;
  const refresh = (now) => {
    current = now;
    const ready = now.versions.filter((one) => one.state === "READY").map((one) => one.version);
    if (version.dataset.ready === ready.join()) return; // it may be open
    version.dataset.ready = ready.join();
    const chosen = version.value;
    version.replaceChildren(el("option", { value: "" }, "latest"), ...ready.map((name) => el("option", { value: name }, name)));
    version.value = ready.includes(chosen) ? chosen : "";
  };
  refresh(model);
  const result = el("div", { class: "answer", "aria-live": "polite" });
  const ask = el("button", { type: "submit", class: "primary" }, "Ask");
  const example = el("button", { type: "button", hidden: true }, "Example");
  example.addEventListener("click", () => inputs.write(JSON.parse(example.dataset.row)));
  read(`page/models/${encodeURIComponent(model.name)}/example`)
    .then(({ row }) => {
      example.dataset.row = JSON.stringify(row);
      example.hidden = !row;
    })
    .catch(() => {}); // a form without one is a form
  const form = el(
    "form",
    { novalidate: true },
    inputs.node,
    el("div", { class: "actions" }, ask, example, inputs.add, el("label", {}, "version ", version)),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    ask.disabled = true;
    try {
      result.replaceChildren(...(await asked(current, inputs.read(), version.value)));
    } catch (error) {
      result.replaceChildren(el("p", { class: "failure", role: "alert" }, error instanceof Failure ? error.text : String(error)));
    } finally {
      ask.disabled = false;
    }
  });
  const node = el("div", {}, form, result);
  return Object.assign(node, { refresh });
}

const labelled = (tensor, id, options) => {
  const made = field(tensor, { id, ...options });
  const label = el("label", { for: id }, tensor.name, " ", el("span", { class: "hint" }, shape(tensor)));
  return { tensor, made, node: el("div", {}, label, made.node) };
};
const writeAll = (fields, row) => fields.forEach(({ tensor, made }) => tensor.name in row && made.write(row[tensor.name]));

// One field below the other.
function single(model) {
  const fields = model.inputs.map((tensor) => labelled(tensor, `try-${tensor.name}`));
  return {
    node: el("div", { class: "fields" }, fields.map((one) => one.node)),
    read: () => [rowOf(fields)],
    write: (row) => writeAll(fields, row),
  };
}

// A group of small fields for each row.
function grid(model) {
  const rows = [];
  const node = el("div", { class: "fields" });
  const append = (values) => {
    const number = rows.length + 1;
    const fields = model.inputs.map((tensor) => labelled(tensor, `try-${tensor.name}-${number}`, { small: true }));
    rows.push(fields);
    node.append(el("fieldset", { class: "row" }, el("legend", {}, `row ${number}`), fields.map((one) => one.node)));
    writeAll(fields, values);
  };
  append({});
  return {
    node,
    add: model.max_batch_size ? el("button", { type: "button", onclick: () => append(rowOf(rows.at(-1))) }, "Add a row") : null,
    read: () => rows.map(rowOf),
    write: (row) => writeAll(rows.at(-1), row),
  };
}

function rowOf(fields) {
  const row = {};
  for (const { tensor, made } of fields) {
    const value = made.read();
    if (value !== undefined) row[tensor.name] = value;
  }
  return row;
}

async function asked(model, rows, version) {
  const many = rows.length > 1;
  const path = `predict/${encodeURIComponent(model.name)}${many ? "/batch" : ""}`;
  const json = many ? { rows } : rows[0];
  const files = Object.values(rows[0]).some((value) => value instanceof File);
  const headers = version ? { "X-Model-Version": version } : {};
  const started = performance.now();
  const response = await call(path, { method: "POST", headers, ...(files ? { body: formOf(rows[0]) } : { json }) });
  const answered = await response.json();
  const took = performance.now() - started;
  const who = `${response.headers.get("X-Model-Name") ?? model.name}, version ${response.headers.get("X-Model-Version") ?? "?"}`;
  return [
    ...(many ? [table(answered.rows)] : answer(answered, model.labels)),
    el("p", { class: "hint" }, `${who}; ${took.toFixed(took < 10 ? 1 : 0)} ms from here`),
    details("The answer as JSON", JSON.stringify(answered, null, 1).slice(0, 20000)),
    details("The same with curl", curl(path, files ? null : json, rows[0], headers)),
  ];
}

function formOf(row) {
  const form = new FormData();
  for (const [name, value] of Object.entries(row)) {
    form.append(name, value instanceof File || typeof value === "string" ? value : JSON.stringify(value));
  }
  return form;
}

export const details = (title, text) => el("details", {}, el("summary", {}, title), el("pre", {}, text));

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function curl(path, json, row = {}, headers = {}) {
  const parts = [`curl ${new URL(path, location.href)}`];
  if (key.get()) parts.push('-H "Authorization: Bearer $CONCH_API_KEY"');
  for (const [name, value] of Object.entries(headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (json) parts.push(`-H 'Content-Type: application/json'`, `-d ${quoted(JSON.stringify(json))}`);
  else for (const [name, value] of Object.entries(row)) parts.push(`-F ${quoted(`${name}=${value instanceof File ? `@${value.name}` : value}`)}`);
  return parts.join(" \\\n  ");
}
