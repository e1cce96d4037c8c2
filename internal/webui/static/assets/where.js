// Which warehouse a product comes from, how its stock is put into words, and the way into the cart.

import { addLine, MAX_LINES, takeBack, unitsOf } from "./cart.js";
import { shared } from "./kept.js";
import { count, lineKey, NO_LIMIT, toast } from "./parts.js";

const LOW = 3; // units: so few are said

// The longitudes in degrees of the warehouses whose place is known, by code.
const longitudes = { SF: -122.4, NY: -74, LA: -118.2 };

// MOST is the most products for which the shopper's choice is remembered, the newest ones.
const MOST = 100;

// chosen has [product id, warehouse id] of the products for which the shopper chose a warehouse.
const chosen = shared("allo-warehouses");

const choices = (stored = chosen.read()) =>
  Array.isArray(stored) ? stored.filter(Array.isArray) : [];

// here is the rough longitude of the browser, by its time zone: the sun takes four minutes for a
// degree. Summer time doesn't count.
function here(now = new Date()) {
  const offsets = [0, 6].map((month) => new Date(now.getFullYear(), month, 1).getTimezoneOffset());
  return -Math.max(...offsets) / 4;
}

const browser = here();

// distance is how many degrees a warehouse is away. One whose place is unknown is farthest.
function distance({ warehouseCode }) {
  const far = Math.abs((longitudes[warehouseCode] ?? NaN) - browser);
  return Number.isNaN(far) ? 360 : Math.min(far, 360 - far);
}

// byNearness orders stock rows: the nearest warehouse first. Warehouses of equal distance keep
// their order.
export const byNearness = (rows) => rows.toSorted((a, b) => distance(a) - distance(b));

const hasStock = ({ availableStock }) => availableStock > 0;

// choose returns the stock row that a product comes from: the one that the shopper picked on this
// page, else the one of an earlier visit if it has stock, else the nearest with stock, else the
// nearest. It is undefined for a product without stock rows.
export function choose({ id, inventories }, picked) {
  const near = byNearness(inventories);
  const earlier = choices().find(([product]) => product === id)?.[1];
  return (
    near.find(({ warehouseId }) => warehouseId === picked) ??
    near.find((row) => row.warehouseId === earlier && hasStock(row)) ??
    near.find(hasStock) ??
    near[0]
  );
}

// rememberChoice keeps the warehouse that the shopper chose for a product.
export const rememberChoice = ({ id }, warehouseId) =>
  chosen.change((stored) =>
    [[id, warehouseId], ...choices(stored).filter(([product]) => product !== id)].slice(0, MOST),
  );

// others returns the other rows that have stock, the nearest first. Those with enough units come
// before those with fewer.
export function others(rows, warehouseId, units = 1) {
  const found = byNearness(rows).filter((row) => row.warehouseId !== warehouseId && hasStock(row));
  const isEnough = (row) => free(row) >= units;
  return [...found.filter(isEnough), ...found.filter((row) => !isEnough(row))];
}

// free is the most units that a shopper may ask of a row. own are those that the cart's hold has
// already. If there may be more than are shown, the API decides.
export const free = ({ availableStock, orMore }, own = 0) =>
  orMore ? NO_LIMIT : availableStock + own;

// stockWords says how a row stands: [words, class].
export function stockWords({ availableStock, orMore }) {
  if (availableStock < 1) {
    return ["Sold out", "none"];
  }
  return availableStock > LOW || orMore
    ? ["In stock", "good"]
    : [`Only ${count(availableStock)} left`, "low"];
}

// rowsOf maps the key of each stock row of products to {product, stock}.
export function rowsOf(products) {
  const rows = new Map();
  for (const product of products) {
    for (const stock of product.inventories) {
      rows.set(lineKey({ productId: product.id, ...stock }), { product, stock });
    }
  }
  return rows;
}

// lineOf is a cart's line, without a quantity, of a product and one of its stock rows.
export const lineOf = (product, { warehouseId, warehouseName }) => ({
  productId: product.id,
  productName: product.name,
  sku: product.sku,
  warehouseId,
  warehouseName,
});

const viewCart = { label: "View cart", run: () => document.querySelector("button.cart").click() };

// addToCart adds units of a product from one of its stock rows, and says so. own are the units of
// the row that the shopper holds already. It returns whether they were added.
export function addToCart(product, stock, units, own = 0) {
  const line = lineOf(product, stock);
  const key = lineKey(line);
  const inCart = unitsOf(key);
  const most = Math.min(free(stock, own), product.maxPerHold ?? NO_LIMIT);
  if (inCart + units > most) {
    toast(tooMany(product, stock, inCart, most), viewCart);
    return false;
  }
  if (!addLine(line, units)) {
    toast(`Your cart is full at ${count(MAX_LINES)} lines. Please check out first.`, viewCart);
    return false;
  }
  const what = units === 1 ? product.name : `${count(units)} × ${product.name}`;
  toast(`Added ${what} to your cart.`, { label: "Undo", run: () => takeBack(key, units) });
  return true;
}

function tooMany({ name, maxPerHold }, { warehouseName }, inCart, most) {
  if (most === maxPerHold) {
    return `At most ${count(most)} × ${name} in one order.`;
  }
  const all = most === 1 ? "the last one" : `all ${count(most)}`;
  return inCart >= most
    ? `Your cart has ${all} from ${warehouseName} already.`
    : `${warehouseName} has only ${count(most)} left.`;
}
