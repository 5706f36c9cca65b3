// The page: which view is open, and what the feed brings.

import { $ } from "./dom.js";
import { follow } from "./feed.js";
import { setClock, tick } from "./format.js";
import { showCommands } from "./commands.js";
import { showOverview, showVerdict } from "./overview.js";
import { leaveRecord, leaveSearch, prepareSearch, showObjectNames, showRecord, showRecords } from "./records.js";

let board = null;

const views = ["overview", "records", "record", "commands"];

// `#/`, `#/records/Object?text=…`, `#/records/Object/Id`, `#/commands/status`
function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view = "", ...rest] = path.split("/").map(decoded);
  return { view: view || "overview", rest, text: new URLSearchParams(query).get("text") ?? "" };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  if (location.hash && !location.hash.startsWith("#/")) return; // the skip link
  const { view, rest, text } = route();
  const shown = view === "records" && rest[1] ? "record" : views.includes(view) ? view : "overview";
  for (const name of views) $(`view-${name}`).hidden = name !== shown;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === "#/" ? shown === "overview" : link.hash.startsWith(`#/${shown === "record" ? "records" : shown}`);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (shown !== "record") leaveRecord();
  if (shown !== "records") leaveSearch();
  if (shown === "record") showRecord(rest[0], rest[1]);
  if (shown === "records") openRecords(rest[0], text);
  if (shown === "commands") showCommands(rest[0] ?? "", board);
  if (shown === "overview" && board) showOverview(board);
}

function openRecords(named, text) {
  const names = Object.keys(board?.replica?.objects ?? {});
  const object = named || names[0];
  if (object) showRecords(object, text);
}

function update(next) {
  const first = board === null;
  const before = board;
  board = next;
  setClock(next.as_of);
  showVerdict(next);
  showObjectNames(Object.keys(next.replica?.objects ?? {}));
  const { view, rest } = route();
  if (view === "overview") showOverview(next);
  if (view === "commands") showCommands(rest[0] ?? "", next);
  if (view === "records" && first && !rest[0]) show();
  if (view === "records" && rest[1] && !first && touched(before, next, rest)) showRecord(rest[0], rest[1]);
}

// Has the record changed, or so much that its change may be among what the overview no longer holds?
function touched(before, next, [object, id]) {
  const seen = before.changes[0]?.version ?? 0;
  const fresh = next.changes.filter((one) => one.version > seen);
  const missed = fresh.length > 0 && fresh.at(-1).version > seen + 1;
  return missed || fresh.some((one) => one.object === object && one.id === id);
}

const THEMES = ["", "light", "dark"];
const THEME_WORDS = { "": "as the system has them", light: "light", dark: "dark" };

function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  $("theme").setAttribute("aria-label", `Colours: ${THEME_WORDS[name]}`);
  $("theme").title = `Colours: ${THEME_WORDS[name]}`;
  $("theme").textContent = { "": "◐", light: "☀", dark: "☾" }[name];
}

function prepareTheme() {
  const key = "salesforce-sync.theme";
  setTheme(THEMES.includes(localStorage.getItem(key)) ? localStorage.getItem(key) : "");
  $("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme ?? "";
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    localStorage.setItem(key, next);
    setTheme(next);
  });
}

prepareTheme();
prepareSearch((object, text) => {
  const query = text.trim() ? `?${new URLSearchParams({ text })}` : "";
  history.replaceState(null, "", `#/records/${encodeURIComponent(object)}${query}`);
  showRecords(object, text);
});
addEventListener("hashchange", show);
setInterval(tick, 1000);
show();
follow({
  board: update,
  connected: () => {
    $("connection").hidden = true;
    document.body.classList.remove("stale");
  },
  lost: () => {
    $("connection").hidden = false;
    document.body.classList.add("stale");
  },
});
