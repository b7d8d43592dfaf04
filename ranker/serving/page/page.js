// The page: pick a reader, see the ranking of the newest items and why. Item, user and model text is hostile: it only ever becomes
// text nodes (`el` below); nothing here parses HTML. No library, no build step.

const CANDIDATES = 100, SHOWN = 20, WEIGHTY = 3, DAY_MS = 86_400_000, LIVE_EVERY_MS = 3_000;
const $ = (id) => document.getElementById(id);
let clock = Date.now(); // the time of the data: now, or the newest event where a data set from the past is replayed
let turn = 0; // only the answer to the latest question is shown

/** An element with attributes and children; strings become text nodes. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

async function ask(path, body) {
  const init = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, init);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ? `got ${answer.error.got}; ${answer.error.todo}` : `HTTP ${response.status}`);
  return answer;
}

const many = (name, values) => values.map((value) => `${name}=${encodeURIComponent(value)}`).join("&");
const percent = (score) => `${(100 * score).toFixed(1)} %`;
const number = (value, digits = 0) => (value === null ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits }));

function age(ms) {
  const units = [[DAY_MS, "day"], [3_600_000, "hour"], [60_000, "minute"]];
  const [size, unit] = units.find(([size]) => ms >= size) ?? [60_000, "minute"];
  const n = Math.max(0, Math.floor(ms / size));
  return `${n} ${unit}${n === 1 ? "" : "s"}`;
}

function track(share) {
  const fill = el("span");
  fill.style.width = `${Math.round(100 * Math.min(1, Math.max(0, share)))}%`;
  return el("div", { class: "track", "aria-hidden": "true" }, fill);
}

function show(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

async function refreshAbout() {
  const about = await ask("/v1/about");
  const newest = about.live.newest_ms;
  clock = newest && Date.now() - newest > DAY_MS ? newest : Date.now();
  $("dataset").textContent = about.dataset ?? "";
  $("dataset").hidden = !about.dataset;
  $("simulated").hidden = !about.simulated;
  $("model").textContent = about.model ? `${about.model.backbone} · version ${about.model.version} · step ${about.model.step}` : "no model yet";
  const live = about.live;
  const figures = [
    ["rankings", number(live.rankings)], ["p50", `${number(live.p50_ms, 1)} ms`], ["p99", `${number(live.p99_ms, 1)} ms`],
    ["items", number(live.items)], ["readers", number(live.users)], ["vectors", number(live.vectors)],
  ];
  $("live").replaceChildren(...figures.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

async function refreshUsers() {
  const { users } = await ask("/v1/users?n=200");
  const select = $("users"), chosen = select.value;
  select.replaceChildren(...users.map((user) => el("option", { value: user }, user)));
  if (users.includes(chosen)) select.value = chosen;
  return users.length;
}

/** Everything that the view of one reader needs. */
async function read(user) {
  const { items: recent } = await ask(`/v1/items?recent=${CANDIDATES}`);
  if (recent.length === 0) return null;
  const explained = await ask("/v1/explain", { user, candidates: recent.map((one) => one.item) });
  const known = new Map(recent.map((one) => [one.item, one]));
  const old = explained.history.map((one) => one.item).filter((item) => !known.has(item));
  if (old.length > 0) for (const one of (await ask(`/v1/items?${many("ids", old)}`)).items) known.set(one.item, one);
  const items = explained.items.slice(0, SHOWN);
  const subjects = [`user:${user}`, ...items.map((one) => `item:${one.item}`)];
  const { knowledge } = await ask(`/v1/knowledge?${many("subject", subjects)}`);
  return { user, history: explained.history, items, n: explained.items.length, known, knowledge };
}

const titleOf = (view, item) => view.known.get(item)?.title || item;
const opinion = { true: "liked", false: "passed over", null: "seen" };

function source(made) {
  if (!made) return "no knowledge yet";
  const by = made.tier === "attributes" ? "from its own fields, no language model" : `${made.tier}, by ${made.model || made.backend}`;
  return `${by}, ${age(clock - made.as_of_ms)} old`;
}

function profile(view) {
  const made = view.knowledge[`user:${view.user}`];
  const children = [el("p", {}, made ? made.summary : "Nothing is known of this reader beyond the history."), el("p", { class: "note" }, `Knowledge: ${source(made)}`)];
  return children;
}

function historyLine(view, one) {
  return el("li", {}, titleOf(view, one.item), " ", el("span", { class: "note" }, opinion[one.liked]));
}

function factors(view, made) {
  const own = view.knowledge[`user:${view.user}`]?.factors ?? {}, its = made?.factors ?? {};
  const names = [...new Set([...Object.keys(its), ...Object.keys(own)])];
  if (names.length === 0) return el("p", { class: "note" }, "No factors yet: neither the reader nor the item has knowledge.");
  const rows = names.map((name) => el("tr", {}, el("th", { scope: "row" }, name),
    el("td", { "data-whose": "reader" }, own[name] ?? "–"), el("td", { "data-whose": "item" }, its[name] ?? "–")));
  const heads = ["Factor", "The reader", "The item"].map((name) => el("th", { scope: "col" }, name));
  return el("table", { class: "factors" }, el("caption", {}, "Factors"), el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows));
}

function weighty(view, one) {
  const most = one.history.slice(0, WEIGHTY);
  if (most.length === 0) return el("p", { class: "note" }, "This reader has no history yet.");
  const top = Math.max(...most.map((entry) => Math.abs(entry.weight)), 1e-9);
  const lines = most.map((entry) => el("li", {}, track(Math.abs(entry.weight) / top),
    el("span", {}, `${titleOf(view, entry.item)} (${opinion[entry.liked]}, weight ${entry.weight.toFixed(2)})`)));
  return el("div", {}, el("h3", {}, "What of the history counted most"), el("ul", { class: "why" }, ...lines));
}

function moved(one) {
  const by = one.place_without - one.place;
  if (by === 0) return el("span", { class: "chip" }, `place ${one.place} with and without knowledge`);
  const text = `${by > 0 ? "▲" : "▼"} knowledge moved it from place ${one.place_without} to ${one.place}`;
  return el("span", { class: `chip ${by > 0 ? "up" : "down"}` }, text);
}

function item(view, one) {
  const known = view.known.get(one.item), made = view.knowledge[`item:${one.item}`];
  const chips = Object.values(known?.attributes ?? {}).flat().slice(0, 4).map((value) => el("span", { class: "chip" }, value));
  const facts = el("div", { class: "facts" }, ...chips, known ? el("span", {}, `${age(clock - known.published_ms)} old`) : null, moved(one),
    one.default_vector ? el("span", { class: "chip flag" }, "default vector: no knowledge in this model version yet") : null,
    one.unknown_item ? el("span", { class: "chip flag" }, "not in the catalogue") : null);
  const head = el("div", { class: "head" }, el("span", { class: "place" }, String(one.place)), el("h3", { class: "title" }, titleOf(view, one.item)),
    el("span", { class: "score" }, percent(one.score)));
  const why = el("details", {}, el("summary", {}, "Why"),
    el("p", {}, `Score ${percent(one.score)}; without knowledge ${percent(one.score_without)}, place ${one.place_without}. Knowledge: ${source(made)}.`),
    made ? el("p", {}, made.summary) : null, factors(view, made), weighty(view, one));
  return el("li", { class: "item", "data-item": one.item }, head, track(one.score), facts, why);
}

async function rank() {
  const mine = ++turn, user = $("users").value;
  if (!user) return show("No reader is known yet: send interactions, and this page fills.");
  show("Ranking…");
  try {
    const view = await read(user);
    if (mine !== turn) return;
    $("profile").replaceChildren(...(view ? profile(view) : []));
    $("history").replaceChildren(...(view ? [...view.history].reverse().slice(0, 10).map((one) => historyLine(view, one)) : []));
    $("ranking").replaceChildren(...(view ? view.items.map((one) => item(view, one)) : []));
    show(view ? `The best ${view.items.length} of the ${view.n} newest items for ${user}.` : "No item is known yet: send items, and this page fills.");
  } catch (error) {
    if (mine === turn) show(`The ranker did not answer: ${error.message}`, true);
  }
}

function step(by) {
  const select = $("users"), n = select.options.length;
  if (n === 0) return;
  select.selectedIndex = (select.selectedIndex + by + n) % n;
  rank();
}

async function live() {
  try {
    await refreshAbout();
    if ($("users").options.length === 0 && (await refreshUsers()) > 0) await rank();
  } catch (error) {
    $("model").textContent = "not reachable";
  }
  setTimeout(live, LIVE_EVERY_MS);
}

$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("users").addEventListener("change", rank);
$("again").addEventListener("click", async () => { await refreshUsers().catch(() => 0); await rank(); });
rank();
live();
