// The shop: the catalog with its stock, kept fresh, and a Reserve button for every row.

import { byId, element, get, poll, post, say, setText } from "./api.js";

const REFRESH = 3_000;

const list = byId("products");
const status = byId("status");
const more = byId("more");

const views = new Map(); // product id -> what shows it
let pages = 1; // how many the customer asked to see
let leaving = false; // a reservation is made, and its page is loading

const refresh = poll(load);

more.addEventListener("click", () => {
  pages++;
  refresh();
});

// The browser may bring this page back as it was left.
addEventListener("pageshow", (event) => {
  if (event.persisted) {
    leaving = false;
    list.querySelectorAll("form").forEach((form) => setBusy(form, false));
    list.querySelectorAll("form + .note").forEach((note) => say(note, ""));
    refresh();
  }
});

async function load() {
  if (views.size === 0 && !status.textContent) {
    say(status, "Loading…");
  }
  try {
    const { products, next } = await catalog(pages);
    reconcile(list, views, products, (product) => product.id, productView);
    if (!next && document.activeElement === more) {
      list.focus({ preventScroll: true }); // the button is about to go
    }
    more.hidden = !next;
    say(status, products.length === 0 ? "There is nothing for sale yet." : "");
    return REFRESH;
  } catch (error) {
    const old = views.size > 0 ? "; these numbers may be old" : "";
    say(status, `The shop can’t be reached${old}. Trying again…`, true);
    return Math.max(REFRESH, error.retryAfter || 0);
  }
}

async function catalog(count) {
  const products = [];
  let next = "/api/products";
  for (let page = 0; page < count && next; page++) {
    const answer = await get(next);
    products.push(...answer.body);
    next = answer.next;
  }
  return { products, next };
}

// reconcile makes the children of parent match items, one view each, made once and updated ever after: focus and typed
// quantities stay where they are.
function reconcile(parent, known, items, keyOf, makeView) {
  const keep = new Set(items.map(keyOf));
  for (const [key, view] of known) {
    if (!keep.has(key)) {
      view.node.remove();
      known.delete(key);
    }
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (!known.has(key)) {
      known.set(key, makeView(item));
    }
    const view = known.get(key);
    view.update(item);
    if (view.node === place) {
      place = place.nextElementSibling;
    } else {
      parent.insertBefore(view.node, place);
    }
  }
}

function productView(product) {
  const name = element("span");
  const sku = element("small");
  const heading = element("h2", { id: `product-${product.id}` }, name, " ", sku);
  const rows = element("tbody");
  const head = ["Warehouse", "Available", "Held", "Total", "Reserve"].map((text) => element("th", { scope: "col" }, text));
  const table = element("table", { "aria-labelledby": heading.id },
    element("thead", {}, element("tr", {}, ...head)), rows);
  const none = element("p", {}, "Not in stock anywhere.");
  const stock = new Map();

  return {
    node: element("section", { "aria-labelledby": heading.id }, heading, table, none),
    update(product) {
      setText(name, product.name);
      setText(sku, product.sku);
      table.hidden = product.inventories.length === 0;
      none.hidden = !table.hidden;
      reconcile(rows, stock, product.inventories, (row) => row.warehouseId, (row) => stockView(product, row));
    },
  };
}

function stockView(product, first) {
  const id = `${product.id}-${first.warehouseId}`;
  const warehouse = element("th", { scope: "row" });
  const [available, held, total] = [element("td"), element("td"), element("td")];
  const label = element("label", { for: `quantity-${id}`, class: "hidden" });
  const quantity = element("input", {
    id: `quantity-${id}`, type: "number", min: 1, step: 1, value: 1, inputmode: "numeric", autocomplete: "off",
  });
  const button = element("button", { "aria-describedby": `reason-${id}` }, "Reserve");
  const form = element("form", { novalidate: "" }, label, quantity, button);
  const note = element("p", { class: "note", role: "status", "aria-live": "polite", tabindex: -1 });
  const reason = element("p", { id: `reason-${id}`, class: "reason" });
  let latest = first;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    reserve({ product, stock: latest, form, quantity, note });
  });
  quantity.addEventListener("input", () => {
    quantity.removeAttribute("aria-invalid");
    say(note, "");
  });

  return {
    node: element("tr", {}, warehouse, available, held, total, element("td", {}, form, note, reason)),
    update(row) {
      latest = row;
      setText(warehouse, row.warehouseName);
      setText(available, row.availableStock);
      setText(held, row.reservedQuantity);
      setText(total, row.totalQuantity);
      setText(label, `Quantity of ${product.name} from ${row.warehouseName}`);
      button.setAttribute("aria-label", `Reserve ${product.name} from ${row.warehouseName}`);
      setText(reason, whyNot(row));
      const out = row.availableStock < 1;
      if (out && !button.disabled && document.activeElement === button) {
        note.focus(); // a disabled button would drop the focus
      }
      button.disabled = out;
    },
  };
}

function whyNot(row) {
  if (row.availableStock > 0) {
    return "";
  }
  return row.totalQuantity > 0 ? "None left: others hold them while they pay." : "Sold out.";
}

async function reserve({ product, stock, form, quantity, note }) {
  if (leaving || form.ariaBusy === "true") {
    return;
  }
  const wanted = quantity.valueAsNumber;
  if (!(Number.isInteger(wanted) && wanted >= 1)) {
    quantity.setAttribute("aria-invalid", "true");
    say(note, "Type a whole number, 1 or more.", true);
    quantity.focus();
    return;
  }

  setBusy(form, true);
  say(note, "Reserving…");
  try {
    const { reservation } = await post("/api/reservations", {
      productId: product.id, warehouseId: stock.warehouseId, quantity: wanted,
    });
    leaving = true;
    location.assign(`/reservation/${encodeURIComponent(reservation.id)}`);
  } catch (error) {
    setBusy(form, false);
    say(note, explain(error, stock), true);
    refresh();
  }
}

function explain(error, stock) {
  if (error.code === "INSUFFICIENT_STOCK") {
    const left = error.shortages[0]?.available ?? 0;
    return left > 0
      ? `Not reserved: ${stock.warehouseName} had only ${left} left.`
      : `Not reserved: somebody was faster, and ${stock.warehouseName} had none left.`;
  }
  if (error.code === "IDEMPOTENCY_KEY_IN_USE") {
    return "Your reservation is still being made. Press Reserve again in a moment.";
  }
  if (error.unknown) {
    return "No answer from the shop. Press Reserve again: it won’t be reserved twice.";
  }
  return error.text;
}

// setBusy leaves the button enabled, for the focus to stay on it; reserve itself ignores a second click.
function setBusy(form, busy) {
  form.ariaBusy = String(busy);
}
