// The page of one product: its warehouses with their stock, and how many to add to the cart.

import { useEffect, useState } from "preact/hooks";
import { get } from "./api.js";
import { mountHeader } from "./header.js";
import { setTitle } from "./held.js";
import { Illustration } from "./illustration.js";
import { ownUnits, useKept } from "./kept.js";
import { useStock } from "./live-stock.js";
import { money, priceOf, usePrices } from "./money.js";
import {
  Connection,
  correct,
  count,
  Failure,
  html,
  lineKey,
  NO_LIMIT,
  plural,
  start,
} from "./parts.js";
import { Quantity, quantityError } from "./quantity.js";
import {
  addToCart,
  byNearness,
  choose,
  free,
  others,
  rememberChoice,
  stockWords,
} from "./where.js";

const id = location.pathname.split("/")[2];

let last = { items: [] };

// readProduct returns {items} with the product, or without any if there is none with the id. An
// unchanged product is the same object, so that nothing is drawn.
async function readProduct() {
  try {
    const { body } = await get(`/api/products/${id}`);
    last = last.items[0] === body ? last : { items: [body] };
  } catch (error) {
    if (error.status !== 404) {
      throw error;
    }
    last = { items: [] };
  }
  return last;
}

function Page() {
  const live = useStock(readProduct);
  const product = live.data?.items[0];
  useEffect(() => {
    if (live.data) {
      setTitle(product ? `${product.name} · Allo` : "Product not found · Allo");
    }
  }, [product?.name, Boolean(live.data)]);
  if (!live.data) {
    return live.error
      ? html`<${Failure} error=${live.error} onRetry=${live.refresh} isPage />`
      : html`<${Loading} />`;
  }
  return html`
    ${product ? html`<${Product} product=${product} />` : html`<${Missing} />`}
    <${Connection} error=${live.error} at=${live.at} />`;
}

const Loading = () => html`
  <section class="product waiting" role="status">
    <div class="pic" />
    <div class="about"><h1 class="words"><span class="unseen">Loading…</span></h1>
      <p class="words" /><p class="words" /></div>
  </section>`;

const Missing = () => html`
  <section class="blank">
    <svg class="picture" viewBox="0 0 64 48" aria-hidden="true">
      <circle cx="28" cy="20" r="14" /><path d="M38 30l14 14M23 15l10 10M33 15L23 25" /></svg>
    <h1>We can’t find this product</h1>
    <p>It may not be sold any more, or the link is incomplete.</p>
    <a role="button" href="/">See all products</a>
  </section>`;

function Product({ product }) {
  const hasPrices = usePrices();
  return html`
    <nav class="crumbs" aria-label="Way back"><a href="/">All products</a></nav>
    <section class="product" aria-labelledby="heading">
      <div class="pic"><${Illustration} product=${product} /></div>
      <div class="about">
        <h1 id="heading" tabindex="-1">${product.name}</h1>
        <p class="price">${hasPrices && money(priceOf(product.sku))}</p>
        ${
          product.inventories.length > 0
            ? html`<${Buy} product=${product} />`
            : html`<p class="stand none">Sold out</p>`
        }
        <${Facts} product=${product} />
      </div>
    </section>`;
}

function Facts({ product }) {
  const limit = product.maxPerHold ?? product.maxPerOwner;
  const whose = product.maxPerHold ? "order" : "customer";
  return html`
    <ul class="facts">
      <li>Held for you while you pay, so nobody can take it.</li>
      ${limit && html`<li>At most ${count(limit)} for each ${whose}.</li>`}
      <li>Item ${product.sku}</li>
    </ul>`;
}

// selectAgain selects the new quantity for whoever is in its field, so that typing replaces it.
const selectAgain = () => document.activeElement.id === "quantity" && correct("quantity");

function Buy({ product }) {
  const [picked, setPicked] = useState("");
  const [value, setValue] = useState("1");
  const [error, setError] = useState("");
  const own = ownUnits(useKept());
  const stock = choose(product, picked);
  const held = own.get(keyOf(product, stock));
  const isOut = stock.availableStock < 1;
  const most = Math.min(free(stock), product.maxPerHold ?? NO_LIMIT);
  const pick = (warehouseId) => {
    setPicked(warehouseId);
    setError("");
    rememberChoice(product, warehouseId);
  };

  function add(event) {
    event.preventDefault();
    const wrong = isOut ? "" : quantityError(value, NO_LIMIT);
    setError(wrong);
    if (wrong || (!isOut && !addToCart(product, stock, Number(value), held?.quantity))) {
      correct("quantity");
    } else if (!isOut) {
      setValue("1");
      requestAnimationFrame(selectAgain);
    }
  }

  const [other] = isOut ? others(product.inventories, stock.warehouseId) : [];
  return html`
    <form class="buy" novalidate onSubmit=${add}>
      <fieldset>
        <legend>Ship from</legend>
        ${byNearness(product.inventories).map(
          (row) => html`<${Warehouse} key=${row.warehouseId} row=${row}
          isPicked=${row === stock} hold=${own.get(keyOf(product, row))} onPick=${pick} />`,
        )}
      </fieldset>
      ${
        other
          ? html`<button type="button" onClick=${() => pick(other.warehouseId)}>
            Get it from ${other.warehouseName}</button>`
          : html`
        <div class="row">
          <${Quantity} id="quantity" label="Quantity" value=${value} most=${Math.max(1, most)}
            error=${error} onInput=${(typed) => {
              setValue(typed);
              setError("");
            }} />
          <button type="submit" aria-disabled=${isOut}>
            ${isOut ? "Sold out" : "Add to cart"}</button>
        </div>`
      }
      <p id="quantity-note" class="note" role="alert">${error}</p>
    </form>`;
}

const keyOf = (product, { warehouseId }) => lineKey({ productId: product.id, warehouseId });

function Warehouse({ row, isPicked, hold, onPick }) {
  const isOwn = hold && row.availableStock < 1; // the shopper has the last ones
  const [words, kind] = isOwn ? ["Held for you", "good"] : stockWords(row);
  return html`
    <label class=${isPicked ? "place picked" : "place"}>
      <input type="radio" name="warehouse" value=${row.warehouseId} checked=${isPicked}
        onChange=${() => onPick(row.warehouseId)} />
      <span>${row.warehouseName}</span>
      <span class=${`stand ${kind}`}>${words}</span>
    </label>
    ${
      hold &&
      html`<p class="ownnote"><a href=${`/reservation/${hold.id}`}>${plural(
        hold.quantity,
        "item",
      )} held for you</a></p>`
    }`;
}

mountHeader();
start(html`<${Page} />`);
