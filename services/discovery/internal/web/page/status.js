// The head of the page: who answers, whether it does, and who asks.

import {Refused, get} from "./calls.js";
import {byId, set, setClock} from "./text.js";

// status is what was read of it last, null until it was.
export let status = null;

// askStatus reads who answers, and who asks: at the start, and when the stream
// breaks or begins, for then another replica may answer.
export async function askStatus() {
  try {
    status = await get("status");
    setClock(status.now);
    told(null);
  } catch (error) {
    status = null;
    told(error);
  }
  showStatus();
}

// troubles are what keeps readers from reading, by what they read.
const troubles = new Map();

// teller is a function that takes how a read of something ended, an error or null,
// and shows whether discovery answers.
export const teller = what => error => {
  if (error === null) troubles.delete(what);
  else troubles.set(what, error);
  const [trouble] = troubles.values();
  const state = trouble ? troubleText(trouble) : status?.state ?? "ready";
  set(byId("state"), state);
  byId("state").className = state === "ready" ? "ready" : "";
  if (trouble && isStranger(trouble)) byId("who").open = true;
};
const told = teller("status");

// isStranger is true of what is answered to those who may not even read.
const isStranger = error => error.status === 401 || error.status === 403;

function troubleText(error) {
  if (!(error instanceof Refused)) return "does not answer";
  if (isStranger(error)) return "does not know you: " + error.message;
  return (error.status === 503 ? "not ready: " : "refuses: ") + error.message;
}

function showStatus() {
  const token = sessionStorage.getItem("token");
  set(byId("replica"), status ? `Replica ${status.replica} of ${status.env}.` : "");
  document.title = status ? `discovery: ${status.env}` : "discovery";
  let caller = token ? "You show a token." : "You show no token.";
  if (status?.caller.identity) caller = `You are ${status.caller.identity}.`;
  set(byId("caller"), caller);
  byId("denied").hidden = !status || status.caller.operator;
  set(byId("denied"), status && !status.caller.operator ? `You may look on, and change nothing: ${status.caller.denied}.` : "");
  for (const button of document.querySelectorAll(".act")) permit(button);
}

// permit lets a button be used by who may.
export function permit(button) {
  button.disabled = !status?.caller.operator;
  button.setAttribute("aria-describedby", "denied");
}

// Another caller may see other things: the page begins anew, and shows none of
// what was there.
byId("token-form").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value);
  location.reload();
});
byId("forget").addEventListener("click", () => {
  sessionStorage.removeItem("token");
  location.reload();
});

// showLive shows whether the page hears of changes: reason is why not, or empty.
let lostAt = null;
export function showLive(reason) {
  lostAt = reason ? lostAt ?? new Date() : null;
  set(byId("live"), reason ? `Not live since ${lostAt.toLocaleTimeString()}, trying again: ${reason}.` : "Live.");
  byId("live").className = reason ? "lost" : "";
}
