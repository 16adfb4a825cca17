// The dialog in which an operator says what to do, and confirms it.

import {byId, set} from "./text.js";

// asked is what the dialog asks for, null while it is closed:
//   title, verb   what it is called, and the button that does it
//   setting, reason, author, zone   which fields it has
//   text(values)  what will be, for people
//   last(values)  whether that takes all work from a service
//   act(values)   does it
//   done()        is called when it was tried
let asked = null;

export function ask(question) {
  asked = question;
  const form = byId("dialog-form");
  form.reset();
  form.kind.value = "drain";
  form.author.value = sessionStorage.getItem("author") ?? "";
  byId("dialog-setting").hidden = !question.setting;
  byId("dialog-everywhere").hidden = !question.zone;
  byId("dialog-reason").hidden = !question.reason;
  byId("dialog-author").hidden = !question.author;
  form.reason.required = Boolean(question.reason);
  form.author.required = Boolean(question.author);
  set(byId("dialog-title"), question.title);
  set(byId("dialog-do"), question.verb);
  byId("dialog-do").disabled = false;
  set(byId("dialog-error"), "");
  showQuestion();
  byId("dialog").showModal();
}

const dialogValues = () => Object.fromEntries(new FormData(byId("dialog-form")));

// showQuestion shows what the values would come to.
function showQuestion() {
  const form = byId("dialog-form"), values = dialogValues();
  set(byId("dialog-text"), asked.text(values));
  const last = asked.last?.(values) ?? false;
  byId("dialog-last").hidden = !last;
  form.last.required = last;
  form.weight.required = Boolean(asked.setting) && values.kind === "weight";
  form.weight.disabled = values.kind !== "weight";
}
byId("dialog-form").addEventListener("input", showQuestion);

byId("dialog-form").addEventListener("submit", async event => {
  event.preventDefault();
  const values = dialogValues();
  byId("dialog-do").disabled = true;
  set(byId("dialog-error"), "");
  try {
    await asked.act(values);
    if (asked.author) sessionStorage.setItem("author", values.author);
    byId("dialog").close();
  } catch (error) {
    set(byId("dialog-error"), "Not done: " + error.message);
    byId("dialog-do").disabled = false;
  }
  asked.done();
});
byId("dialog-cancel").addEventListener("click", () => byId("dialog").close());
