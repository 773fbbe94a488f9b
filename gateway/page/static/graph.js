// The pipeline as a picture: the request above, the answer below, the steps between, and the tensors on the edges.

import { svg } from "./dom.js";

const LETTER = 7.3; // px, the width of a letter of the monospaced font at 12 px
const LINE = 15;
const END_HEIGHT = 40;
const STEP_HEIGHT = 62;
const SPACE = 28;
const SHOWN = 6; // tensors on one edge before the rest is counted

// Nodes and edges of a model; pure. `find(name)` gives another model of the list, or nothing.
export function pipeline(model, find) {
  const request = { id: "request", label: "request", layer: 0 };
  const answer = { id: "answer", label: "answer", layer: 0 };
  const steps = (model.steps.length ? model.steps : [itself(model)]).map((step, index) => ({
    id: `step ${index}`,
    label: step.model,
    step,
    model: find(step.model),
    layer: 1,
  }));
  const writers = new Map(model.inputs.map((tensor) => [tensor.name, request]));
  const edges = new Map();
  const types = new Map([...model.inputs, ...model.outputs].map((tensor) => [tensor.name, tensor]));
  const connect = (tensor, to) => {
    const from = writers.get(tensor);
    if (!from) return;
    const id = `${from.id} > ${to.id}`;
    if (!edges.has(id)) edges.set(id, { from, to, tensors: [] });
    edges.get(id).tensors.push(describe(tensor, types.get(tensor)));
    to.layer = Math.max(to.layer, from.layer + 1);
  };
  for (const node of inOrder(steps, new Set(writers.keys()))) {
    for (const tensor of Object.values(node.step.inputs)) connect(tensor, node);
    for (const [name, tensor] of Object.entries(node.step.outputs)) {
      writers.set(tensor, node);
      const known = node.model?.outputs.find((output) => output.name === name);
      if (known && !types.has(tensor)) types.set(tensor, known);
    }
  }
  for (const tensor of model.outputs) connect(tensor.name, answer);
  answer.layer = Math.max(1, ...steps.map((node) => node.layer)) + 1;
  return { nodes: [request, ...steps, answer], edges: [...edges.values()] };
}

// A model that is no ensemble is one step of its own tensors.
function itself(model) {
  const same = (tensors) => Object.fromEntries(tensors.map((tensor) => [tensor.name, tensor.name]));
  return { model: model.name, version: "", inputs: same(model.inputs), outputs: same(model.outputs) };
}

// Steps after those whose tensors they read: a config may list them in any order.
function inOrder(steps, written) {
  const left = [...steps];
  const ordered = [];
  while (left.length) {
    const index = left.findIndex((node) => Object.values(node.step.inputs).every((tensor) => written.has(tensor)));
    const [node] = left.splice(Math.max(index, 0), 1);
    Object.values(node.step.outputs).forEach((tensor) => written.add(tensor));
    ordered.push(node);
  }
  return ordered;
}

function describe(name, tensor) {
  if (!tensor) return { text: name };
  const dims = tensor.dims.map((size) => (size < 0 ? "any" : size)).join("×");
  return { text: `${name} ${tensor.datatype.replace("BYTES", "STRING")}[${dims}]`, optional: tensor.optional };
}

// What is written beside an edge: its tensors, the optional ones and the end of a long list only counted.
function lines(edge) {
  const needed = edge.tensors.filter((tensor) => !tensor.optional).map((tensor) => tensor.text);
  const optional = edge.tensors.length - needed.length;
  const shown = needed.length > SHOWN ? [...needed.slice(0, SHOWN - 1), `and ${needed.length - SHOWN + 1} more`] : needed;
  return optional ? [...shown, `${optional} optional`] : shown;
}
const widest = (texts) => Math.max(0, ...texts.map((text) => text.length)) * LETTER;
const nodeWidth = (node) => Math.max(node.step ? 178 : 110, (node.label.length + 2) * LETTER + 16);
const nodeHeight = (node) => (node.step ? STEP_HEIGHT : END_HEIGHT);

// Draw it: a layer below the other, each step below those whose tensors it reads.
export function draw(model, find) {
  const { nodes, edges } = pipeline(model, find);
  const layers = [];
  for (const node of nodes) (layers[node.layer] ??= []).push(node);
  const direct = edges.filter((edge) => edge.to.layer === edge.from.layer + 1);
  const jumps = edges.filter((edge) => edge.to.layer > edge.from.layer + 1);
  const total = Math.max(...layers.map((layer) => spread(layer, direct)));
  let y = 1;
  layers.forEach((layer, index) => {
    const between = direct.filter((edge) => edge.to.layer === index);
    y += index ? Math.max(1, ...between.map((edge) => lines(edge).length)) * LINE + SPACE : 0;
    y += between.length > 1 ? SPACE / 2 : 0;
    let x = (total - spread(layer, direct)) / 2 + 1; // a line is drawn to both sides of its place
    for (const node of layer) {
      const width = slot(node, direct);
      Object.assign(node, { x: x + width / 2, y, width: nodeWidth(node) });
      x += width + SPACE;
    }
    y += Math.max(...layer.map(nodeHeight));
  });
  const right = Math.max(total, ...nodes.map((node) => node.x + node.width / 2));
  const labelled = direct.map((edge) => labelX(edge, direct) + 8 + widest(lines(edge)));
  let width = Math.max(right, ...labelled) + 2;
  for (const edge of jumps) {
    edge.lane = width + 14;
    width = edge.lane + 10 + widest(lines(edge));
  }
  const outermost = (node) => layers[node.layer].at(-1) === node;
  const described = ({ from, to, tensors }) => `${from.label} to ${to.label}: ${tensors.map(({ text }) => text).join(", ")}`;
  return svg(
    "svg",
    { class: "graph", viewBox: `0 0 ${Math.ceil(width)} ${Math.ceil(y + 1)}`, role: "group", width: Math.ceil(width) },
    svg("title", {}, `Pipeline of ${model.name}`),
    svg("desc", {}, edges.map(described).join("; ")),
    arrowhead(),
    [...direct.map(line), ...jumps.map((edge) => around(edge, outermost))],
    [...direct.map((edge) => beside(edge, direct)), ...jumps.map(besideLane)],
    nodes.map((node) => box(node, model)),
  );
}

// The room that a node takes in its layer: a label beside its edge may be wider than it is.
function slot(node, direct) {
  const beside = direct.filter((edge) => edge.to === node || edge.from === node);
  return Math.max(nodeWidth(node), ...beside.map((edge) => widest(lines(edge)) + 24));
}
const spread = (layer, direct) =>
  layer.reduce((sum, node) => sum + slot(node, direct), 0) + SPACE * (layer.length - 1);

// Labels stand where edges do not meet: by the writer where several lead to one reader, else by the reader.
const meets = (edge, direct) => direct.filter((other) => other.to === edge.to).length > 1;
const labelX = (edge, direct) => (meets(edge, direct) ? edge.from.x : edge.to.x);

function line({ from, to }) {
  const [top, bottom] = [from.y + nodeHeight(from), to.y - 2];
  const bend = (bottom - top) / 2;
  return arrow(`M${from.x} ${top} C${from.x} ${top + bend} ${to.x} ${bottom - bend} ${to.x} ${bottom}`);
}

function beside(edge, direct) {
  const texts = lines(edge);
  const middle = (edge.from.y + nodeHeight(edge.from) + edge.to.y - 2) / 2;
  return label(texts, labelX(edge, direct) + 8, middle - ((texts.length - 1) * LINE) / 2 + 3);
}

// An edge that passes by a layer runs down a lane of its own at the right; above and below of those it would cross.
function around({ from, to, lane }, outermost) {
  const [left, right] = [from.x + from.width / 2, to.x + to.width / 2];
  const [below, above] = [from.y + nodeHeight(from), to.y];
  const out = outermost(from) ? `M${left} ${below - 14} H${lane}` : `M${left - 14} ${below} v10 H${lane}`;
  const back = outermost(to) ? `V${above + 14} H${right + 2}` : `V${above - 12} H${right - 14} V${above - 2}`;
  return arrow(`${out} ${back}`);
}

function besideLane(edge) {
  const texts = lines(edge);
  const middle = (edge.from.y + nodeHeight(edge.from) + edge.to.y) / 2;
  return label(texts, edge.lane + 8, middle - ((texts.length - 1) * LINE) / 2);
}

const arrow = (path) => svg("path", { class: "edge", d: path, "marker-end": "url(#arrowhead)" });
const label = (texts, x, y) =>
  svg("text", { class: "tensors", x, y }, texts.map((text, index) => svg("tspan", { x, dy: index ? LINE : 0 }, text)));

function arrowhead() {
  const shape = { id: "arrowhead", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8 };
  return svg("defs", {}, svg("marker", { ...shape, orient: "auto" }, svg("path", { d: "M0 0 L8 4 L0 8 Z" })));
}

function box(node, model) {
  const end = !node.step;
  const height = nodeHeight(node);
  const shape = { x: node.x - node.width / 2, y: node.y, width: node.width, height, rx: end ? height / 2 : 8 };
  const name = svg("text", { x: node.x, y: node.y + (end ? 24 : 20), class: "name" }, node.label);
  if (end) return svg("g", { class: "node end" }, svg("rect", shape), name);
  const shown = node.model ?? (node.label === model.name ? model : undefined);
  const version = Number(node.step.version) > 0 ? node.step.version : (shown?.served ?? "");
  const state = shown?.state ?? "unknown";
  const about = [version ? `version ${version}` : "", state].filter(Boolean).join(", ");
  const group = svg(
    "g",
    { class: `node ${state}` },
    svg("rect", shape),
    name,
    svg("text", { x: node.x, y: node.y + 37, class: "small" }, about),
    svg("text", { x: node.x, y: node.y + 53, class: "small time", "data-time-of": node.label }),
  );
  return node.model && node.label !== model.name ? svg("a", { href: `#/${encodeURIComponent(node.label)}` }, group) : group;
}

// Write beside each step how long it takes now: `time(name)` gives { compute, queue } in ms, or nothing.
export function showTimes(graph, time) {
  for (const place of graph.querySelectorAll("[data-time-of]")) {
    const found = time(place.dataset.timeOf);
    const ms = (value) => (value < 10 ? value.toFixed(2) : value.toFixed(0));
    place.textContent = found ? `${ms(found.compute)} ms, waited ${ms(found.queue)} ms` : "no request yet";
  }
}
