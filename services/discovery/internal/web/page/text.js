// Texts and elements, and how times and numbers are written.

export const byId = id => document.getElementById(id);

// set writes a text, if it is another one.
export function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// make makes an element with properties and children, which are texts or nodes.
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// skew is how many milliseconds the clock of discovery is ahead of this one.
let skew = 0;
export function setClock(now) {
  skew = Date.parse(now) - Date.now();
}

export const secondsSince = time => Math.max(0, (Date.now() + skew - Date.parse(time)) / 1000);

// span is a number of seconds, for people.
export function span(seconds) {
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}
export const ago = time => span(secondsSince(time)) + " ago";

// clock is a time of day, with the date if that is not today.
export function clock(time) {
  const at = new Date(time);
  return at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString() : at.toLocaleString();
}

// secondsOf reads a duration as Go writes it, such as 1h2m3.5s.
export function secondsOf(duration) {
  const units = {h: 3600, m: 60, s: 1, ms: 1e-3};
  let seconds = 0;
  for (const [, number, unit] of duration.matchAll(/([\d.]+)(h|ms|m|s)/g)) seconds += number * units[unit];
  return seconds;
}

// rate is a number of requests a second.
export const rate = n => n.toLocaleString("en", {maximumFractionDigits: 1});
export const count = n => n.toLocaleString("en");
export const many = (n, one) => `${count(n)} ${one}${n === 1 ? "" : "s"}`;
