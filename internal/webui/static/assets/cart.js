// The cart: lines of several products and warehouses, of which all are held or none.

import { useEffect, useState } from "preact/hooks";
import { parse, storage } from "./api.js";
import {
  Alert,
  announce,
  correct,
  count,
  Dialog,
  html,
  lineKey,
  most,
  NO_LIMIT,
  plural,
  Quantity,
  quantityError,
  units,
} from "./parts.js";
import { explain, NOT_FOR_SALE, shortage, useReserve } from "./reserve.js";

export const MAX_LINES = 100; // of one request to the API

const kept = storage();

// read returns the cart from the storage, or an empty one if the stored value isn't a cart.
function read() {
  const lines = parse(kept.getItem("cart"));
  return Array.isArray(lines) ? lines.filter((line) => Number.isInteger(line?.quantity)) : [];
}

// useCart is this tab's cart. It survives a reload. forget empties the stored cart only: this page
// is about to close and goes on showing its lines.
export function useCart() {
  const [lines, setLines] = useState(read);
  useEffect(() => addEventListener("pageshow", (event) => event.persisted && setLines(read())), []);
  function change(next) {
    kept.setItem("cart", JSON.stringify(next));
    setLines(next);
  }
  const quantity = (key) => lines.find((line) => lineKey(line) === key)?.quantity ?? 0;
  return {
    lines,
    quantity,
    units: lines.reduce((sum, line) => sum + line.quantity, 0),
    forget: () => kept.removeItem("cart"),
    set: (key, wanted) =>
      change(lines.map((line) => (lineKey(line) === key ? { ...line, quantity: wanted } : line))),
    remove: (key) => change(lines.filter((line) => lineKey(line) !== key)),
    // add returns false if the cart has no room for the line.
    add({ productId, warehouseId, productName, warehouseName }, more) {
      const key = lineKey({ productId, warehouseId });
      const others = lines.filter((line) => lineKey(line) !== key);
      if (others.length >= MAX_LINES) {
        return false;
      }
      change([
        ...others,
        { productId, warehouseId, productName, warehouseName, quantity: quantity(key) + more },
      ]);
      return true;
    },
  };
}

export function Cart({ cart, rows, connection, onClose, refresh }) {
  const [typed, setTyped] = useState({}); // by line: text that isn't the cart's quantity
  const [errors, setErrors] = useState({}); // by line
  const [failure, setFailure] = useState("");
  const { isBusy, reserve } = useReserve(refresh);

  // The stock of a line is unknown if its page of the catalog isn't shown. The API knows it.
  const row = (line) => rows.get(lineKey(line));
  const available = (line) => (row(line) ? most(row(line)) : NO_LIMIT);

  const shown = (line) => typed[lineKey(line)] ?? String(line.quantity);
  const byLine = (make) =>
    Object.fromEntries(cart.lines.map((line) => [lineKey(line), make(line)]));

  function type(line, value) {
    const key = lineKey(line);
    setTyped({ ...typed, [key]: value });
    setErrors({ ...errors, [key]: "" });
    if (!quantityError(value, Infinity)) {
      cart.set(key, Number(value));
    }
  }

  function remove(line) {
    cart.remove(lineKey(line));
    announce(`Removed ${line.productName}.`);
    // The focused button is about to disappear.
    document.querySelector("dialog [aria-label=Close]").focus();
  }

  async function submit(event) {
    event.preventDefault();
    const wrong = byLine((line) => quantityError(shown(line), available(line)));
    setErrors(wrong);
    setFailure("");
    if (isBusy) {
      return;
    }
    const first = cart.lines.find((line) => wrong[lineKey(line)]);
    if (first) {
      setFailure("Nothing was reserved: check the quantities.");
      correct(idOf(first));
      return;
    }
    const items = cart.lines.map(({ productId, warehouseId, quantity }) => ({
      productId,
      warehouseId,
      quantity,
    }));
    const { error, reservation } = await reserve({ items });
    if (reservation) {
      cart.forget();
    }
    if (!error) {
      return;
    }
    const short = new Map(error.shortages.map((line) => [lineKey(line), line]));
    const unsold = new Set(error.lines.map(lineKey));
    setErrors(
      byLine((line) =>
        unsold.has(lineKey(line))
          ? NOT_FOR_SALE
          : shortage(short.get(lineKey(line)), line.warehouseName),
      ),
    );
    setFailure(refusal(error));
  }

  const areTyped = cart.lines.every((line) => !quantityError(shown(line), Infinity));
  const reserveAll = areTyped ? `Reserve ${plural(cart.units, "unit")}` : "Reserve";
  const lines = cart.lines.map(
    (line) => html`
    <${Line} key=${lineKey(line)} line=${line} value=${shown(line)} row=${row(line)}
      most=${available(line)}
      error=${errors[lineKey(line)]}
      onType=${(value) => type(line, value)} onRemove=${() => remove(line)} />`,
  );

  return html`
    <${Dialog} title="Your cart" connection=${connection} onClose=${onClose}>${(close) =>
      cart.lines.length === 0
        ? html`<${Empty} close=${close} />`
        : html`
      <form novalidate onSubmit=${submit} aria-busy=${isBusy}>
        <p>Either all lines are held, or none.</p>
        <ul class="lines">${lines}</ul>
        <${Alert} class="note" text=${failure} />
        <footer>
          <button type="button" class="secondary" onClick=${close}>Keep shopping</button>
          <button type="submit">${isBusy ? "Reserving…" : reserveAll}</button>
        </footer>
      </form>`}
    <//>`;
}

const Empty = ({ close }) => html`
  <p>It is empty. Use “Reserve” on a row to add items, from any product and warehouse.</p>
  <footer><button type="button" onClick=${close}>Keep shopping</button></footer>`;

// refusal says why a cart wasn't reserved. The lines themselves say the rest.
function refusal(error) {
  if (error.shortages.length > 0) {
    const short = plural(error.shortages.length, "line is", "lines are");
    return `Nothing was reserved: ${short} short. Change or remove the short lines.`;
  }
  if (error.lines.length > 0) {
    const unsold = plural(error.lines.length, "line isn’t", "lines aren’t");
    return `Nothing was reserved: ${unsold} sold any more. Remove them.`;
  }
  return explain(error, {});
}

const idOf = ({ productId, warehouseId }) => `line-${productId}-${warehouseId}`;

function Line({ line, value, row, most: limit, error, onType, onRemove }) {
  const id = idOf(line);
  return html`
    <li>
      <p>
        <strong>${line.productName}</strong><br />
        <small>${line.warehouseName}${row ? ` · ${units(row)} available` : ""}</small>
      </p>
      <${Quantity} id=${id} label=${`Quantity of ${line.productName} from ${line.warehouseName}`}
        value=${value} most=${limit} error=${error}
        onInput=${onType} />
      <button type="button" class="icon"
        aria-label=${`Remove ${line.productName} from ${line.warehouseName}`} onClick=${onRemove}>
        <svg viewBox="0 0 16 16" aria-hidden="true"><path d="M3 4h10M6 4V2h4v2M5 4l.5 10h5L11 4" />
          </svg>
      </button>
      <p id=${`${id}-note`} class="note">${error}</p>
    </li>`;
}
