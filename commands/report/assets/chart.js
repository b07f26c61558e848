// What is told of a thing that is pointed at or has the focus, and curves.

const tip = byId("tip");

/** Shows the text beside a place on the screen. */
function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - width - 8)) + "px";
  tip.style.top = (y + height + 24 > innerHeight ? y - height - 12 : y + 16) + "px";
}

const hideTip = () => { tip.hidden = true; };

document.addEventListener("pointermove", (event) => {
  const told = event.target.closest?.("[data-tip]");
  if (told) showTip(told.dataset.tip, event.clientX, event.clientY);
  else if (!document.activeElement?.matches("[data-tip]")) hideTip();
});
document.addEventListener("focusin", (event) => {
  const told = event.target.closest?.("[data-tip]");
  if (!told) return hideTip();
  const box = told.getBoundingClientRect();
  showTip(told.dataset.tip, box.right, box.bottom);
});
document.addEventListener("focusout", hideTip);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

/** A shape of a drawing. */
function shape(tag, attributes, text = "") {
  const namespace = document.querySelector("svg")?.namespaceURI ?? svgNamespace();
  const element = document.createElementNS(namespace, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

/** The namespace of SVG, which the parser knows. */
function svgNamespace() {
  const holder = made("div");
  holder.innerHTML = "<svg></svg>";
  return holder.firstChild.namespaceURI;
}

/** A drawing of curves over steps: [{name, values, color}]. Values that are no numbers have no point. */
function curveChart(title, curves, label) {
  const [width, height, left, bottom] = [360, 190, 58, 24];
  const most = Math.max(...curves.map((curve) => curve.values.length));
  const values = curves.flatMap((curve) => curve.values).filter(Number.isFinite);
  const [low, high] = [Math.min(0, ...values), Math.max(...values)];
  const x = (i) => left + (i / Math.max(1, most - 1)) * (width - left - 8);
  const y = (value) => height - bottom - ((value - low) / (high - low || 1)) * (height - bottom - 12);
  const drawing = shape("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": title });
  for (const value of [low, (low + high) / 2, high]) {
    drawing.append(shape("path", { class: "grid", d: `M${left} ${y(value)}H${width - 8}` }));
    drawing.append(shape("text", { class: "tick", x: left - 5, y: y(value) + 4, "text-anchor": "end" }, value.toPrecision(3)));
  }
  const middle = `translate(11 ${(height - bottom + 12) / 2}) rotate(-90)`;
  drawing.append(shape("text", { class: "title", transform: middle, "text-anchor": "middle" }, label));
  for (const { values: own, color } of curves) {
    const places = own.map((value, i) => (Number.isFinite(value) ? `${x(i).toFixed(1)},${y(value).toFixed(1)}` : ""));
    const points = places.filter(Boolean).join(" ");
    drawing.append(shape("polyline", { class: `line c${color}`, points }));
  }
  drawing.append(shape("text", { class: "tick", x: left, y: height - 6 }, "step 0"));
  drawing.append(shape("text", { class: "tick", x: width - 8, y: height - 6, "text-anchor": "end" }, `step ${most - 1}`));
  return drawing;
}
