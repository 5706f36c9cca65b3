// Commands with what became of them.

import { $, h, list } from "./dom.js";
import { ask } from "./feed.js";
import { ago, count, value } from "./format.js";
import { subject } from "./overview.js";

const STATUSES = ["accepted", "succeeded", "conflict", "failed", "rejected", "expired", "unknown"];

let seen = null;

export async function showCommands(status, board) {
  const counts = board?.replica?.commands ?? {};
  list($("statuses"), ["", ...STATUSES].map((name) => ({ name, on: name === status, n: counts[name] ?? 0 })), (one) => one.name, chip);
  const now = JSON.stringify([status, counts, board?.commands]);
  if (now === seen) return;
  seen = now;
  try {
    const { commands } = await ask(`api/commands?${new URLSearchParams(status ? { status } : {})}`);
    if (now === seen) list($("commands"), commands, (one) => one.command_id, row, "No commands.");
  } catch (error) {
    seen = null;
    list($("commands"), [], String, row, error.message);
  }
}

function chip({ name, on, n }) {
  const button = h("button", { type: "button", "aria-pressed": String(on) }, name || "all", name && n ? ` ${count(n)}` : null);
  button.addEventListener("click", () => (location.hash = name ? `#/commands/${name}` : "#/commands"));
  return button;
}

function row(one) {
  return h("li", {},
    h("details", { class: "box" },
      h("summary", {},
        h("span", { class: `tag ${one.status}` }, one.status),
        h("span", { class: "who" }, subject(one), " ", h("small", {}, one.sender ?? "")),
        ago(one.accepted_at)),
      h("p", { class: "facts" }, `${one.command_id} · ${count(one.attempts)} attempts · fields: ${one.fields.join(", ") || "none"}`),
      ...one.errors.map((error) => h("p", {}, h("b", {}, error.code), ` ${error.message}`)),
      one.conflict ? conflict(one.conflict) : null,
    ),
  );
}

function conflict(fields) {
  const cells = Object.entries(fields).flatMap(([name, sides]) => [
    h("span", { class: "name" }, name),
    ...["base", "local", "remote"].map((side) => h("span", { class: "value" }, value(sides?.[side]))),
  ]);
  const heads = ["field", "seen by the sender", "wanted", "in the org"].map((text) => h("span", { class: "name" }, text));
  return h("div", { class: "values three" }, ...heads, ...cells);
}
