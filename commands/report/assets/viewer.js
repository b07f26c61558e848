// A picture that is open: beside its training image, with its scores, magnitudes and settings.

const viewer = byId("viewer");
let details = null;

/** What is known of a picture; all of it is read when the first one opens. */
function detailsOf(at) {
  details ??= JSON.parse(byId("details").textContent);
  return Object.hasOwn(details, at) ? details[at] : undefined;
}

/** The magnitudes of a picture, if its run was traced. */
const curveOf = (at) => detailsOf(at)?.curve?.split(" ").map(Number);

/** Puts names and texts into a list of facts; names with a meaning tell it. */
function fillFacts(list, facts) {
  list.replaceChildren(...Object.entries(facts).map(([name, text]) => {
    const entry = made("div");
    if (Object.hasOwn(data.meanings, name)) entry.title = data.meanings[name];
    entry.append(made("dt", "", name), made("dd", "", String(text)));
    return entry;
  }));
}

/** The pictures that the arrows go through: those that were found, in their order. */
function order() {
  if (state.view === "single") return found.pictures;
  const runs = shownRuns();
  return found.captions.flatMap((caption) => caption.pictures.filter((picture) => fitsAlone({ ...picture, state: "" }, runs)));
}

/** Opens the picture that the address names, or closes what is open. */
function showPicture() {
  const about = state.image ? detailsOf(state.image) : null;
  if (!about) {
    if (viewer.open) viewer.close();
    return;
  }
  const [run, row, sample] = state.image.split(".").map(Number);
  const figure = document.querySelector(`.gallery figure[data-at="${CSS.escape(state.image)}"]`);
  byId("viewer-title").textContent = `${data.runs[run].title}, row ${row}, image ${sample + 1}`;
  byId("viewer-caption").textContent = data.captions[row];
  byId("viewer-image").src = about.large ?? figure.querySelector("img").src;
  byId("viewer-image").alt = figure.querySelector("img").alt;
  byId("viewer-image").parentElement.className = `side ${figure.className}`;
  const verdict = { copy: "a copy of the training image", free: "no copy" }[figure.className];
  byId("viewer-note").textContent = [verdict, figure.querySelector("figcaption").textContent].filter(Boolean).join(": ");
  showTraining(row);
  fillFacts(byId("viewer-facts"), { ...about.scores, ...about.facts, file: about.file });
  fillFacts(byId("viewer-settings"), data.runs[run].settings);
  showCurve(run, state.image);
  if (!viewer.open) viewer.showModal();
}

/** The training images of a caption. */
function showTraining(row) {
  const own = document.querySelector(`.gallery figure[data-at="t.${row}"] img`);
  const sources = own ? [data.training?.[row]?.[0] ?? own.src, ...(data.training?.[row] ?? []).slice(1)] : [];
  byId("viewer-training").replaceChildren(...sources.map((source, i) => {
    const side = made("div", "side");
    const image = made("img");
    image.src = source;
    image.alt = "training image";
    side.append(image, made("p", "", `training image${sources.length > 1 ? " " + (i + 1) : ""}`));
    return side;
  }));
}

/** The magnitudes at each step, beside those of the first run. */
function showCurve(run, at) {
  const holder = byId("viewer-curve");
  holder.replaceChildren();
  const values = curveOf(at);
  if (!values?.some(Number.isFinite)) return;
  const curves = [{ name: data.runs[run].name, values, color: 1 }];
  const first = run === 0 ? null : curveOf(at.replace(/^\d+/, "0"));
  if (first) curves.unshift({ name: data.runs[0].name, values: first, color: 0 });
  const names = curves.map((curve) => curve.name).join(" and ");
  const drawing = curveChart(`magnitude at each step: ${names}`, curves, "magnitude");
  drawing.append(shape("title", {}, data.meanings.magnitude));
  holder.append(drawing);
  const legend = made("ul", "legend");
  for (const curve of curves) {
    const entry = made("li");
    entry.append(made("span", `swatch c${curve.color}`), `magnitude, ${curve.name}`);
    legend.append(entry);
  }
  holder.append(legend);
}

/** Goes to the next or previous picture of those that were found. */
function step(by) {
  const pictures = order();
  const here = pictures.findIndex((picture) => picture.at === state.image);
  const next = pictures[here < 0 ? 0 : (here + by + pictures.length) % pictures.length];
  if (next) setState({ image: next.at });
}

/** Goes to the same prompt and seed of another run. */
function stepRun(by) {
  const [run, ...rest] = state.image.split(".");
  const runs = [...shownRuns()].filter((each) => detailsOf([each, ...rest].join(".")));
  const here = runs.indexOf(Number(run));
  const next = runs[here < 0 ? 0 : (here + by + runs.length) % runs.length];
  if (next !== undefined) setState({ image: [next, ...rest].join(".") });
}

const MOVES = {
  previous: () => step(-1),
  next: () => step(1),
  above: () => stepRun(-1),
  below: () => stepRun(1),
  close: () => setState({ image: "" }),
};
const KEYS = { ArrowLeft: "previous", ArrowRight: "next", ArrowUp: "above", ArrowDown: "below" };

function startViewer() {
  let opener = null;
  document.addEventListener("click", (event) => {
    const figure = event.target.closest("#pictures figure[data-at]");
    if (!figure || !event.target.closest("button")) return;
    opener = event.target.closest("button");
    const at = figure.dataset.at;
    const image = at.startsWith("t.") ? figure.closest("tr").querySelector('figure[data-at]:not([data-at^="t."]) button')?.parentElement.dataset.at : at;
    if (image) setState({ image });
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) MOVES.close();
    else MOVES[event.target.dataset?.go]?.();
  });
  viewer.addEventListener("keydown", (event) => {
    if (!KEYS[event.key]) return;
    event.preventDefault();
    MOVES[KEYS[event.key]]();
  });
  viewer.addEventListener("close", () => {
    if (state.image) setState({ image: "" });
    opener?.focus();
  });
  onState(showPicture);
}

if (data) startViewer();
addEventListener("hashchange", () => {
  readState();
  if (data) goToPictures();
});
readState();
if (data) {
  setState({});
  goToPictures();
}
