// The page asks for page.json every other second. It makes rates and quantiles of
// what changed between two answers, so that many can look at once.
"use strict";

const byId = id => document.getElementById(id);
const period = 2000;
let before = null; // the answer that rates are reckoned from
let points = []; // requests a second, the last four minutes

// since is the answer in which counters were what they are subtracted from, by name.
function since(list, name) {
  return list?.find(item => item.name === name);
}

// rate is how much a counter grew a second; null if it is not known.
function rate(now, then, seconds) {
  if (then === undefined || seconds <= 0 || now < then) return null;
  return (now - then) / seconds;
}

// grown is how many times fell into each bucket since then.
function grown(now, then) {
  if (!now || !then || now.length !== then.length) return null;
  return now.map((n, i) => Math.max(0, n - then[i]));
}

// quantile is in milliseconds, within a bucket as if times were evenly spread.
function quantile(counts, bounds, share) {
  const all = counts ? counts.reduce((a, b) => a + b, 0) : 0;
  if (all === 0) return null;
  let below = 0, lower = 0;
  for (let i = 0; i < bounds.length; i++) {
    if (counts[i] > 0 && below + counts[i] >= share * all) {
      return lower + (bounds[i] - lower) * Math.max(0, share * all - below) / counts[i];
    }
    below += counts[i];
    lower = bounds[i];
  }
  return lower;
}

function time(ms) {
  if (ms === null) return "–";
  if (ms >= 1000) return (ms / 1000).toFixed(2) + " s";
  return (ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2)) + " ms";
}

function perSecond(n) {
  if (n === null) return "–";
  return n === 0 ? "0" : n < 10 ? n.toFixed(1) : Math.round(n).toLocaleString("en");
}

const number = (text, bad) => ({text, number: true, bad});
const count = n => number(n.toLocaleString("en"));

// fill makes the rows of a section's table; a cell is a text, or {text, number, bad,
// good}.
function fill(id, rows, empty) {
  const table = byId(id).querySelector("table");
  table.tBodies[0].replaceChildren(...rows.map(cells => {
    const row = document.createElement("tr");
    for (const cell of cells) {
      const td = row.insertCell();
      td.textContent = cell.text ?? cell;
      td.className = ["number", "bad", "good"].filter(name => cell[name]).join(" ");
    }
    return row;
  }));
  if (rows.length === 0) {
    const cell = table.tBodies[0].insertRow().insertCell();
    cell.colSpan = table.tHead.rows[0].cells.length;
    cell.className = "note";
    cell.textContent = empty;
  }
}

const note = (id, shown, all) => byId(id).querySelector(".note").textContent = shown < all ? `${shown} of ${all}; a filter finds others` : all;

// load is what the last seconds were of a listener or cluster.
function load(now, then, seconds, bounds) {
  const counts = grown(now.times, then?.times);
  return {
    counts, requests: rate(now.total, then?.total, seconds), failed: rate(now.failed, then?.failed, seconds),
    median: quantile(counts, bounds, .5), slow: quantile(counts, bounds, .99),
  };
}

const cells = l => [number(perSecond(l.requests)), number(perSecond(l.failed), l.failed > 0), number(time(l.median)), number(time(l.slow))];
const sum = list => list.reduce((a, b) => a + (b ?? 0), 0);
const any = list => list.some(n => n !== null) ? sum(list) : null;

function add(a, b) {
  return a && b ? a.map((n, i) => n + b[i]) : a ?? b;
}

function show(data) {
  const seconds = before ? data.uptime - before.uptime : 0;
  byId("node").textContent = data.node;
  byId("state").textContent = data.state;
  byId("state").className = data.state === "LIVE" ? "ready" : "";
  const plane = !data.control.wanted ? "No control plane" :
    data.control.connected ? `Control plane ${data.control.identifier} connected` : "Control plane not connected";
  byId("about").textContent = `Version ${data.version}, up for ${duration(data.uptime)}. ${plane}.`;
  byId("refused").hidden = data.control.refused.length === 0;
  fill("refused", data.control.refused.map(r => [r.type, {text: r.why, bad: true}]), "nothing");

  const listeners = data.listeners.map(l => ({...l, load: load(l, since(before?.listeners, l.name), seconds, data.bounds)}));
  fill("listeners", listeners.map(l => [
    l.name, l.address, l.refused ? {text: `${l.state}; refused: ${l.refused}`, bad: true} : l.state,
    count(l.connections), count(l.active), ...cells(l.load),
  ]), "no listener");
  note("listeners", data.listeners.length, data.all_listeners);

  const clusters = data.clusters.map(c => ({...c, load: load(c, since(before?.clusters, c.name), seconds, data.bounds)}));
  fill("clusters", clusters.map(c => [
    c.name, c.static ? "bootstrap" : "CDS", {text: `${c.healthy} of ${c.all}`, bad: c.healthy < c.all, good: c.healthy === c.all && c.all > 0},
    count(c.connections), count(c.active), count(c.pending), ...cells(c.load),
  ]), "no cluster");
  note("clusters", data.clusters.length, data.all_clusters);

  fill("hosts", data.clusters.flatMap(c => c.hosts.map(h => {
    const then = since(before?.clusters, c.name)?.hosts.find(other => other.address === h.address);
    const failed = rate(h.failed, then?.failed, seconds);
    return [
      c.name, h.address, {text: h.health, bad: !h.good, good: h.good}, h.zone, count(h.weight), count(h.connections), count(h.active),
      number(perSecond(rate(h.total, then?.total, seconds))), number(perSecond(failed), failed > 0),
    ];
  })), "no host");
  note("hosts", sum(data.clusters.map(c => c.hosts.length)), sum(data.clusters.map(c => c.all)));

  fill("routes", data.routes.map(r => [r.table, r.domains, r.match, r.target]), "no route");
  note("routes", data.routes.length, data.all_routes);

  const requests = any(listeners.map(l => l.load.requests));
  const times = clusters.map(c => c.load.counts).reduce(add, null);
  byId("rate").textContent = perSecond(requests);
  byId("median").textContent = time(quantile(times, data.bounds, .5));
  byId("slow").textContent = time(quantile(times, data.bounds, .99));
  const failing = any(listeners.map(l => l.load.failed));
  byId("failing").textContent = perSecond(failing);
  byId("failing").className = failing > 0 ? "bad" : "";
  byId("active").textContent = sum(listeners.map(l => l.active)).toLocaleString("en");
  byId("connections").textContent = sum(listeners.map(l => l.connections)).toLocaleString("en");
  if (requests !== null) draw(requests);
  before = data;
}

// draw adds a point to the line of requests a second.
function draw(requests) {
  points = [...points, requests].slice(-120);
  const most = Math.max(1, ...points);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.map((n, i) => `${120 - points.length + i},${31 - 30 * n / most}`).join(" "));
  byId("history").replaceChildren(line);
}

function duration(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => seconds >= size);
  if (first < 0) return "less than a second";
  return parts.slice(first, first + 2).map(([size, unit], i) =>
    `${Math.floor((i === 0 ? seconds : seconds % parts[first][0]) / size)} ${unit}`).join(" ");
}

// ask gets the data and shows it; what is on the page stays if that fails.
let asking = 0;
async function ask() {
  const mine = ++asking;
  try {
    const answer = await fetch("page.json?filter=" + encodeURIComponent(byId("filter").value), {cache: "no-store"});
    if (!answer.ok) throw new Error(answer.status + " " + answer.statusText);
    const data = await answer.json();
    if (mine !== asking) return; // a later question was asked meanwhile
    show(data);
    byId("asked").textContent = "As of " + new Date().toLocaleTimeString() + ".";
  } catch (error) {
    if (mine !== asking) return;
    byId("state").textContent = "does not answer";
    byId("state").className = "";
    byId("asked").textContent = "Asked at " + new Date().toLocaleTimeString() + ": " + error.message + ".";
  }
}
byId("filter").addEventListener("input", () => { before = null; points = []; ask(); });
setInterval(() => { if (!document.hidden) ask(); }, period);
ask();
