// The parts of the pages: the dialog, the bar of a stock row, the banner of a lost connection, and
// announcements.

import { h, render } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
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
      document.querySelector("dialog[open] .announcer") ?? document.getElementById("announcer");
    region.textContent = text;
  }, 50);
}

// Dialog is modal from the start: the focus goes into it, stays in it, and returns to where it was.
// Its children get the function that closes it. It has its own banner of a lost connection, {error,
// at}, as the page's is hidden while it is open.
export function Dialog({ title, connection, onClose, children }) {
  const node = useRef();
  useLayoutEffect(() => node.current.showModal(), []);
  const close = () => node.current.close();

  return html`
    <dialog ref=${node} aria-labelledby="dialog-title" onClose=${onClose}
      onClick=${(event) => event.target === node.current && close()}>
      <article>
        <header>
          <h2 id="dialog-title">${title}</h2>
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

// Bar shows the held share of a row's stock.
export function Bar({ held, total }) {
  const share = total > 0 ? (100 * held) / total : 0;
  return html`
    <svg class=${total > 0 ? "bar" : "bar empty"} viewBox="0 0 100 8" preserveAspectRatio="none"
      aria-hidden="true">
      <rect class="available" width="100" height="8" />
      <rect class="held" width=${share} height="8" />
    </svg>`;
}

// Quantity is a field for a number, with two buttons that change it by one, as the arrow keys do.
// The focus, a click and a step select the whole number, so that typing replaces it. The field isn't
// of the type number, because the mouse wheel changes the value of such a field.
export function Quantity({ id, value, most, label, error, autofocus, onInput }) {
  const number = Number(value);
  const step = (by) =>
    onInput(String(Math.max(1, Math.min(most, (Number.isInteger(number) ? number : 0) + by))));
  const select = (event) => event.target.select();
  // A press on selected text begins to drag it, and then the click would select nothing.
  const deselect = (event) => event.target.setSelectionRange(0, 0);
  const field = useRef(null);
  const stepped = useRef(false);
  useLayoutEffect(() => {
    if (stepped.current) {
      stepped.current = false;
      field.current.select(); // the new value has undone the selection
    }
  });
  function onKeyDown(event) {
    const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    const isPlain = !(event.shiftKey || event.altKey || event.ctrlKey || event.metaKey);
    if (by && isPlain) {
      event.preventDefault();
      stepped.current = true;
      step(by);
    }
  }
  return html`
    <div class="quantity">
      <button type="button" aria-label=${`One fewer: ${label}`} aria-disabled=${number <= 1}
        onClick=${() => number > 1 && step(-1)}>−</button>
      <input id=${id} ref=${field} type="text" inputmode="numeric" autocomplete="off" maxlength="7"
        required role="spinbutton" aria-valuemin="1" aria-valuemax=${most}
        aria-valuenow=${Number.isInteger(number) ? number : undefined}
        autofocus=${autofocus} aria-label=${label} aria-invalid=${error ? "true" : undefined}
        aria-describedby=${`${id}-note`} value=${value}
        onFocus=${select} onMouseDown=${deselect} onClick=${select} onKeyDown=${onKeyDown}
        onInput=${(event) => onInput(event.target.value)} />
      <button type="button" aria-label=${`One more: ${label}`} aria-disabled=${number >= most}
        onClick=${() => number < most && step(1)}>+</button>
    </div>`;
}

// correct puts the focus into a field with an error, and selects its text, so that typing replaces
// it.
export function correct(id) {
  const field = document.getElementById(id);
  field?.focus();
  field?.select();
}

// quantityError returns the error of a typed quantity, or "".
export function quantityError(value, available) {
  const number = Number(value);
  if (!/^\d+$/.test(value.trim()) || number < 1) {
    return "Type a whole number, 1 or more.";
  }
  if (number > available) {
    return available > 0 ? `Only ${count(available)} left here.` : "None left here right now.";
  }
  return "";
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

// Connection warns at the foot of the window that the numbers may be old. It moves nothing.
export function Connection({ error, at }) {
  const isOnline = useOnline();
  const since = at ? ` The numbers are from ${clockTime(at)}.` : "";
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
          ? `${reason(error)} We keep trying. Your holds are safe.`
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

// units formats the available units of a stock row. orMore says that there may be more of them.
export const units = ({ availableStock, orMore }) => `${count(availableStock)}${orMore ? "+" : ""}`;

// most is the most units that a shopper may ask of a stock row. If there may be more than are
// shown, the API decides.
export const most = ({ availableStock, orMore }) => (orMore ? NO_LIMIT : availableStock);

export const plural = (number, one, many = `${one}s`) =>
  `${count(number)} ${number === 1 ? one : many}`;

export const clockTime = (date) => date.toLocaleTimeString("en-GB");

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
