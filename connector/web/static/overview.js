// The overview: every second what is new of it.

import { $, h, list, setText } from "./dom.js";
import { chart, gauge, linearScale, logScale } from "./drawing.js";
import { ago, count, lag, recordLink, span } from "./format.js";

const HEADLINES = { ok: "All is well", warn: "Degraded", bad: "Needs attention" };
const QUEUES = { outbox: "to publish", commands: "commands", quarantine: "in quarantine", dirty: "in doubt" };

export function showVerdict(board) {
  const level = board.attention[0]?.level ?? "ok";
  $("verdict").className = `verdict level-${level}`;
  setText("headline-text", HEADLINES[level]);
  document.title = `${level === "ok" ? "" : "▲ "}${board.daemon.node ?? "salesforce-sync"}`;
  setText("node", board.daemon.node ?? "");
  setText("facts", facts(board).join(" · "));
  list($("attention"), board.attention, (one) => one.text, (one) => h("li", { class: one.level }, one.text));
}

function facts(board) {
  const { daemon, replica } = board;
  const health = daemon.health;
  const found = [`daemon ${daemon.state}`];
  if (health && daemon.state === "online") {
    found.push(`up ${span(health.uptime_s)}`, `stream ${health.stream.state}`);
  }
  if (replica) found.push(`version ${count(replica.version)}`, `${count(replica.version - replica.published)} to publish`);
  return found;
}

export function showOverview(board) {
  showFigures(board);
  showObjects(board);
  list($("changes"), board.changes, (one) => one.version, changeLine, "Nothing has changed yet.");
  list($("recent"), board.commands.slice(0, 8), (one) => one.command_id, commandLine, "No commands.");
  list($("conflicts"), board.conflicts.slice(0, 8), (one) => one.command_id, conflictLine, "None.");
}

function showFigures(board) {
  setText("rate-now", board.rate.toFixed(1));
  setText("lag-p50", lag(board.lag_ms.p50));
  setText("lag-p99", lag(board.lag_ms.p99));
  drawTrend(board.trend);
  const api = board.daemon.health?.api;
  gauge($("api-gauge"), api?.used, api?.max);
  const own = Object.entries(api?.own ?? board.replica?.api_calls_24h ?? {}).filter(([, calls]) => calls);
  list($("api-own"), own, ([purpose]) => purpose, pair);
  const queues = Object.entries(board.replica?.queues ?? {});
  list($("queues"), queues, ([name]) => name, ([name, waiting]) => {
    const wrong = name === "quarantine" && waiting > 0;
    return h("li", { class: wrong && "warn" }, QUEUES[name] ?? name, h("b", {}, count(waiting)));
  });
}

const pair = ([name, calls]) => h("li", {}, name.replace("_", "-"), h("b", {}, count(calls)));

let drawnTo = null;

function drawTrend(trend) {
  if (trend.to === drawnTo) return;
  drawnTo = trend.to;
  const stepMs = trend.step_s * 1000;
  const from = Date.parse(trend.to) - trend.rate.length * stepMs;
  const about = { from, stepMs };
  chart($("rate-chart"), {
    ...about,
    series: [{ values: trend.rate, style: "first", filled: true }],
    scale: linearScale(trend.rate),
    told: (column) => `${trend.rate[column].toFixed(1)} a second`,
    label: "Changes a second over the last quarter of an hour",
  });
  chart($("lag-chart"), {
    ...about,
    series: [{ values: trend.lag_p99, style: "other" }, { values: trend.lag_p50, style: "first" }],
    scale: logScale(trend.lag_p99),
    told: (column) => `${lag(trend.lag_p50[column])}, ${lag(trend.lag_p99[column])}`,
    label: "Lag over the last quarter of an hour, p50 and p99",
  });
}

function showObjects(board) {
  const told = board.daemon.health?.objects ?? {};
  const holes = board.replica?.holes ?? [];
  const rows = Object.entries(board.replica?.objects ?? {}).map(([name, figures]) => ({
    name,
    ...figures,
    polled: told[name]?.last_polled_at,
    verified: told[name]?.verified_at,
    drift: told[name]?.drift,
    holes: holes.filter((hole) => hole.object === name).length,
  }));
  list($("objects"), rows, (row) => row.name, (row) =>
    h("tr", {},
      h("td", {}, h("a", { href: `#/records/${encodeURIComponent(row.name)}` }, row.name)),
      h("td", { class: "n" }, count(row.records)),
      h("td", { class: "n opt" }, count(row.deleted)),
      h("td", { class: "n" }, ago(row.polled)),
      h("td", { class: "n opt" }, ago(row.verified)),
      h("td", { class: row.drift ? "n bad" : "n" }, row.drift ? count(row.drift) : "-"),
      h("td", { class: row.holes ? "n bad" : "n" }, row.holes ? count(row.holes) : "-"),
    ),
  );
}

function changeLine(one) {
  const what = one.origin === "stream" ? one.changed.join(", ") : [one.origin, ...one.changed].join(", ");
  return h("li", { "data-version": one.version },
    h("span", { class: `tag ${one.operation}` }, one.operation),
    h("span", { class: "who" }, h("a", { href: recordLink(one.object, one.id) }, h("bdi", {}, one.name ?? one.id)), " ",
      h("small", {}, `${one.object}${what ? `: ${what}` : ""}`)),
    ago(one.at, ""),
  );
}

function commandLine(one) {
  return h("li", {},
    h("span", { class: `tag ${one.status}` }, one.status),
    h("span", { class: "who" }, subject(one), " ", h("small", {}, one.sender ?? one.command_id)),
    ago(one.accepted_at, ""),
  );
}

function conflictLine(one) {
  return h("li", {},
    h("span", { class: "who" }, subject(one), " ", h("small", {}, Object.keys(one.conflict ?? {}).join(", "))),
    ago(one.completed_at ?? one.accepted_at, ""),
  );
}

export function subject(command) {
  const words = `${command.operation} ${command.object}`;
  return command.id ? h("a", { href: recordLink(command.object, command.id) }, words) : words;
}
