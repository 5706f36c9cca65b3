// The chart of a quarter of an hour, and the gauge. Drawn as SVG; figures stand beside them as text.

import { h, svg } from "./dom.js";
import { clock, count } from "./format.js";

const WIDTH = 600;
const HEIGHT = 112;

// `series`: [{ values, style: "first" | "other", filled }]; null is a gap. `told` puts the figures of one column in words.
export function chart(parent, { series, scale, from, stepMs, told, label }) {
  const columns = series[0].values.length;
  const x = (column) => (columns < 2 ? 0 : (column / (columns - 1)) * WIDTH);
  const y = (of) => HEIGHT - scale.share(of) * (HEIGHT - 8);
  const lines = scale.marks.map((mark) => svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: y(mark.at), y2: y(mark.at) }));
  const drawn = series.flatMap((one) => [
    one.filled ? svg("path", { class: "area", d: `${path(one.values, x, y)}V${HEIGHT}H0Z` }) : null,
    svg("path", { class: one.style, d: path(one.values, x, y) }),
  ]);
  const cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    ...lines, ...drawn, cursor,
  );
  const tip = h("span", { class: "tip" });
  const marks = scale.marks.map((mark) => h("span", { class: "scale" }, mark.text));
  const axis = h("div", { class: "axis" }, h("span", {}, clock(from)), tip, h("span", {}, "now"));
  marks.forEach((mark, index) => (mark.style.top = `${y(scale.marks[index].at)}px`));
  parent.replaceChildren(picture, ...marks, axis);
  point(parent, picture, cursor, tip, (column) => `${clock(from + column * stepMs)}: ${told(column)}`, columns, x);
}

function path(values, x, y) {
  let text = "";
  let open = false;
  values.forEach((of, column) => {
    if (of === null) open = false;
    else {
      // A line of no length shows a lonely value as a dot.
      text += `${open ? "L" : "M"}${x(column).toFixed(1)} ${y(of).toFixed(1)}${open ? "" : "h0"}`;
      open = true;
    }
  });
  return text || "M0 0";
}

const hovered = new WeakMap();

function point(parent, picture, cursor, tip, words, columns, x) {
  const show = (share) => {
    const column = Math.min(columns - 1, Math.max(0, Math.round(share * (columns - 1))));
    cursor.setAttribute("x1", x(column));
    cursor.setAttribute("x2", x(column));
    cursor.setAttribute("visibility", "visible");
    tip.textContent = words(column);
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    hovered.set(parent, (event.clientX - box.left) / box.width);
    show(hovered.get(parent));
  });
  picture.addEventListener("pointerleave", () => {
    hovered.delete(parent);
    cursor.setAttribute("visibility", "hidden");
    tip.textContent = "";
  });
  if (hovered.has(parent)) show(hovered.get(parent));
}

export function linearScale(values) {
  const most = Math.max(1, ...values.filter((of) => of !== null));
  const step = 10 ** Math.floor(Math.log10(most));
  const top = Math.ceil(most / step) * step;
  return { share: (of) => of / top, marks: [{ at: top, text: count(top) }, { at: top / 2, text: count(top / 2) }] };
}

// Lag spans from milliseconds to minutes.
export function logScale(values) {
  const most = Math.max(100, ...values.filter((of) => of !== null));
  const decades = Math.ceil(Math.log10(most));
  const texts = ["1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s"];
  const marks = [];
  for (let decade = 1; decade <= decades && decade < texts.length; decade += decades > 4 ? 2 : 1) {
    marks.push({ at: 10 ** decade, text: texts[decade] });
  }
  return { share: (of) => Math.log10(Math.max(1, of)) / decades, marks };
}

const ARC = "M14 88 A74 74 0 0 1 162 88";

export function gauge(parent, used, most) {
  const known = used !== null && used !== undefined && most;
  const share = known ? Math.min(1, used / most) : 0;
  const level = share >= 1 ? "bad" : share >= 0.8 ? "warn" : "ok";
  parent.className = `gauge ${level}`;
  const percent = known ? `${Math.round((100 * used) / most)} %` : "-";
  const words = known ? `${count(used)} of ${count(most)} calls` : "not known yet";
  if (!parent.firstChild) {
    const parts = [svg("path", { class: "track", d: ARC }), svg("path", { class: "value", d: ARC, pathLength: 100 })];
    const picture = svg("svg", { viewBox: "0 0 176 98", "aria-hidden": "true" }, ...parts);
    parent.append(picture, h("strong"), h("span"));
    parent.setAttribute("role", "meter");
    parent.setAttribute("aria-valuemin", "0");
    parent.setAttribute("aria-valuemax", "100");
  }
  const [picture, strong, small] = parent.children;
  // A stroke of no length would still show its round cap.
  picture.lastChild.setAttribute("visibility", share > 0.005 ? "visible" : "hidden");
  picture.lastChild.style.strokeDasharray = `${100 * share} 200`;
  strong.textContent = percent;
  small.textContent = words;
  parent.setAttribute("aria-valuenow", Math.round(100 * share));
  parent.setAttribute("aria-valuetext", words);
}
