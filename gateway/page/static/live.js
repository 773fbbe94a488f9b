// Throughput and latency, from the growth of the gateway's counts between two looks.

import { el, svg } from "./dom.js";

const KEPT = 60; // looks
const WIDTH = 300;
const HEIGHT = 64;

// A latency that `share` of the answers were within, by the counts of a histogram's buckets; as Prometheus reckons it.
function quantile(share, bounds, counts) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  for (let i = 0; i < counts.length; i++) {
    if (seen + counts[i] >= share * total) {
      if (i >= bounds.length) return bounds[bounds.length - 1];
      const low = i ? bounds[i - 1] : 0;
      return low + ((bounds[i] - low) * (share * total - seen)) / counts[i];
    }
    seen += counts[i];
  }
  return bounds[bounds.length - 1];
}

// What a model did between two looks, from the growth of its counts.
function between(then, now, bounds, seconds) {
  const grown = (name) => now[name].map((count, i) => count - (then?.[name][i] ?? 0));
  const more = (name) => now[name] - (then?.[name] ?? 0);
  const ms = (share, buckets, sum) => {
    const counts = grown(buckets);
    const total = counts.reduce((all, count) => all + count, 0);
    if (!total) return null;
    // Of one or two requests a mean says more than a bucket does.
    return 1000 * (total <= 2 ? more(sum) / total : quantile(share, bounds, counts));
  };
  return {
    rate: more("answered") / seconds,
    tokens: more("output_tokens") / seconds,
    p50: ms(0.5, "buckets", "seconds"),
    p95: ms(0.95, "buckets", "seconds"),
    first: ms(0.5, "first_token_buckets", "first_token_seconds"),
  };
}

export class History {
  #last = null;
  #points = new Map();
  #times = new Map();

  // A look is what page/live answers; but for in_flight, its figures only grow.
  add(look) {
    const before = this.#last;
    this.#last = look;
    for (const [name, now] of Object.entries(look.triton)) {
      const then = before?.triton[name] ?? { requests: 0, queue_ms: 0, compute_ms: 0 };
      const requests = now.requests - then.requests;
      if (requests <= 0) continue; // what it took last stays there to be read
      const mean = (name) => (now[name] - then[name]) / requests;
      this.#times.set(name, { queue: mean("queue_ms"), compute: mean("compute_ms") });
    }
    if (!before || look.at_s <= before.at_s) return;
    for (const [name, now] of Object.entries(look.models)) {
      const then = before.models[name];
      if (then && now.answered < then.answered) continue; // the gateway was started again
      const point = between(then, now, look.bounds_s, look.at_s - before.at_s);
      this.#points.set(name, [...this.points(name), point].slice(-KEPT));
    }
  }

  points = (name) => this.#points.get(name) ?? [];
  now = (name) => this.points(name).at(-1);
  time = (name) => this.#times.get(name);
  totals = (name) => this.#last?.models[name];
}

export function short(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return `${(value / 1000).toFixed(1)}k`;
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(value ? 1 : 0);
}

const many = (count, word) => `${count.toLocaleString("en")} ${word}`;

// The figures and curves of one model.
export function figures(history, model, everySeconds) {
  const points = history.points(model.name);
  const now = history.now(model.name);
  const totals = history.totals(model.name);
  const generates = model.kind === "generate";
  const latest = (title, name) => {
    const known = points.findLast((point) => point[name] !== null);
    return tile(title, short(known?.[name]), known && known !== now ? "old" : null);
  };
  const tiles = [
    tile("requests/s", short(now?.rate ?? 0)),
    latest("p50, ms", "p50"),
    latest("p95, ms", "p95"),
    tile("in flight", String(totals?.in_flight ?? 0)),
    generates ? [tile("tokens/s", short(now?.tokens ?? 0)), latest("first token p50, ms", "first")] : null,
  ];
  const span = Math.round((KEPT * everySeconds) / 60);
  return [
    el("dl", { class: "tiles" }, tiles.flat()),
    el(
      "div",
      { class: "curves" },
      curve("requests/s", points, ["rate"], span),
      curve("latency, ms", points, ["p50", "p95"], span),
      generates ? curve("tokens/s", points, ["tokens"], span) : null,
    ),
    el("p", { class: "hint" }, sinceStart(totals)),
  ];
}

function sinceStart(totals) {
  if (!totals) return "Nobody has asked this model through this gateway yet.";
  const parts = [many(totals.answered, "answered"), many(totals.failed, "failed"), many(totals.refused, "refused")];
  if (totals.cache_hits) parts.push(many(totals.cache_hits, "from the cache"));
  return `Since the gateway started: ${parts.join(", ")}.`;
}

// What is old is of the last requests that there were.
const tile = (name, value, age = null) => el("div", {}, el("dt", {}, name), el("dd", { class: age }, value));

function curve(title, points, names, span) {
  const values = points.flatMap((point) => names.map((name) => point[name])).filter((value) => value !== null);
  const top = Math.max(1e-9, ...values);
  const place = (value, index) => {
    const x = WIDTH - 3 - ((points.length - 1 - index) * (WIDTH - 6)) / (KEPT - 1);
    return `${x.toFixed(1)} ${(HEIGHT - 2 - (value / top) * (HEIGHT - 8)).toFixed(1)}`;
  };
  const lines = names.map((name) => {
    let path = "";
    let pen = "M";
    points.forEach((point, index) => {
      if (point[name] === null) pen = "M";
      else [path, pen] = [`${path}${pen}${place(point[name], index)}`, "L"];
    });
    // A lone point is a line of no length, which round ends make a dot.
    return svg("path", { class: name, d: path.replace(/M([\d.]+ [\d.]+)(?=M|$)/g, "M$1L$1") });
  });
  const words = values.length ? `${title}, at most ${short(top)} in the last minutes` : `${title}: nothing yet`;
  return el(
    "figure",
    {},
    el("figcaption", {}, title, names.length > 1 ? names.map((name) => el("span", { class: `legend ${name}` }, name)) : null),
    svg("svg", { class: "curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": words }, lines),
    el("div", { class: "axis" }, el("span", {}, `${span} min ago`), el("span", {}, values.some(Boolean) ? `top ${short(top)}` : ""), el("span", {}, "now")),
  );
}
