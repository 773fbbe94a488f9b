// A conversation with a model that generates: tokens appear as they come, and a button stops them.

import { call, events, Failure } from "./api.js";
import { el } from "./dom.js";
import { curl, details } from "./forms.js";

export function chatForm(model) {
  const turns = []; // { role, content }
  let running = null; // the AbortController of the answer that is coming
  const talk = el("div", { class: "talk", role: "log", "aria-label": "conversation", tabindex: "0" });
  const prompt = el("textarea", { id: "chat-prompt", rows: 3, placeholder: "Enter sends, Shift and Enter makes a new line" });
  const send = el("button", { type: "submit", class: "primary" }, "Send");
  const stop = el("button", { type: "button", disabled: true, onclick: () => running?.abort() }, "Stop");
  const anew = el("button", { type: "button" }, "New conversation");
  const command = el("div", { class: "answer" });
  const settings = settingsFields(model);
  const form = el(
    "form",
    {},
    talk,
    el("label", { for: "chat-prompt" }, model.chat ? "Message" : "Text to continue"),
    prompt,
    el("div", { class: "actions" }, send, stop, anew),
    el("details", {}, el("summary", {}, "Settings"), settings.node),
    command,
  );
  anew.addEventListener("click", () => {
    running?.abort();
    turns.length = 0;
    talk.replaceChildren();
    command.replaceChildren();
    prompt.focus();
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const content = prompt.value;
    if (!content.trim() || running) return;
    prompt.value = "";
    running = new AbortController();
    [send.disabled, stop.disabled] = [true, false];
    turns.push({ role: "user", content });
    talk.append(bubble("user", content).node);
    const said = bubble("assistant", "");
    talk.append(said.node);
    const request = model.chat ? chatRequest(model, turns, settings.read()) : textRequest(model, content, settings.read());
    command.replaceChildren(details("The same with curl", curl(request.path, request.json)));
    try {
      await stream(request, said, running.signal, talk);
      turns.push({ role: "assistant", content: said.text() });
    } catch (error) {
      turns.pop();
      if (!prompt.value) prompt.value = content;
      said.node.append(el("p", { class: "failure", role: "alert" }, error instanceof Failure ? error.text : String(error)));
    } finally {
      said.done();
      running = null;
      [send.disabled, stop.disabled] = [false, true];
      talk.scrollTop = talk.scrollHeight;
      prompt.focus();
    }
  });
  const node = el("div", {}, form);
  return Object.assign(node, { leave: () => running?.abort(), refresh: () => {} });
}

function settingsFields(model) {
  const most = el("input", { id: "chat-most", type: "number", min: 1, step: 1, value: 128 });
  const warmth = el("input", { id: "chat-temperature", type: "number", min: 0, max: 2, step: 0.1, value: 0.7 });
  const system = el("textarea", { id: "chat-system", rows: 2 });
  const one = (field, label) => el("div", { class: field === system ? "wide" : null }, el("label", { for: field.id }, label), field);
  const shown = [one(most, "tokens at most"), one(warmth, "temperature")];
  if (model.chat) shown.push(one(system, "system message"));
  return {
    node: el("div", { class: "settings" }, shown),
    read: () => ({ max_tokens: Number(most.value) || 128, temperature: Number(warmth.value), system: system.value.trim() }),
  };
}

const STREAMED = { stream: true, stream_options: { include_usage: true } };

function chatRequest(model, turns, { system, ...sampling }) {
  const messages = system ? [{ role: "system", content: system }, ...turns] : [...turns];
  return { path: "v1/chat/completions", json: { model: model.name, messages, ...sampling, ...STREAMED } };
}

function textRequest(model, prompt, { system, ...sampling }) {
  return { path: "v1/completions", json: { model: model.name, prompt, ...sampling, ...STREAMED } };
}

function bubble(role, content) {
  const text = el("span", { class: "text" }, content);
  const figures = el("span", { class: "figures" });
  const who = el("span", { class: "who" }, role === "user" ? "you" : "model");
  const node = el("div", { class: `said ${role}${role === "user" ? "" : " streaming"}`, "aria-busy": role === "assistant" ? "true" : null }, who, text);
  if (role === "assistant") node.append(figures);
  const done = () => {
    node.classList.remove("streaming");
    node.removeAttribute("aria-busy"); // now it is read out, as a whole
  };
  return { node, figures, done, add: (piece) => text.append(piece), text: () => text.textContent };
}

async function stream({ path, json }, said, signal, talk) {
  const started = performance.now();
  let first = null;
  let reason = "";
  let usage = null;
  const tell = (end) => {
    const now = performance.now();
    const parts = [];
    if (first !== null) parts.push(`first token ${(first - started).toFixed(0)} ms`);
    if (usage) parts.push(`${usage.prompt_tokens} tokens in, ${usage.completion_tokens} out`);
    if (usage && first !== null && usage.completion_tokens > 1) {
      parts.push(`${(((usage.completion_tokens - 1) * 1000) / Math.max(1, now - first)).toFixed(0)} tokens/s`);
    }
    said.figures.textContent = [...parts, end].filter(Boolean).join(", ");
  };
  try {
    const response = await call(path, { method: "POST", json, signal });
    for await (const chunk of events(response)) {
      const choice = chunk.choices?.[0];
      const piece = choice?.delta?.content ?? choice?.text ?? "";
      if (piece) {
        first ??= performance.now();
        const atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 40;
        said.add(piece);
        if (atEnd) talk.scrollTop = talk.scrollHeight;
      }
      reason = choice?.finish_reason ?? reason;
      usage = chunk.usage ?? usage;
    }
    tell({ length: "cut at the token limit", stop: "", tool_calls: "called a tool" }[reason] ?? reason);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    tell("stopped");
  }
}
