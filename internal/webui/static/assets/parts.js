// The parts of the pages: announcements, toasts, the dialog, and the banner of a lost connection.

import { h, render } from "preact";
import { useEffect, useId, useLayoutEffect, useRef } from "preact/hooks";
import htm from "htm";
import { isRefused, useOnline } from "./live.js";

export const html = htm.bind(h);

// start replaces the loading text of a page's HTML by the page.
export function start(page) {
  const main = document.querySelector("main");
  main.replaceChildren();
  render(page, main);
}

// announce tells a screen reader about a visible change. The same words twice are two
// announcements. It chooses the region when it speaks, as an open dialog hides all regions outside
// of it.
export function announce(text) {
  document.querySelectorAll("#announcer, .announcer").forEach((region) => {
    region.textContent = "";
  });
  setTimeout(() => {
    const region =
      [...document.querySelectorAll("dialog[open] .announcer")].at(-1) ??
      document.getElementById("announcer");
    region.textContent = text;
  }, 50);
}

// SHOWN_FOR is for how long a toast is shown.
const SHOWN_FOR = 8_000; // ms; it stands still while the mouse or the focus is on it

let lastToast = () => {};

// closeToast takes the toast away.
export const closeToast = () => lastToast();

// toast says for a moment that something was done. It shows a text, and a button where action is
// {label, run}. It replaces the last toast. A toast over an open dialog lies in the dialog, because
// all else is inert.
export function toast(text, action = null) {
  lastToast();
  announce(text);
  const from = document.activeElement;
  const node = make("div", "toast");
  node.append(make("p", "", text));
  let timer;
  const close = () => {
    clearTimeout(timer);
    const hadFocus = node.contains(document.activeElement);
    node.remove();
    if (hadFocus && from?.isConnected) {
      from.focus();
    }
  };
  if (action) {
    const button = make("button", "", action.label);
    button.type = "button";
    button.addEventListener("click", () => {
      close();
      action.run();
    });
    node.append(button);
  }
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(close, SHOWN_FOR);
  };
  for (const [name, fn] of [
    ["mouseenter", () => clearTimeout(timer)],
    ["focusin", () => clearTimeout(timer)],
    ["mouseleave", wait],
    ["focusout", wait],
  ]) {
    node.addEventListener(name, fn);
  }
  toasts().append(node);
  lastToast = close;
  wait();
}

// toasts is where toasts lie: in the open dialog, or at the foot of the window.
function toasts() {
  const dialogs = document.querySelectorAll("dialog[open]");
  const host = dialogs.length > 0 ? dialogs[dialogs.length - 1] : document.body;
  let found = host.querySelector(":scope > .toasts");
  if (!found) {
    found = make("div", "toasts");
    found.setAttribute("role", "region");
    // Each region needs a name of its own: an older toast may still lie behind the dialog.
    found.setAttribute("aria-label", host === document.body ? "Just done" : "Just done here");
    host.append(found);
  }
  return found;
}

function make(name, className, text = "") {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
}

// Dialog is modal from the start: the focus goes into it, stays in it, and returns to where it was.
// Its children get the function that closes it. It has its own banner of a lost connection, {error,
// at}, as the page's is hidden while it is open.
export function Dialog({ title, connection, onClose, children, class: kind = "" }) {
  const node = useRef();
  const name = useId();
  useLayoutEffect(() => node.current.showModal(), []);
  const close = () => node.current.close();

  return html`
    <dialog ref=${node} class=${kind} aria-labelledby=${name} onClose=${onClose}
      onClick=${(event) => event.target === node.current && close()}>
      <article>
        <header>
          <h2 id=${name}>${title}</h2>
          <button type="button" class="icon" aria-label="Close" onClick=${close}>
            <svg viewBox="0 0 16 16" aria-hidden="true"><path d="M3 3l10 10M13 3L3 13" /></svg>
          </button>
        </header>
        ${children(close)}
        <p class="announcer unseen" role="status" />
      </article>
      <${Connection} ...${connection} />
    </dialog>`;
}

// correct puts the focus into a field with an error, and selects its text, so that typing replaces
// it.
export function correct(id) {
  const field = document.getElementById(id);
  field?.focus();
  field?.select?.(); // a select has no text to select
}

// Alert is the result of a click, mostly an error. It scrolls into view: it may be beyond the edge
// of the window, or below the banner of a lost connection.
export function Alert({ text, ...attributes }) {
  const node = useRef();
  useEffect(() => {
    if (text) {
      node.current.scrollIntoView({ block: "nearest" });
    }
  }, [text]);
  return html`<p ref=${node} role="alert" ...${attributes}>${text}</p>`;
}

// Connection warns at the foot of the window that the page may be old. It moves nothing.
export function Connection({ error, at }) {
  const isOnline = useOnline();
  const since = at ? ` Last updated ${minuteTime(at)}.` : "";
  let text = "";
  if (!isOnline) {
    text = `You are offline.${since}`;
  } else if (error) {
    text = `${reason(error)}${since}`;
  }
  return html`<p class="connection" role="status">${text && html`<span>${text}</span>`}</p>`;
}

// Failure takes the place of content that couldn't be read yet. With isPage, its heading is the
// page's only one.
export function Failure({ error, onRetry, isPage = false }) {
  const isOnline = useOnline();
  return html`
    <section class="blank">
      <${Cloud} />
      <${isPage ? "h1" : "h2"}>${isOnline ? "We can’t show this right now" : "You are offline"}<//>
      <p>${
        isOnline
          ? `${reason(error)} We keep trying. What you hold is safe.`
          : "This page loads as soon as you are back online."
      }</p>
      <button type="button" onClick=${onRetry}>Try again now</button>
    </section>`;
}

const Cloud = () => html`
  <svg class="picture" viewBox="0 0 64 48" aria-hidden="true">
    <path d="M18 38h28a10 10 0 0 0 2-19.8A15 15 0 0 0 19 15a11.5 11.5 0 0 0-1 23z" /><path
      class="cross" d="M26 24l12 8M38 24l-12 8" />
  </svg>`;

function reason(error) {
  if (isRefused(error)) {
    return "This page is for the operator: it needs the permission inventory:read.";
  }
  return error?.status === 429 || error?.status === 503
    ? "The shop is busy or restarting."
    : "The shop can’t be reached.";
}

// One formatter serves every number: toLocaleString makes one for each.
const numbers = new Intl.NumberFormat("en");
export const count = (number) => numbers.format(number);

// NO_LIMIT is the API's own limit of the units of a line.
export const NO_LIMIT = 1_000_000;

export const plural = (number, one, many = `${one}s`) =>
  `${count(number)} ${number === 1 ? one : many}`;

export const clockTime = (date) => date.toLocaleTimeString("en-GB");

// minuteTime is the time of day without its seconds.
export const minuteTime = (date) => clockTime(date).slice(0, 5);

// duration formats seconds as m:ss or h:mm:ss.
export function duration(seconds) {
  const [hours, minutes, rest] = [
    Math.floor(seconds / 3600),
    Math.floor(seconds / 60) % 60,
    seconds % 60,
  ];
  const two = (n) => String(n).padStart(2, "0");
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

// lineKey identifies a line of a cart, a hold or a shortage by its product and warehouse.
export const lineKey = ({ productId, warehouseId }) => `${productId} ${warehouseId}`;
