// The clients of xDS: who they are, what they have and what they refused. There
// may be thousands, of which discovery tells a part at a time.

import {get, reader} from "./calls.js";
import {teller} from "./status.js";
import {lines, opener, table, text, time} from "./table.js";
import {ago, byId, clock, count, many, set} from "./text.js";

// ---- The list

export const askClients = reader(async () => {
  const list = await get("xds/clients?" + new URLSearchParams({
    search: byId("client-search").value, show: byId("client-show").value, offset: clients.first(),
  }));
  clients.show(list.list, list);
  set(byId("clients-text"), summary(list));
  if (opened !== null) askResources();
}, teller("xDS clients"));

const summary = list => [
  many(list.clients, "client"),
  list.refusing > 0 && `${count(list.refusing)} refused what they were sent last`,
  list.waiting > 0 && `${count(list.waiting)} have something to come`,
  list.slow > 0 && `${count(list.slow)} slow`,
].filter(Boolean).join(", ") + ".";

// protocolText says how a client asks.
const protocolText = client => ({
  rest: "REST-JSON",
  ads: `ADS, ${variants[client.variant]}`,
})[client.type] ?? `${client.type}, ${variants[client.variant]}`;
const variants = {sotw: "state of the world", delta: "delta"};

// typeTexts are what there is to say of a type: what the client has, and what it
// refused.
function typeTexts(type, of) {
  const has = [
    `${type}: ${many(of.held, "resource")}`,
    of.wildcard ? "all are asked for" : `${many(of.names, "name")} asked for`,
    of.version && "version " + of.version,
    of.pending > 0 ? `${count(of.pending)} pending` : of.withheld && "more to come",
    of.unanswered && (of.slow ? "slow: not answered for long" : "not answered yet"),
    of.sent_at && "last push " + clock(of.sent_at),
    `${many(of.acks, "ACK")}, ${many(of.nacks, "NACK")}`,
  ].filter(Boolean).join(", ");
  const nack = of.last_nack;
  if (!nack) return [has];
  const names = nack.names?.length ? ` (${nack.names.join(", ")})` : "";
  return [has, `${of.refused ? "refused" : "last refused"} ${clock(nack.at)}: ${nack.reason}${names}`];
}

// A client that polls has no stream, and is known by who it is.
const keyOf = client => client.stream ?? JSON.stringify([client.node, client.cluster, client.identity]);

const clients = table("clients", keyOf, [
  (cell, client) => lines(cell, client.node || "not said yet", client.agent, [client.region, client.zone].filter(Boolean).join(" ")),
  text(client => client.cluster),
  (cell, client) => lines(cell, client.identity || "–", client.peer),
  (cell, client) => lines(cell, protocolText(client), `since ${ago(client.since)}`, client.last_poll && `last call ${ago(client.last_poll)}`),
  time(client => client.last_push ?? ""),
  (cell, client) => lines(cell, "", ...Object.entries(client.subscriptions).flatMap(([type, of]) => typeTexts(type, of))),
  (cell, client) => {
    show(cell, client);
    cell.firstChild.hidden = client.type === "rest"; // nothing is kept of it
  },
], "no such client", () => askClients());

for (const id of ["client-search", "client-show"]) {
  byId(id).addEventListener("input", () => {
    clients.toStart();
    askClients();
  });
}

// ---- What one client has

// opened is the client of which all resources are shown, null for none.
let opened = null;

const show = opener("Versions…", open, client => `of ${client.node}, stream ${client.stream}`);

function open(client) {
  opened = client;
  byId("client").hidden = opened === null;
  resources.toStart();
  resources.show(undefined);
  byId("resource-search").value = "";
  if (opened === null) return;
  set(byId("client-title"), `What ${client.node || "the client"} has, by stream ${client.stream}`);
  byId("client-title").scrollIntoView({block: "nearest"});
  askResources();
}

const askResources = reader(async () => {
  const client = opened;
  if (client === null) return;
  let list = {list: [], matching: 0};
  try {
    list = await get(`xds/clients/${client.stream}?` + new URLSearchParams({search: byId("resource-search").value, offset: resources.first()}));
    set(byId("client-gone"), "");
  } catch (error) {
    if (error.status !== 404) throw error;
    set(byId("client-gone"), "Its stream has ended.");
  }
  if (opened === client) resources.show(list.list, list);
}, teller("the open client"));

const resources = table("resources", resource => resource.type + " " + resource.name, [
  text(resource => resource.name),
  text(resource => resource.type),
  text(resource => resource.version),
  (cell, resource) => lines(cell, resource.state.replaceAll("_", " "), resource.reason),
], "no such resource", () => askResources());

byId("resource-search").addEventListener("input", () => {
  resources.toStart();
  askResources();
});
byId("client-close").addEventListener("click", () => open(null));
