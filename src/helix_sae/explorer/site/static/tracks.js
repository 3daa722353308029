// @ts-check
/** Drawings along a sequence: letters, regions, concepts, pairs, features; heatmaps and nulls. */

import { draw, el, number } from "./dom.js";

const ROW = 18, HIGH = 34, ARCS = 90;
/** Concepts that the row of regions shows. */
const REGIONS = new Set(["utr5", "cds", "utr3"]);
const STOPS = new Set(["UAA", "UAG", "UGA"]);
/** Activations beyond this share of the usual largest one are cut, and drawn in red. */
const TOP = 1.5;

/**
 * @typedef {{name: string, sequence: string, cds_start: number | null, cds_end: number | null, start_from: string}} Sequence
 * @typedef {{name: string, usual: number, values: number[], before?: number[]}} Track
 * @typedef {{pressed: string, choose: (name: string) => void, card: ((name: string) => string) | null}} Choices
 */

/**
 * A sequence with everything that stands under it.
 * @param {Sequence} record
 * @param {Record<string, [number, number][]>} concepts
 * @param {Track[]} tracks
 * @param {[number, number][]} pairs
 * @param {number} zoom pixels a nucleotide; 0 fits the width
 * @param {Choices} choices
 * @param {string} label
 */
export function view(record, concepts, tracks, pairs, zoom, choices, label) {
  const names = el("div", { class: "names" }), svg = draw("svg", { role: "img", "aria-label": label });
  const n = record.sequence.length;
  const width = zoom || Math.max(0.1, Math.min(14, (window.innerWidth * 0.7) / n));
  let y = 0;
  const row = (/** @type {Node | string} */ name, /** @type {number} */ high, /** @type {SVGElement[]} */ shapes) => {
    names.append(el("div", { class: high === HIGH ? "high" : high === ARCS ? "arcs" : "" }, name));
    svg.append(draw("g", { transform: `translate(0 ${y})` }, ...shapes));
    y += high;
  };
  if (pairs.length) row("base pairs", ARCS, pairs.map((pair) => arc(pair, width)));
  row("position", ROW, ticks(n, width));
  if (width >= 6) row("", ROW, [...record.sequence].map((letter, i) => draw("text", { x: (i + 0.5) * width, y: 13, class: `letter ${letter}` }, letter)));
  row("regions", ROW, regions(record, width));
  for (const [name, spans] of Object.entries(concepts)) {
    if (REGIONS.has(name)) continue;
    row(name.replaceAll("_", " "), ROW, spans.map(([a, b]) => draw("rect", { x: a * width, y: 4, width: Math.max(1, (b - a) * width), height: 9, class: name.startsWith("uAUG") ? "span uaug" : "span" }, draw("title", {}, `${name} ${a} to ${b}`))));
  }
  for (const track of tracks) row(nameOf(track, choices), HIGH, bars(track, width));
  svg.setAttribute("width", String(Math.ceil(n * width)));
  svg.setAttribute("height", String(y));
  return el("div", { class: "tracks" }, names, el("div", { class: "drawing", tabindex: 0, role: "region", "aria-label": `${label}, scrolls` }, svg));
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
  const cell = 15, svg = draw("svg", { role: "img", "aria-label": "Effect of each substitution" });
  effects[0].forEach((_, i) => {
    const position = first + i, own = sequence[position];
    svg.append(draw("text", { x: (i + 0.5) * cell, y: 12, class: `letter ${own}` }, own));
    letters.forEach((letter, k) => {
      const value = effects[k][i], is = own === letter;
      const shape = draw("rect", { x: i * cell, y: 18 + k * cell, width: cell, height: cell, class: is ? "cell own" : "cell can" },
        draw("title", {}, is ? `${position} ${letter}: as it is` : `${position} ${own} to ${letter}: ${number(value, true)}`));
      if (!is) {
        shape.setAttribute("fill", colour(value / largest));
        shape.addEventListener("click", () => choose(position, letter));
      }
      svg.append(shape);
    });
    if (position % 10 === 0) svg.append(draw("text", { x: (i + 0.5) * cell, y: 18 + 4 * cell + 12, class: "axis" }, position));
  });
  svg.setAttribute("width", String(effects[0].length * cell));
  svg.setAttribute("height", String(18 + 4 * cell + 18));
  const names = el("div", { class: "names" }, el("div", {}, "to"), ...letters.map((letter) => el("div", {}, letter)));
  for (const one of names.children) /** @type {HTMLElement} */ (one).style.height = "15px";
  return el("div", {},
    el("div", { class: "tracks" }, names, el("div", { class: "drawing", tabindex: 0, role: "region", "aria-label": "Map of substitutions, scrolls" }, svg)),
    el("p", { class: "key" }, `Blue: lower; red: higher; the strongest colour is ${number(largest)}. Click a cell to make that change.`));
}

/**
 * An effect on a line with those of other directions.
 * @param {number} effect
 * @param {number[]} random
 * @param {number[]} alike
 */
export function nulls(effect, random, alike) {
  const all = [effect, 0, ...random, ...alike], low = Math.min(...all), high = Math.max(...all);
  const width = 560, x = (/** @type {number} */ value) => 10 + ((value - low) / Math.max(1e-12, high - low)) * (width - 20);
  return draw("svg", { width, height: 62, role: "img", "aria-label": `Effect ${number(effect, true)} beside ${random.length} random directions and ${alike.length} features` },
    draw("line", { x1: x(0), x2: x(0), y1: 2, y2: 44, class: "zero" }),
    ...random.map((value, i) => draw("circle", { cx: x(value), cy: 9 + (i % 5) * 3, r: 1.8, class: "null" })),
    ...alike.map((value, i) => draw("circle", { cx: x(value), cy: 30 + (i % 3) * 4, r: 2.2, class: "alike" })),
    draw("line", { x1: x(effect), x2: x(effect), y1: 2, y2: 44, class: "effect" }),
    draw("text", { x: 10, y: 58, class: "left" }, number(low, true)),
    draw("text", { x: width - 10, y: 58, class: "right" }, number(high, true)));
}

/** @param {Track} track @param {Choices} choices */
function nameOf(track, choices) {
  const button = el("button", { type: "button", "aria-pressed": String(track.name === choices.pressed), title: "Choose this feature for the map and the intervention", click: () => choices.choose(track.name) }, track.name);
  const card = choices.card && el("a", { href: choices.card(track.name), "aria-label": `card of ${track.name}` }, "card");
  return el("span", {}, button, " ", card ?? "");
}

/** @param {Track} track @param {number} width */
function bars(track, width) {
  const usual = track.usual || Math.max(...track.values, 1e-12), bottom = HIGH - 3;
  const shapes = [draw("line", { x1: 0, x2: track.values.length * width, y1: bottom, y2: bottom, class: "rule" })];
  const bar = (/** @type {number} */ value, /** @type {number} */ i, /** @type {string} */ kind) => {
    const share = value / usual;
    if (share <= 0) return;
    const high = Math.max(1, (Math.min(share, TOP) / TOP) * (HIGH - 6)), half = track.before ? width / 2 : width;
    const x = i * width + (kind === "bar" && track.before ? half : 0);
    shapes.push(draw("rect", { x, y: bottom - high, width: Math.max(0.5, half - (width > 3 ? 1 : 0)), height: high, class: kind + (share > TOP ? " over" : "") },
      draw("title", {}, `${track.name} at ${i}: ${number(value)} (${Math.round(share * 100)} % of the usual largest)`)));
  };
  track.before?.forEach((value, i) => bar(value, i, "bar before"));
  track.values.forEach((value, i) => bar(value, i, "bar"));
  return shapes;
}

/** @param {Sequence} record @param {number} width */
function regions(record, width) {
  const { sequence, cds_start: start, cds_end: end } = record, n = sequence.length;
  const box = (/** @type {number} */ a, /** @type {number} */ b, /** @type {string} */ kind, /** @type {string} */ title) =>
    draw("rect", { x: a * width, y: 4, width: Math.max(0.3, (b - a) * width), height: 10, class: kind }, draw("title", {}, title));
  if (start === null) return [box(0, n, "utr", "no start codon known")];
  const shapes = [box(0, start, "utr", `5'UTR, ${start} nt`)], last = end ?? n;
  for (let i = start; i < last; i += 3) {
    const codon = sequence.slice(i, Math.min(i + 3, last));
    const kind = i === start ? "start" : STOPS.has(codon) ? "stop" : (i - start) % 6 ? "cds odd" : "cds";
    shapes.push(box(i, i + codon.length, kind, `codon ${(i - start) / 3 + 1}: ${codon}`));
  }
  if (last < n) shapes.push(box(last, n, "utr", `3'UTR, ${n - last} nt`));
  return shapes;
}

/** @param {number} n @param {number} width */
function ticks(n, width) {
  const step = [10, 20, 50, 100, 200, 500, 1000].find((s) => s * width > 44) ?? 2000, shapes = [];
  for (let i = 0; i < n; i += step) shapes.push(draw("text", { x: i * width + 1, y: 12, class: "left" }, i));
  return shapes;
}

/** @param {[number, number]} pair @param {number} width */
function arc([i, j], width) {
  const a = (i + 0.5) * width, b = (j + 0.5) * width, high = Math.min(ARCS - 4, (b - a) / 2);
  return draw("path", { d: `M${a} ${ARCS}C${a} ${ARCS - high * 1.33} ${b} ${ARCS - high * 1.33} ${b} ${ARCS}`, class: "arc" }, draw("title", {}, `${i} pairs with ${j}`));
}

/** @param {number} share -1 to 1; blue over white to red */
function colour(share) {
  const s = Math.max(-1, Math.min(1, share)), fade = 1 - Math.abs(s) ** 0.7;
  const [r, g, b] = s < 0 ? [11, 92, 142] : [164, 38, 44];
  const mix = (/** @type {number} */ c) => Math.round(c + (255 - c) * fade);
  return `rgb(${mix(r)},${mix(g)},${mix(b)})`;
}
