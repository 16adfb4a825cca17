// The page of discovery. It reads the JSON API below v2/, shows what it read,
// and reads again when the stream of events says that something happened, and
// every few seconds for the times that no event tells of. Whatever hosts say of
// themselves is put into the page as text alone.

import {get, reader, send} from "./page/calls.js";
import {askClients} from "./page/clients.js";
import {ask} from "./page/dialog.js";
import {askFiles} from "./page/files.js";
import {askLoads} from "./page/loads.js";
import {askStatus, permit, showLive, status, teller} from "./page/status.js";
import {follow} from "./page/stream.js";
import {actions, lines, table, text, time} from "./page/table.js";
import {ago, byId, clock, count, make, many, secondsOf, secondsSince, set, span} from "./page/text.js";

// What was read last, null until it was. opened is the name of the service that
// is shown, and service what was read of it.
const state = {
  services: null, settings: null, guard: null, happened: [],
  opened: "", service: null,
};

// ---- Reading

const askServices = reader(async () => {
  state.services = (await get("services")).services;
  showServices();
  showTotals();
}, teller("services"));

const askRest = reader(async () => {
  const [settings, guard] = await Promise.all([get("settings"), get("guard")]);
  state.settings = settings.settings;
  state.guard = guard;
  showGuard();
  showSettings();
}, teller("settings and guard"));

// askService reads the service that is open. Each has a reader of its own, so
// that one that is opened waits for no other.
let askService = () => {};
const tellOfService = teller("the open service");
function readerOf(name) {
  const path = `services/${encodeURIComponent(name)}/`;
  return reader(async () => {
    if (state.opened !== name) return;
    const [hosts, revisions, history] = await Promise.all(["hosts", "revisions", "history"].map(what => get(path + what)));
    if (state.opened !== name) return;
    state.service = {known: hosts.known, hosts: hosts.hosts, revisions: revisions.revisions, history: history.events};
    showService();
    showSettings();
    showHistory();
  }, tellOfService);
}

function askAll() {
  askServices();
  askRest();
  askService();
  askClients();
  askLoads();
  askFiles();
}

// ---- Services

const services = table("services", service => service.name, [
  (cell, service) => {
    if (!cell.firstChild) cell.append(make("a"));
    cell.firstChild.href = "#" + encodeURIComponent(service.name);
    set(cell.firstChild, service.name);
    cell.parentNode.className = service.name === state.opened ? "current" : "";
    cell.firstChild.ariaCurrent = service.name === state.opened ? "true" : null;
  },
  text(service => count(service.hosts)),
  text(service => ["draining", "out", "stale"].filter(what => service[what] > 0).map(what => `${count(service[what])} ${what}`).join(", ")),
], "no such service");

const serviceFilters = {
  all: () => true,
  unsettled: service => service.serving < service.hosts || service.stale > 0,
  stale: service => service.stale > 0,
  empty: service => service.hosts === 0,
};

const holds = (part, ...texts) => texts.some(text => text.toLowerCase().includes(part));

function showServices() {
  const part = byId("service-search").value.toLowerCase();
  const filter = serviceFilters[byId("service-filter").value];
  services.show(state.services?.filter(service => filter(service) && holds(part, service.name)));
}

function showTotals() {
  const sum = what => state.services.reduce((total, service) => total + service[what], 0);
  const stale = sum("stale");
  set(byId("totals"), `${many(sum("hosts"), "host")} of ${many(state.services.length, "service")}${stale > 0 ? `, ${count(stale)} stale` : ""}.`);
}

for (const id of ["service-search", "service-filter"]) {
  byId(id).addEventListener("input", () => {
    services.toStart();
    showServices();
  });
}

// open shows the service that the address names, or none.
function open() {
  try {
    state.opened = decodeURIComponent(location.hash.slice(1));
  } catch {
    state.opened = ""; // no name of a service, but what somebody typed
  }
  state.service = null;
  tellOfService(null);
  askService = state.opened ? readerOf(state.opened) : () => {};
  document.body.classList.toggle("opened", state.opened !== "");
  byId("host-search").value = "";
  hosts.toStart();
  showServices();
  showService();
  showSettings();
  showHistory();
  askService();
}
addEventListener("hashchange", open);

// ---- The service that is open

const address = host => `${host.address.includes(":") ? `[${host.address}]` : host.address}:${host.port}`;

// settingOf is the setting of a kind that holds for a host: the narrowest one.
function settingOf(kind, host) {
  const narrowness = scope => scope.id ? 3 : scope.service && scope.zone ? 2 : scope.service ? 1 : 0;
  return (state.settings ?? [])
    .filter(setting => setting.kind === kind && covers(setting.scope, host))
    .sort((a, b) => narrowness(b.scope) - narrowness(a.scope))[0];
}

const covers = (scope, host) => (!scope.service || scope.service === host.service) &&
  (!scope.id || scope.id === host.id) && (!scope.zone || scope.zone === host.zone);

// because says why a host is not to get new work.
function because(host) {
  const setting = settingOf("maintenance", host) ?? settingOf("drain", host);
  if (setting) return `${setting.kind} by ${setting.author}: ${setting.reason}`;
  return host.state === "serving" ? "" : "at its own wish";
}

// ownSettings are those of one host alone that keep work from it.
const ownSettings = host => (state.settings ?? []).filter(setting =>
  setting.kind !== "weight" && setting.scope.id === host.id && setting.scope.service === host.service);

const hosts = table("hosts", host => host.id, [
  text(host => host.id),
  (cell, host) => lines(cell, address(host), ...host.additional_addresses,
    ...Object.entries(host.ports).map(([name, port]) => `${name} at ${port}`)),
  text(host => `${span(secondsSince(host.last_check_in))} of ${span(secondsOf(host.ttl))}`),
  (cell, host) => lines(cell, host.stale ? host.state + ", stale" : host.state, because(host)),
  text(host => host.zone),
  text(host => host.revision),
  (cell, host) => lines(cell, host.weight === undefined ? "–" : String(host.weight),
    settingOf("weight", host) && (host.own_weight === undefined ? "set; none of its own" : `set; its own is ${host.own_weight}`)),
  text(host => host.canary ? "canary" : ""),
  (cell, host) => {
    const names = Object.keys(host.tags);
    if (!cell.firstChild) {
      const details = make("details", {ontoggle: () => hosts.fill()}, make("summary"), make("pre"));
      cell.append(details);
    }
    const [summary, pre] = cell.firstChild.children;
    cell.firstChild.hidden = names.length === 0;
    set(summary, many(names.length, "tag"));
    set(pre, cell.firstChild.open ? names.map(name => `${name}: ${JSON.stringify(host.tags[name])}`).join("\n") : "");
  },
  actions(
    ["Set…", host => propose({service: host.service, id: host.id}), null, host => "host " + host.id],
    ["Up…", host => proposeEnd(ownSettings(host)), host => ownSettings(host).length > 0, host => "host " + host.id],
  ),
], "no such host");

const zones = table("zones", zone => zone.name, [
  text(zone => zone.name || "none"),
  text(zone => count(zone.hosts)),
  text(zone => count(zone.serving)),
  (cell, zone) => {
    if (!cell.firstChild) cell.append(make("meter", {max: 1}), make("span"));
    const [meter, share] = cell.children;
    meter.value = zone.share;
    meter.ariaLabel = `share of zone ${zone.name || "none"}`;
    set(share, `${Math.round(100 * zone.share)} %`);
  },
  actions(["Set…", zone => propose({service: state.opened, zone: zone.name}), zone => zone.name !== "", zone => "zone " + zone.name]),
], "no zone");

const revisions = table("revisions", revision => revision.revision, [
  text(revision => revision.revision || "none"),
  text(revision => count(revision.hosts)),
  text(revision => count(revision.serving)),
  text(revision => count(revision.canary)),
  time(revision => revision.oldest),
  time(revision => revision.newest),
], "no revision");

// zonesOf counts hosts by zone, the one with most of what serves first.
function zonesOf(list) {
  const byName = new Map();
  let serving = 0;
  for (const host of list) {
    const zone = byName.get(host.zone) ?? {name: host.zone, hosts: 0, serving: 0, share: 0};
    byName.set(host.zone, zone);
    zone.hosts++;
    if (host.state !== "serving") continue;
    zone.serving++;
    serving++;
  }
  for (const zone of byName.values()) zone.share = serving > 0 ? zone.serving / serving : 0;
  return [...byName.values()].sort((a, b) => b.serving - a.serving || (a.name < b.name ? -1 : 1));
}

function showService() {
  byId("service").hidden = state.opened === "";
  set(byId("service-name"), state.opened);
  const service = state.service;
  showHosts();
  zones.show(service && zonesOf(service.hosts));
  revisions.show(service?.revisions);
  let about = "…";
  if (service) {
    const serving = service.hosts.filter(host => host.state === "serving").length;
    const changed = state.services?.find(({name}) => name === state.opened)?.changed_at;
    about = `${many(service.hosts.length, "host")}, ${count(serving)} serving.${changed ? ` Changed ${ago(changed)}.` : ""}`;
    if (!service.known) about = "No such service is known.";
  }
  set(byId("service-text"), about);
}

function showHosts() {
  const part = byId("host-search").value.toLowerCase();
  hosts.show(state.service?.hosts.filter(host =>
    holds(part, host.id, address(host), host.zone, host.revision, ...host.additional_addresses)));
}

byId("host-search").addEventListener("input", () => {
  hosts.toStart();
  showHosts();
});
byId("set-service").addEventListener("click", () => propose({service: state.opened}));

// ---- Settings and history

// scopeText says which hosts a scope is.
function scopeText(scope) {
  if (scope.id) return `host ${scope.id} of ${scope.service}`;
  if (scope.zone) return `zone ${scope.zone} of ${scope.service ?? "every service"}`;
  return `all of ${scope.service}`;
}

const kindText = setting => setting.kind === "weight" ? `weight ${setting.weight}` : setting.kind;

const settings = table("settings", setting => JSON.stringify([setting.kind, setting.scope.service, setting.scope.id, setting.scope.zone]), [
  text(kindText),
  text(setting => scopeText(setting.scope)),
  text(setting => setting.reason),
  text(setting => setting.author),
  time(setting => setting.made),
  text(setting => setting.expires ? clock(setting.expires) : "somebody ends it"),
  actions(["End…", setting => proposeEnd([setting]), null, setting => `${setting.kind} of ${scopeText(setting.scope)}`]),
], "nothing is set");

// showSettings shows what is set: all of it, or what concerns the open service.
function showSettings() {
  const zoneNames = new Set((state.service?.hosts ?? []).map(host => host.zone));
  settings.show(state.settings?.filter(({scope}) =>
    state.opened === "" || scope.service === state.opened || !scope.service && zoneNames.has(scope.zone)));
  hosts.fill();
}

const history = table("history", event => JSON.stringify(event), [
  time(event => event.at),
  text(event => event.kind),
  text(event => event.service),
  text(event => event.id),
  text(event => event.actor),
  text(event => event.detail),
], "nothing yet");

// showHistory shows the last events of the open service, or those that this page
// was told of; the last one first.
function showHistory() {
  set(byId("history-title"), state.opened ? "What happened" : "What happened since this page is open");
  history.show(state.opened ? state.service?.history.toReversed() : state.happened);
}

// ---- Guards

const reasons = {
  suspended: "no host expires at all now, see below",
  last_host: "last host of its service, which stays longer",
  service_share: "service share: too many of one service fell silent at once",
  global_share: "global share: too many of all hosts fell silent at once",
  in_store: "the store, or another replica, keeps them",
};
const causes = {
  started: "discovery has started lately and did not hear the beats before",
  paused: "discovery stood still for a while",
  clock_jumped: "the clock of discovery was set",
  store_away: "the store cannot be reached",
  beats_lost: "most of the usual heartbeats do not come in",
  replica_lost: "a replica that shares the store fell silent, and may hear hosts that are not heard here",
};

function showGuard() {
  const {holds: held, suspensions, stale, lifted} = state.guard;
  const acts = held.length > 0 || suspensions.length > 0;
  byId("guard").hidden = !acts;
  set(byId("guard-state"), acts ? "Guards act, see below." : "No guard acts.");
  set(byId("guard-title"), stale > 0 ? `Holding ${many(stale, "host")} that would be dead` : "No host expires now");
  const items = [
    ...held.map(hold => `Holding ${many(hold.hosts, "host")}: ${reasons[hold.reason] ?? hold.reason}. Since ${clock(hold.since)}${hold.detail ? ": " + hold.detail : ""}.`),
    ...suspensions.map(suspension => `No host expires: ${causes[suspension.cause] ?? suspension.cause}. Since ${clock(suspension.since)}, ` +
      `${suspension.lasting ? "until that is over" : "until " + clock(suspension.until)}${suspension.detail ? ": " + suspension.detail : ""}.`),
  ];
  const list = byId("guard-list");
  while (list.children.length > items.length) list.lastChild.remove();
  items.forEach((item, i) => set(list.children[i] ?? list.appendChild(make("li")), item));
  byId("lifted").hidden = !lifted;
  set(byId("lifted"), lifted ? `Last lifted at ${clock(lifted.at)} by ${lifted.by}: ${lifted.reason}.` : "");
  permit(byId("lift"));
}

byId("lift").addEventListener("click", () => {
  const stale = state.guard.stale;
  ask({
    title: "Let dead hosts go", verb: "Let them go", reason: true,
    text: () => `${many(stale, "host")} that discovery holds now ${stale === 1 ? "is" : "are"} let go, and readers are told so. One that beats again comes back. While the store is away none goes.`,
    act: values => send("DELETE", "guard/suspension?" + new URLSearchParams({reason: values.reason})),
    done: askAll,
  });
});

// ---- What an operator does

// propose asks what to set for a scope, and sets it.
function propose(scope) {
  const affected = (state.service?.hosts ?? []).filter(host => covers(scope, host));
  const serving = affected.filter(host => host.state === "serving").length;
  const left = (state.service?.hosts ?? []).filter(host => host.state === "serving" && !covers(scope, host)).length;
  const wide = values => scope.zone && values.everywhere;
  ask({
    title: "Set " + scopeText(scope), setting: true, reason: true, author: !status.caller.identity, zone: Boolean(scope.zone),
    verb: "Set it",
    text: values => wide(values) ?
      `This concerns every host in zone ${scope.zone}, of every service.` :
      `This concerns ${many(affected.length, "host")}, ${count(serving)} of which serve${serving === 1 ? "s" : ""} now.`,
    last: values => values.kind !== "weight" && serving > 0 && left === 0,
    act: values => send("PUT", "settings/" + values.kind, {
      scope: wide(values) ? {zone: scope.zone} : scope,
      weight: values.kind === "weight" ? Number(values.weight) : undefined,
      author: values.author || undefined,
      reason: values.reason,
      expires_in: values.expires || undefined,
    }),
    done: askAll,
  });
}

// proposeEnd asks whether to end settings, and ends them.
function proposeEnd(list) {
  ask({
    title: "End what is set", verb: "End it",
    text: () => list.map(setting => `${kindText(setting)} of ${scopeText(setting.scope)}, by ${setting.author}: ${setting.reason}`).join("; "),
    act: async () => {
      for (const setting of list) await send("DELETE", `settings/${setting.kind}?` + new URLSearchParams(setting.scope));
    },
    done: askAll,
  });
}

// ---- Events

const shownEvents = 50;

// happened notes an event, and reads what it may have changed.
function happened(event) {
  state.happened = [event, ...state.happened.slice(0, shownEvents - 1)];
  if (state.opened === "") showSoon();
  askServices();
  askRest();
  askClients();
  if (event.service === "" || event.service === state.opened) askService();
}

// showSoon shows the history in the next frame: events may come by the thousand.
let showing = false;
function showSoon() {
  if (showing) return;
  showing = true;
  requestAnimationFrame(() => {
    showing = false;
    showHistory();
  });
}

// Beats and the end of a drain are no events: ages and states are read again now
// and then. Ages tick meanwhile.
setInterval(() => { if (!document.hidden) askAll(); }, 5000);
setInterval(() => { if (!document.hidden) hosts.fill(); }, 1000);

open();
askStatus();
follow({
  happened,
  missed: askAll,
  began() {
    showLive("");
    askStatus();
    askAll();
  },
  broke(reason) {
    showLive(reason);
    askStatus();
  },
});
