// The page: which model is looked at, and keeping what is shown true while servers change.

import { Failure, key, read } from "./api.js";
import { chatForm } from "./chat.js";
import { at, el } from "./dom.js";
import { tryForm } from "./forms.js";
import { draw, showTimes } from "./graph.js";
import { figures, History, short } from "./live.js";

const EVERY_S = 2;

const history = new History();
let models = new Map();
let locked = false; // a key is needed: asking without one again and again would only fill logs
let shown = null; // { name, form, formOf, graphOf, headOf, head, pipeline, live }

// The model in the address, #/NAME; other fragments, such as the skip link's, leave the choice as it is.
let chosen = "";
function chosenName() {
  if (location.hash.startsWith("#/")) chosen = decodeURIComponent(location.hash.slice(2));
  return chosen;
}

async function look() {
  try {
    const [listed, live] = await Promise.all([read("page/models"), read("page/live")]);
    // While no server answers, what was last known stays there to be read.
    const known = listed.servers_ready ? listed.models : [...models.values()].map(outOfReach);
    models = new Map(known.map((model) => [model.name, model]));
    history.add(live);
    trouble(listed.servers_ready ? "" : "No Triton server answers now. Models come back when one does.");
    summarize(listed);
    showList();
    showDetail();
  } catch (error) {
    if (error.status === 401 || error.status === 403) askForKey(error);
    else trouble(error instanceof Failure ? error.text : String(error));
    if (!models.size) at("summary").textContent = "";
  }
}

const outOfReach = (model) => ({
  ...model,
  state: "unavailable",
  versions: model.versions.map((one) => ({ ...one, state: "UNAVAILABLE", reason: "no server answers" })),
});

let wake = () => {};
document.addEventListener("visibilitychange", () => wake());

async function keepLooking() {
  for (;;) {
    if (!document.hidden && !locked) await look();
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, EVERY_S * 1000);
    });
  }
}

function trouble(text, kind = "failure") {
  const place = at("trouble");
  if (place.textContent === text) return; // an alert is read out each time it changes
  place.className = kind;
  place.textContent = text;
  place.hidden = !text;
}

function summarize({ servers_ready: ready, servers }) {
  const open = [...models.values()].filter((model) => !model.part_of.length);
  const able = open.filter((model) => model.state === "ready").length;
  const rate = open.reduce((sum, model) => sum + (history.now(model.name)?.rate ?? 0), 0);
  const text = `${able} of ${open.length} models ready, ${ready} of ${servers} servers`;
  const place = at("summary");
  if (place.dataset.text !== text) place.replaceChildren(text, el("span", { "aria-hidden": "true" }));
  place.dataset.text = text;
  place.lastChild.textContent = rate ? `, ${short(rate)} requests/s` : "";
}

function showList() {
  const parts = at("show-parts").checked;
  const listed = [...models.values()].filter((model) => parts || !model.part_of.length || model.name === chosenName());
  at("parts").hidden = ![...models.values()].some((model) => model.part_of.length);
  const list = at("models");
  const signature = JSON.stringify(listed.map((model) => [model.name, model.kind, model.state, model.served]));
  if (list.dataset.signature !== signature) {
    list.dataset.signature = signature;
    list.replaceChildren(...listed.map(listItem));
    if (!listed.length) list.append(el("li", { class: "hint" }, "No models are loaded."));
  }
  for (const link of list.querySelectorAll("a")) {
    const now = history.now(link.dataset.model);
    link.querySelector(".rate").textContent = now?.rate ? `${short(now.rate)}/s` : "";
    if (link.dataset.model === chosenName()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function listItem(model) {
  const state = el("span", { class: `state ${model.state}` }, model.state);
  const about = [model.kind, model.served ? `v${model.served}` : ""].filter(Boolean).join(", ");
  return el(
    "li",
    {},
    el(
      "a",
      { href: `#/${encodeURIComponent(model.name)}`, "data-model": model.name },
      el("strong", {}, model.name),
      el("span", { class: "rate" }),
      el("small", {}, state, about ? ` · ${about}` : ""),
    ),
  );
}

function showDetail() {
  const place = at("detail");
  const name = chosenName();
  const model = models.get(name);
  if (!model) {
    shown?.form?.leave?.();
    shown = null;
    const first = [...models.values()].find((one) => !one.part_of.length);
    if (!name && first) location.replace(`#/${encodeURIComponent(first.name)}`);
    else place.replaceChildren(el("section", {}, el("p", {}, name ? `No server knows a model ${name}.` : "No models yet: `conch export` makes them.")));
    return;
  }
  if (shown?.name !== name || shown.known !== Boolean(model.kind)) open(model);
  refresh(model);
}

function open(model) {
  shown?.form?.leave?.();
  document.title = `${model.name} · conch`;
  const known = Boolean(model.kind); // of a model that is not ready nothing is known but its state
  shown = {
    name: model.name,
    known,
    head: el("section", { class: "head" }),
    live: el("div", {}),
    pipeline: el("div", { class: "scroll" }),
    form: el("div", {}),
  };
  if (!known) {
    at("detail").replaceChildren(shown.head);
    return;
  }
  at("detail").replaceChildren(
    shown.head,
    el("section", { class: "try", "aria-label": "try" }, el("h3", {}, "Try it"), shown.form),
    el(
      "div",
      { class: "side" },
      el("section", { class: "pipeline", "aria-label": "pipeline" }, el("h3", {}, "Pipeline"), shown.pipeline),
      el("section", { class: "live", "aria-label": "live" }, el("h3", {}, "Live"), shown.live),
    ),
  );
}

// Redraw what changed, and leave what somebody is typing into alone.
function refresh(model) {
  const find = (name) => models.get(name);
  const head = JSON.stringify([model.versions, model.state, model.kind, model.part_of]);
  if (shown.headOf !== head) shown.head.replaceChildren(...headOf(model));
  shown.headOf = head;
  if (!shown.known) return;
  const members = model.steps.map((step) => find(step.model));
  const graph = JSON.stringify([model.steps, model.inputs, model.outputs, model.served, model.state, members.map((one) => [one?.state, one?.served])]);
  if (shown.graphOf !== graph) shown.pipeline.replaceChildren(draw(model, find));
  shown.graphOf = graph;
  showTimes(shown.pipeline, history.time);
  const form = JSON.stringify([model.inputs, model.kind, model.decoupled, model.chat]);
  if (shown.formOf !== form) {
    const made = model.kind === "generate" ? chatForm(model) : tryForm(model);
    shown.form.replaceWith(made);
    Object.assign(shown, { form: made, formOf: form });
  }
  shown.form.refresh?.(model);
  shown.live.replaceChildren(...figures(history, model, EVERY_S));
}

function headOf(model) {
  const batches = model.max_batch_size ? `batches of up to ${model.max_batch_size}` : "no batching";
  const about = model.kind ? [model.kind, model.backend, batches] : ["It answers no requests now"];
  const owners = model.part_of.map((name) => el("a", { href: `#/${encodeURIComponent(name)}` }, name));
  const row = (one) =>
    el(
      "tr",
      {},
      el("td", {}, one.version || "none"),
      el("td", {}, el("span", { class: `state ${one.state.toLowerCase() || "unavailable"}` }, one.state.toLowerCase() || "never loaded")),
      el("td", {}, one.version === model.served && one.state === "READY" ? "answers by default" : one.reason),
    );
  const headings = ["version", "state", "note"].map((name) => el("th", { scope: "col" }, name));
  return [
    el("h2", {}, model.name),
    el("span", { class: `state ${model.state}` }, model.state),
    el("p", { class: "hint" }, about.filter(Boolean).join(", "), owners.length ? ["; a part of ", ...owners] : null),
    el("table", { class: "versions" }, el("thead", {}, el("tr", {}, headings)), el("tbody", {}, model.versions.map(row))),
  ];
}

function showKeyForm(open) {
  at("key-form").hidden = !open;
  at("key-button").setAttribute("aria-expanded", String(open));
}

function askForKey(error) {
  locked = true;
  models = new Map();
  if (key.get()) trouble(error.text);
  else trouble("This gateway asks for an API key: enter yours to see its models.", "notice");
  showKeyForm(true);
  if (document.activeElement === document.body) at("key").focus();
}

at("key-button").addEventListener("click", () => {
  showKeyForm(at("key-form").hidden);
  if (!at("key-form").hidden) at("key").focus();
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(at("key").value.trim());
  at("key").value = "";
  showKeyForm(false);
  locked = false;
  look();
});
at("key-forget").addEventListener("click", () => {
  key.set("");
  shown = null;
  at("detail").replaceChildren();
  at("models").replaceChildren();
  delete at("models").dataset.signature;
  locked = false;
  look();
});
at("show-parts").addEventListener("change", showList);
addEventListener("hashchange", () => {
  showList();
  showDetail();
  at("detail").focus({ preventScroll: true });
});
keepLooking();
