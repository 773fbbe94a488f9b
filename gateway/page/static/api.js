// Talks to the gateway. The key is kept in this tab's session storage and leaves it only as a request's header.

const KEY = "conch-api-key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

// A request that was refused or failed, in words for a person.
export class Failure extends Error {
  constructor(message, status = 0, requestId = "") {
    super(message);
    this.status = status;
    this.requestId = requestId;
  }

  get text() {
    const from = [this.status ? `status ${this.status}` : "", this.requestId ? `request ${this.requestId}` : ""];
    const where = from.filter(Boolean).join(", ");
    return where ? `${this.message}\n(${where})` : this.message;
  }
}

export async function call(path, { method = "GET", json, body, headers = {}, signal } = {}) {
  const secret = key.get();
  const sent = { ...headers };
  if (secret) sent.Authorization = `Bearer ${secret}`;
  if (json !== undefined) sent["Content-Type"] = "application/json";
  let response;
  try {
    const payload = json === undefined ? body : JSON.stringify(json);
    response = await fetch(path, { method, headers: sent, body: payload, signal, cache: "no-cache" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The gateway does not answer. It may be starting again, or the network is down.");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

export const read = async (path, options) => (await call(path, options)).json();

async function failure(response) {
  const text = await response.text();
  let message = "";
  try {
    message = JSON.parse(text).error?.message ?? "";
  } catch {
    message = text.slice(0, 300);
  }
  const wait = response.headers.get("Retry-After");
  if (response.status === 429 && wait) message += `\nTry again in ${wait} s.`;
  return new Failure(message || response.statusText, response.status, response.headers.get("X-Request-Id") ?? "");
}

// The JSON documents of a stream of server-sent events, as they come.
export async function* events(response) {
  const requestId = response.headers.get("X-Request-Id") ?? "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const blocks = held.split(/\r?\n\r?\n/);
    held = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      const data = lines.map((line) => line.slice(5).trim()).join("\n");
      if (!data) continue;
      if (data === "[DONE]") return;
      const document = JSON.parse(data);
      if (document.error) throw new Failure(document.error.message, 0, requestId);
      yield document;
    }
  }
}
