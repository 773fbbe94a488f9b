// One field for each input of a model, and what stands in it as a value for the gateway.

import { el } from "./dom.js";
import { Failure } from "./api.js";

const isText = (tensor) => tensor.datatype === "BYTES";
const isFile = (tensor) => isText(tensor) && tensor.name === "image";
export const isSingle = (tensor) => tensor.dims.every((size) => size === 1);
const isWhole = (tensor) => /^U?INT/.test(tensor.datatype);

export function shape(tensor) {
  const kind = isFile(tensor) ? "file" : isText(tensor) ? "STRING" : tensor.datatype;
  const dims = isSingle(tensor) ? "" : ` [${tensor.dims.map((size) => (size < 0 ? "any" : size)).join(", ")}]`;
  return `${kind}${dims}${tensor.optional ? ", optional" : ""}`;
}

// { node, read(), write(value) }: read gives undefined for an optional input that is left empty.
export function field(tensor, { id, small = false }) {
  if (isFile(tensor)) return file(tensor, id);
  if (!isSingle(tensor)) return list(tensor, id);
  if (tensor.datatype === "BOOL") return tick(id);
  return isText(tensor) ? text(tensor, id, small) : number(tensor, id);
}

function text(tensor, id, small) {
  const node = el(small ? "input" : "textarea", { id, rows: small ? null : 4, spellcheck: "false" });
  const read = () => (node.value === "" && tensor.optional ? undefined : node.value);
  return { node, read, write: (value) => (node.value = value) };
}

function number(tensor, id) {
  const node = el("input", { id, type: "number", step: isWhole(tensor) ? 1 : "any", required: !tensor.optional });
  const read = () => (node.value === "" ? undefined : Number(node.value));
  // 61.89 as FP32 is 61.88999938964844 in full: seven digits say the same number.
  const write = (value) => (node.value = isWhole(tensor) ? value : Number(Number(value).toPrecision(7)));
  return { node, read, write };
}

function tick(id) {
  const node = el("input", { id, type: "checkbox" });
  return { node, read: () => node.checked, write: (value) => (node.checked = value) };
}

// Lists of numbers or texts: numbers with commas between, or JSON.
function list(tensor, id) {
  const node = el("textarea", { id, rows: 3, spellcheck: "false", placeholder: isText(tensor) ? '["one", "two"]' : "1, 2, 3" });
  const read = () => {
    const given = node.value.trim();
    if (!given && tensor.optional) return undefined;
    try {
      return JSON.parse(given.startsWith("[") ? given : `[${given}]`);
    } catch {
      throw new Failure(`${tensor.name} is no list: write numbers with commas between, or JSON such as [[1, 2], [3, 4]]`);
    }
  };
  return { node, read, write: (value) => (node.value = JSON.stringify(value)) };
}

function file(tensor, id) {
  const input = el("input", { id, type: "file", accept: "image/*" });
  const picture = el("img", { alt: "the chosen image", hidden: true });
  const show = () => {
    if (picture.src) URL.revokeObjectURL(picture.src);
    picture.hidden = !input.files.length;
    if (input.files.length) picture.src = URL.createObjectURL(input.files[0]);
  };
  const drop = (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) input.files = event.dataTransfer.files;
    show();
  };
  input.addEventListener("change", show);
  const hint = el("p", { class: "hint" }, "Choose a file, or drop one here.");
  const node = el("div", { class: "drop", ondragover: (event) => event.preventDefault(), ondrop: drop }, input, hint, picture);
  const read = () => {
    if (!input.files.length && !tensor.optional) throw new Failure(`Choose a file for ${tensor.name} first.`);
    return input.files[0];
  };
  return { node, read, write: () => {} };
}
