// What this browser keeps in localStorage, so that every tab and visit knows it: above all the
// holds that it made.

import { useEffect, useState } from "preact/hooks";
import { parse } from "./api.js";
import { lineKey } from "./parts.js";

const box = localBox();

// localBox returns localStorage. Where the browser denies it, or it is full, the value lasts as
// long as the page.
function localBox() {
  const memory = new Map();
  return {
    get(name) {
      try {
        return memory.has(name) ? memory.get(name) : localStorage.getItem(name);
      } catch {
        return null;
      }
    },
    set(name, text) {
      try {
        localStorage.setItem(name, text);
        memory.delete(name);
      } catch {
        memory.set(name, text);
      }
    },
  };
}

// shared is the value with a name. read returns it, or null. change replaces it by what fn makes of
// the newest one, so that two tabs don't undo each other's changes. listen calls fn after each
// change, also one in another tab, and returns the function that ends it.
export function shared(name) {
  const listeners = new Set();
  const tell = () => listeners.forEach((fn) => fn());
  const read = () => parse(box.get(name));
  addEventListener("storage", ({ key }) => (key === name || key === null) && tell());
  // A page that comes back from the browser's cache has missed the events.
  addEventListener("pageshow", (event) => event.persisted && tell());
  return {
    read,
    change(fn) {
      box.set(name, JSON.stringify(fn(read())));
      tell();
    },
    listen(fn) {
      listeners.add(fn);
      return () => listeners.delete(fn);
    },
  };
}

// MOST is the most holds that are kept, the newest ones. A shopper has one or two.
const MOST = 50;

// OWN_FOR is how many ms a hold that has ended is still known as the shopper's own.
const OWN_FOR = 24 * 3_600_000;

const store = shared("allo-holds");

// all returns the kept holds, newest first:
//
//   {id, status, version, items, until, isPaying, isLongest, asked, replacedBy}
//
// items are {productId, warehouseId, quantity, productName, warehouseName, sku}; until is the end
// in ms by the browser's clock. isLongest means that the server refused a later end. asked is the
// end for which the shopper was already asked about more time.
function all(holds = store.read()) {
  return Array.isArray(holds)
    ? holds.filter(({ id, items, until } = {}) => id && Array.isArray(items) && until > 0)
    : [];
}

export const isLive = (hold) => hold.status === "PENDING" && hold.until > Date.now();

// liveHolds returns the holds that are live, the one that ends first in front.
export const liveHolds = () =>
  all()
    .filter(isLive)
    .sort((a, b) => a.until - b.until);

// keptHold returns a hold of this browser, live or not, or null. It is null for a stranger's.
export const keptHold = (id) => all().find((hold) => hold.id === id) ?? null;

// keep keeps a hold that this browser has just made. lines have the names to show. left is the
// time to its end in ms; without it, the hold's own times tell.
export function keep(reservation, lines = [], left = timeLeft(reservation)) {
  store.change((kept) => {
    const others = all(kept).filter(({ id }) => id !== reservation.id);
    const before = all(kept).find(({ id }) => id === reservation.id);
    const next = merge(before ?? { items: [] }, reservation, left, lines);
    return trim([next, ...others.map((hold) => resolveReplaced(hold, reservation))]);
  });
}

// learn brings a kept hold up to date with what the server says. It ignores a stranger's hold, and
// a state that is older than the kept one.
export function learn(reservation, left = timeLeft(reservation)) {
  const before = keptHold(reservation.id);
  if (before && !(before.version > reservation.version)) {
    change(reservation.id, (hold) => merge(hold, reservation, left, []));
  }
}

// forget removes a hold that the server doesn't know.
export const forget = (id) => store.change((kept) => all(kept).filter((hold) => hold.id !== id));

// markLongest notes that the server refused to move the hold's end.
export const markLongest = (id) => change(id, (hold) => ({ ...hold, isLongest: true }));

// markAsked notes that the shopper was asked about more time before the hold's present end.
export const markAsked = (id) => change(id, (hold) => ({ ...hold, asked: hold.expiresAt }));

// onKept calls fn after each change, also one in another tab. It returns the function that ends it.
export const onKept = store.listen;

// useKept returns the live holds. It renders again after each change, and when a hold ends.
export function useKept() {
  const [, setCount] = useState(0);
  const live = liveHolds();
  useEffect(() => store.listen(() => setCount((n) => n + 1)), []);
  const first = live[0]?.until;
  useEffect(() => {
    if (!first) {
      return undefined;
    }
    const timer = setTimeout(() => setCount((n) => n + 1), Math.max(0, first - Date.now()) + 1);
    return () => clearTimeout(timer);
  }, [first]);
  return live;
}

// useSecondsLeft returns the whole seconds until a time in ms, rounded up. It renders at each.
export function useSecondsLeft(until) {
  const [, setCount] = useState(0);
  const left = Math.max(0, until - Date.now());
  useEffect(() => {
    if (left === 0) {
      return undefined;
    }
    const timer = setTimeout(() => setCount((n) => n + 1), (left % 1000) + 1);
    return () => clearTimeout(timer);
  });
  return Math.ceil(left / 1000);
}

// ownUnits maps the key of each line that is held for the shopper to {id, quantity}: the hold, and
// the units of all own holds.
export function ownUnits(holds) {
  const own = new Map();
  for (const { id, items } of holds) {
    for (const item of items) {
      const before = own.get(lineKey(item));
      own.set(lineKey(item), {
        id: before?.id ?? id,
        quantity: (before?.quantity ?? 0) + item.quantity,
      });
    }
  }
  return own;
}

function change(id, fn) {
  store.change((kept) => all(kept).map((hold) => (hold.id === id ? fn(hold) : hold)));
}

// timeLeft is for an answer that has just come: its updatedAt is about now.
const timeLeft = ({ expiresAt, updatedAt }) => Date.parse(expiresAt) - Date.parse(updatedAt);

function merge(before, reservation, left, lines) {
  const names = new Map([...before.items, ...lines].map((line) => [lineKey(line), line]));
  const { id, status, version, expiresAt, payment, replacedBy } = reservation;
  return {
    ...before,
    id,
    status,
    version,
    expiresAt,
    items: reservation.items.map((item) => ({ ...nameOf(names.get(lineKey(item))), ...item })),
    until: status === "PENDING" ? Date.now() + left : (before.until ?? Date.now()),
    isPaying: Boolean(payment),
    isLongest: before.expiresAt === expiresAt && before.isLongest,
    replacedBy: replacedBy ?? before.replacedBy ?? null,
  };
}

const nameOf = ({ productName, warehouseName, sku } = {}) => ({ productName, warehouseName, sku });

// resolveReplaced ends the hold whose place a new one took.
const resolveReplaced = (hold, { id, replaces }) =>
  replaces === hold.id ? { ...hold, status: "RELEASED", replacedBy: id } : hold;

const trim = (holds) =>
  holds.filter((hold) => isLive(hold) || hold.until > Date.now() - OWN_FOR).slice(0, MOST);
