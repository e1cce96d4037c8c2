// The shop: the search, and a page of products as cards.

import { useEffect, useRef, useState } from "preact/hooks";
import { getPages } from "./api.js";
import { mountHeader } from "./header.js";
import { setTitle } from "./held.js";
import { ownUnits, useKept } from "./kept.js";
import { useStock } from "./live-stock.js";
import { money, priceOf, usePrices } from "./money.js";
import { announce, Connection, count, Failure, html, lineKey, plural, start } from "./parts.js";
import { addToCart, byNearness, choose, others, rememberChoice, stockWords } from "./where.js";

// PAGE is how many products a page shows. shop.html asks for the first page under the same address.
const PAGE = 24;

const MAX_QUERY = 100; // characters of a search, as the field and the API take

const TYPING = 250; // ms without a key until the search is sent

// The drawings are no part of what makes the page usable. They come last, into boxes of their size.
const drawings = import("./illustration.js");

// useDrawing returns the component that draws a product, once it is there.
function useDrawing() {
  const [drawing, setDrawing] = useState(null);
  useEffect(() => {
    drawings.then(
      ({ Illustration }) => setDrawing(() => Illustration),
      () => {}, // the names say enough
    );
  }, []);
  return drawing;
}

// FIRST is the place of the first page, of all products.
const FIRST = { q: "", after: "", page: 1 };

// An address of the shop has the search, the number of its page, and the cursor of that page.
const read = () => {
  const query = new URLSearchParams(location.search);
  const after = query.get("after") ?? "";
  const page = after ? Math.max(2, Number.parseInt(query.get("page"), 10) || 2) : 1;
  return { q: (query.get("q") ?? "").trim().slice(0, MAX_QUERY), after, page };
};

const addressOf = ({ q, after, page }) => addressWith("/", { q, page: after && page, after });

const listOf = ({ q, after }) => addressWith("/api/products", { limit: PAGE, q, cursor: after });

// addressWith is a path with those fields that have a value.
function addressWith(path, fields) {
  const query = new URLSearchParams(Object.entries(fields).filter(([, value]) => value));
  return query.size > 0 ? `${path}?${query}` : path;
}

// MOST_BEFORE is of how many pages before the shown one the cursors are kept, the nearest ones.
const MOST_BEFORE = 100;

// before returns the cursors of the pages before the shown one, as far as the shopper came by. They
// lie in the browser's history, as the API knows no cursor of a page before.
const before = () => history.state?.before ?? [];

// MOST_READS bounds the answers that make a page. The API looks at so many products at most for a
// search, and may answer with few or none while there are more.
const MOST_READS = 4;

// readPage reads the products of an address. The list says which one it is of, as the answer to an
// earlier search may come after the shopper has typed on.
async function readPage(url) {
  let list = await getPages(url, 1);
  for (let reads = 2; list.next && list.items.length < PAGE && reads <= MOST_READS; reads++) {
    list = await getPages(url, reads);
  }
  return Object.assign(list, { url });
}

// usePlace returns the place in the catalog that the address names, and go, which changes it. A
// page's change is a step of the browser's history, and so is the first letter of a search.
function usePlace() {
  const [place, setPlace] = useState(read);
  useEffect(() => {
    const back = () => {
      setPlace(read());
      document.getElementById("q").value = read().q;
    };
    addEventListener("popstate", back);
    return () => removeEventListener("popstate", back);
  }, []);
  function go(next, isStep = true, cursors = []) {
    const state = { before: cursors.slice(-MOST_BEFORE) };
    history[isStep ? "pushState" : "replaceState"](state, "", addressOf(next));
    const field = document.getElementById("q");
    if (field.value.trim() !== next.q) {
      field.value = next.q; // unless the shopper is typing it
    }
    setPlace(next);
  }
  return [place, go];
}

// useSearch reads the field of the header.
function useSearch(place, go) {
  const latest = useRef();
  latest.current = { place, go };
  useEffect(() => {
    const field = document.getElementById("q");
    field.value = place.q;
    let timer;
    const search = () => {
      clearTimeout(timer);
      const now = latest.current;
      const q = field.value.trim();
      if (q !== now.place.q) {
        now.go({ ...FIRST, q }, now.place.q === "");
      }
    };
    const type = () => {
      clearTimeout(timer);
      timer = setTimeout(search, TYPING);
    };
    const submit = (event) => {
      event.preventDefault();
      search();
    };
    field.addEventListener("input", type);
    field.form.addEventListener("submit", submit);
    return () => {
      clearTimeout(timer);
      field.removeEventListener("input", type);
      field.form.removeEventListener("submit", submit);
    };
  }, []);
}

function Shop() {
  const [place, go] = usePlace();
  useSearch(place, go);
  const url = listOf(place);
  const catalog = useStock(() => readPage(url), [url]);
  const isCurrent = catalog.data?.url === url;
  const { q } = place;
  useEffect(() => setTitle(q ? `“${q}” · Allo` : "Shop · Allo"), [q]);
  const found = isCurrent ? catalog.data.items.length : null;
  const isFirst = useRef(true);
  useEffect(() => {
    if (found !== null && !isFirst.current) {
      announce(q ? `${plural(found, "product")} for ${q}.` : plural(found, "product"));
    }
    isFirst.current &&= found === null;
  }, [url, found]);

  // A cursor of another time or another search is refused. The first page is always there.
  const isBadCursor = place.after !== "" && catalog.error?.status === 400;
  useEffect(() => {
    if (isBadCursor) {
      go({ ...FIRST, q }, false);
    }
  }, [isBadCursor]);

  return html`
    <${Intro} place=${place} found=${catalog.data?.next ? null : found} />
    <${Products} catalog=${catalog} q=${q} isCurrent=${isCurrent}
      onAll=${() => go(FIRST)} />
    ${isCurrent && html`<${Pages} place=${place} next=${catalog.data.next} go=${go} />`}
    <${Connection} error=${catalog.data && catalog.error} at=${catalog.at} />`;
}

// Intro has the way to the flash sale on the demo. Until that is known, only its room is there.
// found is how many products there are in all, or null.
function Intro({ place: { q, page }, found }) {
  const isDemo = usePrices();
  const number = found === null ? "" : plural(found, "product");
  if (q || page > 1) {
    return html`
      <div class="intro">
        <h1 id="heading" tabindex="-1">${q ? `Results for “${q}”` : "All products"}</h1>
        <p>${page > 1 ? `Page ${count(page)}` : number}
          ${q && html` <a href="/">Show all products</a>`}</p>
      </div>`;
  }
  return html`
    <div class="intro">
      <h1 id="heading" tabindex="-1">We hold it while you pay.</h1>
      <p>Pick what you like and check out. Nobody else can take it while you pay.
        ${" "}<a class=${isDemo ? "" : "hushed"} href="/sale">Watch a flash sale</a></p>
    </div>`;
}

// Pages has the ways to the next page, to the one before where it is known, and to the first.
function Pages({ place, next, go }) {
  const cursor = next && new URLSearchParams(next.split("?")[1]).get("cursor");
  const { page } = place;
  const link = (text, target, cursors) => {
    const move = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) {
        return; // in a tab of its own
      }
      event.preventDefault();
      go(target, true, cursors);
      scrollTo(0, 0);
      document.getElementById("heading").focus();
    };
    return html`
      <a role="button" class="secondary" href=${addressOf(target)} onClick=${move}>${text}</a>`;
  };
  if (!cursor && page === 1) {
    return null;
  }
  const first = { ...place, after: "", page: 1 };
  const cursors = before();
  const previous = { ...place, after: cursors.at(-1), page: page - 1 };
  const following = { ...place, after: cursor, page: page + 1 };
  return html`
    <nav class="pages" aria-label="Pages of products">
      ${page > 2 && link("First page", first)}
      ${page === 2 && link("Previous page", first)}
      ${page > 2 && cursors.at(-1) && link("Previous page", previous, cursors.slice(0, -1))}
      ${cursor && link("Next page", following, page > 1 ? [...cursors, place.after] : [])}
    </nav>`;
}

function Products({ catalog, q, isCurrent, onAll }) {
  const holds = useKept();
  const hasPrices = usePrices();
  const Drawing = useDrawing();
  if (!catalog.data) {
    return catalog.error
      ? html`<${Failure} error=${catalog.error} onRetry=${catalog.refresh} />`
      : html`<${Loading} />`;
  }
  if (isCurrent && catalog.data.items.length === 0) {
    return html`<${Nothing} q=${q} onAll=${onAll} />`;
  }
  const own = ownUnits(holds);
  return html`
    <ul class=${isCurrent ? "cards" : "cards old"} aria-busy=${!isCurrent}>
      ${catalog.data.items.map((product) => html`<${Card} key=${product.id} product=${product}
        own=${own} hasPrices=${hasPrices} Drawing=${Drawing} />`)}
    </ul>`;
}

function Nothing({ q, onAll }) {
  if (q) {
    return html`
      <section class="blank">
        <svg class="picture" viewBox="0 0 64 48" aria-hidden="true">
          <circle cx="28" cy="20" r="14" /><path d="M38 30l14 14" /></svg>
        <h2>Nothing found</h2>
        <p>No product has “${q}” in its name. Try another word.</p>
        <button type="button" onClick=${onAll}>Show all products</button>
      </section>`;
  }
  return html`
    <section class="blank">
      <svg class="picture" viewBox="0 0 64 48" aria-hidden="true">
        <path d="M8 16l24-10 24 10v20L32 46 8 36zM8 16l24 10 24-10M32 26v20" /></svg>
      <h2>The shelves are empty</h2>
      <p>There is nothing for sale yet. New products show up here by themselves.</p>
    </section>`;
}

// Loading has the size of the cards that will come.
const Loading = () => html`
  <div role="status"><span class="unseen">Loading the products…</span>
    <ul class="cards" aria-hidden="true">${Array.from(
      { length: 8 },
      () => html`
      <li class="card waiting"><div class="pic" /><p class="words" /><p class="words" /></li>`,
    )}
    </ul>
  </div>`;

// Card is a product with one button. The warehouse is chosen already, and can be changed.
function Card({ product, own, hasPrices, Drawing }) {
  const [picked, setPicked] = useState("");
  const stock = choose(product, picked);
  const name = `product-${product.id}`;
  const hold = product.inventories
    .map((row) => own.get(keyOf(product, row)))
    .find((units) => units);
  const pick = (warehouseId) => {
    setPicked(warehouseId);
    rememberChoice(product, warehouseId);
  };
  return html`
    <li class="card">
      <article aria-labelledby=${name}>
        <a class="pic" href=${`/product/${product.id}`} tabindex="-1" aria-hidden="true">
          ${Drawing && html`<${Drawing} product=${product} />`}</a>
        ${hold && html`<a class="badge own" href=${`/reservation/${hold.id}`}>Held for you</a>`}
        <h2 id=${name}><a href=${`/product/${product.id}`}>${product.name}</a></h2>
        <p class="price">${hasPrices && money(priceOf(product.sku))}</p>
        ${
          stock
            ? html`<${Choice} product=${product} stock=${stock} own=${own} onPick=${pick} />`
            : html`<p class="stand none">Sold out</p>`
        }
      </article>
    </li>`;
}

const keyOf = (product, { warehouseId }) => lineKey({ productId: product.id, warehouseId });

const isEmpty = ({ availableStock }) => availableStock < 1;

// Choice has a card's warehouse, how its stock stands, and the button.
function Choice({ product, stock, own, onPick }) {
  const rows = byNearness(product.inventories);
  const [words, kind] = stockWords(stock);
  const held = own.get(keyOf(product, stock))?.quantity ?? 0;
  const isOut = isEmpty(stock);
  const isNone = rows.every(isEmpty); // the status says it then
  const [other] = isOut ? others(rows, stock.warehouseId) : [];
  const status = `status-${product.id}`;
  return html`
    <p id=${status} class=${`stand ${isOut && held ? "good" : kind}`}>
      ${isOut && held ? "You hold the last one" : words}</p>
    <label class="ships">
      <select aria-label=${`Warehouse for ${product.name}`} value=${stock.warehouseId}
        onChange=${(event) => onPick(event.target.value)}>
        ${rows.map(
          (row) => html`<option key=${row.warehouseId} value=${row.warehouseId}
            selected=${row.warehouseId === stock.warehouseId}>
            From ${row.warehouseName}${isEmpty(row) && !isNone ? " · sold out" : ""}</option>`,
        )}
      </select>
    </label>
    <${Button} product=${product} stock=${stock} other=${other} held=${held} isOut=${isOut}
      status=${status} onPick=${onPick} />`;
}

// Button adds the product. Where the chosen warehouse has none, it leads to one that has.
function Button({ product, stock, other, held, isOut, status, onPick }) {
  if (other) {
    return html`
      <button type="button" class="secondary" aria-describedby=${status}
        aria-label=${`Get it from ${other.warehouseName}: ${product.name}`}
        onClick=${() => onPick(other.warehouseId)}>Get it from ${other.warehouseName}</button>`;
  }
  return html`
    <button type="button" aria-disabled=${isOut} aria-describedby=${status}
      aria-label=${`${isOut ? "Sold out" : "Add to cart"}: ${product.name}`}
      onClick=${() => isOut || addToCart(product, stock, 1, held)}>
      ${isOut ? "Sold out" : "Add to cart"}</button>`;
}

mountHeader();
start(html`<${Shop} />`);
