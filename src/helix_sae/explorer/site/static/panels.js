// @ts-check
/** From the server's answers to what the page shows of them. */

import { el, number, table } from "./dom.js";
import { heatmap, nulls, view } from "./tracks.js";

/** Share of nucleotides outside the training's range that is worth a warning. */
const FAR = 0.02;

/**
 * What every panel needs of the page.
 * @typedef {object} Page
 * @property {number} zoom pixels a nucleotide
 * @property {import("./tracks.js").Choices} choices
 * @property {(name: string) => Node | string} linked a feature's name, as a link to its card if it has one
 * @property {(position: number, letter: string) => void} change makes a substitution
 */

/**
 * Read-outs with their intervals, and how far the sequence lies from the training.
 * @param {any} answer
 * @returns {Node[]}
 */
export function readOuts(answer) {
  const rows = answer.read_outs.map((/** @type {any} */ one) => [
    one.name,
    number(one.value),
    one.unit === "value" ? "as measured" : one.unit,
    range(one.low, one.high),
    tried(one),
  ]);
  const caption = "Read-outs. The interval holds 95 % of the measured values of sequences like the held-out"
    + " ones of the run.";
  const heads = ["read-out", "value", "scale", "95 % interval", "predictions on the run"];
  const fit = answer.fit.map((/** @type {any} */ one) => [
    one.site,
    one.outside === null ? "not known" : `${(100 * one.outside).toFixed(1)} %`,
    number(one.error),
    number(one.limit),
  ]);
  return [
    rows.length ? table(caption, heads, rows, new Set([1])) : el("p", {}, "This model has no read-out."),
    table(
      "How far the sequence lies from the training.",
      ["site", "nucleotides outside", "error", "limit"],
      fit,
      new Set([1, 2, 3]),
    ),
    ...warnings(answer).map((text) => el("p", { class: "warnings" }, text)),
  ];
}

/**
 * A sequence with all that stands under it.
 * @param {any} answer
 * @param {[number, number][]} pairs
 * @param {Page} page
 * @returns {Node[]}
 */
export function sequence(answer, pairs, page) {
  const { record, concepts, tracks } = answer;
  return [
    view(record, concepts, tracks, pairs, page, `Tracks of ${record.name}`),
    key("A bar is the activation on a nucleotide, in shares of the largest one on sequences of the training;"
      + " red bars are cut at one and a half times that. The strongest features of the sequence are drawn;"
      + " add others by name. †: not certified, it does not come back in most other seeds, or there are too"
      + " few to tell."),
  ];
}

/**
 * Read-outs and features before and after an edit.
 * @param {any} answer
 * @param {Page} page
 * @returns {{nodes: Node[], changed: number}} and how many letters are others or new
 */
export function edit(answer, page) {
  /** @type {Map<number, number>} from the edited sequence to the one before */
  const partner = new Map(answer.aligned.map((/** @type {number[]} */ [i, j]) => [j, i]));
  const before = (/** @type {number} */ j) => partner.get(j) ?? -1;
  const tracks = answer.moved.map((/** @type {any} */ one) => ({
    name: one.name,
    usual: one.usual,
    values: one.after,
    before: one.after.map((/** @type {number} */ _, /** @type {number} */ j) => one.before[before(j)] ?? 0),
  }));
  const letters = [...answer.after.sequence];
  const changed = letters.filter((letter, j) => answer.before.sequence[before(j)] !== letter).length;
  const rows = answer.read_outs.map((/** @type {any} */ one) => [one.name, ...beforeAndAfter(one)]);
  const nodes = [
    table(
      "Read-outs before and after the edit.",
      ["read-out", "before", "after", "change"],
      rows,
      new Set([1, 2, 3]),
    ),
    tracks.length
      ? view(answer.after, {}, tracks, [], page, "Features that the edit moves")
      : el("p", {}, "No feature moves."),
    key("The features that move most on a nucleotide: grey before, blue after, under the edited letters."),
  ];
  return { nodes, changed };
}

/**
 * The map of all substitutions, and the largest effects.
 * @param {any} answer
 * @param {number[][]} effects a row a letter
 * @param {string} what is affected
 * @param {Page} page
 * @returns {Node[]}
 */
export function saturation(answer, effects, what, page) {
  const own = answer.record.sequence;
  const largest = effects
    .flatMap((row, k) => row.map((value, i) => ({ value, at: answer.first + i, letter: answer.letters[k] })))
    .filter((one) => own[one.at] !== one.letter)
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
    .slice(0, 8);
  const rows = largest.map((one) => [
    one.at,
    own[one.at],
    one.letter,
    number(one.value, true),
    el("button", { type: "button", click: () => page.change(one.at, one.letter) }, "make it"),
  ]);
  return [
    heatmap(own, answer.first, answer.letters, effects, page.change),
    table(
      `The largest effects on ${what}.`,
      ["position", "from", "to", "effect", "change"],
      rows,
      new Set([0, 3]),
    ),
  ];
}

/**
 * What setting a feature does, beside its nulls.
 * @param {any} answer
 * @param {Page} page
 * @returns {Node[]}
 */
export function intervention(answer, page) {
  const p = (/** @type {any} */ one) =>
    one ? `${number(one.p_value)} of ${one.effects.length}` : "nothing changes";
  const rows = answer.effects.map((/** @type {any} */ one) => [
    one.name, ...beforeAndAfter(one), p(one.random), p(one.alike),
  ]);
  const usual = Math.max(...answer.before, ...answer.after, 1e-12);
  const track = { name: answer.feature, usual, values: answer.after, before: answer.before };
  const first = answer.effects[0];
  const later = answer.moved.map((/** @type {any} */ one) => [
    page.linked(one.name), number(one.change, true),
  ]);
  return [
    table(
      "Read-outs with the feature set, and how often other directions change them as much (p-values).",
      ["read-out", "before", "after", "change", "random directions", "features as dense"],
      rows,
      new Set([1, 2, 3]),
    ),
    ...(first?.random ? besideNulls(first) : []),
    view(answer.record, {}, [track], [], page, `${answer.feature} before and after it is set`),
    ...(later.length ? [table(
      "Later features whose mean moves most, in shares of their usual largest activation.",
      ["feature", "change"],
      later,
      new Set([1]),
    )] : []),
  ];
}

/**
 * Features between two sets of sequences.
 * @param {any} answer
 * @param {Page} page
 * @returns {Node[]}
 */
export function contrast(answer, page) {
  const share = (/** @type {number} */ value) => `${Math.round(100 * value)} %`;
  const rows = answer.rows.map((/** @type {any} */ one) => [
    page.linked(one.name),
    page.choices.told(one.name)?.certified ?? "unknown",
    number(one.mean_here),
    number(one.mean_there),
    share(one.share_here),
    share(one.share_there),
    number(one.effect, true),
    number(one.p_value),
    number(one.q_value),
    el("button", {
      type: "button",
      "aria-label": `choose ${one.name}`,
      click: () => page.choices.choose(one.name),
    }, "choose"),
  ]);
  const how = answer.exact ? "every division counted" : "normal approximation";
  return [table(
    `The most certain of ${answer.n_tested} features, ${answer.n_here} sequences against ${answer.n_there}`
      + ` (rank-sum test, ${how}; q: Benjamini-Hochberg). Sequences count as independent.`,
    [
      "feature", "certified", "mean here", "mean there", "active here", "active there", "effect", "p", "q",
      "draw",
    ],
    rows,
    new Set([2, 3, 4, 5, 6, 7, 8]),
  )];
}

/** @param {any} one a read-out before and after */
const beforeAndAfter = (one) => [number(one.before), number(one.after), number(one.after - one.before, true)];

/** @param {any} effect @returns {Node[]} */
function besideNulls({ name, before, after, random, alike }) {
  return [
    el(
      "div",
      { class: "drawing", tabindex: 0, role: "region", "aria-label": `Effect on ${name} beside its nulls` },
      nulls(after - before, random.effects, alike.effects),
    ),
    key(`${name}: the effect (red) beside changes of the same length, nucleotide by nucleotide, in`
      + ` ${random.effects.length} random directions (grey) and along ${alike.effects.length} features of the`
      + " site that are about as often active (brown)."),
  ];
}

/** @param {any} answer @returns {string[]} */
function warnings({ record, usual_lengths: [shortest, longest], fit }) {
  const said = [];
  const n = record.sequence.length;
  if (n < shortest || n > longest) {
    said.push(`Its length, ${n} nt, lies outside that of the sequences of the training (${shortest} to`
      + ` ${longest} nt).`);
  }
  const far = fit.filter((/** @type {any} */ one) => one.outside !== null && one.outside > FAR);
  if (far.length) {
    const sites = far.map((/** @type {any} */ one) => one.site).join(", ");
    said.push(`At ${sites} more than ${100 * FAR} % of its nucleotides are reconstructed`
      + " worse than one in a thousand was in training: its features may not mean there what they mean on"
      + " those sequences.");
  }
  return said;
}

/** @param {any} one a read-out */
function tried({ value, tried_low: low, tried_high: high }) {
  if (low === null) return "not known";
  return `${value < low || value > high ? "outside" : "within"} ${range(low, high)}`;
}

/** @param {number | null} low @param {number | null} high */
const range = (low, high) => (low === null ? "not known" : `${number(low)} to ${number(high)}`);

/** @param {string} text */
const key = (text) => el("p", { class: "key" }, text);
