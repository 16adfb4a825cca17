// Tables, and the kinds of columns that they have.

import {permit} from "./status.js";
import {byId, clock, count, make, set} from "./text.js";

const pageSize = 100;

// table shows items in rows, a page of them at a time. An item keeps its row for
// as long as it is shown, by its key, so that what has the focus or is unfolded
// stays so while its cells change. Each column is a function that fills its cell
// with an item. Until the items are known, which is not that there are none, they
// are undefined. Where discovery itself tells of a part of them at a time, turned
// is called to have it tell of the part from first() on, and show is told besides
// how many there are in all, matching, and offset, how many come before.
export function table(id, key, columns, empty, turned) {
  const element = byId(id), head = element.tHead.rows[0], body = element.tBodies[0];
  const rows = new Map();
  let items = [], first = 0;

  const foot = make("td", {colSpan: columns.length, className: "note"});
  element.append(make("tfoot", {}, make("tr", {}, foot)));
  const back = make("button", {type: "button", textContent: "previous", onclick: () => turn(-pageSize)});
  const on = make("button", {type: "button", textContent: "next", onclick: () => turn(pageSize)});
  const where = make("span");
  const pager = make("nav", {className: "pager", ariaLabel: "pages of " + id}, back, where, on);
  element.after(pager);

  function turn(by) {
    first += by;
    if (turned) turned();
    else show(items); // there are some
  }

  function newRow() {
    const row = make("tr");
    columns.forEach((_, i) => row.append(make(i === 0 ? "th" : "td", {className: head.cells[i].className})));
    row.cells[0].scope = "row";
    return row;
  }

  // fill fills the rows that are shown.
  function fill() {
    for (const row of rows.values()) columns.forEach((column, i) => column(row.cells[i], row.item));
  }

  function show(all, part) {
    items = all ?? [];
    set(foot, all ? empty : "…");
    const total = part?.matching ?? items.length;
    const last = Math.max(0, Math.ceil(total / pageSize) - 1) * pageSize;
    if (turned && first > last) setTimeout(turned); // they have become fewer
    first = Math.min(Math.max(first, 0), last);
    const page = new Map((part ? items : items.slice(first, first + pageSize)).map(item => [key(item), item]));
    for (const [name, row] of rows) {
      if (page.has(name)) continue;
      row.remove();
      rows.delete(name);
    }
    let place = body.firstChild;
    for (const [name, item] of page) {
      let row = rows.get(name);
      if (!row) rows.set(name, row = newRow());
      row.item = item;
      if (row === place) place = place.nextSibling;
      else body.insertBefore(row, place);
    }
    fill();
    element.tFoot.hidden = items.length > 0;
    pager.hidden = total <= pageSize;
    set(where, `${count(first + 1)}–${count(Math.min(first + pageSize, total))} of ${count(total)}`);
    back.disabled = first === 0;
    on.disabled = first === last;
  }

  return {show, fill, toStart() { first = 0; }, first: () => first};
}

// lines fills a cell with a text and smaller ones below.
export function lines(cell, first, ...more) {
  const texts = more.filter(Boolean);
  const all = [first, ...texts].join("\n");
  if (cell.dataset.shown === all) return;
  cell.dataset.shown = all;
  cell.replaceChildren(first, ...texts.map(text => make("span", {className: "note"}, text)));
}

// text is a column of texts.
export const text = of => (cell, item) => set(cell, of(item));

// time is a column of times.
export const time = of => (cell, item) => {
  const at = of(item);
  if (!cell.firstChild) cell.append(make("time"));
  cell.firstChild.dateTime = at;
  cell.firstChild.title = at;
  set(cell.firstChild, at ? clock(at) : "");
};

// opener is a column with a button that shows more of an item, to who may read.
export const opener = (label, act, name) => cell => {
  if (!cell.firstChild) cell.append(make("button", {type: "button", textContent: label, onclick: () => act(cell.parentNode.item)}));
  cell.firstChild.ariaLabel = `${label} ${name(cell.parentNode.item)}`;
};

// actions is a column of buttons, each a label and what it does with the item. A
// button is there for the items that want it.
export const actions = (...buttons) => cell => {
  if (!cell.firstChild) {
    for (const [label, act] of buttons) {
      cell.append(make("button", {type: "button", className: "act", textContent: label, onclick: () => act(cell.parentNode.item)}), " ");
    }
  }
  const item = cell.parentNode.item;
  buttons.forEach(([, , wanted, name], i) => {
    const button = cell.children[i];
    button.hidden = wanted ? !wanted(item) : false;
    button.ariaLabel = `${button.textContent} ${name(item)}`;
    permit(button);
  });
};
