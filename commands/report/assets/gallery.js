// The pictures: which captions and runs are shown, in which order, a part of them at a time.

const data = JSON.parse(byId("data")?.textContent ?? "null");
const STEP = { captions: 30, single: 40 };

/** A caption's row with its pictures, by run. */
function readRow(row) {
  const figures = [...row.querySelectorAll("figure[data-at]")].filter((figure) => !figure.dataset.at.startsWith("t."));
  return {
    row,
    number: Number(row.dataset.row),
    text: row.querySelector(".words").textContent.toLowerCase(),
    kind: row.dataset.kind,
    pictures: figures.map(readPicture),
  };
}

/** A picture with what it is found by. */
function readPicture(figure) {
  const [run, row, sample] = figure.dataset.at.split(".").map(Number);
  const at = figure.dataset.at;
  const isThere = figure.firstChild.tagName === "BUTTON";
  return { figure, at, run, row, sample, isThere, state: figure.className, score: data.scores[at] ?? -Infinity };
}

const captions = data ? [...document.querySelectorAll(".gallery tbody tr")].map(readRow) : [];
const captionOf = new Map(captions.map((caption) => [caption.number, caption]));
const total = captions.reduce((sum, caption) => sum + caption.pictures.filter((picture) => picture.isThere).length, 0);
let found = { captions: [], pictures: [] };
let limit = STEP.captions;

/** Numbers of the runs that are shown. */
function shownRuns() {
  const hidden = new Set((state.without ?? "").split(",").filter(Boolean).map(Number));
  return new Set([...data.runs.keys()].filter((run) => !hidden.has(run)));
}

const isCopy = (picture) => picture.state === "copy";

/** Whether a caption has the words and the kind. */
function matches(caption) {
  if (state.q && !caption.text.includes(state.q.toLowerCase())) return false;
  return !state.kind || caption.kind === state.kind;
}

/** Whether a caption has copies as they are asked for. */
function fitsCopies(caption, runs) {
  if (state.copies === "first") return caption.pictures.some((picture) => picture.run === 0 && isCopy(picture));
  if (!state.copies) return true;
  const isCopied = caption.pictures.some((picture) => runs.has(picture.run) && isCopy(picture));
  return isCopied === (state.copies === "some");
}

/** Whether a picture is shown among single ones, if its caption is. */
function fitsAlone(picture, runs) {
  if (!runs.has(picture.run) || !picture.isThere) return false;
  if (state.copies === "some") return isCopy(picture);
  return state.copies !== "none" || picture.state === "free";
}

/** The captions and pictures that are shown, in order. Single pictures are asked one by one whether they are copies. */
function search() {
  const runs = shownRuns();
  const byPicture = state.view === "single" && state.copies !== "first";
  const asked = captions.filter((caption) => matches(caption) && (byPicture || fitsCopies(caption, runs)));
  const pictures = asked.flatMap((caption) => caption.pictures.filter((picture) => fitsAlone(picture, runs)));
  if (state.order === "worst") {
    const worst = new Map();
    for (const picture of pictures) worst.set(picture.row, Math.max(worst.get(picture.row) ?? -Infinity, picture.score));
    pictures.sort((a, b) => b.score - a.score);
    asked.sort((a, b) => (worst.get(b.number) ?? -Infinity) - (worst.get(a.number) ?? -Infinity));
  }
  return { captions: asked, pictures };
}

/** A single picture with what it is, and its training image. */
function alone(picture) {
  const figure = picture.figure.cloneNode(true);
  const caption = captionOf.get(picture.row);
  const note = figure.querySelector("figcaption");
  note.prepend(`${data.runs[picture.run].name}, image ${picture.sample + 1}${note.textContent ? ": " : ""}`);
  const training = caption.row.querySelector('figure[data-at^="t."] img')?.cloneNode();
  if (training) training.className = "training";
  note.before(training ?? made("small", "training", "no training image"));
  note.append(made("small", "", `${data.captions[picture.row]} (${[caption.kind, "row " + picture.row].filter(Boolean).join(", ")})`));
  return figure;
}

/** Shows the first so many of what was found; of captions as rows of the table, else on a sheet. */
function draw() {
  const isSingle = state.view === "single";
  const count = isSingle ? found.pictures.length : found.captions.length;
  document.querySelector(".pictures").hidden = isSingle;
  byId("sheet").hidden = !isSingle;
  if (isSingle) {
    const there = byId("sheet").childElementCount;
    byId("sheet").append(...found.pictures.slice(there, limit).map(alone));
  } else {
    found.captions.slice(0, limit).forEach((caption) => caption.row.classList.add("on"));
  }
  byId("more").hidden = limit >= count;
  byId("count").textContent = isSingle
    ? `${count} of ${total} pictures`
    : `${count} of ${captions.length} shown`;
}

/** Finds anew and shows the beginning. */
function renew() {
  const before = found.captions;
  found = search();
  limit = STEP[state.view === "single" ? "single" : "captions"];
  before.forEach((caption) => caption.row.classList.remove("on"));
  byId("sheet").replaceChildren();
  const body = document.querySelector(".gallery tbody");
  if (state.view !== "single" && found.captions.some((caption, i) => caption.row !== before[i]?.row) && (state.order || body.dataset.moved)) {
    body.append(...found.captions.map((caption) => caption.row));
    body.dataset.moved = "1";
  }
  draw();
}

/** Shows as many more as there are at first. */
function showMore() {
  limit += STEP[state.view === "single" ? "single" : "captions"];
  draw();
}

/** Hides the columns of runs that are not shown. */
function showRuns() {
  const runs = shownRuns();
  const hidden = [...data.runs.keys()].filter((run) => !runs.has(run)).map((run) => `.gallery :is(td, th):nth-child(${run + 3})`);
  byId("hidden-runs").textContent = hidden.length ? `${hidden.join(",")} { display: none; }` : "";
}

/** What the search was, so that it is not done again for a picture that opens. */
const asked = () => JSON.stringify([state.q, state.kind, state.copies, state.order, state.view, state.without]);

function startGallery() {
  const fields = { q: "find", kind: "kind", copies: "copies", order: "order", view: "view" };
  const boxes = [...document.querySelectorAll("#methods input")];
  const style = made("style");
  style.id = "hidden-runs";
  document.head.append(style);
  for (const [name, id] of Object.entries(fields)) {
    byId(id)?.addEventListener("input", (event) => setState({ [name]: event.target.value }));
  }
  boxes.forEach((box) => box.addEventListener("change", () => {
    setState({ without: boxes.filter((each) => !each.checked).map((each) => each.value).join(",") });
  }));
  byId("reset").addEventListener("click", () => {
    setState({ ...Object.fromEntries(Object.keys(fields).map((name) => [name, ""])), without: "" });
  });
  document.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", showMore);
  const pictures = document.querySelector(".pictures");
  pictures.addEventListener("scroll", () => {
    const below = pictures.scrollHeight - pictures.scrollTop - pictures.clientHeight;
    if (below < 800 && !byId("more").hidden) showMore();
  });
  new IntersectionObserver((entries) => {
    if (state.view === "single" && entries.some((entry) => entry.isIntersecting)) showMore();
  }, { rootMargin: "600px" }).observe(byId("more"));
  let last = "";
  onState(() => {
    if (asked() === last) return;
    last = asked();
    for (const [name, id] of Object.entries(fields)) if (byId(id)) byId(id).value = state[name] ?? "";
    const runs = shownRuns();
    boxes.forEach((box) => { box.checked = runs.has(Number(box.value)); });
    showRuns();
    renew();
  });
  addEventListener("beforeprint", () => { limit = Infinity; draw(); });
  addEventListener("afterprint", renew);
}

/** Goes to the pictures where the address says which of them are shown, or which is open. */
function goToPictures() {
  if (Object.keys(state).length) byId("pictures").scrollIntoView();
}

if (data) startGallery();
