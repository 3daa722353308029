// @ts-check
/** Making elements. Texts become text nodes and never markup, whatever they hold. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with attributes and children.
 * @param {string} tag
 * @param {Record<string, any>} [attributes] texts, numbers and true; functions are listeners
 * @param {...(Node | string | number)} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  return /** @type {HTMLElement} */ (filled(document.createElement(tag), attributes, children));
}

/**
 * An element of a drawing.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | number)} children
 * @returns {SVGElement}
 */
export function draw(tag, attributes = {}, ...children) {
  return /** @type {SVGElement} */ (filled(document.createElementNS(SVG, tag), attributes, children));
}

/**
 * The element with an id that the page has.
 * @param {string} id
 * @returns {any}
 */
export function at(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no ${id}`);
  return found;
}

/**
 * A table.
 * @param {string} caption
 * @param {string[]} heads
 * @param {(Node | string | number)[][]} rows
 * @param {Set<number>} numbers columns that are numbers
 */
export function table(caption, heads, rows, numbers) {
  const kind = (/** @type {number} */ i) => (numbers.has(i) ? { class: "n" } : {});
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {},
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, ...heads.map((head, i) => el("th", { scope: "col", ...kind(i) }, head)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, i) => el("td", kind(i), cell)))))));
}

/**
 * A number in few digits.
 * @param {number | null} value
 * @param {boolean} [signed]
 */
export function number(value, signed = false) {
  if (value === null) return "not known";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 0.001 || size >= 1e5) ? size.toExponential(1) : size.toFixed(3);
  return (value < 0 && Number(text) !== 0 ? "−" : signed && value > 0 ? "+" : "") + text;
}

/**
 * @param {Element} element
 * @param {Record<string, any>} attributes
 * @param {(Node | string | number)[]} children
 */
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, String(value));
  }
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}
