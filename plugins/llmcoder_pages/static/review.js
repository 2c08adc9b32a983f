// Reviews by keyboard. Every action is a form of the page, which works without this script; here it is sent in the background, and the
// part of the page that it changes is put in its place. The note is never asked for again: its evidence is marked from offsets.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const note = $("#note");
const work = $("#work");
const letters = note ? Array.from(note.textContent) : []; // code points, as offsets count them
const HEARTBEAT = 60_000;
const IDLE = 5 * 60_000; // a page that nobody touches lets its claim run out
const TYPING = 120;

/* What is said to those who listen, and shown to nobody else. */
const say = (text) => {
  const live = $("#live");
  if (!live || !text) return;
  live.textContent = "";
  setTimeout(() => (live.textContent = text), 30);
};

/* The codes, one of them current ---------------------------------------------------------------------------------- */

const part = () => $("#part");
const mayDecide = () => Boolean(part()?.dataset.mayDecide);
const cards = () => $$("#codes > li");
const card = (code) => cards().find((one) => one.dataset.code === code);
let current = null;
let selected = null; // {start, end} of text selected in the note

const setCurrent = (code, { focus = true, scroll = true } = {}) => {
  current = code;
  for (const one of cards()) {
    const is = one.dataset.code === code;
    one.tabIndex = is ? 0 : -1;
    if (is) one.setAttribute("aria-current", "true");
    else one.removeAttribute("aria-current");
    if (is && focus) one.focus({ preventScroll: true });
    if (is && scroll) one.scrollIntoView({ block: "nearest" });
  }
  const marks = $$("mark", note);
  for (const mark of marks) mark.classList.toggle("current", mark.dataset.codes.split(" ").includes(code));
  const first = marks.find((mark) => mark.classList.contains("current"));
  if (first && scroll) {
    const box = note.getBoundingClientRect();
    const place = first.getBoundingClientRect();
    if (place.top < box.top || place.bottom > box.bottom) note.scrollTop += place.top - box.top - box.height / 3;
  }
};

const step = (by) => {
  const codes = cards().map((one) => one.dataset.code);
  if (!codes.length) return;
  const place = codes.indexOf(current) + by;
  setCurrent(codes[Math.max(0, Math.min(codes.length - 1, place))]);
};

/* The note: marked from offsets, and where somebody selects in it --------------------------------------------------- */

const markNote = () => {
  const pieces = [];
  let at = 0;
  for (const [start, end, codes] of JSON.parse(part().dataset.marks)) {
    pieces.push(letters.slice(at, start).join(""));
    const mark = document.createElement("mark");
    mark.dataset.codes = codes.join(" ");
    mark.title = codes.map(dotted).join(", ");
    mark.textContent = letters.slice(start, end).join("");
    pieces.push(mark);
    at = end;
  }
  pieces.push(letters.slice(at).join(""));
  note.replaceChildren(...pieces);
};
const fillQuotes = () => {
  for (const quote of $$(".quote", work)) {
    quote.textContent = letters.slice(Number(quote.dataset.start), Number(quote.dataset.end)).join("");
  }
};
const dotted = (code) => (code.length > 3 ? `${code.slice(0, 3)}.${code.slice(3)}` : code);

const offsetOf = (node, offset) => {
  const range = document.createRange();
  range.setStart(note, 0);
  range.setEnd(node, offset);
  return Array.from(range.toString()).length;
};
const readSelection = () => {
  const selection = getSelection();
  if (!selection.rangeCount) return;
  const range = selection.getRangeAt(0);
  // Whoever goes on to a field, and so selects elsewhere, still means what was marked in the note.
  if (!note.contains(range.startContainer) || !note.contains(range.endContainer)) return;
  let start = offsetOf(range.startContainer, range.startOffset);
  let end = offsetOf(range.endContainer, range.endOffset);
  while (start < end && !letters[start].trim()) start += 1;
  while (end > start && !letters[end - 1].trim()) end -= 1;
  selected = start < end ? { start, end } : null;
  if ($("#choose")?.hidden === false) takeSelection();
};
const takeSelection = () => {
  const form = $("#choose-form");
  if (!form || !selected) return;
  form.elements.start.value = selected.start;
  form.elements.end.value = selected.end;
  form.elements.words.value = letters.slice(selected.start, selected.end).join("");
};

/* Sending forms ------------------------------------------------------------------------------------------------------ */

let line = Promise.resolve(); // one write after the other, each with the version that the one before left
const inTurn = (act) => (line = line.then(act, act));

const post = (url, body) => fetch(url, { method: "POST", body, headers: { "X-Part": "1" }, credentials: "same-origin" });
const bodyOf = (form, submitter) => {
  const body = new URLSearchParams(new FormData(form));
  if (submitter?.name) body.set(submitter.name, submitter.value);
  return body;
};

const trouble = (text) => {
  $("#problem")?.remove();
  const banner = document.createElement("div");
  banner.id = "problem";
  banner.className = "banner bad";
  banner.tabIndex = -1;
  banner.setAttribute("role", "alert");
  const line1 = document.createElement("p");
  line1.textContent = text;
  banner.append(line1);
  part().prepend(banner);
  banner.focus();
};

const messageOf = async (answer) => {
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return $(".lead", page)?.textContent || "The server did not do it, and did not say why. Load this page again.";
};

const put = async (answer) => {
  const text = await answer.text();
  const fresh = $("#part", new DOMParser().parseFromString(text, "text/html"));
  if (!fresh) {
    trouble($(".lead", new DOMParser().parseFromString(text, "text/html"))?.textContent || "The server did not do it. Load this page again.");
    return;
  }
  const before = new Map(cards().map((one) => [one.dataset.code, one.dataset.state]));
  const place = [...before.keys()].indexOf(current);
  part().replaceWith(document.importNode(fresh, true));
  markNote();
  fillQuotes();
  showLease();
  if ($("#problem")) {
    setCurrent(card(current) ? current : part().dataset.next || null, { focus: false });
    $("#problem").focus();
    return;
  }
  selected = null;
  const codes = cards().map((one) => one.dataset.code);
  const added = codes.find((code) => !before.has(code));
  const open = cards().filter((one) => one.dataset.state === "open").map((one) => one.dataset.code);
  const reopened = open.find((code) => before.get(code) !== "open"); // by an undo
  const following = open.find((code) => codes.indexOf(code) >= place);
  const next = reopened || following || open[0] || added || (card(current) ? current : codes[0]) || null;
  const left = open.length ? ` ${open.length} to decide.` : mayDecide() ? " All decided." : "";
  say(part().dataset.said + left);
  setCurrent(next, { focus: mayDecide() });
  if (!mayDecide()) $("#next button")?.focus();
};

/* What a button of ours does. Not in turn: whoever calls it waits for its turn. */
const act = (form, submitter) => {
  if (form.id === "next") form.submit();
  else if (form.id === "open-add") openChoose("");
  else if (submitter?.dataset.key === "r") openChoose(form.elements.code.value);
  else if (submitter?.id === "find") find();
  else return send(form, submitter);
  return undefined;
};
const send = async (form, submitter) => {
  const body = bodyOf(form, submitter);
  // The form may be of a part that was replaced meanwhile: what counts is the version on the page now.
  if (body.has("version")) body.set("version", part().dataset.version);
  const answer = await reach(() => post(submitter?.getAttribute("formaction") || form.action, body));
  if (answer) await put(answer);
};

const reach = async (ask) => {
  try {
    return await ask();
  } catch {
    trouble("The server does not answer. What was decided before is kept; this was not done. Try again.");
    return null;
  }
};

/* Choosing a code: search as you type ------------------------------------------------------------------------------ */

const openChoose = (code) => {
  const form = $("#choose-form");
  if (!form) return;
  form.elements.code.value = code;
  form.action = code ? form.dataset.replace : form.dataset.add;
  $("#choose-title").textContent = code ? `Replace ${dotted(code)}` : "Add a code";
  for (const name of ["q", "words", "start", "end"]) form.elements[name].value = "";
  $("#found").replaceChildren();
  $("#choose").hidden = false;
  readSelection();
  takeSelection();
  find();
  $("#choose").scrollIntoView({ block: "nearest" });
  form.elements.q.focus();
};
const closeChoose = () => {
  $("#choose").hidden = true;
  selected = null;
  setCurrent(current);
};

let asked = 0;
let timer = 0;
const find = async () => {
  const form = $("#choose-form");
  const query = form.elements.q.value.trim();
  const number = (asked += 1);
  if (query.length === 1 || (!query && !form.elements.code.value)) {
    $("#found").replaceChildren();
    return;
  }
  // Of the form only what a search needs: the words of the note stay where they are.
  const body = new URLSearchParams({ csrf_token: form.elements.csrf_token.value, code: form.elements.code.value, q: query });
  const answer = await reach(() => post(form.dataset.find, body));
  if (!answer || number !== asked || !form.isConnected) return;
  if (!answer.ok) {
    trouble(await messageOf(answer));
    return;
  }
  const found = new DOMParser().parseFromString(await answer.text(), "text/html");
  $("#found").replaceChildren(...document.importNode(found.body, true).childNodes);
};
const moveInFound = (by) => {
  const buttons = $$("#found button:not([disabled])");
  const place = buttons.indexOf(document.activeElement) + by;
  if (place < 0) $("#query").focus();
  else buttons[Math.min(place, buttons.length - 1)]?.focus();
};

/* The claim ------------------------------------------------------------------------------------------------------- */

let touched = Date.now();
const until = () => Date.parse(part()?.dataset.until || "");
let warned = false;
const showLease = () => {
  const place = $("#lease");
  if (!place) return;
  const minutes = Math.ceil((until() - Date.now()) / 60_000);
  place.textContent = minutes > 0 ? ` (${minutes} min left)` : " (run out)";
  if (minutes <= 2 && !warned) say(`Your claim runs out in ${Math.max(0, minutes)} minutes. Do anything to keep it.`);
  warned = minutes <= 2;
};
const beat = () =>
  inTurn(async () => {
    if (!mayDecide()) return;
    const hasRunOut = until() <= Date.now();
    if (!hasRunOut && (document.hidden || Date.now() - touched > IDLE)) return;
    const form = $("#codes + form, .holding form");
    const body = new URLSearchParams({ csrf_token: form.elements.csrf_token.value, version: part().dataset.version });
    const answer = await post(part().dataset.hold, body).catch(() => null);
    if (answer?.ok) {
      part().dataset.until = (await answer.json()).until;
      showLease();
    } else if (answer?.status === 409) await lost();
  });
const lost = async () => {
  const answer = await fetch(part().dataset.self, { headers: { "X-Part": "1" }, credentials: "same-origin" }).catch(() => null);
  if (!answer?.ok) return;
  await put(answer);
  say("");
  trouble(
    mayDecide()
      ? "This review was changed from another page of yours. It is shown as it stands now."
      : `You do not hold this review any more. Everything you decided is kept. ${$(".holding p").textContent.trim()}`,
  );
};

/* Keys --------------------------------------------------------------------------------------------------------------- */

const singleKeys = $("#single-keys");
const KEY_SETTING = "llmcoder-single-keys";
try {
  singleKeys.checked = localStorage.getItem(KEY_SETTING) !== "off";
} catch {
  // A browser that keeps nothing: on, until the page is left.
}
singleKeys?.addEventListener("change", () => {
  try {
    localStorage.setItem(KEY_SETTING, singleKeys.checked ? "on" : "off");
  } catch {
    // As above.
  }
});

const press = (find, otherwise) => () =>
  inTurn(() => {
    const button = find();
    if (button) return act(button.form, button);
    say(mayDecide() ? otherwise : "Take this review first.");
    return undefined;
  });
const pressOn = (selector) => press(() => $(selector), "Not possible now.");
const pressInCard = (key) => press(() => card(current) && $(`[data-key="${key}"]`, card(current)), "Not possible for this code.");

const rows = () => $$("#queue tbody a");
const stepRow = (by) => {
  const place = rows().indexOf(document.activeElement);
  rows()[Math.max(0, Math.min(rows().length - 1, place + by))]?.focus();
};

const KEYS = {
  j: () => (note ? step(1) : stepRow(1)),
  k: () => (note ? step(-1) : stepRow(-1)),
  a: pressInCard("a"),
  x: pressInCard("x"),
  r: pressInCard("r"),
  "+": pressOn("#open-add button"),
  u: pressOn('[data-do="undo"] button'),
  f: pressOn('[data-do="finish"] button'),
  c: pressOn('[data-do="claim"] button'),
  n: pressOn("#next button"),
  "?": () => {
    const keys = $("#keys");
    keys.open = !keys.open;
    if (keys.open) {
      $("summary", keys).focus();
      keys.scrollIntoView({ block: "nearest" });
    }
  },
};
const ONLY_QUEUE = new Set(["j", "k", "n", "?"]);

document.addEventListener("keydown", (event) => {
  touched = Date.now();
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
  const inChoose = event.target.closest("#choose");
  if (inChoose) {
    if (event.key === "Escape") closeChoose();
    else if (event.key === "ArrowDown") moveInFound(1);
    else if (event.key === "ArrowUp") moveInFound(-1);
    else if (event.key === "Enter" && event.target.id === "query") chooseFirst();
    else return;
    event.preventDefault();
    return;
  }
  if (typing) return;
  if (event.target.closest("#codes") && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    step(event.key === "ArrowDown" ? 1 : -1);
    event.preventDefault();
    return;
  }
  if (event.key === "Escape" && $("#choose") && !$("#choose").hidden) {
    closeChoose();
    return;
  }
  if (singleKeys && !singleKeys.checked) return;
  const doIt = KEYS[event.key];
  if (!doIt || (!note && !ONLY_QUEUE.has(event.key))) return;
  event.preventDefault();
  doIt();
});

/* Enter takes the first code of what was typed, and only when the list is of what stands in the box. */
const chooseFirst = async () => {
  clearTimeout(timer);
  if (!$("#query").value.trim()) return;
  await find();
  const button = $("#found button:not([disabled])");
  if (button) await inTurn(() => act(button.form, button));
};

/* Everything of the page of one encounter ---------------------------------------------------------------------------- */

if (note) {
  document.addEventListener("submit", (event) => {
    const { target: form, submitter } = event;
    if (form.id === "next") return;
    event.preventDefault();
    inTurn(() => act(form, submitter));
  });
  document.addEventListener("input", (event) => {
    if (event.target.id === "query") {
      clearTimeout(timer);
      timer = setTimeout(find, TYPING);
    } else if (event.target.id === "words") {
      // Typed words are looked for by the server; the selection does not stand for them any more.
      const form = $("#choose-form");
      form.elements.start.value = form.elements.end.value = "";
    }
  });
  document.addEventListener("selectionchange", readSelection);
  document.addEventListener("pointerdown", () => (touched = Date.now()));
  note.addEventListener("click", (event) => {
    const mark = event.target.closest("mark");
    if (!mark || !getSelection().isCollapsed) return;
    const codes = mark.dataset.codes.split(" ");
    setCurrent(codes[(codes.indexOf(current) + 1) % codes.length]); // a second click shows the next of several
  });
  work.addEventListener("focusin", (event) => {
    const one = event.target.closest("#codes > li");
    if (one && one.dataset.code !== current) setCurrent(one.dataset.code, { focus: false });
  });
  work.addEventListener("click", (event) => {
    const one = event.target.closest("#codes > li");
    if (one && !event.target.closest("button")) setCurrent(one.dataset.code);
  });
  showLease();
  setInterval(showLease, 15_000);
  setInterval(beat, HEARTBEAT);
  document.addEventListener("visibilitychange", () => document.hidden || beat());
  setCurrent(part().dataset.next || null, { focus: mayDecide() && $("#choose")?.hidden !== false });
  if ($("#choose") && !$("#choose").hidden) $("#query").focus();
}
