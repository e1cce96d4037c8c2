// The names of products and warehouses, which the lists of holds and movements have by id alone,
// and the field that finds a product.

import { useEffect, useRef, useState } from "preact/hooks";
import { get, getPages } from "./api.js";
import { html } from "./parts.js";

// AT_ONCE is how many products are read at the same time. A page of holds may name fifty.
const AT_ONCE = 6;

// ROWS is the most stock rows that are read for the names of a product.
const ROWS = 100;

// MAX_NAMES bounds the products that are remembered: when there are more, all are forgotten.
const MAX_NAMES = 5_000;

// MAX_WAREHOUSES bounds the pages of warehouses that are read, of 200 each.
const MAX_WAREHOUSE_PAGES = 5;

// AGAIN is the pause in ms before names are read again that couldn't be read.
const AGAIN = 5_000;

// What is known: products by id ({name, sku, status}), and warehouses by id ({name, code}).
const products = new Map();
const warehouses = new Map();
let reading = null;

// readWarehouses reads the open warehouses once: [{id, code, name}], ordered by name.
function readWarehouses() {
  reading ??= getPages("/api/warehouses?limit=200", MAX_WAREHOUSE_PAGES).then(
    ({ items }) => {
      for (const { id, code, name } of items) {
        warehouses.set(id, { code, name });
      }
      return items;
    },
    (error) => {
      reading = null;
      throw error;
    },
  );
  return reading;
}

// forgetWarehouses makes the next reader read the warehouses again: one was opened or closed.
export function forgetWarehouses() {
  reading = null;
}

// learn remembers the names that the stock rows have. A closed warehouse has its code alone.
export function learn(rows) {
  if (products.size > MAX_NAMES) {
    products.clear();
  }
  for (const { productId, name, sku, status, warehouseId, warehouseCode } of rows) {
    products.set(productId, { name, sku, status });
    if (!warehouses.has(warehouseId)) {
      warehouses.set(warehouseId, { code: warehouseCode, name: warehouseCode });
    }
  }
}

async function readProduct(id) {
  const { body } = await get(`/api/stock?productId=${encodeURIComponent(id)}&limit=${ROWS}`);
  learn(body);
}

// readNames reads the names of some lines. A name that nothing has becomes the end of the id.
async function readNames(lines) {
  await readWarehouses();
  const wanted = [...new Set(lines.filter((line) => !isKnown(line)).map((one) => one.productId))];
  const worker = async () => {
    for (let id = wanted.pop(); id; id = wanted.pop()) {
      await readProduct(id);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  for (const { productId, warehouseId } of lines) {
    if (!products.has(productId)) {
      products.set(productId, { name: `Product ${productId.slice(-8)}`, sku: "", status: "" });
    }
    if (warehouseId && !warehouses.has(warehouseId)) {
      const end = warehouseId.slice(-8);
      warehouses.set(warehouseId, { code: end, name: `Warehouse ${end}` });
    }
  }
}

// nameOf returns the names of a line's product and warehouse. Until they are known, they are "…".
export const nameOf = ({ productId, warehouseId }) => ({
  product: products.get(productId)?.name ?? "…",
  warehouse: warehouses.get(warehouseId)?.name ?? "…",
});

// named returns lines with their names.
export const named = (lines) => lines.map((line) => ({ ...line, ...nameOf(line) }));

// isKnown is true for a line whose names are known. A line may have no warehouse.
const isKnown = ({ productId, warehouseId }) =>
  products.has(productId) && (!warehouseId || warehouses.has(warehouseId));

// useNames reads the names of some lines, and draws again when they are known.
export function useNames(lines) {
  const [tries, draw] = useState(0);
  const missing = lines.filter((line) => !isKnown(line));
  const key = missing.map((line) => `${line.productId} ${line.warehouseId}`).join();
  useEffect(() => {
    if (missing.length === 0) {
      return undefined;
    }
    let timer;
    let isGone = false;
    const again = () => !isGone && draw((n) => n + 1);
    readNames(missing).then(again, () => {
      timer = setTimeout(again, AGAIN);
    });
    return () => {
      isGone = true;
      clearTimeout(timer);
    };
  }, [key, tries]);
}

// useWarehouses returns the open warehouses, or none until they are read.
export function useWarehouses() {
  const [list, setList] = useState([]);
  useEffect(() => {
    let isGone = false;
    readWarehouses().then(
      (items) => isGone || setList(items),
      () => {}, // the list of a filter stays short; what needs a warehouse says that it has none
    );
    return () => {
      isGone = true;
    };
  }, []);
  return list;
}

// The bounds of the search for a product.
const FOUND = 8; // products that the list offers
const MAX_PAGES = 4; // read for them: a page of a search may be short
const PAUSE = 200; // ms without a key before it searches
const MAX_QUERY = 100; // characters, as the API takes

// FindProduct is a field that finds a product by words of its name or SKU, with the list of those
// that match (the combobox pattern of ARIA). onPick gets {id, name, sku}.
export function FindProduct({ id, label, placeholder, error, onPick }) {
  const [text, setText] = useState("");
  const { found, note } = useProducts(text);
  const [at, setAt] = useState(0);
  const [isOpen, setOpen] = useState(false);
  const field = useRef();
  const shown = isOpen ? found : [];
  const active = Math.min(at, shown.length - 1);

  function pick(product) {
    setText("");
    setOpen(false);
    field.current.focus();
    const { id: productId, name, sku } = product;
    products.set(productId, { name, sku, status: "ACTIVE" });
    onPick({ id: productId, name, sku });
  }
  function onKeyDown(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by && shown.length > 0) {
      event.preventDefault();
      setAt((active + by + shown.length) % shown.length);
    } else if (event.key === "Enter" && text.trim()) {
      event.preventDefault(); // the form around it isn't sent, also while the search runs
      if (shown.length > 0) {
        pick(shown[active]);
      }
    } else if (event.key === "Escape" && isOpen && text) {
      event.preventDefault(); // the list closes, and not the dialog around it
      event.stopPropagation();
      setOpen(false);
    }
  }
  return html`
    <div class="find-product">
      <label for=${id}>${label}</label>
      <input id=${id} ref=${field} type="text" role="combobox" autocomplete="off"
        spellcheck="false" maxlength=${MAX_QUERY} placeholder=${placeholder} value=${text}
        aria-autocomplete="list" aria-expanded=${shown.length > 0} aria-controls=${`${id}-list`}
        aria-activedescendant=${shown.length > 0 ? `${id}-${active}` : undefined}
        aria-invalid=${error ? "true" : undefined} aria-describedby=${`${id}-note`}
        onKeyDown=${onKeyDown} onBlur=${() => setOpen(false)}
        onInput=${(event) => {
          setText(event.target.value);
          setAt(0);
          setOpen(true);
        }} />
      <ul id=${`${id}-list`} role="listbox" aria-label=${label} hidden=${shown.length === 0}>
        ${shown.map(
          (product, i) => html`
          <li key=${product.id} id=${`${id}-${i}`} role="option" aria-selected=${i === active}
            onMouseDown=${(event) => event.preventDefault()} onClick=${() => pick(product)}>
            <span>${product.name}</span> <small>${product.sku}</small></li>`,
        )}
      </ul>
      <p id=${`${id}-note`} class="muted" role="status">${error || (text.trim() ? note : "")}</p>
    </div>`;
}

async function readFound(words) {
  let next = `/api/products?${new URLSearchParams({ q: words, limit: FOUND })}`;
  const found = [];
  for (let page = 0; page < MAX_PAGES && next && found.length < FOUND; page++) {
    const answer = await get(next);
    found.push(...answer.body);
    next = answer.next;
  }
  return found.slice(0, FOUND);
}

// useProducts searches products: {found, note}.
function useProducts(text) {
  const [state, setState] = useState({ found: [], note: "" });
  const words = text.trim();
  useEffect(() => {
    if (!words) {
      setState({ found: [], note: "" });
      return undefined;
    }
    let isGone = false;
    const timer = setTimeout(async () => {
      let next;
      try {
        const found = await readFound(words);
        next = { found, note: found.length === 0 ? "No product matches." : "" };
      } catch (error) {
        next = { found: [], note: error.isUnknown ? "The search got no answer." : error.text };
      }
      if (!isGone) {
        setState(next);
      }
    }, PAUSE);
    return () => {
      isGone = true;
      clearTimeout(timer);
    };
  }, [words]);
  return state;
}
