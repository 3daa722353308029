// @ts-check
/** The page: what is pasted goes to the server, what comes back is shown. */

import { ask, Superseded } from "./api.js";
import { at, el, number } from "./dom.js";
import * as panels from "./panels.js";

const EXAMPLE = "GGGACAUCGUAGAGAGUCGUACUUAAUGCCGAUUUAGGCGAUCGACGUCACCAUGGGCGAAGAAUUCAACGGUUAA";
const LONGEST_LINK = 2000;
const LEAST_DIVIDED = 6;
const START = { told: "as told", marked: "as marked", unknown: "unknown" };

/** What the page shows. */
const state = {
  /** @type {any} */ about: null,
  /** @type {Map<string, any>} every feature by its name */ features: new Map(),
  /** @type {any[]} */ records: [],
  /** @type {any} */ read: null,
  /** @type {string[]} features that were asked for */ drawn: [],
  /** @type {[number, number][]} */ pairs: [],
  own: "", // name of the record of the run that is shown
  chosen: "",
};

/** Where the card of a feature is; null where it has none. @param {string} name */
const card = (name) =>
  state.about.atlas && state.features.get(name)?.card
    ? `/atlas/index.html#${encodeURIComponent(name)}`
    : null;

/** A feature's name, as a link to its card if it has one. @param {string} name */
function linked(name) {
  const place = card(name);
  return place ? el("a", { href: place }, name) : name;
}

/** @returns {panels.Page} */
const page = () => ({
  zoom: Number(at("zoom").value),
  choices: {
    pressed: state.chosen,
    choose,
    card,
    told: (name) => state.features.get(name),
  },
  linked,
  change,
});

/**
 * Do something that asks the server; say what is done, and what went wrong.
 * @param {string} doing
 * @param {() => Promise<string | void>} work gives what is said at the end
 */
async function saying(doing, work) {
  const status = at("status");
  status.className = "status";
  status.textContent = doing;
  const begin = performance.now();
  try {
    const said = await work();
    status.textContent = `${said ?? "Done"} (${Math.round(performance.now() - begin)} ms).`;
  } catch (error) {
    if (error instanceof Superseded) return;
    complain(error);
  }
}

/** @param {unknown} error */
function complain(error) {
  const status = at("status");
  status.className = "status bad";
  status.textContent = error instanceof Error ? error.message : String(error);
  status.scrollIntoView({ block: "nearest" });
}

async function open() {
  const about = (state.about = await ask("/api/about"));
  const reads = about.read_outs.join(", ") || "nothing out";
  at("about").textContent =
    `${about.title}: ${about.n_features} features at ${about.sites.length} sites; reads ${reads}.`;
  if (about.atlas) at("links").append(el("a", { href: "/atlas/index.html" }, "Atlas of the features"));
  if (about.report) at("links").append(el("a", { href: "/report.html" }, "Report of the run"));
  at("links").append(el("a", { href: "/api/openapi.json" }, "The API, for scripts"));
  at("fold").hidden = !about.folds;
  at("own").hidden = about.n_records === 0;
  at("watched").append(
    ...about.read_outs.map((/** @type {string} */ name) => el("option", { value: name }, name)),
    el("option", { value: "" }, "the chosen feature"),
  );
  const { features } = await ask("/api/features");
  state.features = new Map(features.map((/** @type {any} */ one) => [one.name, one]));
  at("features").append(
    ...features.map((/** @type {any} */ one) => el("option", { value: one.name }, one.best_concept ?? "")),
  );
  await saying("Ready", async () => "Ready");
  await follow();
}

/** Show what the address says. */
async function follow() {
  const link = new URLSearchParams(location.hash.slice(1));
  at("text").value = link.get("sequence") ?? EXAMPLE;
  if (link.get("start")) at("start").value = link.get("start");
  const feature = link.get("feature") ?? "";
  if (state.features.has(feature)) {
    state.drawn = [feature];
    state.read = null;
    choose(feature);
  }
  if (link.has("record")) await openOwn(link.get("record") ?? "");
  else if (link.has("sequence") || feature) await paste();
}

/** Keep what is shown in the address. */
function remember() {
  const { record } = state.read;
  if (!state.own && record.sequence.length > LONGEST_LINK) return;
  const start = record.cds_start === null ? "none" : "marked";
  const link = new URLSearchParams(state.own ? { record: state.own } : { sequence: marked(record), start });
  if (state.chosen) link.set("feature", state.chosen);
  history.replaceState(null, "", `#${link}`);
}

/** A record as a question has it. */
const sent = (/** @type {any} */ record) => ({
  sequence: record.sequence, name: record.name, cds_start: record.cds_start,
});

/** A record with its start codon marked. */
const marked = (/** @type {any} */ { sequence, cds_start: start }) =>
  start === null ? sequence : `${sequence.slice(0, start)}|${sequence.slice(start)}`;

/** The records of a text, or the first of them. */
const pasted = async (/** @type {string} */ text, /** @type {string} */ start) =>
  (await ask("/api/paste", { text, start })).records;

/** A feature for the map and the intervention. @param {string} name */
function choose(name) {
  state.chosen = name;
  at("feature").value = name;
  if (!state.read) return;
  show();
  remember();
}

function show() {
  at("view").replaceChildren(...panels.sequence(state.read, state.pairs, page()));
  // Where the chosen feature is strongest comes into the middle.
  const values = state.read.tracks.find((/** @type {any} */ one) => one.name === state.chosen)?.values ?? [0];
  const most = Math.max(...values);
  const drawing = at("view").querySelector(".drawing");
  const share = (values.indexOf(most) + 0.5) / values.length;
  if (most > 0) drawing.scrollLeft = share * drawing.scrollWidth - drawing.clientWidth / 2;
}

async function paste() {
  await saying("Reading…", async () => {
    state.records = await pasted(at("text").value, at("start").value);
    state.own = "";
    at("measured").hidden = true;
    at("several").hidden = state.records.length < 2;
    at("record").replaceChildren(...state.records.map((one, i) => el("option", { value: i }, one.name)));
    return read(state.records[0]);
  });
}

/** Show a record of the run. @param {string} name */
async function openOwn(name) {
  await saying("Reading…", async () => {
    const { record, measured } = await ask(`/api/record?name=${encodeURIComponent(name)}`);
    state.own = name;
    at("own-name").value = name;
    at("text").value = marked(record);
    at("several").hidden = true;
    const known = Object.entries(measured).map(([what, value]) => `${what} ${number(value)}`);
    at("measured").hidden = known.length === 0;
    at("measured").textContent = `Measured: ${known.join(", ")}.`;
    return read(record);
  });
}

/** Offer the names of records that hold what is typed. */
async function offerNames() {
  const { names } = await ask(`/api/records?holds=${encodeURIComponent(at("own-name").value)}`);
  at("own-names").replaceChildren(...names.map((/** @type {string} */ name) => el("option", { value: name })));
}

/** @param {any} record */
async function read(record) {
  state.read = await ask("/api/read", { sequence: sent(record), features: state.drawn });
  state.pairs = [];
  const n = record.sequence.length;
  at("result").hidden = false;
  at("edited").value = marked(state.read.record);
  for (const part of ["sat", "int"]) {
    at(`${part}-first`).value = 0;
    at(`${part}-last`).value = n;
  }
  const most = state.about.limits.substituted;
  if (n * n > most) at("sat-last").value = Math.max(1, Math.floor(most / n));
  for (const id of ["edit-result", "saturation-result", "intervene-result"]) at(id).replaceChildren();
  if (!state.chosen && state.read.tracks.length) choose(state.read.tracks[0].name);
  show();
  at("read-outs").replaceChildren(...panels.readOuts(state.read));
  remember();
  const how = /** @type {keyof typeof START} */ (record.start_from);
  const start = START[how] ?? `found at ${record.cds_start}`;
  return `Read ${record.name}, ${n} nt; start codon ${start}`;
}

async function compare() {
  await saying("Comparing…", async () => {
    const [after] = await pasted(at("edited").value, "marked");
    const answer = await ask("/api/edit", { before: sent(state.read.record), after: sent(after) });
    const { nodes, changed } = panels.edit(answer, page());
    at("edit-result").replaceChildren(...nodes);
    return `Compared; ${changed} letters of the edited sequence are others or new`;
  });
}

/**
 * Make a substitution in the edited sequence, and compare.
 * @param {number} position
 * @param {string} letter
 */
function change(position, letter) {
  const { record } = state.read;
  const sequence = record.sequence.slice(0, position) + letter + record.sequence.slice(position + 1);
  at("edited").value = marked({ ...record, sequence });
  at("h-edit").scrollIntoView();
  compare();
}

async function substitute() {
  await saying("Trying every substitution…", async () => {
    const watched = at("watched").value;
    const answer = await ask("/api/saturation", {
      sequence: sent(state.read.record),
      first: Number(at("sat-first").value),
      last: Number(at("sat-last").value),
      feature: state.chosen || null,
    });
    const effects = watched ? answer.read_outs[watched] : answer.feature;
    if (!effects) throw new Error("Choose a feature first: press its name beside its track.");
    const what = watched || `the mean of ${state.chosen}`;
    at("saturation-result").replaceChildren(...panels.saturation(answer, effects, what, page()));
    return `Tried ${3 * effects[0].length} substitutions`;
  });
}

async function runOn() {
  await saying("Running the model on, here and in other directions…", async () => {
    const to = at("to").value;
    const source = to === "sequence" ? (await pasted(at("source").value, at("start").value))[0] : null;
    const answer = await ask("/api/intervene", {
      sequence: sent(state.read.record),
      feature: at("feature").value.trim(),
      to,
      value: to === "value" ? Number(at("value").value) : 0,
      source: source && sent(source),
      first: Number(at("int-first").value),
      last: Number(at("int-last").value),
    });
    at("intervene-result").replaceChildren(...panels.intervention(answer, page()));
    return `Set ${answer.feature} on ${answer.record.name}`;
  });
}

async function search() {
  await saying("Searching…", contrasted);
}

/** Search between the two fields. */
async function contrasted() {
  const start = at("start").value;
  const here = (await pasted(at("here").value, start)).map(sent);
  const there = (await pasted(at("there").value, start)).map(sent);
  const answer = await ask("/api/contrast", { here, there });
  at("contrast-result").replaceChildren(...panels.contrast(answer, page()));
  return `Tested ${answer.n_tested} features`;
}

/** Divide what is pasted into halves, high and low, and search for the features that tell them apart. */
async function compareHalves() {
  await saying("Dividing…", async () => {
    const records = await pasted(at("text").value, at("start").value);
    if (records.length < LEAST_DIVIDED) {
      throw new Error(`Paste at least ${LEAST_DIVIDED} sequences as FASTA into the first field.`);
    }
    const { values, from } = await valuesOf(records);
    const order = [...values.keys()].sort((a, b) => values[b] - values[a]);
    const half = Math.ceil(order.length / 2);
    const fasta = (/** @type {number[]} */ some) =>
      some.map((i) => `>${records[i].name} ${values[i]}\n${marked(records[i])}\n`).join("");
    at("here").value = fasta(order.slice(0, half));
    at("there").value = fasta(order.slice(half));
    const tied = values[order[half - 1]] === values[order[half]] ? "; the halves share a value" : "";
    return `${await contrasted()} between the halves by ${from}${tied}`;
  });
}

/**
 * The numbers that end the lines of FASTA, or what the first read-out predicts.
 * @param {any[]} records
 * @returns {Promise<{values: number[], from: string}>}
 */
async function valuesOf(records) {
  const lines = at("text").value.match(/^>.*$/gm) ?? [];
  const told = lines.map((/** @type {string} */ line) => Number(/\s(\S+)\s*$/.exec(line)?.[1] ?? NaN));
  if (told.length === records.length && told.every(Number.isFinite)) {
    return { values: told, from: "the numbers of the FASTA lines" };
  }
  const [name] = state.about.read_outs;
  if (!name) throw new Error("This model has no read-out: end each FASTA line with a number.");
  const answer = await ask("/api/values", { sequences: records.map(sent) });
  return { values: answer.values[name], from: `the prediction of ${name}` };
}

async function addTrack() {
  await saying("Drawing…", async () => {
    const name = at("add").value.trim();
    if (!name) throw new Error("Give the name of a feature.");
    const wanted = [...new Set([...state.drawn, name])];
    state.read = await ask("/api/read", { sequence: sent(state.read.record), features: wanted });
    state.drawn = wanted;
    choose(name);
    return `Drew ${name}`;
  });
}

async function foldIt() {
  await saying("Folding…", async () => {
    const found = await ask("/api/fold", sent(state.read.record));
    state.pairs = found.pairs;
    show();
    return `Folded: ${found.pairs.length} base pairs, ${number(found.energy)} kcal/mol`;
  });
}

/** @param {string} id @param {string} kind @param {() => void} work */
function on(id, kind, work) {
  at(id).addEventListener(kind, (/** @type {Event} */ event) => {
    event.preventDefault();
    work();
  });
}

on("paste", "submit", paste);
on("edit", "submit", compare);
on("saturation", "submit", substitute);
on("intervene", "submit", runOn);
on("contrast", "submit", search);
on("halves", "click", compareHalves);
on("own", "submit", () => openOwn(at("own-name").value.trim()));
on("own-name", "input", () => offerNames().catch(() => {})); // an answer that a newer one overtook
on("own-name", "focus", () => offerNames().catch(() => {}));
on("record", "change", () => saying("Reading…", () => read(state.records[Number(at("record").value)])));
on("zoom", "input", () => state.read && show());
on("add-track", "click", addTrack);
on("fold", "click", foldIt);
on("undo", "click", () => {
  at("edited").value = marked(state.read.record);
  at("edit-result").replaceChildren();
});
on("to", "change", () => {
  at("value-of").hidden = at("to").value !== "value";
  at("source-of").hidden = at("to").value !== "sequence";
});
on("feature", "change", () => choose(at("feature").value.trim()));
addEventListener("hashchange", () => follow());
open().catch(complain);
