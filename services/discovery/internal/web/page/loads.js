// The requests that proxies and gRPC clients send, as they report them.

import {get, reader} from "./calls.js";
import {teller} from "./status.js";
import {opener, table, text} from "./table.js";
import {byId, count, many, rate, set} from "./text.js";

export const askLoads = reader(async () => {
  const list = await get("loads?" + new URLSearchParams({
    detail: "clusters", search: byId("load-search").value, offset: loads.first(), limit: 100,
  }));
  loads.show(list.clusters, list);
  set(byId("loads-text"), `${many(list.matching, "cluster")}.`);
  if (opened) askPlaces();
}, teller("loads"));

const dropped = load => Object.values(load.dropped ?? {}).reduce((sum, one) => sum + one, 0);

// rates are the columns of what becomes of requests.
const rates = [
  text(load => rate(load.issued)),
  text(load => rate(load.successful)),
  text(load => rate(load.failed)),
  text(load => count(load.in_progress)),
];

const loads = table("loads", load => load.cluster, [
  text(load => load.cluster),
  text(load => count(load.clients)),
  ...rates,
  text(load => rate(dropped(load))),
  opener("Where…", load => open(load.cluster), load => "requests of " + load.cluster + " go"),
], "nobody reports any", () => askLoads());

byId("load-search").addEventListener("input", () => {
  loads.toStart();
  askLoads();
});

// ---- Where those of one cluster go

let opened = "";

function open(cluster) {
  opened = cluster;
  byId("load").hidden = opened === "";
  places.toStart();
  places.show(undefined);
  set(byId("load-title"), "Where requests of " + cluster + " go");
  askPlaces();
}

const askPlaces = reader(async () => {
  const cluster = opened;
  if (cluster === "") return;
  const {clusters} = await get("loads?" + new URLSearchParams({cluster}));
  if (opened !== cluster) return;
  places.show((clusters[0]?.localities ?? []).flatMap(locality => {
    const where = [locality.region, locality.zone, locality.sub_zone].filter(Boolean).join(" / ") || "none";
    return [{where, host: "", ...locality}, ...(locality.endpoints ?? []).map(host => ({where, host: host.address, ...host}))];
  }));
}, teller("the load of a cluster"));

const places = table("places", place => JSON.stringify([place.where, place.host]), [
  text(place => place.where),
  text(place => place.host || "all"),
  ...rates,
], "nobody reports any");

byId("load-close").addEventListener("click", () => open(""));
