// The cart: lines of several products and warehouses. It lies in localStorage, so all tabs agree.

import { useEffect, useState } from "preact/hooks";
import { isLive, keep, keptHold, onKept, shared } from "./kept.js";
import { lineKey } from "./parts.js";

export const MAX_LINES = 100; // of one request to the API

// MAX_CHAIN is how many holds in a row, each in the place of the one before, the cart follows at
// once. More come one by one, as they are kept.
const MAX_CHAIN = 10;

const store = shared("allo-cart");

// A cart is {lines, hold}. A line is {productId, warehouseId, quantity, productName, warehouseName,
// sku}. hold is the id of the hold that was made from the cart, or null.
function read(stored = store.read()) {
  const lines = Array.isArray(stored?.lines) ? stored.lines : [];
  return {
    lines: lines.filter((line) => line?.productId && Number.isInteger(line.quantity)),
    hold: stored?.hold ?? null,
  };
}

// When the hold of the cart is bought, its units leave the cart. When another one took its place,
// that one is the cart's. When it ended otherwise, the lines stay, and nothing holds them.
function follow() {
  for (let step = 0; step < MAX_CHAIN; step++) {
    const { hold } = read();
    const kept = hold && keptHold(hold);
    if (!kept || isLive(kept) || mayGoOn(kept)) {
      return;
    }
    store.change((stored) => settle(read(stored), kept));
  }
}

// mayGoOn is true for a hold whose time is up: money that comes late may still buy its units, under
// a hold that takes its place. The cart remembers it until then.
const mayGoOn = ({ status, replacedBy }) =>
  !replacedBy && (status === "PENDING" || status === "EXPIRED");

function settle(cart, kept) {
  if (cart.hold !== kept.id) {
    return cart; // another tab was first
  }
  if (kept.status === "CONFIRMED") {
    const bought = new Map(kept.items.map((item) => [lineKey(item), item.quantity]));
    const lines = cart.lines
      .map((line) => ({ ...line, quantity: line.quantity - (bought.get(lineKey(line)) ?? 0) }))
      .filter((line) => line.quantity > 0);
    return { lines, hold: null };
  }
  return { ...cart, hold: kept.replacedBy };
}

onKept(follow);
follow();

const change = (fn) => store.change((stored) => fn(read(stored)));

const changeLines = (fn) => change((cart) => ({ ...cart, lines: fn(cart.lines) }));

// addLine adds units of a line, and keeps its place if it is there already. It returns false if the
// cart is full.
export function addLine(line, more) {
  const key = lineKey(line);
  const { lines } = read();
  if (lines.some((other) => lineKey(other) === key)) {
    changeLines((now) => mapLine(now, key, (l) => ({ ...l, quantity: l.quantity + more })));
    return true;
  }
  if (lines.length >= MAX_LINES) {
    return false;
  }
  changeLines((now) => [...now, { ...pick(line), quantity: more }]);
  return true;
}

export const setQuantity = (key, quantity) =>
  changeLines((lines) => mapLine(lines, key, (line) => ({ ...line, quantity })));

export const removeLine = (key) =>
  changeLines((lines) => lines.filter((line) => lineKey(line) !== key));

// moveLine takes so many units of a line from another warehouse instead. All the line's units move
// if that leaves none. A line of that warehouse that is there already gets them.
export function moveLine(key, { warehouseId, warehouseName }, units) {
  changeLines((lines) => {
    const from = lines.find((line) => lineKey(line) === key);
    if (!from) {
      return lines;
    }
    const target = { ...from, warehouseId, warehouseName, quantity: units };
    const isThere = lines.some((line) => lineKey(line) === lineKey(target));
    return lines.flatMap((line) => {
      if (lineKey(line) === lineKey(target)) {
        return [{ ...line, quantity: line.quantity + units }];
      }
      if (line !== from) {
        return [line];
      }
      const rest = { ...from, quantity: from.quantity - units };
      return [...(rest.quantity > 0 ? [rest] : []), ...(isThere ? [] : [target])];
    });
  });
}

// takeBack removes so many units of a line: it undoes addLine.
export const takeBack = (key, units) =>
  changeLines((lines) =>
    mapLine(lines, key, (line) => ({ ...line, quantity: line.quantity - units })).filter(
      ({ quantity }) => quantity > 0,
    ),
  );

// putBack puts a removed line back to its place, unless it is there again.
export const putBack = (line, at) =>
  changeLines((lines) =>
    lines.some((other) => lineKey(other) === lineKey(line)) ? lines : lines.toSpliced(at, 0, line),
  );

// unitsOf is how many units of a line the cart has.
export const unitsOf = (key) => read().lines.find((line) => lineKey(line) === key)?.quantity ?? 0;

// keepCart keeps the hold that was made from the cart. The cart shows its lines until it is bought.
export function keepCart(reservation, lines) {
  keep(reservation, lines);
  change((cart) => ({ ...cart, hold: reservation.id }));
}

// letGo parts the cart from its hold.
export const letGo = () => change((cart) => ({ ...cart, hold: null }));

// useCart returns {lines, units, hold, isHeld}: hold is the live hold of the cart, or null; isHeld
// is true if that has exactly the cart's lines.
export function useCart() {
  const [, setCount] = useState(0);
  useEffect(() => {
    const look = () => setCount((n) => n + 1);
    const ends = [store.listen(look), onKept(look)];
    return () => ends.forEach((end) => end());
  }, []);
  const { lines, hold: id } = read();
  const kept = id && keptHold(id);
  const hold = kept && isLive(kept) ? kept : null;
  return {
    lines,
    units: lines.reduce((sum, line) => sum + line.quantity, 0),
    hold,
    isHeld: Boolean(hold) && isSame(lines, hold.items),
  };
}

function isSame(lines, items) {
  const held = new Map(items.map((item) => [lineKey(item), item.quantity]));
  return (
    lines.length === held.size &&
    lines.every((line) => held.get(lineKey(line)) === line.quantity)
  );
}

const mapLine = (lines, key, fn) => lines.map((line) => (lineKey(line) === key ? fn(line) : line));

const pick = ({ productId, warehouseId, productName, warehouseName, sku }) => ({
  productId,
  warehouseId,
  productName,
  warehouseName,
  sku,
});
