// The console's list of holds: the search, the filters and the pages, all of which are in the
// address.

import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "./api.js";
import { code as shortCode, parseCode } from "./code.js";
import {
  addressWith,
  Choice,
  Nothing,
  Pager,
  Table,
  useNow,
  usePages,
  When,
} from "./console-parts.js";
import { FindProduct, named, nameOf, useNames, useWarehouses } from "./ops-names.js";
import { readList, Unread, useRead, useTotal } from "./ops-read.js";
import {
  isId,
  lineText,
  moment,
  statuses,
  statusOf,
  statusWord,
  timeSpan,
  unitsOf,
} from "./ops-words.js";
import { Connection, count, html, plural } from "./parts.js";

const LIST = "/api/reservations";
const PAGE = 50; // holds
const EVERY = 5_000; // ms between two reads of the page
const LINES = 3; // of a hold that the list names; the hold's own page names all of them
const MAX_FIND = 200; // characters: a reference and an owner have at most 100

// The filters of the list, by their names in the address and in the API.
const filters = ["status", "productId", "warehouseId", "reference", "owner", "updatedSince"];

// askedOf is what the API is asked for an address. Without a status the live holds are listed, and
// with ANY all holds are.
function askedOf(query) {
  const asked = new URLSearchParams();
  for (const name of filters) {
    const value = query.get(name) || (name === "status" ? "PENDING" : "");
    if (value && value !== "ANY") {
      asked.set(name, value);
    }
  }
  return asked;
}

export function View({ path, query, navigate }) {
  const place = { path, query, navigate };
  const wanted = query.get("find") ?? "";
  useKeptFocus(String(query));
  return html`
    <h1 tabindex="-1">Holds</h1>
    <${Find} wanted=${wanted} path=${path} navigate=${navigate} />
    ${
      wanted
        ? html`<${Found} wanted=${wanted} path=${path} navigate=${navigate} />`
        : html`<${List} ...${place} />`
    }`;
}

// useKeptFocus puts the focus at the heading when the link or the button that had it is gone with
// the address that it changed.
function useKeptFocus(address) {
  const isFirst = useRef(true);
  useEffect(() => {
    if (!isFirst.current && document.activeElement === document.body) {
      document.querySelector("h1").focus();
    }
    isFirst.current = false;
  }, [address]);
}

// ---- The search

function Find({ wanted, path, navigate }) {
  const [text, setText] = useState(wanted);
  useEffect(() => setText(wanted), [wanted]);
  function onSubmit(event) {
    event.preventDefault();
    navigate(addressWith(path, new URLSearchParams(), { find: text.trim() }));
  }
  return html`
    <form role="search" class="find" onSubmit=${onSubmit}>
      <label for="find">Find a hold</label>
      <div>
        <input id="find" type="search" maxlength=${MAX_FIND} autocomplete="off" spellcheck="false"
          value=${text} placeholder="Id, short code, reference or owner"
          onInput=${(event) => setText(event.target.value)} />
        <button type="submit">Find</button>
      </div>
    </form>`;
}

// without returns nothing in place of an answer that says that there is no such thing.
async function without(reading, codes, nothing) {
  try {
    return await reading;
  } catch (error) {
    if (codes.includes(error.code)) {
      return nothing;
    }
    throw error;
  }
}

async function byId(text) {
  if (!isId(text)) {
    return [];
  }
  const reading = get(`${LIST}/${text.toLowerCase()}`).then(({ body }) => [
    { ...body.reservation, expired: body.expired },
  ]);
  return without(reading, ["RESERVATION_NOT_FOUND"], []);
}

async function byCode(text) {
  const code = parseCode(text);
  return code ? (await get(`${LIST}?${new URLSearchParams({ code })}`)).body : [];
}

// byParty finds the holds of a reference or an owner: {holds, total}, where holds has at most one.
async function byParty(name, text) {
  const query = new URLSearchParams({ [name]: text, limit: 1, total: "true" });
  const reading = get(`${LIST}?${query}`).then(({ body, headers }) => ({
    holds: body,
    total: headers.get("Total-Count") ?? String(body.length),
  }));
  return without(reading, ["VALIDATION_FAILED"], { holds: [], total: "0" });
}

const holdAddress = (path, hold) => `${path}/${hold.id}`;

// find looks for what a text could be: [{title, note, address}].
async function find(path, text) {
  const [ids, codes, references, owners] = await Promise.all([
    byId(text),
    byCode(text),
    byParty("reference", text),
    byParty("owner", text),
  ]);
  const one = (what) => (hold) => ({
    title: `The hold with this ${what}`,
    note: `${shortCode(hold.id)}, ${statusWord(hold).toLowerCase()}, ` +
      plural(unitsOf(hold), "unit"),
    address: holdAddress(path, hold),
  });
  const party = (name, { holds, total }) => {
    if (holds.length === 0) {
      return [];
    }
    const query = new URLSearchParams({ status: "ANY", [name]: text });
    const isOne = total === "1";
    const number = Number.parseInt(total, 10);
    const more = total.endsWith("+") ? "more than " : "";
    return {
      title: `The ${name} of ${more}${plural(number, "hold")}`,
      note: isOne ? shortCode(holds[0].id) : "Opens the list of them",
      address: isOne ? holdAddress(path, holds[0]) : `${path}?${query}`,
    };
  };
  return [
    ...ids.map(one("id")),
    ...codes.map(one("short code")),
    ...[party("reference", references), party("owner", owners)].flat(),
  ];
}

const noneText = (wanted) =>
  `No hold has “${wanted}” as its id, short code, reference or owner.`;

// Found opens the one thing that a text can be, or lets the person choose among several.
function Found({ wanted, path, navigate }) {
  const { data, error, isCurrent, refresh } = useRead(() => find(path, wanted), [wanted], 0);
  const found = isCurrent ? data : null;
  useEffect(() => {
    if (found?.length === 1) {
      navigate(found[0].address, { replace: true });
    }
  }, [found]);
  if (!found && error) {
    return html`<${Unread} of=${{ error, refresh }} />`;
  }
  if (!found || found.length === 1) {
    return html`<p role="status" class="muted">Looking for “${wanted}”…</p>`;
  }
  if (found.length === 0) {
    return html`
      <div role="status"><${Nothing}>${noneText(wanted)}<//></div>
      <p><a href=${path}>All live holds</a></p>`;
  }
  return html`
    <section class="choices" aria-labelledby="choices">
      <div role="status">
        <h2 id="choices">“${wanted}” is more than one thing. Which do you mean?</h2>
      </div>
      <ul>${found.map(
        ({ title, note, address }) => html`
        <li key=${address}><a href=${address}><b>${title}</b><small>${note}</small></a></li>`,
      )}</ul>
    </section>`;
}

// ---- The list

function List(place) {
  const asked = askedOf(place.query);
  const pages = usePages(place);
  const list = useRead(
    () => readList(LIST, asked, pages.cursor, PAGE),
    [String(asked), pages.cursor],
    EVERY,
  );
  const { total } = useTotal(LIST, asked);
  const rows = unique(list.data?.items ?? []);
  useNames(rows.flatMap((hold) => hold.items.slice(0, LINES)));
  return html`
    <${Filters} ...${place} />
    ${
      list.data
        ? html`<${Rows} list=${list} rows=${rows} place=${place} asked=${asked} pages=${pages}
          total=${total} /><${Connection} error=${list.error} at=${list.at} />`
        : html`<${Unread} of=${list} />`
    }`;
}

// unique keeps each hold once. A list of what was updated since a time may have one twice.
const unique = (holds) => [...new Map(holds.map((hold) => [hold.id, hold])).values()];

function Rows({ list, rows, place, asked, pages, total }) {
  const { data, isCurrent } = list;
  const isFiltered = asked.get("status") !== "PENDING" || asked.size > 1;
  const order = isFiltered ? "" : "The next to end comes first.";
  return html`
    <p class="muted">${order}</p>
    ${
      rows.length > 0
        ? html`<${Table} label="Holds" columns=${columnsOf(place, data.at)} rows=${rows}
          keyOf=${(hold) => hold.id} isBusy=${!isCurrent} />`
        : html`<${Nothing}>${data.next ? "None here. Go on to the next page." : "No hold matches."}
          <//>
          ${isFiltered && html`<p><a href=${place.path}>Clear filters</a></p>`}`
    }
    <${Pager} pages=${pages} size=${PAGE} shown=${rows.length} total=${total}
      next=${isCurrent ? data.next : null} what="hold" />`;
}

// columnsOf has the columns of the list. at is when it was read.
const columnsOf = ({ path }, at) => [
  {
    name: "Hold",
    isHead: true,
    cell: (hold) => html`<a href=${holdAddress(path, hold)}><code>${shortCode(hold.id)}</code></a>`,
  },
  { name: "Items", isWide: true, cell: (hold) => html`<${Items} items=${hold.items} />` },
  { name: "Units", isNumber: true, cell: (hold) => count(unitsOf(hold)) },
  { name: "Status", cell: (hold) => html`<${Status} hold=${hold} />` },
  {
    name: "Ends in",
    isNumber: true,
    cell: (hold) =>
      statusOf(hold) === "PENDING"
        ? html`<${Left} seconds=${hold.remainingSeconds} at=${at} />`
        : html`<span class="muted"><${When} at=${hold.updatedAt} /></span>`,
  },
  { name: "Reference", cell: (hold) => hold.reference ?? html`<span class="muted">–</span>` },
];

function Items({ items }) {
  const more = items.length - LINES;
  return html`
    <ul class="plain">
      ${named(items.slice(0, LINES)).map((line) => html`<li>${lineText(line)}</li>`)}
      ${more > 0 && html`<li class="muted">and ${plural(more, "more line", "more lines")}</li>`}
    </ul>`;
}

// Status is the status of a hold as a badge.
const Status = ({ hold }) =>
  html`<span class=${`status ${statusOf(hold).toLowerCase()}`}>${statusWord(hold)}</span>`;

const SOON = 90; // seconds: below that the time left runs by the second
const SLOWLY = 10_000; // ms between two looks at a longer one

// Left is the time left of a hold that had so many seconds left at a time of the browser's
// monotonic clock.
function Left({ seconds, at }) {
  const now = () => Math.max(0, seconds - (performance.now() - at) / 1000);
  useNow(now() < SOON ? 1000 : SLOWLY);
  const left = now();
  return html`<span class=${left < 60 ? "soon" : undefined}>${timeSpan(left)}</span>`;
}

// ---- The filters

function Filters({ path, query, navigate }) {
  const place = { path, query, navigate };
  const open = useWarehouses();
  const productId = query.get("productId") ?? "";
  const warehouseId = query.get("warehouseId") ?? "";
  useNames(productId ? [{ productId, warehouseId }] : []);
  // The address may be newer than what is drawn.
  const change = (changes) =>
    navigate(
      addressWith(path, new URLSearchParams(location.search), { ...changes, cursor: "", page: "" }),
    );
  const known = open.map(({ id, name }) => [id, name]);
  const isClosed = warehouseId && open.length > 0 && !open.some(({ id }) => id === warehouseId);
  const chips = [
    productId && ["productId", "Product", nameOf({ productId, warehouseId }).product],
    ...["reference", "owner"].map((name) => query.get(name) && [name, name, query.get(name)]),
  ].filter(Boolean);
  return html`
    <div class="finder">
      <${Choice} name="status" label="Status" ...${place}
        options=${[["", statuses.PENDING], ...Object.entries(statuses).slice(1), ["ANY", "Any"]]} />
      <${Choice} name="warehouseId" label="Warehouse" ...${place}
        options=${[
          ["", "All warehouses"],
          ...known,
          ...(isClosed ? [[warehouseId, "A closed warehouse"]] : []),
        ]} />
      <${Since} value=${query.get("updatedSince") ?? ""}
        onChange=${(updatedSince) => change({ updatedSince })} />
      <${FindProduct} id="product" label="Product" placeholder="Name or SKU"
        onPick=${({ id }) => change({ productId: id })} />
    </div>
    ${chips.length > 0 && html`
      <ul class="chips" aria-label="Filters">${chips.map(
        ([name, title, text]) => html`
        <li key=${name}><span>${title}: <b>${text}</b></span>
          <button type="button" class="icon" aria-label=${`Remove the filter ${title} ${text}`}
            onClick=${() => change({ [name]: "" })}>×</button></li>`,
      )}</ul>`}`;
}

// The times that one may choose, in seconds back.
const spans = [
  [900, "In the last 15 minutes"],
  [3600, "In the last hour"],
  [86_400, "In the last 24 hours"],
  [7 * 86_400, "In the last 7 days"],
];

// Since chooses what was changed since a time. The address has the time itself, so that its pages
// fit together, and so that it means the same to whoever gets it.
function Since({ value, onChange }) {
  const onPick = ({ target }) => {
    const seconds = Number(target.value);
    if (target.value !== value) {
      onChange(seconds ? new Date(Date.now() - seconds * 1000).toISOString() : "");
    }
  };
  return html`
    <label class="choice"><span>Changed</span>
      <select value=${value} onChange=${onPick}>
        <option value="">At any time</option>
        ${value && html`<option value=${value}>Since ${momentOf(value)}</option>`}
        ${spans.map(([seconds, text]) => html`<option key=${seconds} value=${seconds}>${text}
          </option>`)}
      </select></label>`;
}

// momentOf writes a time of the address, which a person may have typed.
const momentOf = (text) => (Number.isNaN(Date.parse(text)) ? text : moment(text));
