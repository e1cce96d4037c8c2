// The operator's page: live holds, the outcomes of the last hour's holds, and whether expiry keeps
// up.

import { useMemo, useRef, useState } from "preact/hooks";
import { get, getPages } from "./api.js";
import { Bars, Line, Shares } from "./charts.js";
import { Clock, isRefused, useLive, useTick } from "./live.js";
import {
  Bar,
  clockTime,
  Connection,
  count,
  duration,
  Failure,
  html,
  lineKey,
  plural,
  start,
  units,
} from "./parts.js";

const PAGE = 50; // holds
const CATALOG_PAGE = 200; // products
const CATALOG_PAGES = 5; // read at first, and by each "Show more"
const LONG_CATALOG_EVERY = 5; // reads of the page; a catalog of one page is read each time
const LAG_SAMPLES = 60; // drawn values of the sweep's lag
const SCAN = 10_000; // resolved holds that the API looks through for one page
const AUDIT_LATE = 2 * 3600; // seconds: it runs every hour, and one may fail
const LATE = 90; // seconds: a minute between two sweeps, and half of one for the sweep itself

const held = [{ name: "held", title: "Held" }];
const ends = [
  { name: "confirmed", title: "Confirmed" },
  { name: "released", title: "Released" },
  { name: "expired", title: "Expired" },
];
const states = {
  PENDING: "Live",
  CONFIRMED: "Confirmed",
  RELEASED: "Released",
  EXPIRED: "Expired",
};

const clock = new Clock();

function Operations() {
  const [filter, setFilter] = useState({ status: "PENDING", productId: "", warehouseId: "" });
  const [pages, setPages] = useState(1);
  const [catalogPages, setCatalogPages] = useState(CATALOG_PAGES);
  const read = useReader(filter, pages, catalogPages);
  const live = useLive(read, [filter, pages, catalogPages]);
  // The page is drawn at each read, and a long catalog is read less often.
  const catalog = live.data?.catalog;
  const onMoreStock = () => setCatalogPages(catalogPages + CATALOG_PAGES);
  const stock = useMemo(
    () => catalog && html`<${Stock} catalog=${catalog} onMore=${onMoreStock} />`,
    [catalog],
  );

  if (!live.data && isRefused(live.error)) {
    return html`<${Refused} onRetry=${live.refresh} />`;
  }
  if (!live.data) {
    return html`<h1>Operations</h1>${live.error ? html`<${Failure} error=${live.error}
      onRetry=${live.refresh} />` : html`<${Loading} />`}`;
  }
  const { stats, holds, lags } = live.data;
  function choose(change) {
    setPages(1);
    setFilter({ ...filter, ...change });
  }
  return html`
    <h1>Operations</h1>
    <${Figures} stats=${stats} />
    <div class="charts">
      <${Bars} title="Holds per minute" minutes=${stats.minutes} series=${held} />
      <${Bars} title="How they ended" minutes=${stats.minutes} series=${ends} />
      <${Shares} title="Conversion of the hour" hour=${stats.hour} series=${ends} />
      <${Line} title="Sweep lag" values=${lags} room=${LAG_SAMPLES} least=${60} label=${seconds} />
    </div>
    <${Minutes} minutes=${stats.minutes} />
    <${Holds} holds=${holds} isCurrent=${holds.filter === filter} catalog=${catalog.items}
      filter=${filter} onFilter=${choose}
      onMore=${() => setPages(pages + 1)} />
    ${stock}
    <${Connection} error=${live.error} at=${live.at} />`;
}

// Refused is shown without the permission. A person has to grant it, so the page promises nothing.
const Refused = ({ onRetry }) => html`
  <section class="blank">
    <h1>For the operator</h1>
    <p>Holds and figures need the permission <code>inventory:read</code>,
      and this page can’t sign in. Call the API with a token that has it.</p>
    <button type="button" onClick=${onRetry}>Try again now</button>
  </section>`;

// beyond returns the known holds that lie after a page: they were on a page that isn't read again,
// or newer holds pushed them off this page.
function beyond(first, known, status) {
  const place = (hold) =>
    status === "PENDING" ? Date.parse(hold.expiresAt) : -Date.parse(hold.createdAt);
  const shown = new Set(first.map((hold) => hold.id));
  const end = first.length > 0 ? place(first.at(-1)) : -Infinity;
  return known.filter((hold) => !shown.has(hold.id) && place(hold) >= end);
}

// readHolds reads the first page again, and only those older pages that it doesn't have yet. Older
// pages stay as they were.
async function readHolds(url, filter, pages, last) {
  const first = await getPages(url, 1);
  let { items, next, read } = { ...first, read: 1 };
  if (last?.filter === filter && last.read > 1 && next) {
    items = [...items, ...beyond(items, last.items, filter.status)];
    ({ next, read } = last);
  }
  while (next && read < pages) {
    const older = await getPages(next, 1);
    items = [...items, ...beyond(items, older.items, filter.status)];
    next = older.next;
    read++;
  }
  return { items, next, read, filter };
}

// useReader returns a function that reads all data of the page once.
function useReader(filter, pages, catalogPages) {
  const looks = useRef(0);
  const catalog = useRef(null);
  const lags = useRef([]);
  const list = useRef(null);
  return async () => {
    const query = new URLSearchParams({
      limit: PAGE,
      ...Object.fromEntries(Object.entries(filter).filter(([, value]) => value)),
    });
    const sentAt = performance.now();
    const isDue =
      looks.current % LONG_CATALOG_EVERY === 0 ||
      catalog.current.items.length <= CATALOG_PAGE ||
      catalog.current.pages !== catalogPages;
    const [stats, holds, products] = await Promise.all([
      get("/api/stats"),
      readHolds(`/api/reservations?${query}`, filter, pages, list.current),
      isDue ? getPages(`/api/products?limit=${CATALOG_PAGE}`, catalogPages) : catalog.current,
    ]);
    looks.current++;
    catalog.current = isDue ? { ...products, pages: catalogPages } : products;
    list.current = holds;
    clock.learn(stats.body.serverTime, sentAt);
    lags.current = [...lags.current, stats.body.sweep.lagSeconds].slice(-LAG_SAMPLES);
    return { stats: stats.body, catalog: catalog.current, holds, lags: lags.current };
  };
}

function Figures({ stats }) {
  const { holds, stock, sweep, hour } = stats;
  const ended = hour.confirmed + hour.released + hour.expired;
  return html`
    <ul class="tiles" aria-label="Right now">
      <${Figure} title="Live holds" value=${count(holds.live)}
        note=${plural(holds.liveUnits, "unit")} />
      <${Figure} title="Stock held" value=${percent(stock.held, stock.total)}
        note=${`${count(stock.held)} of ${count(stock.total)}`} />
      <${Figure} title="Conversion" value=${percent(hour.confirmed, ended)}
        note=${`${count(hour.confirmed)} of ${count(ended)} in the hour`} />
      <${Figure} title="Sweep lag" value=${seconds(sweep.lagSeconds)}
        state=${sweep.lagSeconds > LATE ? "bad" : "good"}
        note=${`${plural(holds.dead, "dead hold")} to sweep`} />
      <${Audit} audit=${stats.audit} now=${Date.parse(stats.serverTime)} />
    </ul>`;
}

const Figure = ({ title, value, note, state }) =>
  html`<li class=${state}><h2>${title}</h2><p><b>${value}</b><small>${note}</small></p></li>`;

const percent = (part, whole) => (whole > 0 ? `${Math.round((100 * part) / whole)} %` : "–");

// seconds formats an age that is small when all is well.
const seconds = (age) => (age < 2 * LATE ? `${Math.round(age)} s` : duration(Math.round(age)));

// ago formats an age for a person.
function ago(age) {
  const [size, unit] = [
    [86_400, "d"],
    [3600, "h"],
    [60, "min"],
  ].find(([least]) => age >= least) ?? [1, "s"];
  return `${count(Math.max(0, Math.floor(age / size)))} ${unit} ago`;
}

// moment formats a time of day, with the date unless it is today.
function moment(time) {
  const date = new Date(time);
  const isToday = date.toDateString() === new Date(clock.now()).toDateString();
  if (isToday) {
    return clockTime(date);
  }
  const day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
  return `${day}, ${clockTime(date)}`;
}

function Audit({ audit, now }) {
  if (!audit) {
    return html`<${Figure} title="Audit" value="–" note="none has run yet" />`;
  }
  const age = (now - Date.parse(audit.at)) / 1000;
  const isOld = age > AUDIT_LATE;
  const when = `${ago(age)}${isOld ? ", overdue" : ""}${audit.unfinished ? ", unfinished" : ""}`;
  if (audit.violations > 0) {
    return html`<${Figure} title="Audit" value=${plural(audit.violations, "violation")} note=${when}
      state="bad" />`;
  }
  if (audit.unfinished) {
    return html`<${Figure} title="Audit" value="Unfinished" note=${when}
      state=${isOld ? "bad" : undefined} />`;
  }
  return html`<${Figure} title="Audit" value="No violations" note=${when}
    state=${isOld ? "bad" : "good"} />`;
}

const columns = [...held, ...ends];

const Head = ({ titles }) =>
  html`<thead><tr>${titles.map((title) => html`<th scope="col">${title}</th>`)}</tr></thead>`;

const Minutes = ({ minutes }) => html`
  <details>
    <summary>The last hour as a table</summary>
    <div class="scroll" tabindex="0" role="region" aria-label="The last hour, minute by minute">
      <table>
        <${Head} titles=${["Minute", ...columns.map(({ title }) => title)]} />
        <tbody>${minutes.toReversed().map(
          (minute) => html`
          <tr key=${minute.at}>
            <th scope="row">${clockTime(new Date(minute.at)).slice(0, 5)}</th>
            ${columns.map(({ name }) => html`<td>${count(minute[name])}</td>`)}
          </tr>`,
        )}
        </tbody>
      </table>
    </div>
  </details>`;

function Holds({ holds, catalog, filter, onFilter, onMore, isCurrent }) {
  const warehouses = new Map(
    catalog.flatMap((p) => p.inventories.map((stock) => [stock.warehouseId, stock.warehouseName])),
  );
  const names = new Map(catalog.map((p) => [p.id, p.name]));
  const first = holds.next && holds.items.length > 0 ? "The first " : "";
  const found = `${first}${plural(holds.items.length, "hold")}`;
  const order = filter.status === "PENDING" ? "the next to end" : "the newest";
  const pick = (name, label, options, all) => html`
    <label>${label}
      <select value=${filter[name]} onChange=${(event) => onFilter({ [name]: event.target.value })}>
        <option value="">${all}</option>
        ${[...options].map(([value, text]) => html`<option key=${value} value=${value}>${text}
          </option>`)}
      </select>
    </label>`;
  return html`
    <section aria-labelledby="holds">
      <h2 id="holds">Holds</h2>
      <form class="filters" onSubmit=${(event) => event.preventDefault()}>
        ${pick("status", "Status", Object.entries(states), "All")}
        ${pick("productId", "Product", names, "All products")}
        ${pick("warehouseId", "Warehouse", warehouses, "All warehouses")}
      </form>
      <p role="status" class="muted">
        ${isCurrent ? `${found}, ${order} first` : "Loading…"}</p>
      ${
        holds.items.length === 0
          ? html`<${None} holds=${holds} />`
          : html`
        <div class="scroll" tabindex="0" role="region" aria-label="List of holds">
          <table class="holds">
            <${Head} titles=${["Status", "Items", "Time left", "Held at", "Hold"]} />
            <tbody>${holds.items.map((hold) => html`<${Hold} key=${hold.id} hold=${hold}
              names=${names} warehouses=${warehouses} />`)}</tbody>
          </table>
        </div>`
      }
      ${holds.next && html`<p class="more"><button type="button" class="secondary"
        onClick=${onMore}>${holds.items.length > 0 ? "Show more" : "Look further"}</button></p>`}
    </section>`;
}

// None tells an empty list from one that wasn't searched to its end.
function None({ holds: { next, read } }) {
  const looked = count(SCAN * read);
  return html`<p class="nothing">${
    next ? `None among the newest ${looked} searched.` : "No holds match."
  }</p>`;
}

function Hold({ hold, names, warehouses }) {
  const status = hold.expired ? "EXPIRED" : hold.status;
  const what = hold.items.map(
    ({ quantity, productId, warehouseId }) =>
      `${count(quantity)} × ${names.get(productId) ?? `product ${productId}`}, ` +
      `${warehouses.get(warehouseId) ?? `warehouse ${warehouseId}`}`,
  );
  return html`
    <tr>
      <td><span class=${`status ${status.toLowerCase()}`}>${states[status]}</span></td>
      <td><ul>${what.map((line) => html`<li>${line}</li>`)}</ul></td>
      <td>${status === "PENDING" ? html`<${Left} hold=${hold} />` : "–"}</td>
      <td>${moment(hold.createdAt)}</td>
      <td><a href=${`/reservation/${hold.id}`}><code>${hold.id.slice(-12)}</code></a></td>
    </tr>`;
}

// Left counts down between two reads, by the server's clock.
function Left({ hold }) {
  useTick(1000, true);
  const end = Date.parse(hold.expiresAt);
  const left = Math.max(0, Math.ceil((end - clock.now()) / 1000));
  const whole = Math.max(1, Math.round((end - Date.parse(hold.updatedAt)) / 1000));
  return html`<span class="left"><b>${duration(left)}</b><${Bar} held=${Math.min(left, whole)}
    total=${whole} /></span>`;
}

// isLimited is true if the catalog hides the totals.
const isLimited = (items) =>
  items.some((product) => product.inventories.some((stock) => stock.totalQuantity === null));

// Share is the held share of a stock row, as a figure and a bar.
const Share = ({ stock: { reservedQuantity, totalQuantity } }) =>
  totalQuantity === null
    ? "–"
    : html`
      <span class="left">
        <b>${percent(reservedQuantity, totalQuantity)}</b><${Bar} held=${reservedQuantity}
          total=${totalQuantity} />
      </span>`;

// exact formats a figure that the catalog may hide.
const exact = (number) => (number === null ? "–" : count(number));

const Stock = ({ catalog: { items, next }, onMore }) => html`
  <section aria-labelledby="stock">
    <h2 id="stock">Stock and the share on hold</h2>
    ${next && html`<p class="muted">The first ${plural(items.length, "product")}, by name. Holds of
      the others show the product’s id.</p>`}
    ${
      isLimited(items) &&
      html`<p class="muted">The catalog shows shoppers, and this page, only how many units are
      available, up to a limit (<code>STOCK_SHOWN</code>). The exact figures need the permission
      <code>inventory:read</code>.</p>`
    }
    ${
      items.length === 0
        ? html`<p class="nothing">There is no stock.</p>`
        : html`
      <div class="scroll" tabindex="0" role="region" aria-label="Stock by product and warehouse">
        <table>
          <${Head} titles=${["Product", "Warehouse", "Held share", "Held", "Available", "Total"]} />
          <tbody>${items.flatMap((product) =>
            product.inventories.map(
              (stock) => html`
            <tr key=${lineKey({ productId: product.id, ...stock })}>
              <th scope="row">${product.name}</th><td>${stock.warehouseName}</td>
              <td><${Share} stock=${stock} /></td>
              <td>${exact(stock.reservedQuantity)}</td><td>${units(stock)}</td><td>
                ${exact(stock.totalQuantity)}</td>
            </tr>`,
            ),
          )}
          </tbody>
        </table>
      </div>`
    }
    ${next && html`<p class="more"><button type="button" class="secondary"
      onClick=${onMore}>Show more products</button></p>`}
  </section>`;

const Loading = () => html`
  <div role="status"><span class="unseen">Loading the figures…</span>
    <ul class="tiles waiting" aria-hidden="true">
      ${[0, 1, 2, 3, 4].map(() => html`<li><span class="words" /><span class="words" /></li>`)}
    </ul>
  </div>`;

start(html`<${Operations} />`);
