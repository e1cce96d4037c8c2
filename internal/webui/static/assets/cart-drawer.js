// The cart at the side of the page: its lines, what is wrong with them and the way on, its total,
// and the way to the checkout.

import { useEffect, useRef, useState } from "preact/hooks";
import { get, post } from "./api.js";
import {
  keepCart,
  letGo,
  moveLine,
  putBack,
  removeLine,
  setQuantity,
  useCart,
} from "./cart.js";
import { Illustration } from "./illustration.js";
import { useSecondsLeft } from "./kept.js";
import { useStock } from "./live-stock.js";
import { money, priceOf, totalOf, usePrices } from "./money.js";
import {
  Alert,
  correct,
  count,
  Dialog,
  duration,
  html,
  lineKey,
  NO_LIMIT,
  plural,
  toast,
} from "./parts.js";
import { Quantity, quantityError } from "./quantity.js";
import { free, others, rowsOf } from "./where.js";

const MAX_SKUS = 50; // of one request for products by SKU

// readProducts reads the products of the lines, as they are now: {items, skus}. skus are those that
// it asked for: one without a product isn't sold.
async function readProducts(lines) {
  const skus = [...new Set(lines.map(({ sku }) => sku))];
  const items = [];
  for (let i = 0; i < skus.length; i += MAX_SKUS) {
    const query = skus.slice(i, i + MAX_SKUS).map((sku) => `sku=${encodeURIComponent(sku)}`);
    const { body } = await get(`/api/products?${query.join("&")}`);
    items.push(...body);
  }
  return { items, skus };
}

export function CartDrawer({ onClose }) {
  const cart = useCart();
  const hasPrices = usePrices();
  const skus = cart.lines.map(({ sku }) => sku).join();
  const live = useStock(() => readProducts(cart.lines), [skus]);
  const products = live.data?.items;
  const [typed, setTyped] = useState({}); // by line: text that isn't the cart's quantity
  const checkout = useCheckout(cart, live.refresh);
  const connection = { error: live.error, at: live.at };
  const known = { products, asked: live.data?.skus, at: live.at, hold: cart.hold, refusal: checkout.refusal };
  const notes = new Map(cart.lines.map((line) => [lineKey(line), noteOf(line, known)]));
  // The lines may be outside of the window.
  useEffect(() => {
    document.querySelector(".lines .trouble:not(:empty)")?.scrollIntoView({ block: "end" });
  }, [checkout.refusal]);

  function type(line, value) {
    const key = lineKey(line);
    const isWrong = quantityError(value, NO_LIMIT) !== "";
    setTyped({ ...typed, [key]: isWrong ? value : undefined });
    if (!isWrong) {
      setQuantity(key, Number(value));
    }
  }

  function remove(line) {
    const at = cart.lines.indexOf(line);
    focusBeside(lineKey(line));
    removeLine(lineKey(line));
    toast(`Removed ${line.productName}.`, { label: "Undo", run: () => putBack(line, at) });
  }

  function submit(event) {
    event.preventDefault();
    // What the last answer refused may be fine by now: the API decides anew.
    const isWrong = (line) =>
      typed[lineKey(line)] !== undefined || noteOf(line, { ...known, refusal: null });
    checkout.submit(cart.lines.find(isWrong));
  }

  const lines = cart.lines.map((line) => {
    const key = lineKey(line);
    return html`<${Line} key=${key} line=${line} hasPrices=${hasPrices} value=${typed[key]}
      most=${mostOf(line, products, cart.hold)} note=${notes.get(key)}
      onType=${(value) => type(line, value)} onRemove=${() => remove(line)} />`;
  });
  return html`
    <${Dialog} title="Your cart" class="drawer" connection=${connection} onClose=${onClose}>${(
      close,
    ) =>
      cart.lines.length === 0
        ? html`<${Empty} hold=${cart.hold} close=${close} />`
        : html`
      <form novalidate onSubmit=${submit} aria-busy=${checkout.isBusy}>
        ${cart.hold && html`<${HeldNote} cart=${cart} />`}
        <ul class="lines">${lines}</ul>
        <div class="foot">
          <${Alert} class="note" text=${checkout.failure} />
          ${
            hasPrices &&
            html`<p class="sum"><span>Total</span><b>${money(totalOf(cart.lines))}</b></p>`
          }
          <${Submit} cart=${cart} isBusy=${checkout.isBusy} />
        </div>
      </form>`}
    <//>`;
}

// useCheckout holds the lines of the cart and goes to the page of the hold. What was held before is
// replaced. refusal is the last answer that named lines, or null.
function useCheckout(cart, refresh) {
  const [isBusy, setBusy] = useState(false);
  const [failure, setFailure] = useState("");
  const [refusal, setRefusal] = useState(null);
  const isLeaving = useRef(false);
  const ready = () => {
    isLeaving.current = false;
    setBusy(false);
  };
  // What was wrong with the cart may be right after a change of it.
  const content = cart.lines.map((line) => `${lineKey(line)} ${line.quantity}`).join();
  useEffect(() => setFailure(""), [content]);
  useEffect(() => {
    const back = (event) => event.persisted && ready();
    addEventListener("pageshow", back);
    return () => removeEventListener("pageshow", back);
  }, []);

  async function submit(wrong) {
    if (isLeaving.current) {
      return; // a double click counts once
    }
    setFailure(wrong ? "Please look at the marked lines first." : "");
    if (wrong) {
      correct(idOf(wrong));
      return;
    }
    isLeaving.current = true;
    setBusy(true);
    setRefusal(null);
    try {
      const { reservation } = await post("/api/reservations", wish(cart));
      keepCart(reservation, cart.lines);
      location.assign(`/reservation/${encodeURIComponent(reservation.id)}`);
    } catch (error) {
      ready();
      setRefusal({ ...error, at: new Date() });
      setFailure(explain(error));
      if (error.code === "RESERVATION_CONFIRMED") {
        letGo();
      }
      refresh();
    }
  }
  return { isBusy, failure, refusal, submit };
}

function wish({ lines, hold }) {
  const items = lines.map(({ productId, warehouseId, quantity }) => ({
    productId,
    warehouseId,
    quantity,
  }));
  return hold ? { items, replaces: hold.id } : { items };
}

// explain says why nothing is held. The lines themselves say the rest.
function explain(error) {
  switch (error.code) {
    case "INSUFFICIENT_STOCK":
      return "Something sold out, so nothing is held yet. Check the marked items.";
    case "NOT_FOR_SALE":
      return "Something in your cart isn’t sold any more, so nothing is held yet.";
    case "INVENTORY_NOT_FOUND":
      return "A warehouse in your cart doesn’t sell that product any more.";
    case "LIMIT_EXCEEDED":
      return "Your cart has more of something than one customer may buy. Check the marked items.";
    case "OWNER_REQUIRED":
      return (
        "Your cart has something that is limited for each customer. To buy it, you must be " +
        "signed in to your shop account."
      );
    case "PAYMENT_STARTED":
      return "You are paying for what is held. You can change it if that payment fails.";
    case "RESERVATION_CONFIRMED":
      return "What was held is bought already. Check your cart, then check out again.";
  }
  if (!navigator.onLine) {
    return "You are offline. Your cart is safe: check out when you are back online.";
  }
  return error.isUnknown
    ? "No answer from the shop. Try again: you won’t get it twice."
    : error.text;
}

// ownOf is how many units of a line the cart's hold has. They are the shopper's already.
const ownOf = (line, hold) =>
  hold?.items.find((item) => lineKey(item) === lineKey(line))?.quantity ?? 0;

// find returns a line's product and its stock row, as far as they are known and on sale.
function find(line, products) {
  const product = products?.find(({ id }) => id === line.productId);
  return { product, stock: product && rowsOf([product]).get(lineKey(line))?.stock };
}

function mostOf(line, products, hold) {
  const { product, stock } = find(line, products);
  const most = stock ? free(stock, ownOf(line, hold)) : NO_LIMIT;
  return Math.max(1, Math.min(most, product?.maxPerHold ?? NO_LIMIT));
}

// noteOf says what is wrong with a line, and the ways on: {text, ways: [{label, run, to}]}, or null.
// It knows it from the stock as it was read at a time, and from the refusal of the last checkout.
function noteOf(line, { products, asked, at, hold, refusal }) {
  if (!asked?.includes(line.sku)) {
    return null; // not read yet: the API knows
  }
  const { product, stock } = find(line, products);
  if (!product) {
    return { text: "This isn’t sold any more. Please remove it.", ways: [] };
  }
  const short = refusal?.shortages.find((other) => lineKey(other) === lineKey(line));
  let there = stock ? free(stock, ownOf(line, hold)) : 0;
  if (short?.orMore && line.quantity >= short.requested) {
    // Nobody says how many there are.
    return shortNote(line, product, "Sorry, there aren’t so many left in {}.", 0);
  }
  if (short && at < refusal.at) {
    there = Math.min(there, short.available);
  }
  if (there < line.quantity) {
    return shortNote(line, product, shortText(stock, there, short), there);
  }
  return limitNote(line, product, refusal);
}

// shortText says why a line is short, with {} for the name of its warehouse.
function shortText(stock, there, short) {
  if (!stock) {
    return "{} doesn’t sell this any more.";
  }
  if (there > 0) {
    return `Only ${count(there)} left in {}.`;
  }
  return short ? "Sorry, someone just took the last one." : "Sold out in {}.";
}

// shortNote offers what is there, and the rest from another warehouse.
function shortNote(line, product, text, there) {
  const { productId, warehouseId, warehouseName, quantity } = line;
  const missing = quantity - there;
  const [other] = others(product.inventories, warehouseId, missing);
  const key = lineKey({ productId, warehouseId });
  const ways = [];
  if (there > 0) {
    ways.push({ label: `Keep ${count(there)}`, run: () => setQuantity(key, there) });
  }
  if (other) {
    const units = Math.min(missing, free(other));
    const what = units === quantity ? (units === 1 ? "it" : "them") : `${count(units)}`;
    ways.push({
      label: `Take ${what} from ${other.warehouseName}`,
      run: () => moveLine(key, other, units),
      to: { warehouseId: other.warehouseId },
    });
  }
  const has = other ? ` ${other.warehouseName} has ${countOf(other)}.` : "";
  return { text: text.replace("{}", warehouseName) + has, ways };
}

const countOf = ({ availableStock, orMore }) =>
  `${count(availableStock)}${orMore ? " or more" : ""}`;

function limitNote(line, { id, maxPerHold, maxPerOwner }, refusal) {
  const key = lineKey(line);
  const limit = refusal?.limits.find(({ productId }) => productId === id);
  if (maxPerHold && line.quantity > maxPerHold) {
    const ways = [{ label: `Keep ${count(maxPerHold)}`, run: () => setQuantity(key, maxPerHold) }];
    return { text: `At most ${count(maxPerHold)} in one order.`, ways };
  }
  if (limit && line.quantity > limit.max - limit.used) {
    const rest = limit.max - limit.used;
    const ways =
      rest > 0 ? [{ label: `Keep ${count(rest)}`, run: () => setQuantity(key, rest) }] : [];
    const used = limit.used > 0 ? `, and you have ${count(limit.used)} already` : "";
    return { text: `At most ${count(limit.max)} for each customer${used}.`, ways };
  }
  if (refusal?.code === "OWNER_REQUIRED" && maxPerOwner) {
    return { text: `At most ${count(maxPerOwner)} for each customer.`, ways: [] };
  }
  return null;
}

// HeldNote says whether the cart is what is held.
function HeldNote({ cart }) {
  const seconds = useSecondsLeft(cart.hold.until);
  return html`
    <p class=${cart.isHeld ? "heldnote" : "heldnote changed"}>${
      cart.isHeld
        ? html`Held for you for <b>${duration(seconds)}</b>`
        : "You changed your cart. Check out to hold it as it is now."
    }</p>`;
}

function Submit({ cart, isBusy }) {
  if (cart.isHeld) {
    return html`<a role="button" href=${`/reservation/${cart.hold.id}`}>Complete purchase</a>`;
  }
  return html`
    <button type="submit">${isBusy ? "One moment…" : "Check out"}</button>
    <p class="small">We hold everything for you while you pay. Nothing is charged yet.</p>`;
}

const Empty = ({ hold, close }) => html`
  <div class="emptycart">
    <svg class="picture" viewBox="0 0 64 64" aria-hidden="true">
      <path d="M14 22h36l3 34H11zM22 28v-8a10 10 0 0 1 20 0v8" /></svg>
    <p>Your cart is empty.</p>
    ${
      hold &&
      html`<p><a href=${`/reservation/${hold.id}`}>${plural(
        hold.items.reduce((sum, { quantity }) => sum + quantity, 0),
        "item is",
        "items are",
      )} still held for you.</a></p>`
    }
    <button type="button" onClick=${close}>Keep shopping</button>
  </div>`;

const idOf = ({ productId, warehouseId }) => `line-${productId}-${warehouseId}`;

// focusBeside moves the focus from a line that is about to go to the one that comes up.
function focusBeside(key) {
  const buttons = [...document.querySelectorAll(".lines .remove")];
  const at = buttons.findIndex((button) => button.dataset.key === key);
  const next = buttons[at + 1] ?? buttons[at - 1];
  (next ?? document.querySelector("dialog.drawer [aria-label=Close]")).focus();
}

function Line({ line, hasPrices, value, most, note, onType, onRemove }) {
  const id = idOf(line);
  const error = value === undefined ? "" : quantityError(value, NO_LIMIT);
  const text = error || note?.text || "";
  // A way that is taken disappears with its button. The line that it leads to gets the focus.
  const take = (way) => {
    way.run();
    requestAnimationFrame(() => document.getElementById(idOf({ ...line, ...way.to }))?.focus());
  };
  return html`
    <li class=${text ? "wrong" : ""}>
      <span class="thumb">
        <${Illustration} product=${{ id: line.productId, sku: line.sku }} /></span>
      <p class="what">
        <a href=${`/product/${line.productId}`}>${line.productName}</a>
        <small>From ${line.warehouseName}</small>
      </p>
      <button type="button" class="icon remove" data-key=${lineKey(line)}
        aria-label=${`Remove ${line.productName} from ${line.warehouseName}`} onClick=${onRemove}>
        <svg viewBox="0 0 16 16" aria-hidden="true"><path d="M3 4h10M6 4V2h4v2M5 4l.5 10h5L11 4" />
          </svg>
      </button>
      <${Quantity} id=${id} label=${`Quantity of ${line.productName} from ${line.warehouseName}`}
        value=${value ?? String(line.quantity)} most=${most} error=${text} onInput=${onType} />
      ${
        hasPrices && html`<p class="price">${money(priceOf(line.sku) * line.quantity)}</p>`
      }
      <div id=${`${id}-note`} class="trouble" role="alert">
        ${text && html`<p>${text}</p>`}
        ${
          !error &&
          note?.ways.map(
            (way) => html`<button type="button" class="secondary" key=${way.label}
            onClick=${() => take(way)}>${way.label}</button>`,
          )
        }
      </div>
    </li>`;
}
