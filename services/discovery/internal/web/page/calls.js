// Calls of the JSON API.

// Refused is an answer of 400 or above.
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const patience = 15_000; // milliseconds that a call may take

// send makes a call, with the token if there is one, and returns its answer. The
// error is Refused, or that of fetch.
export async function send(method, path, body, signal = AbortSignal.timeout(patience)) {
  const headers = {};
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = "Bearer " + token;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch("v2/" + path, {
    method, headers, signal, cache: "no-store", body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, told.error ?? `${answer.status} ${answer.statusText}`);
}

export const get = async path => (await send("GET", path)).json();

export const pause = milliseconds => new Promise(done => setTimeout(done, milliseconds));

// reader makes of read something that may be asked for at any rate: it runs once
// at a time, rests for a few times as long as it took, and then runs once more
// for all who asked meanwhile. told is called after each read, with the error if it
// failed, else null.
export function reader(read, told) {
  let busy = false, again = false;
  return async function ask() {
    again = true;
    if (busy) return;
    busy = true;
    while (again) {
      again = false;
      const begun = performance.now();
      try {
        await read();
        told(null);
      } catch (error) {
        told(error);
      }
      await pause(Math.min(Math.max(300, 5 * (performance.now() - begun)), 5000));
    }
    busy = false;
  };
}
