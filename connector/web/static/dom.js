// Elements out of data. Text becomes text nodes and nothing else: values of records are not to be trusted.

export const $ = (id) => document.getElementById(id);

export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const shown = new WeakMap();

// Show a list, keeping the elements of items that are as before: what is focused or selected in them stays.
export function list(parent, items, key, render, none = null) {
  const before = shown.get(parent) ?? new Map();
  const now = new Map();
  for (const item of items) {
    const text = JSON.stringify(item);
    const known = before.get(key(item));
    now.set(key(item), known?.text === text ? known : { text, node: render(item) });
  }
  shown.set(parent, now);
  const nodes = [...now.values()].map((entry) => entry.node);
  if (!nodes.length && none !== null) nodes.push(h("li", { class: "none" }, none));
  nodes.forEach((node, index) => {
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
  while (parent.children.length > nodes.length) parent.lastChild.remove();
}

export function setText(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}
