"use strict";
// The page is a client like any other: it asks /healthz what is served, /v1/search for hits, and each hit's picture.
const at = (id) => document.getElementById(id);
let picture = null; // a File
let running = null; // the AbortController of the search in flight
let made = []; // object URLs of the cards, to be given back

function headers(more = {}) {
  return at("key").value ? { ...more, Authorization: `Bearer ${at("key").value}` } : more;
}

function tell(message, kind = "") {
  at("status").textContent = message;
  at("status").className = kind;
}

function element(tag, text, kind) {
  const fresh = document.createElement(tag);
  if (text !== undefined) fresh.textContent = text; // never markup: texts come from the corpus
  if (kind) fresh.className = kind;
  return fresh;
}

function asDataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The picture can't be read."));
    reader.readAsDataURL(file);
  });
}

function choose(file) {
  if (file && file.type && !file.type.startsWith("image/")) {
    tell(`${file.name} is no picture.`, "bad");
    return;
  }
  if (picture) URL.revokeObjectURL(at("preview").src);
  picture = file;
  at("file").value = "";
  at("chosen").hidden = !file;
  at("choose").hidden = Boolean(file);
  if (file) {
    at("preview").src = URL.createObjectURL(file);
    at("name").textContent = file.name || "Pasted picture";
    search();
  } else {
    at("preview").removeAttribute("src");
  }
}

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  if (answer.status === 401) {
    at("keyed").hidden = false;
    at("key").focus();
    throw new Error(at("key").value ? "This API key is not accepted." : "Enter the API key first.");
  }
  const body = await answer.json().catch(() => null);
  throw new Error(body?.error?.message ?? `The server answered with status ${answer.status}.`);
}

async function search() {
  const text = at("text").value.trim();
  if (!text && !picture) {
    tell("Type some words or choose a picture.");
    return;
  }
  running?.abort();
  const mine = (running = new AbortController());
  tell("Searching …", "busy");
  at("hits").className = "stale";
  try {
    const body = {};
    if (text) body.text = text;
    if (picture) body.image = await asDataUri(picture);
    if (at("instruction").value.trim()) body.instruction = at("instruction").value.trim();
    const type = { "Content-Type": "application/json" };
    const options = { method: "POST", headers: headers(type), body: JSON.stringify(body), signal: mine.signal };
    const hits = (await (await ask("/v1/search", options)).json()).data;
    if (mine === running) show(hits, mine.signal);
  } catch (error) {
    if (mine !== running) return; // a newer search has taken over
    show([]);
    tell(error instanceof TypeError ? "The server can't be reached." : error.message, "bad");
  }
}

function show(hits, signal) {
  made.forEach((url) => URL.revokeObjectURL(url));
  made = [];
  at("hits").replaceChildren(...hits.map((hit) => card(hit, signal)));
  at("hits").className = "";
  tell(hits.length ? `The ${hits.length === 1 ? "nearest item" : `${hits.length} nearest items`}` : "Nothing was found.");
}

function card(hit, signal) {
  const item = element("li", undefined, "hit");
  if (hit.image) item.append(thumbnail(hit, signal));
  const words = element("div");
  const rank = element("div", undefined, "rank");
  rank.append(element("span", `#${hit.rank}`), element("span", hit.score.toFixed(3), "score"));
  const bar = element("meter");
  bar.value = Math.max(0, hit.score);
  bar.setAttribute("aria-label", "Similarity");
  words.append(rank, bar);
  if (hit.title) words.append(element("h3", hit.title));
  if (hit.text) words.append(element("p", hit.text));
  words.append(element("p", hit.id, "id"));
  item.append(words);
  return item;
}

function thumbnail(hit, signal) {
  const image = element("img");
  image.alt = hit.title || hit.text?.slice(0, 80) || `Picture of ${hit.id}`;
  ask(hit.image, { headers: headers(), signal }) // not src: the key travels in a header
    .then((answer) => answer.blob())
    .then((blob) => made.push((image.src = URL.createObjectURL(blob))))
    .catch(() => image.remove());
  return image;
}

async function begin() {
  try {
    const state = await (await fetch("/healthz")).json();
    const searchable = state.corpus !== null;
    at("about").textContent = searchable ? `${state.corpus.toLocaleString("en")} items · ${state.model}` : state.model;
    at("keyed").hidden = !state.key_required;
    at("hint").hidden = searchable;
    at("form").hidden = !searchable;
  } catch {
    tell("The server can't be reached.", "bad");
  }
}

at("key").value = sessionStorage.getItem("key") ?? "";
at("key").addEventListener("change", () => sessionStorage.setItem("key", at("key").value));
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
at("file").addEventListener("change", () => at("file").files[0] && choose(at("file").files[0]));
at("remove").addEventListener("click", () => {
  choose(null);
  at("file").focus();
});
addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) choose(file);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault(); // else the browser opens the picture in place of the page
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) choose(event.dataTransfer.files[0]);
  });
}
begin();
