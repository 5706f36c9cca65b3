// Records: lists, search, and one record with its past.

import { $, h, list } from "./dom.js";
import { ask } from "./feed.js";
import { ago, count, recordLink, value } from "./format.js";

const SHOWN_BESIDE_NAME = 4;
const NOT_SHOWN = new Set(["Id", "Name", "FirstName", "LastName", "_version", "_modstamp"]);
const TYPING_MS = 180;

let asking = null;
let typing = null;
let wanted = { object: null, text: "" };
let listed = [];

export function prepareSearch(go) {
  $("search").addEventListener("submit", (event) => event.preventDefault());
  $("object").addEventListener("change", () => go($("object").value, $("text").value));
  $("text").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => go($("object").value, $("text").value), TYPING_MS);
  });
  $("more").addEventListener("click", () => find($("more").dataset.after));
}

// What was typed just before the view was left must not come after it.
export function leaveSearch() {
  clearTimeout(typing);
  asking?.abort();
}

export function showObjectNames(names) {
  const select = $("object");
  const known = [...select.options].map((option) => option.value);
  if (names.join() === known.join()) return;
  const chosen = wanted.object ?? select.value;
  select.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === chosen }, name)));
}

export function showRecords(object, text) {
  wanted = { object, text };
  if (object && ![...$("object").options].some((option) => option.value === object)) {
    $("object").append(h("option", { value: object }, object));
  }
  $("object").value = object;
  if ($("text").value !== text) $("text").value = text;
  find(null);
}

async function find(after) {
  asking?.abort();
  asking = new AbortController();
  const query = new URLSearchParams();
  if (wanted.text.trim()) query.set("text", wanted.text.trim());
  if (after) query.set("after", after);
  try {
    const page = await ask(`api/records/${encodeURIComponent(wanted.object)}?${query}`, asking.signal);
    showListed(after ? [...listed, ...page.records] : page.records);
    $("found").textContent = listed.length ? `${count(listed.length)}${page.next ? " of more" : ""}` : "Nothing is found.";
    $("more").hidden = !page.next;
    $("more").dataset.after = page.next ?? "";
  } catch (error) {
    if (error.name === "AbortError") return;
    showListed([]);
    $("more").hidden = true;
    $("found").textContent = error.message;
  }
}

// A record that was found before keeps its link: what is being tapped while the answer to the last letter comes is opened.
function showListed(records) {
  const object = wanted.object;
  listed = records;
  list($("records"), records, (record) => record.Id, (record) => row(object, record));
}

function row(object, record) {
  const beside = Object.entries(record).filter(([name, of]) => !NOT_SHOWN.has(name) && value(of) !== "");
  const words = beside.slice(0, SHOWN_BESIDE_NAME).map(([, of]) => value(of));
  return h("li", {},
    h("a", { href: recordLink(object, record.Id) },
      h("b", {}, value(record.Name) || record.Id),
      h("span", { class: "sub" }, words.join(" · ") || record.Id)),
  );
}

let open = null;

export async function showRecord(object, id) {
  const view = $("view-record");
  const again = open === `${object}/${id}`;
  open = `${object}/${id}`;
  if (!again) view.replaceChildren();
  let found;
  try {
    found = await ask(`api/records/${encodeURIComponent(object)}/${encodeURIComponent(id)}`);
  } catch (error) {
    view.replaceChildren(back(object), h("p", { class: "facts", role: "alert" }, error.message));
    return;
  }
  if (open !== `${object}/${id}`) return;
  view.replaceChildren(back(object), heading(found), h("div", { class: "record" }, present(found), past(found)));
}

export const leaveRecord = () => (open = null);

const back = (object) => h("p", {}, h("a", { href: `#/records/${encodeURIComponent(object)}` }, `← ${object}`));

const heading = (found) => h("h1", {}, value(found.record?.Name ?? found.changes[0]?.values.find((v) => v.field === "Name")?.before) || found.id);

function present(found) {
  const fields = Object.entries(found.record ?? {}).filter(([name]) => !name.startsWith("_"));
  const pending = found.pending.map((one) => h("p", { class: "facts" }, `A command is under way: ${one.operation} by ${one.command_id}`));
  if (!found.record) {
    return h("article", { class: "card" }, h("h2", {}, "Now"), h("p", {}, "This record is deleted, or not in the replica."));
  }
  return h("article", { class: "card" },
    h("h2", {}, "Now ", h("small", {}, `version ${count(found.record._version)}, modified `, ago(found.record._modstamp))),
    ...pending,
    h("dl", { class: "fields" }, ...fields.flatMap(([name, of]) => [h("dt", {}, name), h("dd", {}, value(of) || h("span", { class: "none" }, "-"))])),
  );
}

function past(found) {
  const reach = found.known_since ? ["The log reaches back to ", ago(found.known_since), "."] : ["The log has every change since the first load."];
  return h("article", { class: "card" },
    h("h2", {}, "History"),
    found.changes.length ? h("ol", { class: "past" }, ...found.changes.map(change)) : null,
    h("p", { class: "facts" }, found.changes.length ? "" : "Nothing has changed. ", ...reach),
  );
}

function change(one) {
  const who = [one.origin, one.user && `by ${one.user}`, one.command_id && `command ${one.command_id}`].filter(Boolean);
  return h("li", {},
    h("span", { class: `tag ${one.operation}` }, one.operation), " ", ago(one.at), " ", h("small", {}, who.join(", ")),
    h("div", { class: "values" }, ...one.values.flatMap((of) => [
      h("span", { class: "name" }, of.field),
      h("span", { class: "value before" }, value(of.before)),
      h("span", { class: "value" }, value(of.after)),
    ])),
  );
}
