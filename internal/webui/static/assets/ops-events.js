// The console's feed of events: what happens to holds and stock, as it happens.

import { useMemo, useRef, useState } from "preact/hooks";
import { get } from "./api.js";
import { code } from "./code.js";
import { addressWith, copyText, fullTime, Nothing, now, Table } from "./console-parts.js";
import { addressOf, detailOf, subjectOf, toneOfType, TYPES, wordsOfType } from "./event-words.js";
import { nameOf, useNames } from "./ops-names.js";
import { Unread, useRead } from "./ops-read.js";
import { announce, clockTime, Connection, Dialog, html, plural } from "./parts.js";

const EVERY = 2_000; // ms between two reads of the feed
const PAGE = 200; // events of a read
const SHOWN = 100; // the newest events, which the page shows
const NAMED = 20; // of these, the newest changes of stock whose names are read
const MAX_PAGES = 5; // reads in a row, after which the page shows what it has
const MINUTE = 60_000;

// How far back the page begins: with the longest of these spans that it can read in MAX_PAGES.
const SPANS = [60 * MINUTE, 5 * MINUTE, MINUTE];

// Feed reads the events of some types, the oldest first, and keeps the newest.
class Feed {
  events = []; // the newest first
  since = null; // the time in ms at which the feed began
  hasGap = false; // older events were left out, because there were too many
  #cursor = null;

  constructor(types) {
    this.types = types;
  }

  // read reads what is new, and returns {events, since, hasGap}: the same object if nothing is.
  async read() {
    if (!this.#cursor) {
      await this.#begin();
    } else if (!(await this.#follow())) {
      await this.#jump();
    }
    const { events, since, hasGap, shown } = this;
    const isSame = shown?.events === events && shown.since === since && shown.hasGap === hasGap;
    this.shown = isSame ? shown : { events, since, hasGap };
    return this.shown;
  }

  // #begin reads the last hour, or less in a shop that is too busy for that.
  async #begin() {
    for (const span of SPANS) {
      this.events = [];
      this.hasGap = span !== SPANS[0];
      this.since = now() - span;
      await this.#page({ since: new Date(this.since).toISOString() });
      if (await this.#follow()) {
        return;
      }
    }
  }

  // #jump goes on a minute ago, when the page is further behind than it can read.
  async #jump() {
    this.hasGap = true;
    await this.#page({ since: new Date(now() - MINUTE).toISOString() });
  }

  // #follow reads on, and returns whether it came to the end.
  async #follow() {
    for (let page = 0; page < MAX_PAGES; page++) {
      try {
        if (await this.#page({ after: this.#cursor })) {
          return true;
        }
      } catch (error) {
        if (error.code !== "CURSOR_TOO_OLD") {
          throw error;
        }
        return false;
      }
    }
    return false;
  }

  // #page reads a page, and returns whether it was the end. With types a page may be empty before.
  async #page(place) {
    const query = new URLSearchParams({ ...place, limit: PAGE });
    if (this.types.length > 0) {
      query.set("types", this.types.join());
    }
    const { body } = await get(`/api/events?${query}`);
    const isEnd = body.events.length === 0 && body.next === place.after;
    this.#cursor = body.next;
    this.#add(body.events);
    return isEnd;
  }

  // #add keeps the newest events. One that comes again is there already.
  #add(events) {
    const known = new Set(this.events.map(({ id }) => id));
    const fresh = events.filter(({ id }) => !known.has(id));
    if (fresh.length > 0) {
      this.events = [...fresh.reverse(), ...this.events].slice(0, SHOWN);
    }
  }
}

// typesOf reads the types of the address. Unknown ones are left out.
const typesOf = (query) => {
  const wanted = (query.get("types") ?? "").split(",");
  return TYPES.map(({ type }) => type).filter((type) => wanted.includes(type));
};

export function View({ path, query, navigate, can }) {
  const types = typesOf(query);
  const [isPaused, setPaused] = useState(false);
  const [open, setOpen] = useState(null);
  const feed = useRef(null);
  if (feed.current?.types.join() !== types.join()) {
    feed.current = new Feed(types);
  }
  const read = useRead(() => feed.current.read(), [types, isPaused], isPaused ? 0 : EVERY);
  function pause() {
    announce(isPaused ? "The feed runs on." : "The feed is paused.");
    setPaused(!isPaused);
  }
  const choose = (next) =>
    navigate(addressWith(path, query, { types: next.join() }), { replace: true });
  return html`
    <div class="events-head">
      <h1>Events</h1>
      <button type="button" class="secondary" onClick=${pause}>
        ${isPaused ? "Resume" : "Pause"}</button>
    </div>
    <${Types} types=${types} onChoose=${choose} />
    ${read.data && read.isCurrent
      ? html`<${List} ...${read.data} isPaused=${isPaused} hasTypes=${types.length > 0}
          onOpen=${setOpen} can=${can} />`
      : html`<${Unread} of=${read} />`}
    <${Connection} error=${read.data && read.error} at=${read.at} />
    ${open && html`<${Panel} event=${open} can=${can} onClose=${() => setOpen(null)} />`}`;
}

// Types are the filters: none of them means all.
function Types({ types, onChoose }) {
  const toggle = (type) =>
    onChoose(types.includes(type) ? types.filter((one) => one !== type) : [...types, type]);
  return html`
    <fieldset class="types">
      <legend>Show only</legend>
      ${TYPES.map(({ type, words }) => html`
        <label key=${type}>
          <input type="checkbox" checked=${types.includes(type)} onChange=${() => toggle(type)} />
          ${words}</label>`)}
      ${types.length > 0 && html`
        <button type="button" class="secondary small" onClick=${() => onChoose([])}>All</button>`}
    </fieldset>`;
}

function List({ events, since, hasGap, isPaused, hasTypes, onOpen, can }) {
  const moved = events.map(({ subject }) => subjectOf(subject)).filter((one) => one?.productId);
  const wanted = can("inventory:read") ? moved.slice(0, NAMED) : [];
  useNames(wanted);
  const names = wanted.map((one) => nameOf(one).product).join();
  const table = useMemo(
    () => html`
      <${Table} label="Events" columns=${columnsOf(onOpen)} rows=${events}
        keyOf=${({ id }) => id} />`,
    [events, names],
  );
  if (events.length === 0) {
    return html`<${Nothing}>${hasTypes
      ? "Nothing of this kind in the last hour. It shows here as it happens."
      : "Nothing in the last hour. What happens shows here by itself."}<//>`;
  }
  return html`
    <p class="muted">${isPaused ? "Paused." : "Running."} ${wordsOfList(events, since, hasGap)}</p>
    ${table}`;
}

function wordsOfList(events, since, hasGap) {
  if (events.length === SHOWN) {
    return `The newest ${plural(SHOWN, "event")}.`;
  }
  return hasGap
    ? `${plural(events.length, "event")}. So much happens that older ones are left out.`
    : `${plural(events.length, "event")} since ${clockTime(new Date(since))}.`;
}

const columnsOf = (onOpen) => [
  { name: "Time", cell: ({ time }) => html`<${Time} at=${time} />` },
  {
    name: "What",
    isHead: true,
    cell: ({ type }) => html`<span class=${`status ${toneOfType(type)}`}>${wordsOfType(type)}
      </span>`,
  },
  { name: "About", cell: ({ subject }) => html`<${Subject} subject=${subject} />` },
  { name: "Details", cell: (event) => detailOf(event) },
  {
    name: "JSON",
    isUnseen: true,
    cell: (event) => html`
      <button type="button" class="secondary small" onClick=${() => onOpen(event)}
        aria-label=${`JSON of ${wordsOfType(event.type)}, ${clockTime(new Date(event.time))}`}>
        JSON</button>`,
  },
];

function Time({ at }) {
  const time = new Date(at);
  return html`<time datetime=${at} title=${fullTime(time)}>${clockTime(time)}</time>`;
}

// Subject links to what an event is about.
export function Subject({ subject }) {
  const about = subjectOf(subject);
  if (!about) {
    return subject;
  }
  const address = addressOf(about);
  if (about.hold) {
    return html`<a href=${address}>Hold <code>${code(about.hold)}</code></a>`;
  }
  // A link has words of its own also before its names are read.
  const { product, warehouse } = nameOf(about);
  const isKnown = product !== "…";
  const words = isKnown ? `${product}, ${warehouse}` : `Product ${about.productId.slice(-8)}`;
  return html`<a href=${address}>${words}</a>`;
}

// Panel shows one event as the consumers get it.
function Panel({ event, can, onClose }) {
  const about = subjectOf(event.subject);
  useNames(about?.productId && can("inventory:read") ? [about] : []);
  const text = JSON.stringify(event, null, 2);
  return html`
    <${Dialog} title=${wordsOfType(event.type)} class="event-panel" onClose=${onClose}>${(close) =>
      html`
      <p>${fullTime(new Date(event.time))} · <${Subject} subject=${event.subject} /></p>
      <pre tabindex="0" role="region" aria-label="The event as JSON">${text}</pre>
      <footer>
        <button type="button" class="secondary" onClick=${() => copyText(text, "The event")}>
          Copy</button>
        <button type="button" autofocus onClick=${close}>Close</button>
      </footer>`}
    <//>`;
}
