// @ts-check
"use strict";
/**
 * The index of the atlas and the cards of its features. All data come from the page itself and from the files of
 * `cards/` beside it; whatever they hold becomes text, never markup. The address says all that is shown:
 * `#L4.mixer.693,L2.mixer.5?q=uaug&sort=-effect&density=0.1_2`.
 */
(() => {
  /**
   * @typedef {object} Column
   * @property {string} key
   * @property {string} title
   * @property {"name"|"text"|"choice"|"number"|"whisker"} kind
   * @property {number} width in rem
   * @property {string} meaning
   * @property {string} format
   * @property {number} decimals
   * @property {(number|null)[]} [values] of a number
   * @property {string[]} [words] of all others, sorted
   * @property {number[]} [codes] place among the words, -1 where there is none
   */
  /**
   * What the address says: cards that are open, words searched for, column and direction of the order, filters by column.
   * @typedef {{open: string[], q: string, sort: string, down: boolean, filters: Map<string, string>, box: string}} State
   * @typedef {{lead: string, left: any[][], right: any[][], below: any[][]}} Card
   */

  /** @param {string} id @returns {HTMLElement} */
  const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
  /** @type {{columns: Column[], first: number[], chunk: number, flank: number, logoFlank: number, hasTarget: boolean, glyphs: Record<string, string>, labels: string[][], rules: {words: string[], codes: number[]}, glosses: [string, string][], places: [number[], number[]]|null, hasSequences: boolean}} */
  const data = JSON.parse(byId("atlas-data").textContent || "{}");
  /** @type {Map<string, Column>} */
  const columns = new Map(data.columns.map((column) => [column.key, column]));
  const nameColumn = columns.get("name");
  const names = (nameColumn?.codes ?? []).map((code) => nameColumn?.words?.[code] ?? "");
  const anchorOf = (/** @type {string} */ name) => name.replace(/[^\p{L}\p{N}_.-]/gu, "_");
  const anchors = names.map(anchorOf);
  const rowOf = new Map(anchors.map((anchor, row) => [anchor, row]));
  const n = names.length;
  const suggested = columns.get("suggested");
  const ROW = 30;
  const MISSING = "–";
  const SVG = "http://www.w3.org/2000/svg";
  /** Where the model can be asked; only helix-sae serve says so. */
  const explorer = document.documentElement.dataset.explorer ?? "";

  // Small helpers -----------------------------------------------------------------------------------------------------

  /**
   * An element with attributes and children; texts are texts.
   * @param {string} tag
   * @param {Record<string, string|number>} [attributes]
   * @param {...(Node|string|null)} children
   * @returns {HTMLElement}
   */
  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  /** @param {string} tag @param {Record<string, string|number>} attributes @param {...(Node|string)} children */
  function svg(tag, attributes, ...children) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
    made.append(...children);
    return made;
  }

  /** A number as the cards have it. @param {number|null} value @param {Column} column */
  function formatted(value, column) {
    if (value === null || Number.isNaN(value)) return MISSING;
    const fixed = (/** @type {number} */ x, /** @type {number} */ d) =>
      (Number(x.toFixed(d)) === 0 ? (0).toFixed(d) : x.toFixed(d)).replace("-", "−");
    switch (column.format) {
      case "percent":
        return `${fixed(100 * value, column.decimals)} %`;
      case "signed":
        return (value > 0 && Number(value.toFixed(column.decimals)) !== 0 ? "+" : "") + fixed(value, column.decimals);
      case "probability":
        if (value < 1e-300) return "< 10⁻³⁰⁰";
        if (value < 1e-3) {
          const [digits, power] = value.toExponential(0).split("e-");
          return `${digits}×10⁻${[...power].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)]).join("")}`;
        }
        return String(Number(value.toPrecision(2)));
      case "number":
        return String(Number(value.toPrecision(column.decimals))).replace("-", "−");
      default:
        return fixed(value, column.decimals);
    }
  }

  /** Text of a cell. @param {Column} column @param {number} row */
  function text(column, row) {
    if (column.values) return formatted(column.values[row], column);
    const code = column.codes ? column.codes[row] : -1;
    return code < 0 ? MISSING : (column.words?.[code] ?? MISSING);
  }

  /**
   * What opens a record whole, with a feature drawn under it, where the model is behind the page; else its name.
   * @param {string} record @param {string} feature @param {string} [label]
   */
  function onSequence(record, feature, label = record) {
    if (!explorer) return label;
    const wanted = new URLSearchParams({ record, ...(feature ? { feature } : {}) });
    return el("a", { href: `${explorer}#${wanted}` }, label);
  }

  // The address ---------------------------------------------------------------------------------------------------------

  /** @param {string} hash @returns {State} */
  function parsed(hash) {
    const [open, query] = splitOnce(hash.replace(/^#/, ""), "?");
    const given = new URLSearchParams(query);
    const sort = given.get("sort") || "";
    const filters = new Map([...given].filter(([key]) => columns.has(key)));
    const cards = open.split(",").map(decoded).filter((anchor) => rowOf.has(anchor));
    return { open: [...new Set(cards)].slice(0, 2), q: given.get("q") || "", sort: sort.replace(/^-/, ""), down: sort.startsWith("-"), filters, box: given.get("box") || "" };
  }

  /** @param {string} part */
  function decoded(part) {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  }

  /** @param {string} whole @param {string} mark @returns {[string, string]} */
  function splitOnce(whole, mark) {
    const at = whole.indexOf(mark);
    return at < 0 ? [whole, ""] : [whole.slice(0, at), whole.slice(at + mark.length)];
  }

  /** @param {State} state */
  function address(state) {
    const given = new URLSearchParams();
    if (state.q) given.set("q", state.q);
    if (state.sort) given.set("sort", (state.down ? "-" : "") + state.sort);
    for (const [key, value] of state.filters) if (value) given.set(key, value);
    if (state.box) given.set("box", state.box);
    const query = given.toString();
    return `#${state.open.map(encodeURIComponent).join(",")}${query ? `?${query}` : ""}`;
  }

  /**
   * A link that opens these cards, whatever the index shows when it is followed.
   * @param {string[]} open @param {Node|string} label @param {Record<string, string>} [attributes]
   */
  function opener(open, label, attributes = {}) {
    const link = el("a", { ...attributes, href: address({ ...state, open }) }, label);
    const renew = () => link.setAttribute("href", address({ ...state, open }));
    for (const event of ["click", "auxclick", "focus"]) link.addEventListener(event, renew);
    return link;
  }

  let state = parsed(location.hash);
  let lastControl = "";

  /**
   * Show another state. Typing on in one field replaces the entry of the history, so that "back" undoes it as a whole.
   * @param {Partial<State>} change
   * @param {string} control
   */
  function go(change, control) {
    state = { ...state, ...change };
    history[control && control === lastControl ? "replaceState" : "pushState"](null, "", address(state));
    lastControl = control;
    show();
  }

  // Labels ---------------------------------------------------------------------------------------------------------------

  /** feature, label, note, author, date: those of the run's table, and what was changed here. @type {string[][]} */
  let labels = data.labels;
  const KEPT = `helix-sae labels ${location.pathname}`;
  const kept = attempted(() => localStorage.getItem(KEPT));
  let isChanged = Boolean(kept);
  if (kept) {
    const read = attempted(() => JSON.parse(kept));
    if (Array.isArray(read)) labels = read.filter((row) => Array.isArray(row) && row.length === 5).map((row) => row.map(String));
  }
  const exportButton = el("button", { type: "button" }, "Export labels");

  /** Browsers may refuse storage to pages from the disk. @template T @param {() => T} action @returns {T|null} */
  function attempted(action) {
    try {
      return action();
    } catch {
      return null;
    }
  }

  /** The column of labels as they are now. */
  function relabel() {
    const column = columns.get("label");
    if (!column) return;
    /** @type {Map<string, string>} */
    const joined = new Map();
    for (const [feature, label] of labels) joined.set(feature, joined.has(feature) ? `${joined.get(feature)}; ${label}` : label);
    column.words = [...new Set(joined.values())].sort();
    const place = new Map(column.words.map((word, i) => [word, i]));
    column.codes = names.map((name) => place.get(joined.get(name) ?? "") ?? -1);
    orders.delete("label");
    shownRows = "?";
    exportButton.hidden = labels.length === 0;
    exportButton.textContent = isChanged ? "Export labels (changed)" : "Export labels";
  }

  /** @param {string[][]} changed */
  function setLabels(changed) {
    labels = changed;
    isChanged = true;
    attempted(() => localStorage.setItem(KEPT, JSON.stringify(labels)));
    relabel();
    show();
  }

  /** A field of a CSV file; a text that a spreadsheet would take for a formula is marked. @param {string} field */
  function csvField(field) {
    const text = /^[=+@\t-]/.test(field) ? `'${field}` : field;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  exportButton.addEventListener("click", () => {
    const lines = [["feature", "label", "note", "author", "date"], ...labels].map((row) => row.map(csvField).join(","));
    const place = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }));
    el("a", { href: place, download: "labels.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(place), 10_000);
  });

  /** What people call a feature, what the evidence suggests, and a form for another label. @param {number} row */
  function labelElement(row) {
    const name = names[row];
    const own = labels.filter(([feature]) => feature === name);
    const lines = own.map((label) => {
      const remove = el("button", { type: "button", "aria-label": `Remove the label ${label[1]}` }, "Remove");
      remove.addEventListener("click", () => {
        setLabels(labels.filter((one) => one !== label));
        place.replaceWith(labelElement(row));
      });
      const [, words, note, author, date] = label;
      return el("li", {}, el("b", {}, words), note ? ` ${note}` : "", el("span", { class: "soft" }, ` ${[author, date].filter(Boolean).join(", ")} `), remove);
    });
    const guess = suggested?.codes && suggested.codes[row] >= 0 ? text(suggested, row) : "";
    const fields = ["label", "note", "author"].map((what) => /** @type {HTMLInputElement} */ (el("input", { placeholder: what, "aria-label": `${what} for ${name}`, maxlength: 500 })));
    const add = el("form", { class: "label" }, ...fields, el("button", {}, "Add"));
    add.addEventListener("submit", (event) => {
      event.preventDefault();
      const [words, note, author] = fields.map((field) => field.value.trim());
      if (!words) return;
      setLabels([...labels, [name, words, note, author, new Date().toISOString().slice(0, 10)]]);
      place.replaceWith(labelElement(row));
    });
    const place = el(
      "div",
      { class: "labels" },
      el("h3", {}, "Labels"),
      own.length ? el("ul", {}, ...lines) : null,
      guess ? el("p", { class: "small" }, "Suggested by the evidence: ", el("b", {}, guess), ` (${data.rules.words[data.rules.codes[row]]}).`) : null,
      add,
    );
    return place;
  }

  // Rows: which, and in what order ----------------------------------------------------------------------------------------

  /** @type {Map<string, Int32Array>} */
  const orders = new Map();

  /** Rows by a column, upwards, missing ones last. @param {string} key */
  function order(key) {
    let made = orders.get(key);
    if (made) return made;
    const column = columns.get(key);
    made = Int32Array.from({ length: n }, (_, row) => row);
    if (column && key) {
      const size = new Float64Array(n);
      for (let row = 0; row < n; row++) {
        const value = column.values ? column.values[row] : column.codes ? column.codes[row] : -1;
        size[row] = value === null || (column.codes && value < 0) ? Infinity : value;
      }
      made.sort((a, b) => (size[a] === size[b] ? a - b : size[a] < size[b] ? -1 : 1));
    } else {
      const first = new Set(data.first);
      made = Int32Array.from([...data.first, ...made.filter((row) => !first.has(row))]);
    }
    orders.set(key, made);
    return made;
  }

  /** What a search looks into, for each word of a column. @type {Map<string[], string[]>} */
  const sought = new Map();

  /** The words in small letters, each with what it stands for. @param {string[]} words */
  function searchable(words) {
    let made = sought.get(words);
    if (!made) {
      made = words.map((word) => {
        const small = word.toLowerCase();
        return data.glosses.reduce((whole, [short, long]) => (small.includes(short) ? `${whole} ${long.toLowerCase()}` : whole), small);
      });
      sought.set(words, made);
    }
    return made;
  }

  /** Leave those rows in that hold the word somewhere. @param {Uint8Array} kept @param {string} word */
  function searched(kept, word) {
    const found = new Uint8Array(n);
    for (const column of data.columns) {
      if (!column.words || !column.codes) continue;
      const hits = searchable(column.words).map((one) => one.includes(word));
      if (!hits.includes(true)) continue;
      for (let row = 0; row < n; row++) if (column.codes[row] >= 0 && hits[column.codes[row]]) found[row] = 1;
    }
    for (let row = 0; row < n; row++) kept[row] &= found[row];
  }

  /** @param {Uint8Array} kept @param {Column} column @param {string} filter */
  function filtered(kept, column, filter) {
    if (column.values) {
      const scale = column.format === "percent" ? 100 : 1;
      const [low, high] = splitOnce(filter, "_").map((end) => Number.parseFloat(end.replace("−", "-").replace(",", ".")));
      for (let row = 0; row < n; row++) {
        const value = column.values[row];
        if (value === null || scale * value < low || scale * value > high) kept[row] = 0;
      }
    } else if (column.words && column.codes) {
      const wanted = filter.toLowerCase();
      const is = column.kind === "choice" ? (/** @type {string} */ w) => w.toLowerCase() === wanted : (/** @type {string} */ w) => w.toLowerCase().includes(wanted);
      const hits = column.words.map(is);
      for (let row = 0; row < n; row++) if (column.codes[row] < 0 || !hits[column.codes[row]]) kept[row] = 0;
    }
  }

  /** The rows that are shown, in their order. @returns {Int32Array} */
  function selected() {
    const kept = new Uint8Array(n).fill(1);
    for (const word of state.q.toLowerCase().split(/\s+/)) if (word) searched(kept, word);
    for (const [key, filter] of state.filters) {
      const column = columns.get(key);
      if (column && filter && filter !== "_") filtered(kept, column, filter);
    }
    if (state.box && data.places) {
      const [left, top, right, bottom] = state.box.split("_").map(Number);
      const [x, y] = data.places;
      for (let row = 0; row < n; row++) if (!(x[row] >= left && x[row] <= right && y[row] >= top && y[row] <= bottom)) kept[row] = 0;
    }
    const all = order(state.sort);
    const rows = new Int32Array(n);
    let size = 0;
    for (const row of all) if (kept[row]) rows[size++] = row;
    const shown = rows.subarray(0, size);
    if (!state.down) return shown;
    // Downwards, but what is missing stays at the end.
    const column = columns.get(state.sort);
    const missing = (/** @type {number} */ row) => column && (column.values ? column.values[row] === null : column.codes && column.codes[row] < 0);
    let known = size;
    while (known > 0 && missing(shown[known - 1])) known--;
    shown.subarray(0, known).reverse();
    return shown;
  }

  // The index -----------------------------------------------------------------------------------------------------------

  /** @type {Int32Array} */
  let rows = new Int32Array(0);
  const search = /** @type {HTMLInputElement} */ (el("input", { type: "search", id: "search", placeholder: "Search names, concepts, properties, causes, letters…", "aria-label": "Search all columns", spellcheck: "false" }));
  const counted = el("output", { for: "search" });
  const clear = el("button", { type: "button" }, "Clear");
  const scroller = el("div", { class: "rows", tabindex: "0", role: "region", "aria-label": "Features" });
  const body = el("tbody");
  /** @type {Map<string, HTMLElement>} */
  const headings = new Map();
  /** @type {Map<string, (HTMLInputElement|HTMLSelectElement)[]>} */
  const controls = new Map();

  function buildIndex() {
    const titles = el("tr");
    const filters = el("tr", { class: "filters" });
    const widths = el("colgroup");
    for (const column of data.columns) {
      const width = el("col");
      width.style.width = `${column.width}rem`;
      widths.append(width);
      const heading = el("th", { scope: "col", title: column.meaning });
      if (column.kind === "whisker") heading.append(column.title);
      else {
        const button = el("button", { type: "button" }, column.title, el("span", { "aria-hidden": "true" }));
        button.addEventListener("click", () => turn(column.key));
        heading.append(button);
      }
      headings.set(column.key, heading);
      titles.append(heading);
      filters.append(el("td", {}, ...filterOf(column)));
    }
    const table = el("table", { "aria-rowcount": n }, widths, el("thead", {}, titles, filters), body);
    table.style.width = `${data.columns.reduce((sum, column) => sum + column.width, 0)}rem`;
    scroller.append(table);
    search.addEventListener("input", () => go({ q: search.value }, "search"));
    clear.addEventListener("click", () => go({ q: "", sort: "", down: false, filters: new Map(), box: "" }, ""));
    scroller.addEventListener("scroll", () => requestAnimationFrame(drawRows));
    byId("index").append(el("div", { class: "tools" }, el("div", { class: "search" }, search), counted, clear, exportButton), scroller);
  }

  /** Once up or down, the other way, and back to the first order. @param {string} key */
  function turn(key) {
    const isNumber = Boolean(columns.get(key)?.values);
    if (state.sort !== key) go({ sort: key, down: isNumber }, "");
    else if (state.down === isNumber) go({ down: !isNumber }, "");
    else go({ sort: "", down: false }, "");
  }

  /** @param {Column} column @returns {HTMLElement[]} */
  function filterOf(column) {
    if (column.kind === "whisker") return [];
    /** @param {() => string} value @param {HTMLElement} control */
    const listen = (value, control) =>
      control.addEventListener("input", () => go({ filters: new Map(state.filters).set(column.key, value()) }, column.key));
    if (column.kind === "number") {
      const ends = ["from", "to"].map((end) => /** @type {HTMLInputElement} */ (el("input", { inputmode: "decimal", placeholder: end, "aria-label": `${column.title} ${end}` })));
      for (const end of ends) listen(() => ends.map((one) => one.value.trim()).join("_"), end);
      controls.set(column.key, ends);
      return [el("div", { class: "range" }, ...ends)];
    }
    if (column.kind === "choice" && column.words) {
      const options = ["", ...column.words].map((word) => el("option", { value: word }, word || "all"));
      const select = /** @type {HTMLSelectElement} */ (el("select", { "aria-label": `${column.title} is` }, ...options));
      listen(() => select.value, select);
      controls.set(column.key, [select]);
      return [select];
    }
    const input = /** @type {HTMLInputElement} */ (el("input", { placeholder: "holds", "aria-label": `${column.title} holds`, spellcheck: "false" }));
    listen(() => input.value, input);
    controls.set(column.key, [input]);
    return [input];
  }

  /** Fields say what the address says. */
  function fillControls() {
    if (search.value !== state.q) search.value = state.q;
    for (const [key, fields] of controls) {
      const filter = state.filters.get(key) || "";
      const parts = fields.length === 2 ? splitOnce(filter, "_") : [filter];
      fields.forEach((field, i) => {
        if (field.value.trim() !== parts[i]) field.value = parts[i];
      });
    }
    for (const [key, heading] of headings) {
      const isSorted = state.sort === key;
      if (isSorted) heading.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
      const mark = heading.querySelector("span");
      if (mark) mark.textContent = isSorted ? (state.down ? " ▾" : " ▴") : "";
    }
  }

  /** Draw the rows that can be seen; the others are room. */
  function drawRows() {
    const head = /** @type {HTMLElement} */ (scroller.querySelector("thead")).offsetHeight;
    const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - 6);
    const last = Math.min(rows.length, Math.ceil((scroller.scrollTop + Math.max(scroller.clientHeight, head)) / ROW) + 6);
    body.replaceChildren(space(first), ...Array.from(rows.subarray(first, last), (row, i) => rowElement(row, first + i)), space(rows.length - last));
  }

  /** @param {number} size */
  function space(size) {
    const cell = el("td", { colspan: data.columns.length });
    cell.style.height = `${size * ROW}px`;
    return el("tr", { class: "space", "aria-hidden": "true" }, cell);
  }

  /** @param {number} row @param {number} place */
  function rowElement(row, place) {
    const isOpen = state.open.includes(anchors[row]);
    const cells = data.columns.map((column) => {
      if (column.kind === "name") {
        const other = state.open.length && !isOpen ? names[rowOf.get(state.open[0]) ?? 0] : "";
        const beside = opener([state.open[0], anchors[row]], "+", { class: "beside", "aria-label": `${names[row]} beside ${other}`, title: "beside the open card" });
        return el("th", { scope: "row" }, opener([anchors[row]], el("code", {}, names[row])), other ? beside : null);
      }
      if (column.kind === "whisker") return el("td", {}, effectDrawn(row));
      const shown = text(column, row);
      if (column.kind === "choice" && (shown === "yes" || shown === "no")) return el("td", {}, el("span", { class: shown }, shown));
      return el("td", column.values ? { class: "n" } : { title: shown === MISSING ? "" : shown }, shown);
    });
    return el("tr", { "aria-rowindex": place + 1, ...(isOpen ? { class: "open" } : {}) }, ...cells);
  }

  /** @type {[number, number]|null} */
  let axis = null;

  /** Effect and interval on the axis of all of them. @param {number} row */
  function effectDrawn(row) {
    const [estimate, low, high] = ["effect", "effect_low", "effect_high"].map((key) => columns.get(key)?.values || []);
    if (estimate[row] === null || estimate[row] === undefined) return "";
    if (axis === null) {
      axis = [0, 0];
      for (const values of [estimate, low, high]) for (const v of values) axis = [Math.min(axis[0], v ?? 0), Math.max(axis[1], v ?? 0)];
    }
    const [least, most] = axis;
    const at = (/** @type {number|null} */ v) => 2 + (96 * ((v ?? estimate[row] ?? 0) - least)) / (most - least || 1);
    const confirmed = columns.get("effect_confirmed");
    return whisker(at(low[row]), at(estimate[row]), at(high[row]), at(0), !(confirmed && text(confirmed, row) === "yes"), 110);
  }

  let shownRows = "";

  function show() {
    const start = performance.now();
    const wanted = address({ ...state, open: [] });
    if (wanted !== shownRows) {
      rows = selected();
      scroller.scrollTop = 0;
    }
    shownRows = wanted;
    counted.textContent = rows.length === n ? `${n.toLocaleString("en")} features` : `${rows.length.toLocaleString("en")} of ${n.toLocaleString("en")} features`;
    fillControls();
    drawRows();
    performance.measure("index", { start });
    drawMaps();
    showCards();
  }

  // Drawings ------------------------------------------------------------------------------------------------------------

  /** @param {number} low @param {number} estimate @param {number} high @param {number} zero @param {boolean} hollow @param {number} width */
  function whisker(low, estimate, high, zero, hollow, width) {
    const still = { "vector-effect": "non-scaling-stroke" };
    return svg(
      "svg",
      { width, height: 16, viewBox: "0 0 100 16", preserveAspectRatio: "none", role: "img", "aria-label": "estimate with interval", class: hollow ? "hollow" : "" },
      svg("line", { class: "zero", x1: zero, x2: zero, y1: 0, y2: 16, ...still }),
      svg("line", { class: "range", x1: low, x2: high, y1: 8, y2: 8, ...still }),
      svg("rect", { class: "dot", x: estimate - 2, y: 5, width: 4, height: 6, ...still }),
    );
  }

  /** @param {number[]} heights @param {string} name */
  function histogram(heights, name) {
    const step = 100 / heights.length;
    const bars = heights.map((height, i) => svg("rect", { class: "bar", x: (i * step).toFixed(2), y: (26 - height).toFixed(1), width: (0.86 * step).toFixed(2), height }));
    const line = svg("line", { class: "axis", x1: 0, x2: 100, y1: 26, y2: 26, "vector-effect": "non-scaling-stroke" });
    return svg("svg", { width: "100%", height: 54, viewBox: "0 0 100 27", preserveAspectRatio: "none", role: "img", "aria-label": `distribution of activations of ${name}` }, ...bars, line);
  }

  /** @param {number[][]} heights hundredths of bits of A, C, G and U @param {string} name */
  function logo(heights, name) {
    const most = Math.max(25, ...heights.map((place) => place.reduce((a, b) => a + b, 0)));
    const tall = 20;
    const wide = 3.2;
    const flank = data.logoFlank;
    const ground = [
      svg("rect", { class: "own", x: flank * wide, y: 0, width: wide, height: tall }),
      svg("rect", { class: "unseen", x: (flank + 1) * wide, y: 0, width: flank * wide, height: tall }),
    ];
    const letters = heights.flatMap((place, i) => {
      let top = tall;
      return [..."ACGU"]
        .map((letter, j) => ({ letter, bits: place[j] }))
        .filter(({ bits }) => bits > 0)
        .sort((a, b) => a.bits - b.bits)
        .map(({ letter, bits }) => {
          const height = (tall * bits) / most;
          top -= height;
          return svg("path", { class: letter, d: data.glyphs[letter], transform: `translate(${(i * wide + 0.22).toFixed(2)} ${top.toFixed(2)}) scale(${wide * 0.86} ${height.toFixed(3)})` });
        });
    });
    const ticks = [-10, -5, 0, 5, 10].filter((t) => Math.abs(t) <= flank).map((t) => svg("text", { x: (t + flank + 0.5) * wide, y: tall + 3.6, "text-anchor": "middle" }, t > 0 ? `+${t}` : String(t).replace("-", "−")));
    const end = heights.length * wide;
    const axes = [svg("line", { class: "base", x1: 0, x2: end, y1: tall, y2: tall }), svg("text", { x: end, y: 3, "text-anchor": "end" }, `${(most / 100).toFixed(1)} bits high`)];
    return svg("svg", { class: "logo", viewBox: `-1 -1 ${end + 2} ${tall + 6}`, role: "img", "aria-label": `sequence logo around the strongest activations of ${name}` }, ...ground, ...letters, ...axes, ...ticks);
  }

  // Cards ---------------------------------------------------------------------------------------------------------------

  /** @type {Map<number|string, Promise<any>>} */
  const chunks = new Map();
  /** @type {Map<number|string, (packed: string) => void>} */
  const awaited = new Map();
  // What the files of cards/ call.
  Object.assign(globalThis, { helixAtlasChunk: (/** @type {number|string} */ name, /** @type {string} */ packed) => awaited.get(name)?.(packed) });

  /** What a file beside the page holds. @param {number|string} name @param {string} place @returns {Promise<any>} */
  function loaded(name, place) {
    let wanted = chunks.get(name);
    if (!wanted) {
      wanted = new Promise((resolve, reject) => {
        awaited.set(name, resolve);
        const script = el("script", { src: place });
        script.addEventListener("error", () => reject(new Error(`${place} is not beside this page. Copy the atlas with its whole folder.`)));
        document.head.append(script);
      }).then(unpacked);
      wanted.catch(() => chunks.delete(name));
      chunks.set(name, wanted);
    }
    return wanted;
  }

  /** @param {number} row @returns {Promise<Card & {pooled?: string}>} */
  async function cardOf(row) {
    const number = Math.floor(row / data.chunk);
    return (await loaded(number, `cards/${String(number).padStart(5, "0")}.js`))[row % data.chunk];
  }

  /** @param {string} packed base64 of gzip of JSON @returns {Promise<any>} */
  async function unpacked(packed) {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  /** A window: one <i> a nucleotide, with the classes of sequence.css. @param {number} missing @param {string} letters @param {string} shades @param {string} tracks */
  function windowElement(missing, letters, shades, tracks) {
    const line = el("td", { class: "seq" });
    if (missing) {
      const room = el("i");
      room.style.width = `${(0.62 * missing).toFixed(2)}em`;
      line.append(room);
    }
    for (let i = 0; i < letters.length; i++) {
      const heat = shades[i] === "0" ? "" : ` h${shades[i]}`;
      const own = i === data.flank - missing ? " at" : "";
      line.append(el("i", { class: `${"ACGU".includes(letters[i]) ? letters[i] : "N"} t${tracks[i]}${heat}${own}` }, letters[i]));
    }
    return line;
  }

  /** @param {any} value @param {string} kind */
  function cell(value, kind) {
    if (kind === "whisker") return el("td", {}, value ? whisker(value[0], value[1], value[2], value[3], value[4], 90) : "");
    if (kind === "yes") return el("td", {}, value === null ? MISSING : el("span", { class: value ? "yes" : "no" }, value ? "yes" : "no"));
    return el("td", kind === "number" ? { class: "n" } : {}, value);
  }

  /** @param {string} label @param {HTMLElement} table */
  const scrolling = (label, table) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);

  /** @type {Record<string, (name: string, ...parts: any[]) => Node>} What each kind of block is drawn as; see cards.py. */
  const BLOCKS = {
    h3: (_, words) => el("h3", {}, words),
    p: (_, words) => el("p", {}, words),
    small: (_, words) => el("p", { class: "small" }, words),
    absent: (_, words) => el("p", { class: "absent-section" }, words),
    bars: (name, heights) => histogram(heights, name),
    logo: (name, heights) => logo(heights, name),
    facts: (_, facts) => el("dl", { class: "facts" }, ...facts.flatMap((/** @type {[string, string]} */ [term, value]) => [el("dt", {}, term), el("dd", {}, value)])),
    table: (name, label, titles, kinds, lines) => {
      const head = titles.map((/** @type {string} */ title, /** @type {number} */ i) => el("th", { scope: "col", class: kinds[i] === "number" ? "n" : "" }, title));
      const filled = lines.map((/** @type {any[]} */ line) => el("tr", {}, ...line.map((value, i) => cell(value, kinds[i]))));
      return scrolling(`${label} of ${name}`, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...filled)));
    },
    nearest: (_, others) =>
      el("p", { class: "small" }, ...others.flatMap((/** @type {[string, string|null, string]} */ [name, anchor, cosine], /** @type {number} */ i) => [i ? ", " : "", anchor === null ? name : opener([anchor], name), ` (${cosine})`])),
    windows: (name, caption, [first, target], lines) => {
      const titles = [first, "Sequence", "Activation", "Position", ...(data.hasTarget ? [target] : []), "Record"];
      const head = titles.map((title) => el("th", { scope: "col", class: title === "Sequence" || title === "Record" ? "" : "n" }, title));
      const filled = lines.map((/** @type {any[]} */ [label, missing, letters, shades, tracks, peak, place, value, record]) =>
        el("tr", {}, el("td", { class: "n soft" }, label), windowElement(missing, letters, shades, tracks), el("td", { class: "n" }, peak), el("td", { class: "n" }, place), data.hasTarget ? el("td", { class: "n" }, value) : null, el("td", { class: "id", title: record }, onSequence(record, name))));
      return scrolling(`${caption} ${name}`, el("table", { class: "windows" }, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...filled)));
    },
  };

  /** @param {number} row @param {Card} card */
  function cardElement(row, card) {
    const name = names[row];
    const drawn = (/** @type {any[][]} */ blocks) => blocks.map(([kind, ...parts]) => BLOCKS[kind](name, ...parts));
    const close = opener(state.open.filter((anchor) => anchor !== anchors[row]), "Close", { "aria-label": `Close ${name}` });
    // The record of the first window is the one on which the feature is strongest.
    const strongest = card.below.find(([kind]) => kind === "windows")?.[3]?.[0]?.at(-1);
    const asked = explorer && strongest ? onSequence(strongest, name, "See it on a sequence") : null;
    return el(
      "article",
      { class: "feature", id: anchors[row] },
      el("header", {}, el("div", { class: "eyebrow" }, `Feature ${row + 1} of ${n}`), asked, close),
      el("h2", { tabindex: "-1" }, name),
      card.lead ? el("p", { class: "lead" }, card.lead) : null,
      el("div", { class: "columns" }, el("div", {}, labelElement(row), ...drawn(card.left)), el("div", {}, ...drawn(card.right))),
      ...drawn(card.below),
    );
  }

  // Maps ----------------------------------------------------------------------------------------------------------------

  const GROUPS = ["#0b5c8e", "#c2571a", "#2b8a3e", "#7b3fa0", "#a4262c", "#8a6d00", "#0f7f80", "#555e68"];

  /**
   * What colours the points by a column, and its key.
   * @param {Pick<Column, "values"|"words"|"codes"|"format"|"decimals">} column @param {number} size
   * @returns {{colour: (i: number) => string, key: [string, string][]}}
   */
  function colouring(column, size) {
    const none = "#c5cbd2";
    const { values, codes, words } = column;
    if (values) {
      const known = values.filter((v) => v !== null);
      const least = known.reduce((a, b) => Math.min(a, b), Infinity);
      const most = known.reduce((a, b) => Math.max(a, b), -Infinity);
      const reach = Math.max(Math.abs(least), Math.abs(most)) || 1;
      const isSigned = least < 0;
      /** @param {number} v */
      const shade = (v) => {
        const t = isSigned ? Math.abs(v) / reach : (v - least) / (most - least || 1);
        return `hsl(${isSigned && v < 0 ? 20 : 205} 75% ${Math.round(88 - 58 * t)}%)`;
      };
      const ends = known.length ? (isSigned ? [-reach, 0, reach] : [least, (least + most) / 2, most]) : [];
      const key = ends.map((v) => /** @type {[string, string]} */ ([shade(v), formatted(v, /** @type {Column} */ (column))]));
      return { colour: (i) => { const v = values[i]; return v === null ? none : shade(v); }, key: [...key, [none, "missing"]] };
    }
    if (!codes || !words) return { colour: () => none, key: [] };
    /** @type {Map<number, number>} */
    const counts = new Map();
    for (let i = 0; i < size; i++) if (codes[i] >= 0) counts.set(codes[i], (counts.get(codes[i]) || 0) + 1);
    const common = [...counts].sort((a, b) => b[1] - a[1]).slice(0, GROUPS.length).map(([code]) => code);
    const place = new Map(common.map((code, i) => [code, GROUPS[i]]));
    const rest = counts.size > common.length ? [/** @type {[string, string]} */ ([none, "others, or missing"])] : [];
    return { colour: (i) => place.get(codes[i]) ?? none, key: [...common.map((code, i) => /** @type {[string, string]} */ ([GROUPS[i], words[code]])), ...rest] };
  }

  /**
   * A map of points on a canvas.
   * @param {string} label
   * @param {{point: (i: number) => void, box?: (box: number[]) => void, say: (i: number) => string}} react
   */
  function pointMap(label, react) {
    const canvas = /** @type {HTMLCanvasElement} */ (el("canvas", { width: 1320, height: 880, role: "img", "aria-label": label }));
    const said = el("output", {});
    const key = el("div", { class: "key" });
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    /** @type {{points: Int32Array|number[], x: number[], y: number[]}} */
    let now = { points: [], x: [], y: [] };
    const at = (/** @type {number} */ i) => [40 + (1240 * now.x[i]) / 1000, 40 + (800 * now.y[i]) / 1000];
    /** @param {PointerEvent} event */
    const pointer = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
    };
    /** @param {number[]} place */
    const nearest = (place) => {
      let best = -1;
      let least = 400;
      for (const i of now.points) {
        const [x, y] = at(i);
        const far = (x - place[0]) ** 2 + (y - place[1]) ** 2;
        if (far < least) [best, least] = [i, far];
      }
      return best;
    };
    /** @type {number[]|null} */
    let began = null;
    canvas.addEventListener("pointerdown", (event) => { began = pointer(event); });
    canvas.addEventListener("pointermove", (event) => {
      const i = nearest(pointer(event));
      said.textContent = i < 0 ? "" : react.say(i);
    });
    canvas.addEventListener("pointerup", (event) => {
      const ended = pointer(event);
      const start = began;
      began = null;
      if (start && react.box && Math.hypot(ended[0] - start[0], ended[1] - start[1]) > 12) {
        const ends = [0, 1].map((axis) => [start[axis], ended[axis]].map((v) => Math.round((1000 * (v - 40)) / (axis ? 800 : 1240))).sort((a, b) => a - b));
        react.box([ends[0][0], ends[1][0], ends[0][1], ends[1][1]]);
        return;
      }
      const i = nearest(ended);
      if (i >= 0) react.point(i);
    });
    /**
     * @param {{points: Int32Array|number[], x: number[], y: number[]}} what
     * @param {{colour: (i: number) => string, key: [string, string][]}} colours
     * @param {(i: number) => boolean} isFaint @param {Set<number>} ringed
     */
    const draw = (what, colours, isFaint, ringed) => {
      now = what;
      context.clearRect(0, 0, canvas.width, canvas.height);
      const radius = what.points.length > 2000 ? 4 : 7;
      for (const i of what.points) {
        const [x, y] = at(i);
        context.globalAlpha = isFaint(i) ? 0.15 : 0.85;
        context.fillStyle = colours.colour(i);
        context.beginPath();
        context.arc(x, y, radius, 0, 7);
        context.fill();
        if (ringed.has(i)) {
          context.globalAlpha = 1;
          context.lineWidth = 4;
          context.strokeStyle = "#1f2328";
          context.stroke();
        }
      }
      key.replaceChildren(...colours.key.map(([colour, words]) => {
        const swatch = el("i", {});
        swatch.style.background = colour;
        return el("span", {}, swatch, words);
      }));
    };
    return { parts: [canvas, said, key], draw };
  }

  /** A labelled choice. @param {string} label @param {[string, string][]} options value and text */
  function choice(label, options) {
    const select = /** @type {HTMLSelectElement} */ (el("select", {}, ...options.map(([value, words]) => el("option", { value }, words))));
    return { select, shown: el("label", {}, `${label} `, select) };
  }

  /** What draws the maps that are open, again. @type {(() => void)[]} */
  const redraws = [];
  const drawMaps = () => redraws.forEach((draw) => draw());

  /** A part that opens. @param {string} title @param {...Node} content */
  const folded = (title, ...content) => /** @type {HTMLDetailsElement} */ (el("details", {}, el("summary", {}, title), ...content));

  function buildFeatureMap() {
    const site = columns.get("site");
    if (!data.places || !site?.words || !site.codes) return;
    const { places } = data;
    const { words: siteWords, codes: siteCodes } = site;
    const sites = choice("Site", siteWords.map((word, code) => [String(code), word]));
    const by = choice("Coloured by", data.columns.filter((column) => column.kind !== "whisker" && column.kind !== "name").map((column) => [column.key, column.title]));
    by.select.value = columns.has("best_concept") ? "best_concept" : "density";
    let followed = "";
    const map = pointMap("Map of the features of a site; the index above lists them", {
      point: (row) => go({ open: [anchors[row]] }, ""),
      box: (box) => go({ box: box.join("_"), filters: new Map(state.filters).set("site", siteWords[Number(sites.select.value)]) }, ""),
      say: (row) => [names[row], ...["label", "suggested", "best_concept", by.select.value].map((key) => columns.get(key)).filter((column) => column !== undefined).map((column) => text(column, row))].filter((part) => part !== MISSING).join(" · "),
    });
    const all = folded("Map of features", el("div", { class: "choices" }, sites.shown, by.shown), el("p", { class: "small" }, "Features of like decoder directions lie together; only neighbourhood counts, not distance or axes. A click opens a card, a frame drawn with the pointer filters the index, and what the index leaves out is faint."), ...map.parts);
    const draw = () => {
      if (!all.open) return;
      const opened = state.open[0] ?? "";
      // The site of a card that was just opened, or of the filter.
      const row = opened ? (rowOf.get(opened) ?? 0) : -1;
      const filter = siteWords.indexOf(state.filters.get("site") ?? "");
      const wanted = row >= 0 ? siteCodes[row] : filter;
      const turned = `${opened} ${filter}`;
      if (turned !== followed && wanted >= 0) sites.select.value = String(wanted);
      followed = turned;
      const code = Number(sites.select.value);
      const points = names.map((_, row) => row).filter((row) => siteCodes[row] === code);
      const column = columns.get(by.select.value);
      if (!column) return;
      const shown = new Set(rows);
      const ringed = new Set(state.open.map((anchor) => rowOf.get(anchor) ?? -1));
      map.draw({ points, x: places[0], y: places[1] }, colouring(column, n), (row) => !shown.has(row), ringed);
    };
    for (const part of [sites.select, by.select]) part.addEventListener("input", draw);
    all.addEventListener("toggle", draw);
    redraws.push(draw);
    byId("maps").append(all);
  }

  function buildSequenceMap() {
    if (!data.hasSequences) return;
    const place = el("div", {});
    const all = folded("Map of sequences", place);
    all.addEventListener("toggle", async () => {
      if (!all.open || place.childElementCount) return;
      try {
        const found = await loaded("sequences", "sequences.js");
        if (!place.childElementCount) place.append(...sequenceMap(found));
      } catch (error) {
        place.append(el("p", { class: "warnings", role: "alert" }, error instanceof Error ? error.message : String(error)));
      }
      drawMaps();
    });
    byId("maps").append(all);
  }

  /** @param {{ids: string[], places: [number[], number[]], share: number, columns: Column[], strongest: string[][]}} found */
  function sequenceMap(found) {
    const OPEN = "the open card's pooled code";
    const by = choice("Coloured by", [...found.columns.map((column, i) => /** @type {[string, string]} */ ([String(i), column.title])), ["open", OPEN]]);
    const measured = found.columns.findIndex((column) => column.values);
    by.select.value = measured < 0 ? by.select.value : String(measured);
    const details = el("p", { class: "small" }, "A click on a point shows its strongest features.");
    let chosen = -1;
    const points = found.ids.map((_, i) => i);
    const map = pointMap("Map of the sequences", {
      point: (i) => {
        chosen = i;
        const features = found.strongest[i].flatMap((name, k) => [k ? ", " : "", rowOf.has(anchorOf(name)) ? opener([anchorOf(name)], name) : name]);
        details.replaceChildren(el("b", {}, onSequence(found.ids[i], state.open.length ? names[rowOf.get(state.open[0]) ?? 0] : "")), ": strongest, for their own maximum, are ", ...features);
        draw();
      },
      say: (i) => found.ids[i],
    });
    let wanted = 0;
    const draw = async () => {
      const turn = ++wanted;
      let column = found.columns[Number(by.select.value)];
      if (by.select.value === "open") {
        const card = state.open.length ? await cardOf(rowOf.get(state.open[0]) ?? 0).catch(() => null) : null;
        const shades = card?.pooled || "";
        column = /** @type {Column} */ (/** @type {unknown} */ ({ values: points.map((i) => (shades ? Number(shades[i]) / 9 : null)), format: "percent", decimals: 0 }));
      }
      if (turn === wanted && column) map.draw({ points, x: found.places[0], y: found.places[1] }, colouring(column, points.length), () => false, new Set([chosen]));
    };
    by.select.addEventListener("input", draw);
    redraws.push(draw);
    const share = `${points.length.toLocaleString("en")} sequences on the two first principal components of their pooled codes, each divided by its feature's maximum; the axes have ${(100 * found.share).toFixed(0)} % of the variance.`;
    return [el("div", { class: "choices" }, by.shown), el("p", { class: "small" }, share), ...map.parts, details];
  }

  let shownCards = "";

  async function showCards() {
    const wanted = state.open.join(",");
    document.body.classList.toggle("with-card", wanted !== "");
    if (wanted === shownCards) return;
    shownCards = wanted;
    const place = byId("cards");
    place.classList.toggle("two", state.open.length === 2);
    const opened = state.open.map((anchor) => rowOf.get(anchor) ?? 0);
    /** @type {HTMLElement[]} */
    let made;
    try {
      made = await Promise.all(opened.map(async (row) => cardElement(row, await cardOf(row))));
    } catch (error) {
      shownCards = "";
      made = [el("p", { class: "warnings", role: "alert" }, error instanceof Error ? error.message : String(error))];
    }
    if (wanted !== state.open.join(",")) return; // another card was asked for meanwhile
    place.replaceChildren(...made);
    const last = made.at(-1);
    if (last) {
      last.scrollIntoView();
      last.querySelector("h2")?.focus({ preventScroll: true });
    } else scroller.focus({ preventScroll: true });
  }

  addEventListener("popstate", () => {
    state = parsed(location.hash);
    lastControl = "";
    show();
  });
  if (n) {
    buildIndex();
    buildFeatureMap();
    buildSequenceMap();
  }
  relabel();
  show();
  // Before the first key: of 50,000 features it takes a tenth of a second.
  setTimeout(() => data.columns.forEach((column) => column.words && searchable(column.words)));
})();
