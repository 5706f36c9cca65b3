// Figures and times in words. Times are compared with the connector's clock, not with the browser's.

import { h } from "./dom.js";

const numbers = new Intl.NumberFormat("en");
let skewMs = 0;

export function setClock(asOf) {
  skewMs = Date.parse(asOf) - Date.now();
}

export const count = (n) => (n === null || n === undefined ? "-" : numbers.format(n));

export function lag(ms) {
  if (ms === null || ms === undefined) return "-";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 60000 ? `${(ms / 1000).toFixed(1)} s` : span(ms / 1000);
}

export function span(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${unit}`;
  }
  return `${Math.max(0, Math.round(seconds))} s`;
}

const sinceIso = (iso) => span((Date.now() + skewMs - Date.parse(iso)) / 1000);

// A time as its distance from now, kept right by `tick`; the time itself is its title.
export function ago(iso, words = "ago") {
  if (!iso) return h("span", { class: "none" }, "-");
  const text = `${sinceIso(iso)} ${words}`.trim();
  return h("time", { datetime: iso, title: iso, "data-words": words }, text);
}

export function tick() {
  for (const element of document.querySelectorAll("time[data-words]")) {
    const text = `${sinceIso(element.dateTime)} ${element.dataset.words}`.trim();
    if (element.textContent !== text) element.textContent = text;
  }
}

export const clock = (iso) => new Date(iso).toLocaleTimeString([], { hour12: false });

// A value as the org has it; what is empty is told apart from an empty text.
export function value(of) {
  if (of === null || of === undefined) return "";
  return typeof of === "string" ? of : JSON.stringify(of);
}

export const recordLink = (object, id) => `#/records/${encodeURIComponent(object)}/${encodeURIComponent(id)}`;
