// The shop: the catalog as cards with their stock, a dialog to reserve from one row, and the cart.

import { useEffect, useState } from "preact/hooks";
import { getPages } from "./api.js";
import { Cart, MAX_LINES, useCart } from "./cart.js";
import { useLive } from "./live.js";
import { announce, Bar, Connection, count, Failure, html, lineKey, start, units } from "./parts.js";
import { ownHolds, Reserve } from "./reserve.js";

const LOW = 3; // units: so few are marked as low

function Shop() {
  const [pages, setPages] = useState(1);
  const [open, setOpen] = useState(null); // the row whose dialog is open, "cart", or null
  const catalog = useLive(() => getPages("/api/products", pages), [pages]);
  const cart = useCart();
  const rows = rowsOf(catalog.data);
  const own = new Map(ownHolds().flatMap(({ id, keys }) => keys.map((key) => [key, id])));
  const closeAll = () => setOpen(null);
  // A dialog reports its end a moment later, when another may be open already.
  const close = () => setOpen((now) => (now === open ? null : now));

  useEffect(() => addEventListener("pageshow", (event) => event.persisted && closeAll()), []);

  // add returns an error message, or "".
  function add(row, quantity) {
    if (!cart.add(row, quantity)) {
      return `The cart is full at ${count(MAX_LINES)} lines: reserve these first.`;
    }
    announce(
      `Added to the cart: ${count(quantity)} × ${row.productName} from ${row.warehouseName}.`,
    );
    return "";
  }

  const connection = { error: catalog.data && catalog.error, at: catalog.at };
  const dialog = { connection, onClose: close, refresh: catalog.refresh };
  const isOpen = open === "cart" || rows.has(open);
  return html`
    <div class="intro">
      <div><h1>Shop</h1><p>Reserve the items you want. We hold them for you while you pay.</p></div>
      <button type="button" class="secondary cart" aria-haspopup="dialog"
        onClick=${() => setOpen("cart")}>
        <svg viewBox="0 0 16 16" aria-hidden="true">
          <path d="M1 2h2l2 8h7l2-6H4" /><circle cx="6" cy="13" r="1" /><circle cx="11" cy="13"
            r="1" />
        </svg>
        Cart <span class="number">${count(cart.units)}</span>
      </button>
    </div>
    <${Products} catalog=${catalog} own=${own} onReserve=${(row) => setOpen(lineKey(row))} />
    ${
      catalog.data?.next &&
      html`
      <p class="more"><button type="button" class="secondary"
        onClick=${() => setPages(pages + 1)}>Show more</button></p>`
    }
    ${rows.has(open) && html`<${Reserve} row=${rows.get(open)} inCart=${cart.quantity(open)}
      onAdd=${add} ...${dialog} />`}
    ${open === "cart" && html`<${Cart} cart=${cart} rows=${rows} ...${dialog} />`}
    ${!isOpen && html`<${Connection} ...${connection} />`}`;
}

// rowsOf maps the key of each stock row of the catalog to the row, with the names to show.
function rowsOf(data) {
  const rows = new Map();
  for (const product of data?.items ?? []) {
    for (const stock of product.inventories) {
      const row = { ...stock, productId: product.id, productName: product.name };
      rows.set(lineKey(row), row);
    }
  }
  return rows;
}

function Products({ catalog, own, onReserve }) {
  if (!catalog.data) {
    return catalog.error
      ? html`<${Failure} error=${catalog.error} onRetry=${catalog.refresh} />`
      : html`<${Loading} />`;
  }
  if (catalog.data.items.length === 0) {
    return html`
      <section class="blank">
        <svg class="picture" viewBox="0 0 64 48" aria-hidden="true">
          <path d="M8 16l24-10 24 10v20L32 46 8 36zM8 16l24 10 24-10M32 26v20" />
        </svg>
        <h2>The shelves are empty</h2>
        <p>There is nothing for sale yet. New products show up here by themselves.</p>
      </section>`;
  }
  return html`
    <ul class="cards">
      ${catalog.data.items.map((product) => html`<${Card} key=${product.id} product=${product}
        own=${own} onReserve=${onReserve} />`)}
    </ul>`;
}

// Loading has the size of the cards that will come.
const Loading = () => html`
  <div role="status"><span class="unseen">Loading the catalog…</span>
    <ul class="cards" aria-hidden="true">${[0, 1, 2].map(
      () => html`
      <li class="card waiting">
        <header><span class="tile" /><span class="words" /></header>
        ${[0, 1, 2].map(() => html`<p class="words" />`)}
      </li>`,
    )}
    </ul>
  </div>`;

function Card({ product, own, onReserve }) {
  return html`
    <li class="card">
      <article aria-labelledby=${`product-${product.id}`}>
        <header>
          <${Tile} product=${product} />
          <div><h2 id=${`product-${product.id}`}>${product.name}</h2><small>${product.sku}</small>
            </div>
        </header>
        ${product.inventories.length === 0 && html`<p class="muted">No warehouse stocks it.</p>`}
        <ul class="stock">
          ${product.inventories.map(
            (stock) => html`
            <${Stock} key=${stock.warehouseId} product=${product} stock=${stock}
              hold=${own.get(lineKey({ productId: product.id, ...stock }))}
              onReserve=${onReserve} />`,
          )}
        </ul>
      </article>
    </li>`;
}

// Stock is a stock row. hold is the id of the shopper's own hold of it, if there is one.
function Stock({ product, stock, hold, onReserve }) {
  const none = stock.availableStock < 1;
  const row = { productId: product.id, warehouseId: stock.warehouseId };
  const badge = `badge-${product.id}-${stock.warehouseId}`;
  return html`
    <li>
      <p class="where"><strong>${stock.warehouseName}</strong> <${Badge} id=${badge}
        stock=${stock} hold=${hold} /></p>
      <${Figures} stock=${stock} />
      <button type="button" aria-haspopup="dialog" aria-disabled=${none} aria-describedby=${badge}
        aria-label=${`Reserve ${product.name} from ${stock.warehouseName}`}
          onClick=${() => none || onReserve(row)}>Reserve</button>
    </li>`;
}

// Figures has a row's units. The shop may show shoppers only how many are available.
function Figures({ stock }) {
  if (stock.totalQuantity === null) {
    return html`<p class="figures"><b>${units(stock)}</b> available</p>`;
  }
  return html`
    <${Bar} held=${stock.reservedQuantity} total=${stock.totalQuantity} />
    <p class="figures">
      <b>${units(stock)}</b> available ·${" "}
      <b>${count(stock.reservedQuantity)}</b> held ·${" "}
      <b>${count(stock.totalQuantity)}</b> total
    </p>`;
}

function Badge({ id, hold, stock: { availableStock, orMore, totalQuantity } }) {
  if (hold) {
    return html`<a id=${id} class="badge own" href=${`/reservation/${hold}`}>Held for you</a>`;
  }
  if (availableStock > LOW || orMore) {
    return html`<span id=${id} class="badge" />`;
  }
  if (availableStock > 0) {
    return html`<span id=${id} class="badge low">Only ${availableStock} left</span>`;
  }
  if (totalQuantity === null) {
    // Nothing tells whether some units are on hold and may come back.
    return html`<span id=${id} class="badge none">None left</span>`;
  }
  return html`<span id=${id} class="badge none">${totalQuantity > 0 ? "All on hold" : "Sold out"}
    </span>`;
}

// Tile stands in for a picture: the product's initials, on a colour that depends on its id.
function Tile({ product }) {
  const initials = product.name
    .split(/\s+/)
    .slice(0, 2)
    .map((word) => [...word][0] ?? "")
    .join("")
    .toUpperCase();
  const tone = [...product.id].reduce((sum, c) => (sum * 31 + c.codePointAt(0)) % 997, 7) % 6;
  return html`<span class=${`tile tone-${tone}`} aria-hidden="true">${initials}</span>`;
}

start(html`<${Shop} />`);
