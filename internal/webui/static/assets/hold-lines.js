// The lines of a hold: pictures, names, warehouses and the demo's prices.

import { useEffect, useState } from "preact/hooks";
import { get } from "./api.js";
import { keptHold } from "./kept.js";
import { money, priceOf, totalOf } from "./money.js";
import { count, html, lineKey } from "./parts.js";

const AGAIN = 5_000; // ms until the next attempt to read the products

// useLines returns the lines of a hold with their names:
//
//   {productId, warehouseId, quantity, productName, warehouseName, sku, isGone}
//
// A hold of this browser has the names. For any other they come from the catalog, and are undefined
// until then. isGone is true for a line that isn't for sale any more.
export function useLines(hold) {
  const [products, setProducts] = useState(new Map());
  const known = new Map((keptHold(hold.id)?.items ?? []).map((item) => [lineKey(item), item]));
  const isKnown = ({ sku, productName, warehouseName } = {}) => sku && productName && warehouseName;
  const missing = hold.items.filter((item) => !isKnown(known.get(lineKey(item))));
  const wanted = [...new Set(missing.map((item) => item.productId))].join(" ");
  useEffect(() => {
    let timer, isOver;
    const ask = async () => {
      try {
        const found = await Promise.all(wanted.split(" ").map(readProduct));
        if (!isOver) {
          setProducts(new Map(found));
        }
      } catch {
        timer = setTimeout(ask, AGAIN);
      }
    };
    if (wanted) {
      ask();
    }
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [wanted]);
  return hold.items.map((item) => {
    const kept = known.get(lineKey(item));
    return isKnown(kept) ? { ...kept, ...item } : named(item, products.get(item.productId));
  });
}

// readProduct returns a product's id, and the product or null if it isn't for sale.
async function readProduct(id) {
  try {
    return [id, (await get(`/api/products/${id}`)).body];
  } catch (error) {
    if (error.status === 404) {
      return [id, null];
    }
    throw error;
  }
}

function named(item, product) {
  if (product === undefined) {
    return item;
  }
  const stock = product?.inventories.find(({ warehouseId }) => warehouseId === item.warehouseId);
  return {
    ...item,
    productName: product?.name ?? "A product that isn’t sold any more",
    warehouseName: stock?.warehouseName ?? "A warehouse that is closed",
    sku: product?.sku,
    isGone: !stock,
  };
}

// priceText returns what the lines of the demo cost, or "" as long as that isn't known.
export const priceText = (lines) =>
  lines.every(({ sku }) => sku) ? money(totalOf(lines)) : "";

// Summary is the order's card: its lines and, on the demo, what it costs. There is room for a price
// that isn't known yet. isOver means that the items aren't held any more: there is no total.
export function Summary({ lines, isDemo, isOver, isOwn }) {
  const hasPrices = isDemo && !lines.some(({ isGone }) => isGone);
  const title = isOwn ? (isOver ? "What you had" : "Your items") : "Items";
  return html`
    <section class="summary" aria-labelledby="summary-title">
      <h2 id="summary-title">${title}</h2>
      <ul class="items">${lines.map((line) => html`<${Item} key=${lineKey(line)} line=${line}
        hasPrices=${hasPrices} />`)}</ul>
      ${
        hasPrices &&
        !isOver &&
        html`<p class="total"><span>Total</span> <b>${priceText(lines) || "…"}</b></p>`
      }
    </section>`;
}

// The drawings come after the first view: it has to be small, and they have their room already.
let Drawing = null;

// useDrawing returns the component that draws a product, or null until it is there.
function useDrawing() {
  const [, setLoaded] = useState(Drawing !== null);
  useEffect(() => {
    import("./illustration.js").then(
      ({ Illustration }) => {
        Drawing = Illustration;
        setLoaded(true);
      },
      () => {}, // the names say enough
    );
  }, []);
  return Drawing;
}

function Item({ line, hasPrices }) {
  const Picture = useDrawing();
  const { productId, quantity, sku, productName = "…", warehouseName = "…" } = line;
  return html`
    <li>
      <span class="thumb">${
        Picture && sku && html`<${Picture} product=${{ id: productId, sku }} />`
      }</span>
      <p>
        <b><span class="times">${count(quantity)} ×</span> ${productName}</b><br />
        <small>From ${warehouseName}</small>
      </p>
      ${
        hasPrices &&
        html`<span class="price">${sku ? money(priceOf(sku) * quantity) : "…"}</span>`
      }
    </li>`;
}
