// The files of resources that operators write, and what is wrong with them.

import {get, reader} from "./calls.js";
import {teller} from "./status.js";
import {lines, table, text} from "./table.js";
import {byId, count, many, set} from "./text.js";

const states = {
  good: "good",
  kept: "bad: what it gave before stays in force",
  bad: "bad: nothing of it is in force",
};

export const askFiles = reader(async () => {
  const {directory, files: list, warnings} = await get("xds/files");
  byId("files-section").hidden = directory === "";
  const bad = list.filter(file => file.state !== "good");
  set(byId("files-text"), `${many(list.length, "file")} in ${directory}, ${count(bad.length)} bad.`);
  byId("files-text").className = bad.length > 0 ? "bad" : "note";
  files.show([...bad, ...list.filter(file => file.state === "good")]);
  set(byId("files-warnings"), warnings.join("\n"));
}, teller("files of resources"));

const files = table("files", file => file.path, [
  text(file => file.path),
  text(file => states[file.state] ?? file.state),
  text(file => count(file.resources)),
  (cell, file) => lines(cell, "", ...(file.faults ?? [])),
], "no file");
