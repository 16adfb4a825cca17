// The stream of events.

import {pause, send} from "./calls.js";

const silence = 40_000; // milliseconds; something comes every 15 s

// stream ends the stream of now; with unseen as the reason it is no loss.
const unseen = new Error("nobody looks at the page");
let stream = new AbortController();

// shown resolves when somebody looks at the page: a tab that nobody sees keeps no
// stream open, for a browser has few for all tabs.
const shown = () => new Promise(done => {
  const look = () => {
    if (document.hidden) return;
    document.removeEventListener("visibilitychange", look);
    done();
  };
  document.addEventListener("visibilitychange", look);
  look();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stream.abort(unseen);
});

// follow reads the stream for as long as the page is there. After each break all
// is to be read anew, since events were missed. It calls
//   began()           when the stream is there
//   broke(reason)     when it is not; it is tried again
//   happened(event)   of each event
//   missed()          when there were more than could be told
export async function follow({began, broke, happened, missed}) {
  let wait = 0;
  for (;;) {
    await shown();
    stream = new AbortController();
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => stream.abort(new Error("nothing came of it for long")), silence);
    };
    try {
      heard();
      const answer = await send("GET", "events", undefined, stream.signal);
      wait = 1000;
      began();
      for await (const {name, data} of eventsOf(answer.body, heard)) {
        if (name === "missed") missed();
        if (name === "change") happened(JSON.parse(data));
      }
      throw new Error("discovery ended the stream");
    } catch (error) {
      if (stream.signal.reason === unseen) wait = 0;
      else broke(error.message);
    }
    clearTimeout(timer);
    await pause(wait * (0.5 + Math.random()));
    wait = Math.min(2 * wait || 1000, 15_000);
  }
}

// eventsOf are the events of a stream, as they come.
async function* eventsOf(body, heard) {
  const chunks = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {done, value} = await chunks.read();
    if (done) return;
    heard();
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map(line => line.split(/: (.*)/s)));
      if (fields.event) yield {name: fields.event, data: fields.data};
    }
  }
}
