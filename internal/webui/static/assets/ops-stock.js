// The console's list of stock: the search, the filters and the pages, all of which are in the
// address.

import { useState } from "preact/hooks";
import { Choice, Nothing, Pager, SearchBox, Table, usePages } from "./console-parts.js";
import { learn, useWarehouses } from "./ops-names.js";
import { readList, Unread, useRead, useTotal } from "./ops-read.js";
import { Receive } from "./ops-receive.js";
import { Connection, count, html } from "./parts.js";

const LIST = "/api/stock";
const PAGE = 50; // stock rows
const EVERY = 5_000; // ms between two reads of the page

// The filters of the list, by their names in the address and in the API.
const filters = ["q", "warehouse", "availableBelow"];

export function View({ path, query, navigate, can }) {
  const place = { path, query, navigate };
  const [isReceiving, setReceiving] = useState(false);
  const [told, setTold] = useState("");
  const asked = new URLSearchParams(
    filters.filter((name) => query.get(name)).map((name) => [name, query.get(name)]),
  );
  const pages = usePages(place);
  const list = useRead(
    () => readRows(asked, pages.cursor),
    [String(asked), pages.cursor],
    EVERY,
  );
  const { total, recount } = useTotal(LIST, asked);
  function onDone(text) {
    setTold(text);
    list.refresh();
    recount();
  }
  // The button that clears the filters goes away with them, and so the search gets the focus.
  function clear() {
    navigate(path);
    document.querySelector(".search input").focus();
  }
  return html`
    <div class="head">
      <h1>Stock</h1>
      ${can("inventory:write") && html`<button type="button" onClick=${() => setReceiving(true)}>
        Receive a delivery</button>`}
    </div>
    <p class=${told ? "told good" : "told"} role="status">${told}</p>
    <${Filters} ...${place} />
    <${Rows} list=${list} pages=${pages} total=${total} onClear=${asked.size > 0 && clear} />
    ${isReceiving && html`<${Receive} onDone=${onDone} onClose=${() => setReceiving(false)} />`}`;
}

async function readRows(asked, cursor) {
  const page = await readList(LIST, asked, cursor, PAGE);
  learn(page.items);
  return page;
}

function Rows({ list, pages, total, onClear }) {
  const { data, error, isCurrent } = list;
  if (!data) {
    return html`<${Unread} of=${list} />`;
  }
  const { items, next } = data;
  return html`
    ${
      items.length > 0
        ? html`<${Table} label="Stock" columns=${columns} rows=${items} isBusy=${!isCurrent}
          keyOf=${({ productId, warehouseId }) => `${productId} ${warehouseId}`} />`
        : html`<${Nothing}>${next ? "None here. Go on to the next page." : "No stock matches."}<//>`
    }
    ${items.length === 0 && onClear && html`
      <p><button type="button" class="secondary" onClick=${onClear}>Clear filters</button></p>`}
    <${Pager} pages=${pages} size=${PAGE} shown=${items.length} total=${total}
      next=${isCurrent ? next : null} what="stock row" />
    <${Connection} error=${error} at=${list.at} />`;
}

const columns = [
  {
    name: "Product",
    isHead: true,
    cell: ({ productId, warehouseId, name, sku }) => html`
      <a href=${`/ops/stock/${productId}/${warehouseId}`}>${name}</a> <small>${sku}</small>`,
  },
  {
    name: "Warehouse",
    cell: (row) => html`<${Warehouse} row=${row} />`,
  },
  { name: "State", cell: (row) => html`<${State} row=${row} />` },
  {
    name: "Available",
    isNumber: true,
    cell: ({ availableStock }) => html`<b class=${availableStock <= 0 ? "soon" : undefined}>${
      count(availableStock)}</b>`,
  },
  { name: "Held", isNumber: true, cell: ({ reservedQuantity }) => count(reservedQuantity) },
  { name: "Total", isNumber: true, cell: ({ totalQuantity }) => count(totalQuantity) },
];

// Warehouse is the warehouse of a row by its name, or by its code if it is closed.
function Warehouse({ row }) {
  const open = useWarehouses();
  return open.find(({ id }) => id === row.warehouseId)?.name ?? row.warehouseCode;
}

// State says whether a stock row can be sold.
function State({ row }) {
  const reasons = [
    row.status !== "ACTIVE" && "Archived",
    row.warehouseStatus !== "OPEN" && "Closed",
  ].filter(Boolean);
  if (reasons.length === 0) {
    return row.availableStock > 0
      ? html`<span class="muted">On sale</span>`
      : html`<span class="status expired">Sold out</span>`;
  }
  return reasons.map((reason) => html`<span key=${reason} class="status">${reason}</span> `);
}

const bounds = ["1", "5", "10", "50"];

function Filters(place) {
  const open = useWarehouses();
  const below = place.query.get("availableBelow") ?? "";
  const warehouse = place.query.get("warehouse") ?? "";
  const known = open.map(({ code, name }) => [code, name]);
  const isOther = warehouse && !open.some(({ code }) => code === warehouse);
  const amounts = below && !bounds.includes(below) ? [...bounds, below] : bounds;
  return html`
    <div class="finder">
      <${SearchBox} label="Search" hint="Name or SKU" ...${place} />
      <${Choice} name="warehouse" label="Warehouse" ...${place}
        options=${[
          ["", "All warehouses"],
          ...known,
          ...(isOther ? [[warehouse, warehouse]] : []),
        ]} />
      <${Choice} name="availableBelow" label="Available" ...${place}
        options=${[["", "Any number"], ...amounts.map((below) => [below, belowText(below)])]} />
    </div>`;
}

const belowText = (below) => (below === "1" ? "None left" : `Fewer than ${below}`);
