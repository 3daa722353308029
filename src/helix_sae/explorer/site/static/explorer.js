// @ts-check
/** The page: what is pasted goes to the server, what comes back is drawn. */

import { ask, Superseded } from "./api.js";
import { at, el, number, table } from "./dom.js";
import { heatmap, nulls, view } from "./tracks.js";

const EXAMPLE = "GGGACAUCGUAGAGAGUCGUACUUAAUGCCGAUUUAGGCGAUCGACGUCACCAUGGGCGAAGAAUUCAACGGUUAA";

/** What the page shows. */
const state = {
  /** @type {any} */ about: null,
  /** @type {any[]} */ records: [],
  /** @type {any} */ read: null,
  /** @type {string[]} */ drawn: [],
  /** @type {[number, number][]} */ pairs: [],
  chosen: "",
};

const card = (/** @type {string} */ name) => `/atlas/index.html#${encodeURIComponent(name)}`;
const linked = (/** @type {string} */ name) => (state.about.atlas ? el("a", { href: card(name) }, name) : name);

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
    status.className = "status bad";
    status.textContent = error instanceof Error ? error.message : String(error);
    status.scrollIntoView({ block: "nearest" });
  }
}

async function open() {
  state.about = await ask("/api/about");
  const { about } = state;
  at("about").textContent = `${about.title}: ${about.n_features} features at ${about.sites.length} sites; reads ${about.read_outs.join(", ") || "nothing out"}.`;
  if (about.atlas) at("links").append(el("a", { href: "/atlas/index.html" }, "Atlas of the features"));
  if (about.report) at("links").append(el("a", { href: "/report.html" }, "Report of the run"));
  at("links").append(el("a", { href: "/api/openapi.json" }, "The API, for scripts"));
  at("fold").hidden = !about.folds;
  const { features } = await ask("/api/features");
  at("features").append(...features.map((/** @type {any} */ f) => el("option", { value: f.name }, f.best_concept ?? "")));
  at("watched").append(...about.read_outs.map((/** @type {string} */ name) => el("option", { value: name }, name)), el("option", { value: "" }, "the chosen feature"));
  const linkedTo = new URLSearchParams(location.hash.slice(1));
  at("text").value = linkedTo.get("sequence") ?? EXAMPLE;
  if (linkedTo.get("start")) at("start").value = linkedTo.get("start");
  const feature = linkedTo.get("feature") ?? "";
  if (features.some((/** @type {any} */ f) => f.name === feature)) {
    state.drawn = [feature];
    choose(feature);
  }
  await saying("Ready", async () => "Ready");
  if (linkedTo.has("sequence")) await paste();
}

/** @param {string} name */
function choose(name) {
  state.chosen = name;
  at("feature").value = name;
  if (!state.read) return;
  show();
  remember();
}

async function paste() {
  await saying("Reading…", async () => {
    const { records } = await ask("/api/paste", { text: at("text").value, start: at("start").value });
    state.records = records;
    at("several").hidden = records.length < 2;
    at("record").replaceChildren(...records.map((/** @type {any} */ one, /** @type {number} */ i) => el("option", { value: i }, one.name)));
    return read(records[0]);
  });
}

/** @param {any} record */
async function read(record) {
  state.read = await ask("/api/read", { sequence: sent(record), features: state.drawn });
  state.pairs = [];
  const n = record.sequence.length;
  at("result").hidden = false;
  at("edited").value = marked(state.read.record);
  for (const [first, last] of [["sat-first", "sat-last"], ["int-first", "int-last"]]) {
    at(first).value = 0;
    at(last).value = n;
  }
  const most = state.about.limits.substituted;
  if (n * n > most) at("sat-last").value = Math.max(1, Math.floor(most / n));
  for (const id of ["edit-result", "saturation-result", "intervene-result"]) at(id).replaceChildren();
  if (!state.chosen && state.read.tracks.length) choose(state.read.tracks[0].name);
  show();
  showReadOuts();
  remember();
  return `Read ${record.name}, ${n} nt; start codon ${{ told: "as told", marked: "as marked", found: `found at ${record.cds_start}`, unknown: "unknown" }[String(record.start_from)]}`;
}

/** A record as a question has it. */
const sent = (/** @type {any} */ record) => ({ sequence: record.sequence, name: record.name, cds_start: record.cds_start });

/** A record with its start codon marked. */
const marked = (/** @type {any} */ { sequence, cds_start: start }) => (start === null ? sequence : `${sequence.slice(0, start)}|${sequence.slice(start)}`);

function remember() {
  const { record } = state.read;
  const told = new URLSearchParams({ sequence: marked(record), start: record.cds_start === null ? "none" : "marked" });
  if (state.chosen) told.set("feature", state.chosen);
  if (record.sequence.length <= 2000) history.replaceState(null, "", `#${told}`);
}

function show() {
  const { record, concepts, tracks } = state.read;
  const choices = { pressed: state.chosen, choose, card: state.about.atlas ? card : null };
  at("view").replaceChildren(view(record, concepts, tracks, state.pairs, Number(at("zoom").value), choices, `Tracks of ${record.name}`),
    el("p", { class: "key" }, "A bar is the activation on a nucleotide, in shares of the largest one on sequences of the training; red bars are cut at one and a half times that. The strongest features of the sequence are drawn; add others by name."));
}

function showReadOuts() {
  const { read_outs: readOuts, fit, usual_lengths: [shortest, longest], record } = state.read;
  const n = record.sequence.length;
  const said = readOuts.map((/** @type {any} */ one) => [
    one.name, number(one.value), one.unit === "value" ? "as measured" : one.unit,
    one.low === null ? "not known" : `${number(one.low)} to ${number(one.high)}`,
    one.tried_low === null ? "not known" : one.value < one.tried_low || one.value > one.tried_high ? `outside ${number(one.tried_low)} to ${number(one.tried_high)}` : `within ${number(one.tried_low)} to ${number(one.tried_high)}`,
  ]);
  const far = fit.filter((/** @type {any} */ one) => one.outside !== null && one.outside > 0.02);
  const warnings = [];
  if (n < shortest || n > longest) warnings.push(`Its length, ${n} nt, lies outside that of the sequences of the training (${shortest} to ${longest} nt).`);
  if (far.length) warnings.push(`At ${far.map((/** @type {any} */ one) => one.site).join(", ")} more than 2 % of its nucleotides are reconstructed worse than one in a thousand was in training: its features may not mean there what they mean on those sequences.`);
  at("read-outs").replaceChildren(
    said.length ? table("Read-outs. The interval holds 95 % of the measured values of sequences like the held-out ones of the run.", ["read-out", "value", "scale", "95 % interval", "predictions on the run"], said, new Set([1])) : el("p", {}, "This model has no read-out."),
    table("How far the sequence lies from the training.", ["site", "nucleotides outside", "error", "limit"],
      fit.map((/** @type {any} */ one) => [one.site, one.outside === null ? "not known" : `${(100 * one.outside).toFixed(1)} %`, number(one.error), number(one.limit)]), new Set([1, 2, 3])),
    ...warnings.map((text) => el("p", { class: "warnings" }, text)));
}

async function compare() {
  await saying("Comparing…", async () => {
    const { records: [after] } = await ask("/api/paste", { text: at("edited").value, start: "marked" });
    const found = await ask("/api/edit", { before: sent(state.read.record), after: sent(after) });
    const partner = new Map(found.aligned.map((/** @type {number[]} */ [i, j]) => [j, i]));
    const tracks = found.moved.map((/** @type {any} */ one) => ({
      name: one.name, usual: one.usual, values: one.after,
      before: one.after.map((/** @type {number} */ _, /** @type {number} */ j) => (partner.has(j) ? one.before[partner.get(j)] : 0)),
    }));
    const changed = [...found.after.sequence].filter((letter, j) => !partner.has(j) || found.before.sequence[partner.get(j)] !== letter).length;
    const choices = { pressed: state.chosen, choose, card: state.about.atlas ? card : null };
    at("edit-result").replaceChildren(
      changes(found.read_outs, "Read-outs before and after the edit."),
      tracks.length ? view(found.after, {}, tracks, [], Number(at("zoom").value), choices, "Features that the edit moves") : el("p", {}, "No feature moves."),
      el("p", { class: "key" }, "The features that move most on a nucleotide: grey before, blue after, under the edited letters."));
    return `Compared; ${changed} letters of the edited sequence are others or new`;
  });
}

/** @param {any[]} readOuts @param {string} caption */
const changes = (readOuts, caption) => table(caption, ["read-out", "before", "after", "change"],
  readOuts.map((one) => [one.name, number(one.before), number(one.after), number(one.after - one.before, true)]), new Set([1, 2, 3]));

async function substitute() {
  await saying("Trying every substitution…", async () => {
    const { record } = state.read, watched = at("watched").value;
    const found = await ask("/api/saturation", {
      sequence: sent(record), first: Number(at("sat-first").value), last: Number(at("sat-last").value),
      ...(state.chosen ? { feature: state.chosen } : {}),
    });
    const effects = watched ? found.read_outs[watched] : found.feature;
    if (!effects) throw new Error("Choose a feature first: press its name beside its track.");
    const what = watched || `the mean of ${state.chosen}`;
    const listed = effects.flatMap((/** @type {number[]} */ row, /** @type {number} */ k) => row.map((value, i) => ({ value, position: found.first + i, letter: found.letters[k] })))
      .filter((/** @type {any} */ one) => record.sequence[one.position] !== one.letter)
      .sort((/** @type {any} */ a, /** @type {any} */ b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, 8);
    at("saturation-result").replaceChildren(
      heatmap(record.sequence, found.first, found.letters, effects, change),
      table(`The largest effects on ${what}.`, ["position", "from", "to", "effect", "change"],
        listed.map((/** @type {any} */ one) => [one.position, record.sequence[one.position], one.letter, number(one.value, true),
          el("button", { type: "button", click: () => change(one.position, one.letter) }, "make it")]), new Set([0, 3])));
    return `Tried ${3 * effects[0].length} substitutions`;
  });
}

/** Make a substitution in the edited sequence, and compare. @param {number} position @param {string} letter */
function change(position, letter) {
  const { record } = state.read;
  const sequence = record.sequence.slice(0, position) + letter + record.sequence.slice(position + 1);
  at("edited").value = marked({ ...record, sequence });
  at("h-edit").scrollIntoView();
  compare();
}

async function runOn() {
  await saying("Running the model on, here and in other directions…", async () => {
    const to = at("to").value, name = at("feature").value.trim();
    /** @type {any} */
    const question = { sequence: sent(state.read.record), feature: name, to, first: Number(at("int-first").value), last: Number(at("int-last").value) };
    if (to === "value") question.value = Number(at("value").value);
    if (to === "sequence") question.source = sent((await ask("/api/paste", { text: at("source").value, start: at("start").value })).records[0]);
    const found = await ask("/api/intervene", question);
    const p = (/** @type {any} */ one) => (one ? `${number(one.p_value)} of ${one.effects.length}` : "nothing changes");
    const track = { name, usual: Math.max(...found.before, ...found.after, 1e-12), values: found.after, before: found.before };
    const choices = { pressed: state.chosen, choose, card: state.about.atlas ? card : null };
    at("intervene-result").replaceChildren(
      table("Read-outs with the feature set, and how often other directions change them as much (p-values).", ["read-out", "before", "after", "change", "random directions", "features as dense"],
        found.effects.map((/** @type {any} */ one) => [one.name, number(one.before), number(one.after), number(one.after - one.before, true), p(one.random), p(one.alike)]), new Set([1, 2, 3])),
      ...found.effects.filter((/** @type {any} */ one) => one.random).slice(0, 1).map((/** @type {any} */ one) => el("div", {},
        el("div", { class: "drawing", tabindex: 0, role: "region", "aria-label": `Effect on ${one.name} beside its nulls` }, nulls(one.after - one.before, one.random.effects, one.alike.effects)),
        el("p", { class: "key" }, `${one.name}: the effect (red) beside changes of the same length, nucleotide by nucleotide, in ${one.random.effects.length} random directions (grey) and along ${one.alike.effects.length} features of the site that are about as often active (brown).`))),
      view(found.record, {}, [track], [], Number(at("zoom").value), choices, `${name} before and after it is set`),
      found.moved.length ? table("Later features whose mean moves most, in shares of their usual largest activation.", ["feature", "change"],
        found.moved.map((/** @type {any} */ one) => [linked(one.name), number(one.change, true)]), new Set([1])) : "");
    return `Set ${name} on ${found.record.name}`;
  });
}

async function search() {
  await saying("Searching…", async () => {
    const sets = { here: [], there: [] };
    for (const side of /** @type {("here" | "there")[]} */ (["here", "there"])) {
      sets[side] = (await ask("/api/paste", { text: at(side).value, start: at("start").value })).records.map(sent);
    }
    const found = await ask("/api/contrast", sets);
    at("contrast-result").replaceChildren(
      table(`The most certain of ${found.n_tested} features, ${found.n_here} sequences against ${found.n_there} (rank-sum test, ${found.exact ? "every division counted" : "normal approximation"}; q: Benjamini-Hochberg). Sequences count as independent.`,
        ["feature", "mean here", "mean there", "active here", "active there", "effect", "p", "q", "draw"],
        found.rows.map((/** @type {any} */ one) => [linked(one.name), number(one.mean_here), number(one.mean_there), `${Math.round(100 * one.share_here)} %`, `${Math.round(100 * one.share_there)} %`, number(one.effect, true), number(one.p_value), number(one.q_value),
          el("button", { type: "button", "aria-label": `choose ${one.name}`, click: () => choose(one.name) }, "choose")]), new Set([1, 2, 3, 4, 5, 6, 7])));
    return `Tested ${found.n_tested} features`;
  });
}

async function addTrack() {
  await saying("Drawing…", async () => {
    const name = at("add").value.trim();
    if (!name) throw new Error("Give the name of a feature.");
    if (!state.drawn.includes(name)) state.drawn = [...state.drawn, name];
    try {
      state.read = await ask("/api/read", { sequence: sent(state.read.record), features: state.drawn });
    } catch (error) {
      state.drawn = state.drawn.filter((one) => one !== name);
      throw error;
    }
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

/** @param {string} id @param {() => void} work */
function submitted(id, work) {
  at(id).addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    work();
  });
}

submitted("paste", paste);
submitted("edit", compare);
submitted("saturation", substitute);
submitted("intervene", runOn);
submitted("contrast", search);
at("record").addEventListener("change", () => saying("Reading…", () => read(state.records[Number(at("record").value)])));
at("zoom").addEventListener("input", () => state.read && show());
at("add-track").addEventListener("click", addTrack);
at("fold").addEventListener("click", foldIt);
at("undo").addEventListener("click", () => {
  at("edited").value = marked(state.read.record);
  at("edit-result").replaceChildren();
});
at("to").addEventListener("change", () => {
  at("value-of").hidden = at("to").value !== "value";
  at("source-of").hidden = at("to").value !== "sequence";
});
at("feature").addEventListener("change", () => choose(at("feature").value.trim()));
at("value-of").hidden = true;
open().catch((error) => {
  at("status").className = "status bad";
  at("status").textContent = error.message;
});
