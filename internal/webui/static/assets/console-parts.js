// The parts that the console's views share: addresses, tables, pages, search, dialogs, times.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { parse, storage } from "./api.js";
import { Clock } from "./live.js";
import { Alert, announce, correct, count, Dialog, html, plural } from "./parts.js";

// ---- Addresses

const TYPING = 300; // ms without a key after which a search begins
const RESTORE = 3_000; // ms in which a page must be long enough for its kept scroll position
const KEPT_PLACES = 50; // scroll positions: more than one goes back
const PLACES = "ops.places"; // sessionStorage: the scroll positions by place

const listeners = new Set();
const scrolls = new Map(Object.entries(parse(storage().getItem(PLACES)) ?? {}));
let place = placeOf({ isMoved: false, isBack: false });

function placeOf(how) {
  let { key } = history.state ?? {};
  if (!key) {
    key = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);
    history.replaceState({ ...history.state, key }, "");
  }
  return {
    ...how,
    key,
    path: location.pathname.replace(/(.)\/$/, "$1"),
    query: new URLSearchParams(location.search),
  };
}

// here is the place that is shown: {path, query, key, isMoved, isBack}. isMoved is true if one came
// from another view, and isBack if one came by the browser's buttons.
export const here = () => place;

// onPlace calls listener with each new place, until the returned function is called.
export function onPlace(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

// go opens an address of the console. With replace, Back leads past the present one. state is kept
// with the new place, in history.state.
export function go(address, { replace = false, state = {} } = {}) {
  const url = new URL(address, location.href);
  keepScroll();
  if (replace) {
    history.replaceState({ ...history.state, ...state }, "", url);
  } else {
    history.pushState(state, "", url);
  }
  arrive(false);
}

// refresh reads the address again, after something else than a view has changed it.
export const refresh = () => arrive(false);

function arrive(isBack) {
  const last = place;
  place = placeOf({ isMoved: last.isMoved || last.path !== location.pathname, isBack });
  listeners.forEach((listener) => listener(place));
}

addEventListener("popstate", () => {
  keepScroll(); // the page hasn't scrolled yet: it does so itself
  arrive(true);
});

function keepScroll() {
  scrolls.delete(place.key);
  scrolls.set(place.key, scrollY);
}

// leave keeps the scroll positions for the time when one comes back from another page.
export function leave() {
  keepScroll();
  const newest = [...scrolls].slice(-KEPT_PLACES);
  storage().setItem(PLACES, JSON.stringify(Object.fromEntries(newest)));
}

// restoreScroll scrolls to where a place was left, as soon as its content is there. It stops when
// the person scrolls, and returns a function that stops it.
export function restoreScroll({ key }) {
  const wanted = scrolls.get(key) ?? 0;
  scrollTo(0, wanted);
  if (wanted === 0) {
    return () => {};
  }
  const observer = new ResizeObserver(() => {
    scrollTo(0, wanted);
    if (Math.abs(scrollY - wanted) < 2) {
      stop();
    }
  });
  const events = ["wheel", "touchmove", "keydown"];
  function stop() {
    observer.disconnect();
    clearTimeout(timer);
    events.forEach((name) => removeEventListener(name, stop));
  }
  const timer = setTimeout(stop, RESTORE);
  events.forEach((name) => addEventListener(name, stop, { passive: true }));
  observer.observe(document.getElementById("main"));
  return stop;
}

// addressWith is the path with a query that differs by changes. An empty value leaves its name out.
export function addressWith(path, query, changes) {
  const next = new URLSearchParams(query);
  for (const [name, value] of Object.entries(changes)) {
    next.delete(name);
    if (value) {
      next.set(name, value);
    }
  }
  const text = next.toString();
  return text ? `${path}?${text}` : path;
}

// useTitle sets the page's title.
export function useTitle(title) {
  useLayoutEffect(() => {
    document.title = `${title} · Allo Operations`;
  }, [title]);
}

// ---- Tables

// Table shows rows of data. Below 640 pixels each row is a card that repeats the names of its
// columns. A column is {name, cell, isNumber, isHead, isWide}: cell(row) is its content, isNumber
// aligns it right, isHead makes it the row's heading, isWide gives it a card's whole width, and
// name stays unseen with isUnseen. keyOf(row) names a row.
export function Table({ label, columns, rows, keyOf, isBusy = false }) {
  return html`
    <div class="table" role="region" aria-label=${label} aria-busy=${isBusy}>
      <table class="data" role="table" aria-label=${label}>
        <thead role="rowgroup">
          <tr role="row">
            ${columns.map(({ name, isNumber, isUnseen }) => html`
              <th scope="col" role="columnheader" class=${isNumber && "number"}>
                ${isUnseen ? html`<span class="unseen">${name}</span>` : name}</th>`)}
          </tr>
        </thead>
        <tbody role="rowgroup">
          ${rows.map((row) => html`
            <tr key=${keyOf(row)} role="row">
              ${columns.map((column) => html`<${Cell} ...${column} row=${row} />`)}
            </tr>`)}
        </tbody>
      </table>
    </div>`;
}

function Cell({ name, cell, row, isNumber, isHead, isWide, isUnseen }) {
  const kinds = [isNumber && "number", isWide && "wide", isUnseen && "bare"].filter(Boolean);
  const content = html`<span class="cell">${cell(row)}</span>`;
  return isHead
    ? html`<th scope="row" role="rowheader" class=${kinds.join(" ")} data-name=${name}>
        ${content}</th>`
    : html`<td role="cell" class=${kinds.join(" ")} data-name=${name}>${content}</td>`;
}

// Nothing takes the place of an empty table.
export const Nothing = ({ children }) => html`<p class="nothing">${children}</p>`;

// usePages gives a list its place in the address: cursor is the API's cursor of the shown page, or
// empty, and page counts from 1. Back leads to the page before.
export function usePages({ path, query, navigate }) {
  const cursor = query.get("cursor") ?? "";
  const page = cursor ? Math.max(2, Number(query.get("page")) || 2) : 1;
  return {
    cursor,
    page,
    // next is the address of the API's next page, from which the cursor is taken.
    toNext: (next) => {
      const following = new URL(next, location.href).searchParams.get("cursor");
      const address = addressWith(path, query, { cursor: following, page: String(page + 1) });
      navigate(address, { state: { isFromPager: true } });
      scrollTo(0, 0);
    },
    toPrevious: () => {
      if (history.state?.isFromPager) {
        history.back();
      } else {
        navigate(addressWith(path, query, { cursor: "", page: "" }));
      }
    },
  };
}

// Pager says which rows are shown, and leads to the others. pages is of usePages, size the most
// rows of a page, shown the rows of this one, total the API's Total-Count or null, next the address
// of the next page or null. what names one row: "hold".
export function Pager({ pages, size, shown, total, next, what }) {
  const from = (pages.page - 1) * size;
  const isFull = total && !total.endsWith("+");
  const number = total && count(Number.parseInt(total, 10)) + (isFull ? "" : "+");
  if (shown === 0 && !next && pages.page === 1) {
    return null; // the list says that it is empty
  }
  let words = plural(shown, what);
  if (shown === 0) {
    words = `No ${what}s on this page`;
  } else if (next || pages.page > 1) {
    words = `${count(from + 1)}–${count(from + shown)}${number ? ` of ${number}` : ""}`;
  }
  return html`
    <nav class="pager" aria-label="Pages of the list">
      <p role="status">${words}</p>
      ${(next || pages.page > 1) && html`
        <p>
          <button type="button" class="secondary" aria-disabled=${pages.page === 1}
            onClick=${() => pages.page > 1 && pages.toPrevious()}>Previous</button>
          <button type="button" class="secondary" aria-disabled=${!next}
            onClick=${() => next && pages.toNext(next)}>Next</button>
        </p>`}
    </nav>`;
}

// ---- Search

// SearchBox is a field that is bound to a name in the address's query. It searches while one types,
// and begins at the first page again.
export function SearchBox({ name = "q", label, hint, path, query, navigate }) {
  const known = query.get(name) ?? "";
  const [text, setText] = useState(known);
  const timer = useRef();
  const sent = useRef(known);
  useEffect(() => {
    if (known !== sent.current) {
      sent.current = known; // one went back, or a link changed it
      setText(known);
    }
  }, [known]);
  useEffect(() => () => clearTimeout(timer.current), []);

  function search(value) {
    clearTimeout(timer.current);
    const wanted = value.trim();
    if (wanted !== sent.current) {
      sent.current = wanted;
      navigate(addressWith(path, query, { [name]: wanted, cursor: "", page: "" }), {
        replace: true,
      });
    }
  }
  function onInput({ target }) {
    setText(target.value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => search(target.value), TYPING);
  }
  function onSubmit(event) {
    event.preventDefault();
    search(text);
  }
  return html`
    <form role="search" class="search" onSubmit=${onSubmit}>
      <label><span>${label}</span>
        <input type="search" maxlength="100" autocomplete="off" spellcheck="false" value=${text}
          placeholder=${hint} onInput=${onInput} /></label>
    </form>`;
}

// Choice is a select that is bound to a name in the address's query. options are [value, text].
export function Choice({ name, label, options, path, query, navigate }) {
  const onChange = ({ target }) =>
    navigate(addressWith(path, query, { [name]: target.value, cursor: "", page: "" }));
  return html`
    <label class="choice"><span>${label}</span>
      <select value=${query.get(name) ?? ""} onChange=${onChange}>
        ${options.map(([value, text]) => html`<option key=${value} value=${value}>${text}
          </option>`)}
      </select></label>`;
}

// ---- Steps and problems

// ConfirmStep is the second step of an action: a dialog that says what will happen. children are
// that. onConfirm acts, and resolves when it is done, and onDone gets what it resolved to. An error
// is told in the dialog, and the step can be taken again. wordsOf(error) tells it in other words
// than textOf. An error with field, the id of the field that is wrong, puts the focus there.
export function ConfirmStep({
  title,
  action,
  isDangerous = false,
  onConfirm,
  onDone,
  onClose,
  wordsOf = textOf,
  children,
}) {
  const [state, setState] = useState(CALM);
  const form = useRef();
  useStepFocus(form, state);
  async function act(close) {
    if (state.isBusy) {
      return;
    }
    setState({ ...CALM, isBusy: true });
    try {
      const result = await onConfirm();
      close();
      onDone?.(result);
    } catch (error) {
      setState({ isBusy: false, problem: wordsOf(error), field: error?.field ?? "" });
    }
  }
  function onSubmit(event, close) {
    event.preventDefault();
    act(close);
  }
  // Once something is typed, the last problem may be mended.
  const onInput = () => state.problem && setState(CALM);
  return html`
    <${Dialog} title=${title} onClose=${onClose}>${(close) => html`
      <form ref=${form} novalidate onSubmit=${(event) => onSubmit(event, close)}
        onInput=${onInput}>
        <div class="step">${children}</div>
        <footer>
          <${Alert} class="note" text=${state.problem} />
          <button type="button" class="secondary" onClick=${close}>Back</button>
          <button type="submit" class=${isDangerous ? "danger" : ""} aria-disabled=${state.isBusy}>
            ${state.isBusy ? "One moment…" : action}</button>
        </footer>
      </form>`}
    <//>`;
}

const CALM = { isBusy: false, problem: "", field: "" };

// useStepFocus puts the focus where a person goes on: at first in the first field, or on "Back";
// after a problem in the field that is wrong, or on the button that tries again.
function useStepFocus(form, state) {
  useEffect(() => {
    const first = form.current.querySelector(".step :is(input, select)");
    (first ?? form.current.querySelector("footer button")).focus();
  }, []);
  useEffect(() => {
    const wrong = state.field && document.getElementById(state.field);
    if (wrong) {
      wrong.setAttribute("aria-invalid", "true");
      correct(state.field);
      return () => wrong.removeAttribute("aria-invalid");
    }
    if (state.problem) {
      form.current.querySelector("[type=submit]").focus();
    }
    return undefined;
  }, [state]);
}

// textOf tells an error of the API in words.
export function textOf(error) {
  if (error?.status === 401) {
    return "Your sign-in has ended. Sign in again.";
  }
  if (error?.status === 403) {
    return "Your account doesn’t have the permission for this.";
  }
  if (error?.isUnknown) {
    return error.status === 429 || error.status === 503
      ? "The shop is busy or restarting. Try again: it acts only once."
      : "The shop can’t be reached. Try again: it acts only once.";
  }
  return error?.text ?? "This didn’t work.";
}

// Problem is a note in the place of content that couldn't be had.
export function Problem({ error, text = textOf(error), onRetry }) {
  return html`
    <div class="problem" role="alert">
      <p>${text}</p>
      ${onRetry && html`<button type="button" class="secondary" onClick=${onRetry}>Try again
        </button>`}
    </div>`;
}

// ---- Times

const SECOND = 1000;
const clock = new Clock();

// learnTime sets the views' clock by the server's time in an answer. sentAt is the time of
// performance.now() at which its request was sent.
export const learnTime = (serverTime, sentAt) => clock.learn(serverTime, sentAt);

// now is the server's time in ms, or the browser's before the first answer.
export const now = () => clock.now() || Date.now();

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const moments = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];

// relativeTime formats a time beside now: "5 minutes ago", "in 2 hours". Within two seconds it is
// "just now".
export function relativeTime(time, from = now()) {
  const seconds = Math.round((time - from) / SECOND);
  const [unit, size] = UNITS.find(([, least]) => Math.abs(seconds) >= least) ?? UNITS.at(-1);
  return Math.abs(seconds) < 3 ? "just now" : relative.format(Math.trunc(seconds / size), unit);
}

// fullTime formats a time with its date.
export const fullTime = (time) => moments.format(time);

const ticks = new Map(); // by the pause in ms: {timer, draws}, the functions that draw again

// onTick calls draw every so many ms while the page is shown, until the returned function is
// called. All with the same pause are called together, so that their times fit together.
function onTick(every, draw) {
  const tick = ticks.get(every) ?? { draws: new Set() };
  ticks.set(every, tick);
  tick.timer ??= setInterval(() => document.hidden || tick.draws.forEach((one) => one()), every);
  tick.draws.add(draw);
  return () => {
    tick.draws.delete(draw);
    if (tick.draws.size === 0) {
      clearInterval(tick.timer);
      tick.timer = null;
    }
  };
}

// useNow is the present time. It draws again every so many ms while the page is shown.
export function useNow(every = 10 * SECOND) {
  const [, draw] = useState(0);
  useEffect(() => onTick(every, () => draw((n) => n + 1)), [every]);
  return now();
}

// When is a time beside now, with the exact time in its title.
export function When({ at }) {
  const from = useNow();
  const time = new Date(at);
  return html`<time datetime=${time.toISOString()} title=${fullTime(time)}>${relativeTime(
    time.getTime(),
    from,
  )}</time>`;
}

// Timeline lists what happened, in the order of items: {key, at, title, detail, tone}. tone is
// "good", "bad" or empty.
export const Timeline = ({ label, items }) => html`
  <ol class="timeline" aria-label=${label}>
    ${items.map(({ key, at, title, detail, tone }) => html`
      <li key=${key} class=${tone}>
        <p><b>${title}</b> <small><${When} at=${at} /></small></p>
        ${detail && html`<div>${detail}</div>`}
        <small><time datetime=${at}>${fullTime(new Date(at))}</time></small>
      </li>`)}
  </ol>`;

// copyText puts a text on the clipboard and says so.
export async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    announce(`${what} copied.`);
  } catch {
    announce(`${what} can’t be copied here. Select it instead.`);
  }
}

// span formats seconds for a sentence, in the largest unit of which there are two.
export function span(seconds) {
  const [unit, size] = [
    ["day", 86_400],
    ["hour", 3_600],
    ["minute", 60],
  ].find(([, least]) => seconds >= 2 * least) ?? ["second", 1];
  return plural(Math.round(seconds / size), unit);
}

// retriedOf is how many events an endpoint failed to take at their newest attempt. Deliveries are
// the newest first.
export const retriedOf = (deliveries) =>
  (deliveries ?? []).filter(
    ({ id, outcome }, i) =>
      outcome === "FAILED" && deliveries.findIndex((delivery) => delivery.id === id) === i,
  ).length;
