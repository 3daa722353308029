// @ts-check
/** Drawings along a sequence: letters, regions, concepts, pairs, features; heatmaps and nulls. */

import { draw, el, number } from "./dom.js";

const ROW = 18;
const HIGH = 34;
const ARCS = 90;
const CELL = 15;
const STOPS = new Set(["UAA", "UAG", "UGA"]);
/** Concepts that the row of regions shows. */
const REGIONS = new Set(["utr5", "cds", "utr3"]);
/** Activations beyond this share of the usual largest one are cut, and drawn in red. */
const TOP = 1.5;

/**
 * @typedef {object} Sequence
 * @property {string} name
 * @property {string} sequence
 * @property {number | null} cds_start
 * @property {number | null} cds_end
 *
 * @typedef {object} Track
 * @property {string} name of the feature
 * @property {number} usual the largest activation on sequences of the training
 * @property {number[]} values on each nucleotide
 * @property {number[]} [before] the same before a change
 *
 * @typedef {object} Choices
 * @property {string} pressed the feature that is chosen
 * @property {(name: string) => void} choose
 * @property {(name: string) => string | null} card where the card of a feature is, if it has one
 * @property {(name: string) => any} told what is known of a feature, as the API has it
 */

/**
 * A sequence with everything that stands under it.
 * @param {Sequence} record
 * @param {Record<string, [number, number][]>} concepts
 * @param {Track[]} tracks
 * @param {[number, number][]} pairs
 * @param {{zoom: number, choices: Choices}} page zoom in pixels a nucleotide; 0 fits the width
 * @param {string} label
 */
export function view(record, concepts, tracks, pairs, { zoom, choices }, label) {
  const names = el("div", { class: "names" });
  const svg = draw("svg", { role: "img", "aria-label": label });
  const n = record.sequence.length;
  const width = zoom || Math.max(0.1, Math.min(14, (window.innerWidth * 0.7) / n));
  let y = 0;

  /** @param {Node | string} name @param {number} high @param {SVGElement[]} shapes */
  function row(name, high, shapes) {
    names.append(el("div", { class: high === HIGH ? "high" : high === ARCS ? "arcs" : "" }, name));
    svg.append(draw("g", { transform: `translate(0 ${y})` }, ...shapes));
    y += high;
  }

  if (pairs.length) row("base pairs", ARCS, pairs.map((pair) => arc(pair, width)));
  row("position", ROW, ticks(n, width));
  if (width >= 6) row("", ROW, letters(record.sequence, width));
  row("regions", ROW, regions(record, width));
  for (const track of tracks) row(nameOf(track, choices), HIGH, bars(track, width));
  for (const [name, spans] of Object.entries(concepts)) {
    if (!REGIONS.has(name)) row(name.replaceAll("_", " "), ROW, spans.map((one) => span(name, one, width)));
  }
  svg.setAttribute("width", String(Math.ceil(n * width)));
  svg.setAttribute("height", String(y));
  return el("div", { class: "tracks" }, names, scrolling(label, svg));
}

/**
 * Effects of substitutions: a row a letter, a column a position.
 * @param {string} sequence
 * @param {number} first
 * @param {string[]} letters
 * @param {number[][]} effects
 * @param {(position: number, letter: string) => void} choose
 */
export function heatmap(sequence, first, letters, effects, choose) {
  const largest = Math.max(1e-12, ...effects.flat().map(Math.abs));
  const svg = draw("svg", { role: "img", "aria-label": "Effect of each substitution" });
  effects[0].forEach((_, i) => {
    const position = first + i;
    const own = sequence[position];
    const middle = (i + 0.5) * CELL;
    svg.append(draw("text", { x: middle, y: 12, class: `letter ${own}` }, own));
    letters.forEach((letter, k) => {
      const place = { x: i * CELL, y: ROW + k * CELL, width: CELL, height: CELL };
      if (letter === own) {
        const title = draw("title", {}, `${position} ${letter}: as it is`);
        svg.append(draw("rect", { ...place, class: "cell own" }, title));
        return;
      }
      const value = effects[k][i];
      const title = draw("title", {}, `${position} ${own} to ${letter}: ${number(value, true)}`);
      const click = () => choose(position, letter);
      svg.append(draw("rect", { ...place, class: "cell can", fill: colour(value / largest), click }, title));
    });
    if (position % 10 === 0) {
      svg.append(draw("text", { x: middle, y: ROW + 4 * CELL + 12, class: "axis" }, position));
    }
  });
  svg.setAttribute("width", String(effects[0].length * CELL));
  svg.setAttribute("height", String(2 * ROW + 4 * CELL));
  const names = ["to", ...letters].map((text) => el("div", {}, text));
  return el("div", {},
    el("div", { class: "tracks" },
      el("div", { class: "names small" }, ...names), scrolling("Map of substitutions", svg)),
    el("p", { class: "key" }, `Blue: lower; red: higher; the strongest colour is ${number(largest)}.`
      + " Click a cell to make that change."));
}

/**
 * An effect on a line with those of other directions.
 * @param {number} effect
 * @param {number[]} random
 * @param {number[]} alike
 */
export function nulls(effect, random, alike) {
  const width = 560;
  const all = [effect, 0, ...random, ...alike];
  const low = Math.min(...all);
  const high = Math.max(...all);
  const x = (/** @type {number} */ value) =>
    10 + ((value - low) / Math.max(1e-12, high - low)) * (width - 20);
  const line = (/** @type {number} */ value, /** @type {string} */ kind) =>
    draw("line", { x1: x(value), x2: x(value), y1: 2, y2: 44, class: kind });
  const label = `Effect ${number(effect, true)} beside ${random.length} random directions and`
    + ` ${alike.length} features`;
  return draw("svg", { width, height: 62, role: "img", "aria-label": label },
    line(0, "zero"),
    ...random.map((value, i) => dot(x(value), 9 + (i % 5) * 3, 1.8, "null")),
    ...alike.map((value, i) => dot(x(value), 30 + (i % 3) * 4, 2.2, "alike")),
    line(effect, "effect"),
    draw("text", { x: 10, y: 58, class: "left" }, number(low, true)),
    draw("text", { x: width - 10, y: 58, class: "right" }, number(high, true)));
}

/** @param {number} cx @param {number} cy @param {number} r @param {string} kind */
const dot = (cx, cy, r, kind) => draw("circle", { cx, cy, r, class: kind });

/** @param {string} label @param {SVGElement} svg */
const scrolling = (label, svg) =>
  el("div", { class: "drawing", tabindex: 0, role: "region", "aria-label": `${label}, scrolls` }, svg);

/** @param {Track} track @param {Choices} choices */
function nameOf({ name }, { pressed, choose, card, told }) {
  const known = told(name);
  const button = el("button", {
    type: "button",
    "aria-pressed": String(name === pressed),
    title: [...inWords(known), "press to choose it for the map and the intervention"].join("; "),
    click: () => choose(name),
  }, name);
  const place = card(name);
  return el("span", {}, button, " ",
    place ? el("a", { href: place, "aria-label": `card of ${name}` }, "card") : "",
    known?.certified === "yes" ? "" : " †");
}

/** What is known of a feature, in words. @param {any} known @returns {string[]} */
export function inWords(known) {
  if (!known) return [];
  const { stability, certified, best_concept: concept, best_property: property } = known;
  const back = stability === null ? "no other seed to compare with" : `stability ${number(stability)}`;
  return [
    `${back}, ${certified === "yes" ? "certified" : "not certified"}`,
    ...(concept ? [`best concept ${concept}`] : []),
    ...(property ? [`goes along with ${property}`] : []),
  ];
}

/** @param {Track} track @param {number} width */
function bars({ name, usual, values, before }, width) {
  const unit = usual || Math.max(...values, 1e-12);
  const bottom = HIGH - 3;
  const wide = before ? width / 2 : width;
  const shapes = [draw("line", { x1: 0, x2: values.length * width, y1: bottom, y2: bottom, class: "rule" })];

  /** @param {number} value @param {number} i @param {string} kind @param {number} shift */
  function bar(value, i, kind, shift) {
    const share = value / unit;
    if (share <= 0) return;
    const height = Math.max(1, (Math.min(share, TOP) / TOP) * (HIGH - 6));
    const title = `${name} at ${i}: ${number(value)} (${Math.round(share * 100)} % of the usual largest)`;
    shapes.push(draw("rect", {
      x: i * width + shift,
      y: bottom - height,
      width: Math.max(0.5, wide - (width > 3 ? 1 : 0)),
      height,
      class: share > TOP ? `${kind} over` : kind,
    }, draw("title", {}, title)));
  }

  before?.forEach((value, i) => bar(value, i, "bar before", 0));
  values.forEach((value, i) => bar(value, i, "bar", before ? wide : 0));
  return shapes;
}

/** @param {string} sequence @param {number} width */
const letters = (sequence, width) =>
  [...sequence].map((letter, i) =>
    draw("text", { x: (i + 0.5) * width, y: 13, class: `letter ${letter}` }, letter));

/** @param {string} name @param {[number, number]} ends @param {number} width */
function span(name, [start, end], width) {
  const place = { x: start * width, y: 4, width: Math.max(1, (end - start) * width), height: 9 };
  const kind = name.startsWith("uAUG") ? "span uaug" : "span";
  return draw("rect", { ...place, class: kind }, draw("title", {}, `${name} ${start} to ${end}`));
}

/** @param {Sequence} record @param {number} width */
function regions({ sequence, cds_start: start, cds_end: end }, width) {
  /** @param {number} a @param {number} b @param {string} kind @param {string} title */
  function box(a, b, kind, title) {
    const place = { x: a * width, y: 4, width: Math.max(0.3, (b - a) * width), height: 10 };
    return draw("rect", { ...place, class: kind }, draw("title", {}, title));
  }

  const n = sequence.length;
  if (start === null) return [box(0, n, "utr", "no start codon known")];
  const shapes = [box(0, start, "utr", `5'UTR, ${start} nt`)];
  const last = end ?? n;
  for (let i = start; i < last; i += 3) {
    const codon = sequence.slice(i, Math.min(i + 3, last));
    const even = (i - start) % 6 ? "cds odd" : "cds";
    const kind = i === start ? "start" : STOPS.has(codon) ? "stop" : even;
    shapes.push(box(i, i + codon.length, kind, `codon ${(i - start) / 3 + 1}: ${codon}`));
  }
  if (last < n) shapes.push(box(last, n, "utr", `3'UTR, ${n - last} nt`));
  return shapes;
}

/** @param {number} n @param {number} width */
function ticks(n, width) {
  const step = [10, 20, 50, 100, 200, 500, 1000].find((s) => s * width > 44) ?? 2000;
  const shapes = [];
  for (let i = 0; i < n; i += step) {
    shapes.push(draw("text", { x: i * width + 1, y: 12, class: "left" }, i));
  }
  return shapes;
}

/** @param {[number, number]} pair @param {number} width */
function arc([i, j], width) {
  const a = (i + 0.5) * width;
  const b = (j + 0.5) * width;
  const y = ARCS - Math.min(ARCS - 4, (b - a) / 2) * 1.33;
  const title = draw("title", {}, `${i} pairs with ${j}`);
  return draw("path", { d: `M${a} ${ARCS}C${a} ${y} ${b} ${y} ${b} ${ARCS}`, class: "arc" }, title);
}

/** @param {number} share -1 to 1; blue over white to red */
function colour(share) {
  const s = Math.max(-1, Math.min(1, share));
  const fade = 1 - Math.abs(s) ** 0.7;
  const [r, g, b] = s < 0 ? [11, 92, 142] : [164, 38, 44];
  const mix = (/** @type {number} */ c) => Math.round(c + (255 - c) * fade);
  return `rgb(${mix(r)},${mix(g)},${mix(b)})`;
}
