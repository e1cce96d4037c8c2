// The console's page of a hold: its lines, its payments, its history, and what an operator may do.

import { useEffect, useRef, useState } from "preact/hooks";
import { get, post } from "./api.js";
import { code as shortCode } from "./code.js";
import {
  ConfirmStep,
  copyText,
  fullTime,
  Table,
  Timeline,
  useNow,
  useTitle,
  When,
} from "./console-parts.js";
import { Clock } from "./live.js";
import { named, useNames } from "./ops-names.js";
import { Unread, useRead } from "./ops-read.js";
import {
  doText,
  isId,
  moment,
  statusOf,
  statusWord,
  transition,
  unitsText,
  wholeNumber,
  whose,
  wordsOf,
} from "./ops-words.js";
import { clockTime, Connection, count, duration, html, plural } from "./parts.js";

const LIVE_EVERY = 2_000; // ms between two reads of a hold that can change
const SLOW_EVERY = 30_000; // ms between two reads of one that has ended
const MAX_REFERENCE = 100; // characters, as the API takes
const MAX_RETURNS = 200; // lines, the newest of what came back: the API lists no more

const clock = new Clock();

// readHold reads a hold with its history, its payments and what came back of it, or null if there
// is none. A dead hold is EXPIRED before any sweep.
async function readHold(id) {
  const path = `/api/reservations/${id}`;
  const sentAt = performance.now();
  try {
    const [view, history, payments] = await Promise.all(
      [path, `${path}/history`, `${path}/payments`].map((one) => get(one)),
    );
    clock.learn(view.body.serverTime, sentAt);
    const { reservation, expired } = view.body;
    const isSold = reservation.status === "CONFIRMED"; // nothing comes back of another hold
    const returns = isSold ? (await get(`${path}/returns`)).body : [];
    return { hold: { ...reservation, status: statusOf({ ...reservation, expired }) },
      history: history.body, payments: payments.body, returns };
  } catch (error) {
    if (error.code === "RESERVATION_NOT_FOUND") {
      return { hold: null, history: [], payments: [], returns: [] };
    }
    throw error;
  }
}

// readOwner reads the owner of a hold, which only the operator's list has: null without one.
async function readOwner(id) {
  const { body } = await get(`/api/reservations?${new URLSearchParams({ code: shortCode(id) })}`);
  return body.find((hold) => hold.id === id)?.owner ?? null;
}

export function View({ params, can }) {
  const id = params.id.toLowerCase();
  return isId(id) ? html`<${Hold} id=${id} can=${can} />` : html`<${Missing} />`;
}

function Hold({ id, can }) {
  const read = useRead(() => readHold(id), [id], (data) =>
    data.hold?.status === "PENDING" ? LIVE_EVERY : SLOW_EVERY,
  );
  const owner = useRead(() => readOwner(id), [id], 0);
  const [told, setTold] = useState(null);
  useTitle(read.data?.hold ? `Hold ${shortCode(id)}` : "Hold");
  useNames(read.data?.hold?.items ?? []);
  const hold = read.data?.hold;
  if (read.data && !hold) {
    return html`<${Missing} />`;
  }
  function onDone(result) {
    setTold(result);
    read.refresh();
  }
  // The heading is the same one before and after the read, as it may have the focus.
  return html`
    <p class="back"><a href="/ops/holds">Holds</a></p>
    <div class="hold-head">
      <h1>Hold <code>${shortCode(id)}</code></h1>
      ${hold && html`<span class=${`status ${hold.status.toLowerCase()}`}>${statusWord(hold)}
        </span>`}
    </div>
    ${
      hold
        ? html`<${Known} read=${read} owner=${owner.data} told=${told} can=${can}
          onDone=${onDone} />`
        : html`<${Unread} of=${read} />`
    }`;
}

// Known is the page below its heading, once the hold is read.
function Known({ read, owner, told, can, onDone }) {
  const { hold, history, payments, returns } = read.data;
  // How many units of a line came back isn't known where older returns may be missing.
  const backOf = (line) => (mayLackReturns(returns) ? null : cameBack(returns, line));
  const lines = named(hold.items.map((line) => ({ ...line, back: backOf(line) })));
  return html`
    <${Told} told=${told} />
    <${Actions} hold=${hold} lines=${lines} can=${can} onDone=${onDone} />
    <div class="hold-columns">
      <div>
        <${Facts} hold=${hold} owner=${owner} />
        <${Lines} lines=${lines} />
        <${Payments} hold=${hold} payments=${payments} />
        ${hold.status === "CONFIRMED" && html`<${Returns} lines=${lines}
          returns=${returns} />`}
      </div>
      <section aria-labelledby="history">
        <h2 id="history">History</h2>
        <${History} history=${history} />
      </section>
    </div>
    <${Connection} error=${read.error} at=${read.at} />`;
}

const unitsOf = (returns) => returns.reduce((sum, { quantity }) => sum + quantity, 0);

const mayLackReturns = (returns) => returns.length >= MAX_RETURNS;

// leftOf is the most units of a line that can still come back.
const leftOf = ({ quantity, back }) => Math.max(0, quantity - back);

// cameBack is how many units of a line came back.
const cameBack = (returns, line) =>
  unitsOf(returns.filter(({ productId, warehouseId }) =>
    productId === line.productId && warehouseId === line.warehouseId));

const Missing = () => html`
  <section class="blank">
    <h1>There is no such hold</h1>
    <p>Perhaps the link is incomplete. Holds that ended long ago are in the archive: search for
      them by their whole id.</p>
    <a role="button" href="/ops/holds">All holds</a>
  </section>`;

// Told is the outcome of a step. It gets the focus, as the step's button may be gone.
function Told({ told }) {
  const node = useRef();
  useEffect(() => {
    if (told) {
      node.current.focus();
    }
  }, [told]);
  return html`
    <p ref=${node} class=${told ? `told ${told.isBad ? "bad" : "good"}` : "told"} role="status"
      tabindex="-1">${told && html`${told.text}
        ${told.link && html` <a href=${told.link.address}>${told.link.text}</a>`}`}</p>`;
}

// ---- What is known

// What the end of a hold's time is called. A hold that ended before it "would have ended" then.
const endWords = { PENDING: "Ends", EXPIRED: "Ended" };

// other links to another hold.
const other = (id) => html`<a href=${`/ops/holds/${id}`}><code>${shortCode(id)}</code></a>`;

function Facts({ hold, owner }) {
  const isLive = hold.status === "PENDING";
  const facts = [
    [endWords[hold.status] ?? "Would have ended", html`<${Ends} hold=${hold} />`],
    ["Held", html`<${When} at=${hold.createdAt} />`],
    ["Reference", hold.reference ? party("reference", hold.reference) : "None"],
    ["Owner", owner ? party("owner", owner) : "None"],
    (isLive || hold.payment) && ["Payment", paymentText(hold)],
    hold.replaces && ["Took the place of", other(hold.replaces)],
    hold.replacedBy && ["Followed by", other(hold.replacedBy)],
    ["Id", html`<${Id} id=${hold.id} />`],
  ].filter(Boolean);
  return html`
    <dl class="facts">${facts.map(
      ([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`,
    )}</dl>`;
}

// party links to all holds of a reference or an owner.
const party = (name, text) =>
  html`<a href=${`/ops/holds?${new URLSearchParams({ status: "ANY", [name]: text })}`}>${text}</a>`;

function paymentText({ payment, status }) {
  if (!payment) {
    return status === "PENDING" ? "None under way" : "None was begun";
  }
  const since = moment(payment.startedAt);
  return status === "PENDING"
    ? `${payment.reference}, under way since ${since}`
    : `${payment.reference}, begun ${since}`;
}

const Id = ({ id }) => html`
  <code class="id">${id}</code>
  <button type="button" class="secondary small" onClick=${() => copyText(id, "The id")}>Copy
  </button>`;

const millisecondsLeft = (hold) => Math.max(0, Date.parse(hold.expiresAt) - clock.now());

function Ends({ hold }) {
  const isLive = hold.status === "PENDING";
  useNow(isLive ? 1000 : 60_000);
  const at = fullTime(new Date(hold.expiresAt));
  return isLive
    ? html`in <b class="ticking">${duration(Math.ceil(millisecondsLeft(hold) / 1000))}</b>${" "}
        <small>${at}</small>`
    : html`<small>${at}</small>`;
}

const Lines = ({ lines }) => html`
  <section aria-labelledby="lines">
    <h2 id="lines">Items</h2>
    <${Table} label="Items of the hold" rows=${lines}
      columns=${lines.some(({ back }) => back > 0) ? returnedColumns : lineColumns}
      keyOf=${({ productId, warehouseId }) => `${productId} ${warehouseId}`} />
  </section>`;

const lineColumns = [
  {
    name: "Product",
    isHead: true,
    cell: ({ productId, warehouseId, product }) =>
      html`<a href=${`/ops/stock/${productId}/${warehouseId}`}>${product}</a>`,
  },
  { name: "Warehouse", cell: ({ warehouse }) => warehouse },
  { name: "Units", isNumber: true, cell: ({ quantity }) => count(quantity) },
];

// The columns of a hold of which something came back. A card has both numbers in one line.
const returnedColumns = [
  ...lineColumns.map((column) =>
    column.name === "Warehouse" ? { ...column, isWide: true } : column),
  { name: "Came back", isNumber: true, cell: ({ back }) => count(back) },
];

const Payments = ({ hold, payments }) => html`
  <section aria-labelledby="payments">
    <h2 id="payments">Payments</h2>
    ${
      payments.length > 0
        ? html`<${Table} label="Payments of the hold" columns=${paymentColumns}
            rows=${payments.map((payment) => ({ ...payment, isLive: hold.status === "PENDING" }))}
            keyOf=${({ reference }) => reference} />`
        : html`<p class="muted">No payment gave its reference.</p>`
    }
  </section>`;

// What became of a payment, in words.
const paymentEnds = {
  FAILED: "Failed, or another one took its place",
  CONFIRMED: "Paid for this hold",
  LOST: "Came when the items were gone: refund it",
};

const paymentColumns = [
  { name: "Reference", isHead: true, cell: ({ reference }) => reference },
  {
    name: "Outcome",
    cell: ({ outcome, successor, isLive }) => {
      if (outcome === "REACQUIRED") {
        return html`Came late, and paid for ${other(successor)}`;
      }
      return paymentEnds[outcome] ?? (isLive ? "Under way" : "Never came");
    },
  },
  { name: "When", cell: ({ at }) => html`<${When} at=${at} />` },
];

const tones = { confirmed: "good", expired: "bad", "payment-failed": "bad" };

const History = ({ history }) => html`
  <${Timeline} label="History of the hold" items=${history.map((row) => {
    const { title, text } = transition(row);
    return { key: row.version, at: row.at, title, detail: text, tone: tones[row.kind] ?? "" };
  })} />`;

// Returns lists what came back, the newest first.
function Returns({ lines, returns }) {
  const newest = returns.toReversed();
  const places = newest.map(({ productId, warehouseId, toWarehouseId }) => ({
    productId, warehouseId: toWarehouseId ?? warehouseId,
  }));
  useNames(places);
  const rows = named(places).map((names, i) => ({
    ...newest[i], ...names, seller: sellerOf(lines, newest[i]),
  }));
  return html`
    <section aria-labelledby="returns">
      <h2 id="returns">What came back</h2>
      <p class="muted">${returnedText(returns)}</p>
      ${rows.length > 0 && html`
        <${Table} label="Goods that came back" rows=${rows} columns=${returnColumns}
          keyOf=${({ reference, line }) => `${line} ${reference}`} />`}
    </section>`;
}

// sellerOf names the warehouse that sold the units, where the hold has the product from several.
function sellerOf(lines, { productId, warehouseId }) {
  const sold = lines.filter((line) => line.productId === productId);
  return sold.length > 1 ? sold.find((line) => line.warehouseId === warehouseId)?.warehouse : "";
}

// returnedText tells how many units came back, and how many of them are for sale again.
function returnedText(returns) {
  if (mayLackReturns(returns)) {
    return `The newest ${count(MAX_RETURNS)} lines. There may be older ones.`;
  }
  const back = unitsOf(returns);
  if (back === 0) {
    return "Nothing has come back.";
  }
  const restocked = unitsOf(returns.filter(({ toWarehouseId }) => toWarehouseId));
  return [
    `${plural(back, "unit")} came back.`,
    restocked > 0 && `Back on a shelf: ${count(restocked)}.`,
    back > restocked && `Not for sale again: ${count(back - restocked)}.`,
  ].filter(Boolean).join(" ");
}

const returnColumns = [
  { name: "Product", isHead: true, cell: ({ product, seller }) =>
    seller ? `${product}, sold from ${seller}` : product },
  { name: "Back in", cell: ({ toWarehouseId, warehouse }) =>
    toWarehouseId ? warehouse : "Not for sale again" },
  { name: "Units", isNumber: true, cell: ({ quantity }) => count(quantity) },
  { name: "Reference", cell: ({ reference }) => reference },
  { name: "When", cell: ({ at }) => html`<${When} at=${at} />` },
];

// ---- What one may do

const CONFIRM = "reservations:confirm";
const SUPPORT = "reservations:support";
const WRITE = "inventory:write";

// Actions has the buttons of what the account may do with the hold as it is.
function Actions({ hold, lines, can, onDone }) {
  const [open, setOpen] = useState("");
  const isLive = hold.status === "PENDING";
  const isGone = hold.status === "EXPIRED" || hold.status === "RELEASED";
  const actions = [
    isLive && can(CONFIRM) && ["confirm", "Confirm purchase", ""],
    isLive && !hold.payment && can(SUPPORT) && ["extend", "Give more time", "secondary"],
    isLive && can(SUPPORT) && ["cancel", "Release items", "secondary outline"],
    isGone && !hold.replacedBy && can(CONFIRM) && ["late", "Late payment", "secondary"],
    hold.status === "CONFIRMED" && can(WRITE) && lines.some((line) => leftOf(line) > 0) &&
      ["returns", "Take goods back", "secondary"],
  ].filter(Boolean);
  // A step stays open when the hold changes under it, and tells what became of the hold.
  const step = useRef(null);
  step.current = open ? (step.current ?? hold) : null;
  const Step = steps[open];
  return html`
    ${actions.length > 0 && html`<p class="actions">${actions.map(
      ([name, text, kind]) => html`<button key=${name} type="button" class=${kind}
        onClick=${() => setOpen(name)}>${text}</button>`,
    )}</p>`}
    ${isLive && hold.payment && can(SUPPORT) && html`<p class="muted">The time can’t be changed
      while a payment is under way.</p>`}
    ${open && html`<${Step} hold=${step.current} lines=${lines} onDone=${onDone}
      onClose=${() => setOpen("")} />`}`;
}

// useSend returns send, which runs a call of a step, and isLost, which is true once no answer came.
// The fields of a step are locked then: the step can only be sent again as it was.
function useSend() {
  const [isLost, setLost] = useState(false);
  const began = useRef(NaN); // the server's time at the first attempt, or an earlier one
  async function send(call) {
    began.current = Number.isNaN(began.current) ? clock.earliest() : began.current;
    try {
      return await call();
    } catch (error) {
      setLost(error.isUnknown);
      throw error;
    }
  }
  return { send, isLost, began };
}

// The code of a refusal because the hold has ended, and the kind of its history.
const ended = {
  RESERVATION_EXPIRED: "expired",
  RESERVATION_RELEASED: "released",
  RESERVATION_CONFIRMED: "confirmed",
  ALREADY_PAID: "confirmed",
};

const endings = {
  expired: "This hold has expired",
  released: "This hold was released",
  confirmed: "This hold was confirmed",
};

// meanwhile tells who ended a hold, and when: "This hold was released at 10:02:11 by ada".
async function meanwhile(id, kind) {
  try {
    const { body } = await get(`/api/reservations/${id}/history`);
    const row = body.findLast((one) => one.kind === kind);
    if (row) {
      const who = whose(row);
      return `${endings[kind]} at ${clockTime(new Date(row.at))}${who ? `, ${who}` : ""}.`;
    }
  } catch {
    // What happened is known, if not who did it.
  }
  return `${endings[kind]} in the meantime.`;
}

// toldOf turns a refusal because the hold has ended into an outcome: somebody else was faster.
async function toldOf(error, id, nothing) {
  const kind = ended[error.code];
  if (!kind) {
    throw error;
  }
  const paid = error.code === "ALREADY_PAID" ? alreadyPaid(error) : "";
  return { text: `${nothing} ${await meanwhile(id, kind)}${paid}`, isBad: true };
}

function alreadyPaid({ problem }) {
  const first = problem.paymentReference;
  return first
    ? ` The payment ${first} paid for it: refund this one.`
    : " Another payment paid for it: refund this one.";
}

const isBefore = (time, began) => Date.parse(time) < began;

const LineList = ({ lines, children }) =>
  html`<ul class="effects">${lines.map((line) => html`<li>${children(line)}</li>`)}</ul>`;

function Cancel({ hold, lines, onDone, onClose }) {
  const { send, began } = useSend();
  async function release() {
    try {
      const { reservation } = await send(() =>
        post(`/api/reservations/${hold.id}/cancel`, undefined, `cancel ${hold.id}`),
      );
      if (reservation.status === "EXPIRED") {
        const why = await meanwhile(hold.id, "expired");
        return { text: `Nothing was left to release. ${why}`, isBad: true };
      }
      return isBefore(reservation.releasedAt, began.current)
        ? { text: `Nothing was left to release. ${await meanwhile(hold.id, "released")}`,
            isBad: true }
        : { text: `Released: ${lines.map(unitsText).join(", ")}.` };
    } catch (error) {
      return toldOf(error, hold.id, "Nothing was released.");
    }
  }
  return html`
    <${ConfirmStep} title="Release these items?" action="Release items" isDangerous
      onConfirm=${release} onDone=${onDone} onClose=${onClose} wordsOf=${wordsOf}>
      <p>The hold ends, and other shoppers can have its items at once:</p>
      <${LineList} lines=${lines}>${
        (line) => `${doText(line, "goes", "go")} back to ${line.warehouse}.`}<//>
      ${hold.payment && html`<p class="caution">A payment is under way: <b>${
        hold.payment.reference}</b>, since ${moment(hold.payment.startedAt)}. If it succeeds, the
        customer has paid for nothing, and you have to refund it.</p>`}
    <//>`;
}

// The minutes that one may add.
const extensions = [5, 10, 30, 60];

function Extend({ hold, lines, onDone, onClose }) {
  const [minutes, setMinutes] = useState(10);
  const { send, isLost } = useSend();
  const end = new Date(Date.parse(hold.expiresAt) + minutes * 60_000);
  async function extend() {
    const ttlSeconds = Math.ceil(millisecondsLeft(hold) / 1000) + minutes * 60;
    try {
      const { reservation } = await send(() =>
        post(`/api/reservations/${hold.id}/extend`, { ttlSeconds },
          `extend ${hold.id} ${hold.version} ${minutes}`),
      );
      return { text: `Held until ${clockTime(new Date(reservation.expiresAt))}.` };
    } catch (error) {
      return toldOf(error, hold.id, "The time wasn’t changed.");
    }
  }
  const known = {
    EXTENSION_LIMIT: "That is longer than a hold may last. Choose less time.",
    PAYMENT_STARTED: "A payment has started, so the time can’t be changed now.",
  };
  return html`
    <${ConfirmStep} title="Give more time?" action=${`Add ${minutes} minutes`} onConfirm=${extend}
      onDone=${onDone} onClose=${onClose} wordsOf=${(error) => wordsOf(error, known)}>
      <label for="minutes">More time</label>
      <select id="minutes" value=${minutes} disabled=${isLost}
        onChange=${({ target }) => setMinutes(Number(target.value))}>
        ${extensions.map((one) => html`<option key=${one} value=${one}>${one} minutes</option>`)}
      </select>
      <p>The hold then ends at <b>${clockTime(end)}</b> and not at
        ${" "}${clockTime(new Date(hold.expiresAt))}. Nobody else can have these items until then:
      </p>
      <${LineList} lines=${lines}>${(line) => `${unitsText(line)}, ${line.warehouse}`}<//>
    <//>`;
}

// Reference is the field of a payment's or a return's reference.
const Reference = ({ id, label, value, isLost, onInput }) => html`
  <label for=${id}>${label}</label>
  <input id=${id} type="text" maxlength=${MAX_REFERENCE} autocomplete="off" spellcheck="false"
    value=${value} readonly=${isLost} onInput=${({ target }) => onInput(target.value)} />`;

function Confirm({ hold, lines, onDone, onClose }) {
  const [payment, setPayment] = useState(hold.payment?.reference ?? "");
  const { send, isLost, began } = useSend();
  async function confirm() {
    const body = payment.trim() ? { paymentReference: payment.trim() } : undefined;
    try {
      const { reservation } = await send(() =>
        post(`/api/reservations/${hold.id}/confirm`, body, `confirm ${hold.id} ${payment.trim()}`),
      );
      return isBefore(reservation.confirmedAt, began.current)
        ? { text: `Nothing was left to do. ${await meanwhile(hold.id, "confirmed")}`, isBad: true }
        : { text: `Confirmed: ${lines.map(unitsText).join(", ")} sold.` };
    } catch (error) {
      return toldOf(error, hold.id, "Nothing was sold.");
    }
  }
  return html`
    <${ConfirmStep} title="Confirm the purchase?" action="Confirm purchase" onConfirm=${confirm}
      onDone=${onDone} onClose=${onClose} wordsOf=${wordsOf}>
      <p>Confirm only when the money has arrived. It can’t be undone.</p>
      <${LineList} lines=${lines}>${
        (line) => `${doText(line, "leaves", "leave")} the stock of ${line.warehouse} as sold.`}<//>
      <${Reference} id="payment" label="Payment reference (optional)" value=${payment}
        isLost=${isLost} onInput=${setPayment} />
      ${hold.payment && html`<p class="caution">A payment is under way: <b>${
        hold.payment.reference}</b>. Under another reference, that one has to be refunded when it
        arrives.</p>`}
    <//>`;
}

// Late takes the money of a payment that came after the hold had ended: the items are sold if they
// are free.
function Late({ hold, lines, onDone, onClose }) {
  const [payment, setPayment] = useState(hold.payment?.reference ?? "");
  const { send, isLost } = useSend();
  async function reacquire() {
    const paymentReference = payment.trim();
    if (!paymentReference) {
      throw { text: "Type the payment’s reference.", field: "payment" };
    }
    try {
      const { outcome, reservation } = await send(() =>
        post(`/api/reservations/${hold.id}/confirm`, { paymentReference, onGone: "REACQUIRE" },
          `late ${hold.id} ${paymentReference}`),
      );
      return outcome === "REACQUIRED"
        ? {
            text: "The items were still free, and are sold now.",
            link: { text: "Open the new hold", address: `/ops/holds/${reservation.id}` },
          }
        : { text: "The purchase is confirmed." };
    } catch (error) {
      if (error.code === "PAYMENT_LOST") {
        return { text: `The items are gone. Refund the payment ${paymentReference}.`, isBad: true };
      }
      return toldOf(error, hold.id, "Nothing was sold.");
    }
  }
  return html`
    <${ConfirmStep} title="Late payment" action="Sell if still free" onConfirm=${reacquire}
      onDone=${onDone} onClose=${onClose} wordsOf=${wordsOf}>
      <p>The hold has ended. If its items are still free, they are sold to this payment at once:</p>
      <${LineList} lines=${lines}>${(line) => `${unitsText(line)} from ${line.warehouse}`}<//>
      <p>If they aren’t, nothing is sold, and you have to refund the payment. Either answer is
        final.</p>
      <${Reference} id="payment" label="Payment reference" value=${payment} isLost=${isLost}
        onInput=${setPayment} />
    <//>`;
}

const returnProblems = {
  RESERVATION_NOT_CONFIRMED: "This hold isn’t confirmed, so nothing of it was sold.",
  REFERENCE_REUSED: "Another return of this hold has this reference. Use a new one.",
  TOO_MANY_UNITS: "The stock row can’t have so many units.",
};

// tooManyText tells of which line fewer units can come back.
const tooManyText = (product, sold, returned) =>
  returned > 0
    ? `Of ${product}, ${plural(sold, "was", "were")} sold and ` +
      `${plural(returned, "has", "have")} come back already.`
    : `Of ${product}, only ${plural(sold, "was", "were")} sold.`;

// excessText tells why the API took nothing back.
function excessText(error, lines) {
  const texts = (error.problem?.excess ?? []).map((one) => {
    const line = lines.find(
      ({ productId, warehouseId }) =>
        productId === one.productId && warehouseId === one.warehouseId,
    );
    return tooManyText(line?.product ?? "a product", one.sold, one.returned);
  });
  return `Nothing was taken back. ${texts.join(" ")}`;
}

function TakeBack({ hold, lines, onDone, onClose }) {
  const [typed, setTyped] = useState(lines.map((line) => String(leftOf(line))));
  const [reference, setReference] = useState("");
  const [isKept, setKept] = useState(true);
  const { send, isLost } = useSend();
  const numbers = typed.map(wholeNumber);
  const back = lines
    .map((line, i) => ({ ...line, quantity: numbers[i] }))
    .filter(({ quantity }) => quantity > 0);

  // firstWrong is the problem of the first field that is wrong, or null.
  function firstWrong() {
    const untyped = numbers.findIndex(Number.isNaN);
    if (untyped >= 0 || back.length === 0) {
      return { text: "Type how many units came back.", field: `back-${Math.max(0, untyped)}` };
    }
    const excess = lines.findIndex((line, i) => numbers[i] > leftOf(line));
    if (excess >= 0) {
      const { product, quantity, back: returned } = lines[excess];
      return { text: tooManyText(product, quantity, returned), field: `back-${excess}` };
    }
    return reference.trim()
      ? null
      : { text: "Type a reference, such as the number of the return.", field: "return" };
  }

  async function takeBack() {
    const wrong = isLost ? null : firstWrong(); // what was sent may have come back by now
    if (wrong) {
      throw wrong;
    }
    const body = {
      reference: reference.trim(),
      lines: back.map(({ productId, warehouseId, quantity }) => ({
        productId, warehouseId, quantity, restock: isKept,
      })),
    };
    await send(() => post(`/api/reservations/${hold.id}/returns`, body));
    const where = isKept ? "back on the shelf" : "taken back, and not on the shelf";
    return { text: `${back.map(unitsText).join(", ")}: ${where}.` };
  }
  const words = (error) =>
    error.code === "RETURN_EXCEEDS_SOLD"
      ? excessText(error, lines)
      : wordsOf(error, returnProblems);
  return html`
    <${ConfirmStep} title="Take goods back?" action="Take back" onConfirm=${takeBack}
      onDone=${onDone} onClose=${onClose} wordsOf=${words}>
      <fieldset disabled=${isLost}>
        ${lines.map((line, i) => html`
          <label for=${`back-${i}`}>${line.product}, ${line.warehouse} (${count(line.quantity)}
            ${" "}sold${line.back > 0 && `, ${count(line.back)} came back`})</label>
          <input id=${`back-${i}`} class="number" type="text" inputmode="numeric" maxlength="7"
            value=${typed[i]}
            onInput=${({ target }) => setTyped(typed.with(i, target.value))} />`)}
        <label class="check"><input type="checkbox" checked=${isKept}
          onChange=${({ target }) => setKept(target.checked)} /> They can be sold again</label>
        <${Reference} id="return" label="Reference of the return" value=${reference}
          isLost=${isLost} onInput=${setReference} />
      </fieldset>
      <p>What will happen:</p>
      <${LineList} lines=${back}>${(line) =>
        isKept
          ? `${doText(line, "goes", "go")} back on the shelf of ${line.warehouse}.`
          : `${doText(line, "is", "are")} noted as returned, and not for sale.`}<//>
    <//>`;
}

const steps = { cancel: Cancel, extend: Extend, confirm: Confirm, late: Late, returns: TakeBack };
