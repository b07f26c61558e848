"use strict";
// What the page shows, in the address: #kind=TM&view=single opens what was looked at.

const state = {};
const listeners = [];

/** Calls the function now and whenever something of the state changes. */
function onState(listener) {
  listeners.push(listener);
}

/** Sets parts of the state; an empty one goes. */
function setState(changes) {
  for (const [name, value] of Object.entries(changes)) {
    if (value === "" || value === null || value === undefined) delete state[name];
    else state[name] = String(value);
  }
  const address = new URLSearchParams(state).toString();
  if (address) history.replaceState(null, "", "#" + address);
  else if (location.hash.includes("=")) history.replaceState(null, "", location.pathname + location.search);
  listeners.forEach((listener) => listener());
}

/** Takes the state from the address; one without "=" is a place on the page. */
function readState() {
  if (location.hash && !location.hash.includes("=")) return;
  for (const name of Object.keys(state)) delete state[name];
  Object.assign(state, Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
  listeners.forEach((listener) => listener());
}

const byId = (id) => document.getElementById(id);

/** A new element with a class and a text. */
function made(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

// Colors: as the system has them, light, dark.
{
  const names = { "": "automatic", light: "light", dark: "dark" };
  const order = Object.keys(names);
  const button = byId("colors");
  const show = (colors) => {
    document.documentElement.dataset.colors = colors;
    button.textContent = "Colors: " + names[colors];
  };
  button.addEventListener("click", () => {
    show(order[(order.indexOf(document.documentElement.dataset.colors ?? "") + 1) % order.length]);
  });
  show("");
}

// What is folded is printed, too.
{
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));
}
