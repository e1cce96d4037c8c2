// The console's page of a stock row: a product in a warehouse, its movements and its holds, and
// what an operator may do.

import { useState } from "preact/hooks";
import { get, post, uuid } from "./api.js";
import { code as shortCode } from "./code.js";
import {
  ConfirmStep,
  Nothing,
  Pager,
  Table,
  usePages,
  useTitle,
  When,
} from "./console-parts.js";
import { forgetWarehouses, learn, useWarehouses } from "./ops-names.js";
import { readList, Unread, useRead, useTotal } from "./ops-read.js";
import { Receive } from "./ops-receive.js";
import {
  actorName,
  isId,
  movements,
  problemText,
  signed,
  statusWord,
  timeSpan,
  wholeNumber,
  wordsOf,
} from "./ops-words.js";
import { Connection, count, html, plural } from "./parts.js";

const EVERY = 5_000; // ms between two reads of the row
const PAGE = 25; // movements
const HOLDS = 10; // live holds that the page shows; the list of holds has all of them
const SIBLINGS = 100; // stock rows of the product in other warehouses

// SOURCE names the corrections of this page. Each has a reference of its own.
const SOURCE = "console";

const MAX_NOTE = 500; // characters, as the API takes
const MAX_UNITS = 1_000_000_000; // of a line, as the API takes

export function View({ params, ...place }) {
  const isValid = isId(params.productId) && isId(params.warehouseId);
  return isValid
    ? html`<${StockRow} productId=${params.productId} warehouseId=${params.warehouseId}
      ...${place} />`
    : html`<${Missing} />`;
}

const Missing = () => html`
  <section class="blank">
    <h1>There is no such stock</h1>
    <p>This product has never been in this warehouse, or the link is incomplete.</p>
    <a role="button" href="/ops/stock">All stock</a>
  </section>`;

// readRow reads a stock row, with those of the product in other warehouses: {row, others}.
async function readRow(productId, warehouseId) {
  const { body } = await get(`/api/stock?${new URLSearchParams({ productId, limit: SIBLINGS })}`);
  learn(body);
  const isRow = (one) => one.warehouseId === warehouseId;
  return { row: body.find(isRow) ?? null, others: body.filter((one) => !isRow(one)) };
}

function StockRow({ productId, warehouseId, can, ...place }) {
  const read = useRead(() => readRow(productId, warehouseId), [productId, warehouseId], EVERY);
  const [told, setTold] = useState(null);
  const open = useWarehouses();
  const row = read.data?.row;
  const where = open.find(({ id }) => id === warehouseId)?.name ?? row?.warehouseCode;
  useTitle(row ? `${row.name}, ${where}` : "Stock");
  if (read.data && !row) {
    return html`<${Missing} />`;
  }
  function onDone(result) {
    setTold(result);
    read.refresh();
  }
  // The heading is the same one before and after the read, as it may have the focus.
  return html`
    <p class="back"><a href="/ops/stock">Stock</a></p>
    <div class="stock-head">
      <h1>${row?.name ?? "Stock"}</h1>
      ${row && html`<p>${row.sku} · ${where} (${row.warehouseCode})
        ${row.status !== "ACTIVE" && html` <span class="status">Archived</span>`}
        ${row.warehouseStatus !== "OPEN" && html` <span class="status">Closed</span>`}</p>`}
    </div>
    ${
      row
        ? html`<${Known} read=${read} where=${where} open=${open} told=${told} can=${can}
          place=${place} onDone=${onDone} />`
        : html`<${Unread} of=${read} />`
    }`;
}

// Known is the page below its heading, once the row is read.
function Known({ read, where, open, told, can, place, onDone }) {
  const { row, others } = read.data;
  return html`
    <p class=${told ? "told good" : "told"} role="status">${told?.text}</p>
    <${Figures} row=${row} />
    <${Actions} row=${row} others=${others} where=${where} can=${can} onDone=${onDone} />
    <${Movements} row=${row} place=${place} />
    <${Holds} row=${row} />
    <${Others} rows=${others} open=${open} />
    <${Connection} error=${read.error} at=${read.at} />`;
}

const Figures = ({ row }) => html`
  <dl class="figures-of-row">
    <div><dt>Available</dt><dd>${count(row.availableStock)}</dd></div>
    <div><dt>Held</dt><dd>${count(row.reservedQuantity)}</dd></div>
    <div><dt>Total</dt><dd>${count(row.totalQuantity)}</dd></div>
  </dl>`;

// ---- Movements and holds

// Movements are read anew when the row has another one. Their pages are in the address.
function Movements({ row: { productId, warehouseId, seq }, place }) {
  const pages = usePages(place);
  const asked = new URLSearchParams({ productId, warehouseId });
  const list = useRead(
    () => readList("/api/stock/movements", asked, pages.cursor, PAGE),
    [productId, warehouseId, pages.cursor, pages.cursor ? 0 : seq],
    0,
  );
  const { data } = list;
  return html`
    <section aria-labelledby="movements">
      <h2 id="movements">Movements</h2>
      ${!data && html`<${Unread} of=${list} />`}
      ${data && data.items.length === 0 && html`<${Nothing}>Nothing has moved yet.<//>`}
      ${data && data.items.length > 0 && html`
        <${Table} label="List of movements" columns=${movementColumns} rows=${data.items}
          keyOf=${({ seq: number }) => number} isBusy=${!list.isCurrent} />
        <${Pager} pages=${pages} size=${PAGE} shown=${data.items.length} total=${String(seq)}
          next=${list.isCurrent ? data.next : null} what="movement" />`}
    </section>`;
}

const movementColumns = [
  { name: "What", isHead: true, cell: ({ kind }) => movements[kind] ?? kind },
  { name: "Change", isNumber: true, cell: ({ delta }) => signed(delta) },
  { name: "Total after", isNumber: true, cell: ({ totalAfter }) => count(totalAfter) },
  { name: "When", cell: ({ at }) => html`<${When} at=${at} />` },
  { name: "Why", isWide: true, cell: (movement) => html`<${Why} movement=${movement} />` },
];

// Why says what a movement is about: its note, its document, its hold, and who asked for it.
function Why({ movement: { note, source, reference, reservationId, actor } }) {
  const document = source && !source.startsWith("/api/") ? documentText(source, reference) : "";
  const parts = [
    note && html`<span>${note}</span>`,
    reservationId &&
      html`<a href=${`/ops/holds/${reservationId}`}>Hold
        ${" "}<code>${shortCode(reservationId)}</code></a>`,
    document && html`<small>${document}</small>`,
    actor && html`<small>by ${actorName(actor)}</small>`,
  ].filter(Boolean);
  return parts.length > 0
    ? html`<span class="why">${parts}</span>`
    : html`<span class="muted">–</span>`;
}

// documentText names a document. The references of this page's corrections say nothing to a person.
const documentText = (source, reference) => (source === SOURCE ? "" : `${source}, ${reference}`);

function Holds({ row: { productId, warehouseId, reservedQuantity } }) {
  const asked = new URLSearchParams({ status: "PENDING", productId, warehouseId });
  const list = useRead(
    () => readList("/api/reservations", asked, "", HOLDS),
    [productId, warehouseId, reservedQuantity],
    EVERY * 2,
  );
  const { total } = useTotal("/api/reservations", asked);
  const { data } = list;
  const all = `/ops/holds?${new URLSearchParams({ productId, warehouseId })}`;
  const mine = ({ items }) =>
    items.find((item) => item.productId === productId && item.warehouseId === warehouseId);
  const columns = [
    {
      name: "Hold",
      isHead: true,
      cell: ({ id }) => html`<a href=${`/ops/holds/${id}`}><code>${shortCode(id)}</code></a>`,
    },
    { name: "Units", isNumber: true, cell: (hold) => count(mine(hold)?.quantity ?? 0) },
    {
      name: "Status",
      cell: (hold) => html`<span class="status pending">${statusWord(hold)}</span>`,
    },
    { name: "Ends in", isNumber: true, cell: ({ remainingSeconds }) => timeSpan(remainingSeconds) },
    { name: "Reference", cell: ({ reference }) => reference ?? "–" },
  ];
  return html`
    <section aria-labelledby="holds">
      <h2 id="holds">Live holds${data && ` (${numberText(data, total)})`}</h2>
      ${!data && html`<${Unread} of=${list} />`}
      ${data && data.items.length === 0 && html`<${Nothing}>Nobody holds any of these.<//>`}
      ${data && data.items.length > 0 && html`<${Table} label="List of live holds"
        columns=${columns} rows=${data.items} keyOf=${({ id }) => id} />`}
      ${data?.next && html`<p><a href=${all}>All live holds of this stock</a></p>`}
    </section>`;
}

// numberText is how many holds there are: a page without a next one has them all.
function numberText({ items, next }, total) {
  if (!next) {
    return count(items.length);
  }
  return total ? count(Number.parseInt(total, 10)) + (total.endsWith("+") ? "+" : "") : "many";
}

const Others = ({ rows, open }) =>
  rows.length > 0 &&
  html`
  <section aria-labelledby="others">
    <h2 id="others">In other warehouses</h2>
    <${Table} label="The product in other warehouses" rows=${rows}
      keyOf=${({ warehouseId }) => warehouseId} columns=${[
        {
          name: "Warehouse",
          isHead: true,
          cell: ({ productId, warehouseId, warehouseCode }) => html`
            <a href=${`/ops/stock/${productId}/${warehouseId}`}>${
              open.find(({ id }) => id === warehouseId)?.name ?? warehouseCode}</a>`,
        },
        { name: "Available", isNumber: true, cell: (one) => count(one.availableStock) },
        { name: "Held", isNumber: true, cell: (one) => count(one.reservedQuantity) },
        { name: "Total", isNumber: true, cell: (one) => count(one.totalQuantity) },
      ]} />
  </section>`;

// ---- What one may do

const CATALOG = "catalog:write";
const WRITE = "inventory:write";

function Actions({ row, others, where, can, onDone }) {
  const [step, setStep] = useState(null); // {name, row}: the row as it was when the step began
  const isActive = row.status === "ACTIVE";
  const isOpen = row.warehouseStatus === "OPEN";
  const actions = [
    can(WRITE) && ["adjust", "Adjust", ""],
    can(WRITE) && ["receive", "Receive a delivery", "secondary"],
    can(CATALOG) && ["product", isActive ? "Archive product" : "Bring product back", "secondary"],
    can(CATALOG) && ["warehouse", isOpen ? "Close warehouse" : "Open warehouse", "secondary"],
  ].filter(Boolean);
  const Step = step && steps[step.name];
  return html`
    ${actions.length > 0 && html`<p class="actions">${actions.map(
      ([name, text, kind]) => html`<button key=${name} type="button" class=${kind}
        onClick=${() => setStep({ name, row, others })}>${text}</button>`,
    )}</p>`}
    ${step && html`<${Step} ...${step} where=${where} onDone=${onDone}
      onClose=${() => setStep(null)} />`}`;
}

const reasons = ["Damaged", "Lost", "Found", "Stocktake", "Wrong delivery"];

// Adjust changes the total by a number of units, or sets it to what was counted.
function Adjust({ row, where, onDone, onClose }) {
  const [kind, setKind] = useState("delta");
  const [typed, setTyped] = useState("");
  const [sign, setSign] = useState("-");
  const [note, setNote] = useState("");
  const [isLost, setLost] = useState(false);
  const [held, setHeld] = useState(null); // units: the correction would leave less than these
  const units = wholeNumber(typed);
  const change = { kind, units, sign, note: note.trim(), isClamped: held !== null };
  const edit = (set) => (value) => {
    set(value);
    setHeld(null);
  };

  async function adjust() {
    checkAdjust(change);
    const { productId, warehouseId, seq } = row;
    const intent = `adjust ${productId} ${warehouseId} ${seq} ${JSON.stringify(change)}`;
    try {
      const { results } = await post("/api/stock/movements", adjustBody(row, change), intent);
      return adjusted(results[0], row, where);
    } catch (error) {
      setLost(Boolean(error.isUnknown));
      const refused = error.problem?.results?.[0]?.problem;
      if (refused?.code === "STOCK_HELD") {
        setHeld(refused.held);
      }
      throw error;
    }
  }
  return html`
    <${ConfirmStep} title=${`Adjust ${row.name}, ${where}`}
      action=${held === null ? "Adjust" : `Set the total to ${count(held)}`} onConfirm=${adjust}
      onDone=${onDone} onClose=${onClose} wordsOf=${adjustWords}>
      <fieldset disabled=${isLost}>
        <legend class="unseen">What to change</legend>
        <label class="check"><input type="radio" name="kind" checked=${kind === "delta"} autofocus
          onChange=${() => edit(setKind)("delta")} /> Add or take away</label>
        <label class="check"><input type="radio" name="kind" checked=${kind === "counted"}
          onChange=${() => edit(setKind)("counted")} /> Set to what was counted</label>
        <div class="amount">
          ${kind === "delta" && html`
            <label for="sign">Change
              <select id="sign" value=${sign}
                onChange=${({ target }) => edit(setSign)(target.value)}>
                <option value="-">Take away</option><option value="+">Add</option>
              </select></label>`}
          <label for="units">${kind === "delta" ? "Units" : "Units on the shelf"}
            <input id="units" class="number" type="text" inputmode="numeric" maxlength="10"
              autocomplete="off" value=${typed}
              onInput=${({ target }) => edit(setTyped)(target.value)} /></label>
        </div>
        <label for="note">Reason</label>
        <input id="note" type="text" list="reasons" maxlength=${MAX_NOTE} autocomplete="off"
          value=${note} onInput=${({ target }) => setNote(target.value)} />
        <datalist id="reasons">${reasons.map((one) => html`<option value=${one} />`)}</datalist>
      </fieldset>
      <${Effect} row=${row} change=${change} held=${held} />
    <//>`;
}

// checkAdjust throws {text, field} for a correction that isn't whole.
function checkAdjust({ kind, units, note }) {
  const least = kind === "delta" ? 1 : 0;
  if (!(units >= least && units <= MAX_UNITS)) {
    const bounds = `from ${least} to ${count(MAX_UNITS)}`;
    throw { text: `Type the number of units, a whole number ${bounds}.`, field: "units" };
  }
  if (!note) {
    throw { text: "Type a reason: others see it beside the movement.", field: "note" };
  }
}

const deltaOf = ({ sign, units }) => (sign === "-" ? -units : units);

// adjustBody is the document of a correction. A count is as of the row that was shown, so that what
// is sold meanwhile is taken off. A row without movements has no such number.
function adjustBody({ productId, warehouseId, seq }, change) {
  const amount =
    change.kind === "delta"
      ? { delta: deltaOf(change) }
      : { counted: change.units, ...(seq > 0 ? { asOfSeq: seq } : {}) };
  return {
    source: SOURCE,
    reference: uuid(),
    together: true,
    ...(change.isClamped ? { onHeld: "CLAMP" } : {}),
    lines: [{ productId, warehouseId, ...amount, note: change.note }],
  };
}

// adjusted tells what was done.
function adjusted({ outcome, delta, totalQuantity }, row, where) {
  if (outcome === "UNCHANGED" || delta === 0) {
    return { text: `The total was right: ${count(totalQuantity)}. Nothing was changed.` };
  }
  return { text: `${row.name}, ${where}: ${signed(delta)}. The total is ${count(totalQuantity)}.` };
}

// adjustWords tells an error. Effect tells that units are held, so it isn't told twice.
const adjustWords = (error) => {
  const refused = error.problem?.results?.[0]?.problem;
  if (refused?.code === "STOCK_HELD") {
    return "";
  }
  return refused ? problemText(refused) : wordsOf(error);
};

// Effect says what a correction will do.
function Effect({ row, change, held }) {
  const { totalQuantity: total, reservedQuantity } = row;
  const after = change.kind === "delta" ? total + deltaOf(change) : change.units;
  if (held !== null) {
    return html`<p class="caution" role="alert">${plural(held, "unit is", "units are")} held for
      shoppers, so the total can only go down to <b>${count(held)}</b>. Then none are
      available.</p>`;
  }
  if (!(change.units >= 0)) {
    return html`<p class="muted">The total is ${count(total)}, of which
      ${" "}${count(reservedQuantity)} are held.</p>`;
  }
  if (after < 0) {
    return html`<p class="caution">There are only <b>${count(total)}</b>, of which
      ${" "}${count(reservedQuantity)} are held.</p>`;
  }
  return html`
    <p>The total goes from <b>${count(total)}</b> to <b>${count(after)}</b>.
      ${reservedQuantity > 0 && ` ${plural(reservedQuantity, "unit is", "units are")} held.`}
      ${change.kind === "counted" && " What is sold in the meantime is taken off by itself."}</p>`;
}

const ReceiveHere = ({ row, onDone, onClose }) => html`
  <${Receive} onDone=${(text) => onDone({ text })} onClose=${onClose} first=${{
    id: row.productId, name: row.name, sku: row.sku, warehouseId: row.warehouseId,
  }} />`;

// Product archives a product, or brings it back.
function Product({ row, others, onDone, onClose }) {
  const isActive = row.status === "ACTIVE";
  const status = isActive ? "ARCHIVED" : "ACTIVE";
  const held = [row, ...others].reduce((sum, one) => sum + one.reservedQuantity, 0);
  async function put() {
    await post("/api/catalog/products", { items: [{ sku: row.sku, status }] });
    return { text: isActive ? `${row.name} is archived.` : `${row.name} is on sale again.` };
  }
  return html`
    <${ConfirmStep} title=${isActive ? `Archive ${row.name}?` : `Bring ${row.name} back?`}
      action=${isActive ? "Archive product" : "Bring product back"} isDangerous=${isActive}
      onConfirm=${put} onDone=${onDone} onClose=${onClose} wordsOf=${wordsOf}>
      ${
        isActive
          ? html`<p>It leaves the shop, in every warehouse: nobody can hold it any more. You can
            bring it back later.</p><${GoOn} held=${held} />`
          : html`<p>Shoppers see it again, and can hold what is available in every open warehouse.
            </p>`
      }
    <//>`;
}

// GoOn says what becomes of the holds.
const GoOn = ({ held }) =>
  held > 0 &&
  html`<p class="caution">${plural(held, "held unit stays", "held units stay")} held: who holds them
    can still buy them.</p>`;

// Warehouse closes a warehouse, or opens it.
function Warehouse({ row, where, onDone, onClose }) {
  const isOpen = row.warehouseStatus === "OPEN";
  const status = isOpen ? "CLOSED" : "OPEN";
  async function put() {
    await post("/api/catalog/warehouses", { items: [{ code: row.warehouseCode, status }] });
    forgetWarehouses();
    return { text: isOpen ? `${where} is closed.` : `${row.warehouseCode} is open again.` };
  }
  return html`
    <${ConfirmStep} title=${isOpen ? `Close ${where}?` : `Open ${where}?`}
      action=${isOpen ? "Close warehouse" : "Open warehouse"} isDangerous=${isOpen}
      onConfirm=${put} onDone=${onDone} onClose=${onClose} wordsOf=${wordsOf}>
      ${
        isOpen
          ? html`<p>Nothing is sold from ${where} any more, <b>no product at all</b>. What is held
            there stays held, and can still be bought. You can open it again later.</p>`
          : html`<p>All products that are on sale can be held from ${where} again.</p>`
      }
    <//>`;
}

const steps = { adjust: Adjust, receive: ReceiveHere, product: Product, warehouse: Warehouse };
