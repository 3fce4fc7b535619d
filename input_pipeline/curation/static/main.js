// The page: what is shown, and what keys and buttons do.

import * as classes from "./classes.js";
import {ask, load, loadAhead} from "./server.js";
import {element, grid, howMany, keysOf, mark, tile} from "./tiles.js";

const find = id => document.getElementById(id);
const GUARD = 300;  // Milliseconds in which nobody has seen what has come.
const STRIP = 12;  // Other partners of one pair.
const NO_PARTNER = "No other image of this class is free.";
const MADE = {undecided: "no partner yet", accepted: "has a partner", rejected: "none fits"};
const NAMES = {Enter: "Enter", Backspace: "⌫", ArrowLeft: "←", ArrowRight: "→", Escape: "Esc"};

let facts = null;
let mode = "sheet";  // Or "one" pair, or "make" pairs.
let now = null;  // What is shown: the answer of the server.
let home = null;  // The sheet from which one pair was enlarged.
let shown = 0;  // When it came.
let busy = false;  // One decision at a time: keys must not run ahead of the eye.
const rejected = new Set(), unseen = new Map();  // Pairs; those that cannot be shown.

// Tiles that are wanted, and pairs to ask for.
const tilesThatFit = () => Number(find("size").value)
  || howMany(mode === "make" ? 1 : 2, find("tiles").getBoundingClientRect());
const size = () => mode === "sheet" ? tilesThatFit() : 1;
const rows = pair => pair.images.map(image => image.row);
const pairsOf = number => `${number.toLocaleString("en")} pair${number === 1 ? "" : "s"}`;
const last = view => view.pairs.at(-1);

// Decisions.

function send(decisions, stay = false) {
  return ask(`/decide?count=${size()}`, {store: now.store, decisions, stay});
}

// What is decided on a pair, if it still is as it was shown.
const step = (pair, action, second) =>
  ({pair: pair.pair, images: rows(pair), status: pair.status, action, second});

// Keys that come right behind a sheet were meant for the one before.
function looked() {
  if (performance.now() - shown < GUARD)
    throw new Error("This has only just appeared: look, and press the key again.");
}

function next() {
  return ask(`/sheet?count=${size()}&after=${last(now).place}`);
}

function save() {
  looked();
  const changed = now.pairs.flatMap(pair => {
    const no = rejected.has(pair.pair);
    if (unseen.has(pair.pair) && !no) return [];
    // What nobody asks for is decided by its own key alone.
    if (pair.status === "undecided" && !pair.asked && !no) return [];
    if (pair.status === (no ? "rejected" : "accepted")) return [];
    return [step(pair, no ? "reject" : "accept")];
  });
  return changed.length ? send(changed) : next();
}

async function decide(action, second) {
  const [pair] = now.pairs;
  looked();
  if (["accept", "choose"].includes(action) && unseen.has(pair.pair))
    throw new Error(unseen.get(pair.pair));
  const stay = action === "swap" || home !== null;
  const view = await send([step(pair, action, second)], stay);
  if (view.news) return view;  // It was not decided.
  if (action === "swap") {
    view.pairs[0].asked = true;  // By who has chosen it.
    return {...view, hint: "Enter accepts the pair with this partner."};
  }
  if (!home) return view;
  now = view;
  return leave();
}

// Enter is pressed by habit, and changes nothing that was decided; what was enlarged was meant.
function enter(action) {
  looked();
  const [{asked, status}] = now.pairs;
  return home || (asked && status === "undecided") ? decide(action) : next();
}

function part() {
  return now.pairs[0].status === "accepted" ? decide("reject") : now;
}

function toggle(...pairs) {
  for (const {pair} of pairs) if (!rejected.delete(pair)) rejected.add(pair);
  drawMarks();
}

async function undo() {
  const sheet = home;
  const view = await ask("/undo", {}), here = new Set(now.pairs.map(pair => pair.pair));
  if (mode === "sheet" && view.pairs.every(pair => here.has(pair.pair))) return merge(now, view);
  // Of a pair that was enlarged another partner is taken back; all else is seen on the sheet.
  if (sheet && view.pairs.length === 1 && here.has(view.pairs[0].pair)) return view;
  home = null;
  if (mode === "one" && (sheet || view.pairs.length > 1)) mode = "sheet";
  const there = new Set(sheet?.pairs.map(pair => pair.pair));
  return view.pairs.every(pair => there.has(pair.pair)) ? merge(sheet, view) : view;
}

// A sheet with those of its pairs that have changed.
function merge(sheet, view) {
  const fresh = new Map(view.pairs.map(pair => [pair.pair, pair]));
  return {...view, pairs: sheet.pairs.map(pair => fresh.get(pair.pair) ?? pair)};
}

// Looking around.

function around(step) {
  const place = step > 0 ? last(now).place + 1 : now.pairs[0].place - 1;
  if (place < 0 || place >= facts.pairs) return now;
  home = null;
  return ask(`/around/${place}?count=${size()}&back=${step > 0 ? 0 : 1}`);
}

function enlarge(pair) {
  home = now;
  mode = "one";
  return {...now, pairs: [pair]};
}

function leave() {
  const back = home && merge(home, now);
  home = null;
  mode = "sheet";
  return back ?? ask(`/around/${now.pairs[0].place}?count=${size()}`);
}

function alone() {
  mode = "one";
  return {...now, pairs: [now.pairs.find(pair => pair.status === "undecided") ?? now.pairs[0]]};
}

// What keys and buttons do. What they return is shown.

const moving = [
  ["ArrowLeft", "earlier", () => around(-1)],
  ["ArrowRight", "later", () => around(1)],
];
const onward = () => (home = null, next());
const write = () => ask("/export", {});
const actions = {
  sheet: [
    ["Enter", "keep, next", save], ["Backspace", "undo", undo],
    ["0", "invert the marks", () => toggle(...now.pairs)], ...moving,
    ["", "next undecided", onward], ["", "one by one", alone], ["", "export", write],
  ],
  one: [
    ["Enter", "accept", () => enter("accept")], ["x", "reject", () => decide("reject")],
    ["Backspace", "undo", undo], ...moving, ["Escape", "sheet", leave],
    ["", "next undecided", onward], ["", "export", write],
  ],
  make: [
    ["Enter", "none of these", () => enter("reject")], ["Backspace", "undo", undo],
    ["0", "undo the pairing", part], ...moving, ["", "next undecided", onward], ["", "export", write],
  ],
};

// Enter opens the first class that was found, Esc leaves.
function search({key, target}) {
  if (key === "Enter") document.querySelector("#class_list button")?.click();
  if (key === "Enter" || key === "Escape") target.blur();
}

// After a click Enter shall keep the sheet again.
addEventListener("click", ({detail, target}) => {
  if (detail) target.closest("button:not(.tile)")?.blur();
});

addEventListener("beforeunload", event => {
  const open = (home ?? now)?.pairs ?? [];
  if (open.some(pair => rejected.has(pair.pair) && pair.status !== "rejected"))
    event.preventDefault();
});

addEventListener("keydown", event => {
  const {target} = event;
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (target.matches("input[type=search]")) return search(event);
  // A list and a box keep the keys that change them.
  if (target.matches("input, select") && /^(Arrow.*|Tab| )$/.test(event.key)) return;
  // A button that was reached by Tab is pressed by Enter, as everywhere.
  if (event.key === "Enter" && target.matches("button:not(.tile)")) return;
  const typed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  // In other alphabets, and with Shift on digits, the place of the key tells.
  const place = /^(?:Key|Digit)(.)$/.exec(event.code)?.[1].toLowerCase();
  for (const key of [typed, place]) {
    const tiles = [...document.querySelectorAll(mode === "one" ? "#strip .tile" : "#tiles .tile")];
    const pressed = tiles.find(found => found.dataset.key === key);
    const action = actions[mode].find(([wanted]) => wanted && wanted === key);
    if (!pressed && !action) continue;
    event.preventDefault();
    if (target.matches("input, select")) target.blur();
    return pressed ? pressed.press(event.shiftKey) : run(action[2]);
  }
});

function say(text, kind = "") {
  find("message").textContent = text;
  find("message").className = kind;
}

async function run(action) {
  if (busy) return say("The pictures are loading: press again when you see them.");
  busy = true;
  find("pictures").ariaBusy = "true";
  say("");
  try {
    const data = await action();
    if (data?.message) say(data.message);
    else if (data) await show(data);
  } catch (error) {
    say(error.message, "wrong");
  } finally {
    busy = false;
    find("pictures").ariaBusy = "false";
  }
}

// What is shown.

async function show(view) {
  now = view;
  unseen.clear();
  for (const {pair, had, status} of view.pairs) {
    const mark = status === "undecided" ? had : status;
    if (mark === "rejected") rejected.add(pair);
    if (mark === "accepted") rejected.delete(pair);
  }
  drawActions();
  find("setting").hidden = mode === "one";
  find("sheet").hidden = mode === "one";
  find("one").hidden = mode !== "one";
  await {sheet: drawSheet, one: drawOne, make: drawPartners}[mode](view);
  find("label").textContent = view.label;
  find("class_count").textContent = classes.progress(view.of_class);
  find("count").textContent = mode === "make" ? `${pairsOf(view.accepted)} made`
    : `${view.decided.toLocaleString("en")} of ${pairsOf(facts.pairs)} decided`;
  drawMarks();
  const said = new Set(
    [...unseen.values(), view.news, view.finished, view.hint].filter(Boolean));
  say([...said].join(" "), unseen.size || view.news ? "wrong" : "");
  view.news = "";  // Said once.
  shown = performance.now();
  classes.list(view.of_class.class).then(() => prepare(view)).catch(() => {});
}

function drawActions() {
  const box = find("actions");
  if (box.dataset.mode === mode) return;
  box.dataset.mode = mode;
  box.replaceChildren(...actions[mode].map(([key, text, action]) => {
    const button = element("button", {type: "button"});
    if (key) button.append(element("kbd", {textContent: NAMES[key] ?? key.toUpperCase()}), " ");
    button.append(text);
    button.onclick = () => run(action);
    return button;
  }));
}

// The pictures of a pair; in the place of one that cannot be shown, why.
async function pictures(pair, small) {
  const loads = await Promise.allSettled(pair.images.map(image => load(image, small)));
  const failed = loads.filter(found => found.reason);
  if (failed.length) unseen.set(pair.pair,
    [...new Set(failed.map(found => found.reason.message))].join(" "));
  return loads.map(found => found.value ?? element("span", {textContent: "cannot be shown"}));
}

function arrange(made, wide) {
  const box = find("tiles").getBoundingClientRect();
  find("tiles").style.setProperty("--columns", grid(made.length, wide, box).columns ?? 1);
}

async function drawSheet(view) {
  const {columns} = grid(view.pairs.length, 2, find("tiles").getBoundingClientRect());
  const keys = keysOf(view.pairs.length, columns);
  const made = await Promise.all(view.pairs.map(async (pair, i) => {
    const button = tile(keys[i], await pictures(pair, true), pair.marks);
    button.pair = pair;
    button.press = large => run(() => large ? enlarge(pair) : toggle(pair));
    button.onclick = event => button.press(event.shiftKey);
    const larger = element("button", {
      className: "larger", type: "button", textContent: "⤢",
      ariaLabel: `Enlarge ${keys[i].toUpperCase()}`, title: `Shift+${keys[i].toUpperCase()}`,
      onclick: () => button.press(true),
    });
    return element("div", {className: "place"}, button, larger);
  }));
  find("tiles").replaceChildren(...made);
  arrange(made, 2);
}

// Small pictures are enlarged, but not so far that nothing but pixels is seen.
function figures(images, pair) {
  return images.map((image, i) => {
    const {naturalWidth: wide, naturalHeight: high} = image;
    image.style.maxHeight = `min(${4 * high}px, ${100 * high / wide}cqw)`;
    return element("figure", {}, image, element("figcaption", {textContent: pair.images[i].name}));
  });
}

async function drawOne({pairs: [pair]}) {
  const images = await pictures(pair, false);
  find("large").replaceChildren(...figures(images, pair));
  find("marks").replaceChildren(...pair.marks.map(mark));
  find("strip_text").textContent = "Loading other partners …";
  find("strip").replaceChildren();
  drawStrip(pair).catch(error => { find("strip_text").textContent = error.message; });
}

// Other partners come later than the pair: most pairs need none, and finding them takes time.
async function drawStrip(pair) {
  await new Promise(done => setTimeout(done, 250));
  if (now.pairs[0] !== pair) return;
  const {partners} = await ask(`/partners/${pair.pair}?count=${STRIP}`);
  const made = await choices(partners, keysOf(partners.length, STRIP), "swap");
  if (now.pairs[0] !== pair) return;
  find("strip").replaceChildren(...made);
  find("strip_text").textContent = made.length ? "Or another partner:" : NO_PARTNER;
}

function choices(partners, keys, action) {
  return Promise.all(partners.map(async (image, i) => {
    const picture = await load(image, true).catch(error => error);
    const failed = picture instanceof Error;
    const button = tile(keys[i], [failed ? picture.message : picture], image.marks);
    button.ariaLabel = [keys[i].toUpperCase(), image.name, ...image.marks].join(", ");
    button.disabled = failed;
    button.press = () => failed || run(() => decide(action, image.row));
    button.onclick = button.press;
    return button;
  }));
}

async function drawPartners({pairs: [pair]}) {
  const [shown, {partners}] = await Promise.all([
    pictures(pair, false),
    ask(`/partners/${pair.pair}?count=${tilesThatFit()}`),
  ]);
  const {columns} = grid(partners.length, 1, find("tiles").getBoundingClientRect());
  const made = await choices(partners, keysOf(partners.length, columns), "choose");
  find("anchor").replaceChildren(...figures(shown, pair));
  const none = element("p", {textContent: NO_PARTNER});
  find("tiles").replaceChildren(...made.length ? made : [none]);
  arrange(made, 1);
}

function drawMarks() {
  const [only] = now.pairs;
  for (const button of document.querySelectorAll("#tiles .place .tile")) {
    const {pair} = button, no = rejected.has(pair.pair);
    button.classList.toggle("rejected", no);
    button.classList.toggle("accepted", !no && pair.status === "accepted");
    const left = pair.status === "undecided" && !pair.asked && !no;
    button.classList.toggle("unseen", unseen.has(pair.pair) || left);
    button.ariaPressed = String(no);
    const names = pair.images.map(image => image.name).join(" and ");
    const state = no ? "rejected" : pair.status === "accepted" ? "accepted"
      : left ? "not asked for" : "";
    button.ariaLabel = [button.dataset.key.toUpperCase(), names, state, ...pair.marks]
      .filter(Boolean).join(", ");
  }
  const marked = now.pairs.filter(pair => rejected.has(pair.pair)).length;
  find("status").className = mode === "sheet" ? "" : only.status;
  find("status").textContent = mode === "sheet" ? `${pairsOf(now.pairs.length)}, ${marked} rejected`
    : mode === "one" ? only.status
    : only.status === "undecided" && !only.asked ? "not asked for" : MADE[only.status];
}

// The next pairs and their pictures, while a person looks at these.
async function prepare(view) {
  if (view.finished) return;
  const without = view.pairs.map(pair => pair.pair).join();
  const coming = await ask(
    `/sheet?count=${size()}&after=${last(view).place}&without=${without}`);
  const images = coming.pairs.flatMap(pair => pair.images);
  if (mode === "make") {
    const asked = `/partners/${coming.pairs[0].pair}?count=${tilesThatFit()}`;
    images.push(...(await ask(asked)).partners);
  }
  if (now === view) loadAhead(images, mode !== "one");
}

new ResizeObserver(() => arrange([...find("tiles").children], mode === "make" ? 1 : 2))
  .observe(find("tiles"));
find("size").value = localStorage.getItem("size") ?? "";
find("size").onchange = ({target}) => {
  localStorage.setItem("size", target.value);
  target.blur();
  run(() => ask(`/around/${now.pairs[0].place}?count=${size()}`));
};
run(async () => {
  facts = await ask("/facts");
  if (facts.making) mode = "make";
  find("anchor").hidden = !facts.making;
  drawActions();
  classes.start(facts, which => run(() => (home = null, ask(`/class/${which}?count=${size()}`))));
  return ask(`/sheet?count=${size()}`);
});
