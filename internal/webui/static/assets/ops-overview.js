// The console's overview: holds and stock, what needs a look, and the last hour.

import { useMemo, useRef } from "preact/hooks";
import { get } from "./api.js";
import { Bars, minuteOf, Shares } from "./charts.js";
import {
  learnTime,
  Nothing,
  Problem,
  relativeTime,
  retriedOf,
  span,
  Table,
  When,
} from "./console-parts.js";
import { isRefused, useLive } from "./live.js";
import { Connection, count, html, plural } from "./parts.js";

const LOW = 5; // available units below which a row of stock runs low
const SHOWN = 6; // rows of each list
const LOOKED = 30; // rows that run low, among which those that never had stock aren't shown
const LISTS_EVERY = 5; // reads of the figures: the lists change less
const WEBHOOKS_EVERY = 15; // the same for the webhooks, which are no call to the database
const AUDIT_LATE = 2 * 3600; // s: the audit runs every hour, and one may fail
const SWEEP_LATE = 90; // s: a minute between two sweeps, and half of one for the sweep itself
const EVENTS_LATE = 60; // s: events are published and delivered within seconds

const held = [{ name: "held", title: "Held" }];
const ends = [
  { name: "confirmed", title: "Confirmed" },
  { name: "released", title: "Released" },
  { name: "expired", title: "Expired" },
];

export function View({ can }) {
  const live = useLive(useReader(can));
  if (!live.data) {
    return html`
      <h1>Overview</h1>
      ${live.error ? html`<${Problem} error=${live.error} onRetry=${live.refresh} />` : html`
        <${Loading} />`}`;
  }
  const { stats, low, ending, webhooks } = live.data;
  return html`
    <h1>Overview</h1>
    <${Figures} stats=${stats} />
    <${Health} stats=${stats} webhooks=${webhooks} can=${can} />
    <div class="columns">
      <${Low} low=${low} />
      <${Ending} ending=${ending} />
    </div>
    <${Hour} minutes=${stats.minutes} hour=${stats.hour} />
    <${Connection} error=${isRefused(live.error) ? null : live.error} at=${live.at} />`;
}

// useReader returns a function that reads the figures, and the lists when they are due: every few
// reads, and when a hold has come or gone. What isn't due stays as it was read last.
function useReader(can) {
  const looks = useRef(0);
  const last = useRef({ webhooks: null });
  return async () => {
    const sentAt = performance.now();
    const isWebhooksDue = looks.current % WEBHOOKS_EVERY === 0 && can("events:read");
    const stats = await get("/api/stats");
    learnTime(stats.body.serverTime, sentAt);
    const isChanged = movesOf(last.current.stats) !== movesOf(stats.body);
    const isDue = isChanged || looks.current % LISTS_EVERY === 0;
    const [low, ending, webhooks] = await Promise.all([
      isDue && get(`/api/stock?availableBelow=${LOW}&limit=${LOOKED}`),
      isDue && get(`/api/reservations?status=PENDING&limit=${SHOWN}`),
      // Without an answer of the queues, the other figures are still worth showing.
      isWebhooksDue &&
        get("/api/webhooks").catch(({ status }) => ({ body: status === 404 ? [] : "unknown" })),
    ]);
    looks.current++;
    last.current = {
      stats: stats.body,
      low: low || last.current.low,
      ending: ending || last.current.ending,
      webhooks: webhooks ? webhooks.body : last.current.webhooks,
    };
    return last.current;
  };
}

// percent never says that none is some, nor that some is none.
function percent(part, whole) {
  const share = Math.round((100 * part) / whole);
  if (whole <= 0) {
    return "–";
  }
  return share === 0 && part > 0 ? "<1%" : `${share}%`;
}

// movesOf is another text once a hold has come or gone. The number of live holds alone is the same
// when one takes another's place.
const movesOf = (stats) =>
  stats &&
  JSON.stringify([stats.holds.live, stats.hour.held, stats.hour.confirmed, stats.hour.released]);

function Figures({ stats: { holds, stock, hour } }) {
  const ended = hour.confirmed + hour.released + hour.expired;
  return html`
    <ul class="tiles" aria-label="Right now">
      <${Figure} title="Live holds" value=${count(holds.live)}
        note=${`${plural(holds.liveUnits, "unit")} held`} />
      <${Figure} title="Stock on hold" value=${percent(stock.held, stock.total)}
        note=${`${count(stock.held)} of ${plural(stock.total, "unit")}`} />
      <${Figure} title="Held per hour" value=${count(hour.held)}
        note=${`${count(ended)} ended in the last hour`} />
      <${Figure} title="Confirmed" value=${percent(hour.confirmed, ended)}
        note=${ended > 0
          ? `${count(hour.confirmed)} of the ${count(ended)} that ended`
          : "Nothing ended yet"} />
    </ul>`;
}

const Figure = ({ title, value, note }) =>
  html`<li><h2>${title}</h2><p><b>${value}</b><small>${note}</small></p></li>`;

// Health is one line: each part of the service with a word, and what is wrong first in words.
function Health({ stats, webhooks, can }) {
  const parts = [
    sweepHealth(stats),
    eventsHealth(stats.events),
    auditHealth(stats.audit, Date.parse(stats.serverTime)),
    webhooksHealth(webhooks),
  ].filter(Boolean);
  const bad = parts.filter(({ isBad }) => isBad).length;
  return html`
    <section class=${`health ${bad > 0 ? "bad" : "good"}`} aria-labelledby="health">
      <h2 id="health">${bad > 0 ? `${plural(bad, "thing")} to look at` : "All is well"}</h2>
      <ul>
        ${parts.map(({ name, words, isBad, isUnknown, address }) => html`
          <li key=${name} class=${isBad ? "bad" : isUnknown ? "" : "good"}>
            <${Sign} isBad=${isBad} isUnknown=${isUnknown} />
            <span>${address && can("events:read")
              ? html`<a href=${address}>${name}</a>`
              : html`<b>${name}</b>`} ${words}</span></li>`)}
      </ul>
    </section>`;
}

const Sign = ({ isBad, isUnknown }) => html`
  <svg viewBox="0 0 16 16" aria-hidden="true">
    <path d=${isBad ? "M8 3v6M8 12v1" : isUnknown ? "M4 8h8" : "M3 8.5l3.5 3.5L13 4.5"} /></svg>`;

function sweepHealth({ sweep, holds }) {
  const isBad = sweep.lagSeconds > SWEEP_LATE;
  return {
    name: "Sweep",
    isBad,
    words: isBad
      ? `is ${span(sweep.lagSeconds)} late, ${plural(holds.dead, "ended hold")} to close`
      : "on time",
  };
}

function eventsHealth(events) {
  if (!events) {
    return null;
  }
  const isLate = events.lagSeconds > EVENTS_LATE;
  const parked = events.parked > 0 ? `${plural(events.parked, "event")} set aside` : "";
  const late = isLate ? `${span(events.lagSeconds)} behind` : "";
  return {
    name: "Events",
    address: "/ops/events",
    isBad: isLate || Boolean(parked),
    words: [late, parked].filter(Boolean).join(", ") || "up to date",
  };
}

function auditHealth(audit, now) {
  if (!audit) {
    return { name: "Audit", isUnknown: true, words: "hasn’t run yet" };
  }
  const at = Date.parse(audit.at);
  const isOld = (now - at) / 1000 > AUDIT_LATE;
  const found =
    audit.violations > 0
      ? `found ${plural(audit.violations, "violation")}`
      : `${audit.unfinished ? "didn’t finish" : "found nothing wrong"}`;
  return {
    name: "Audit",
    isBad: isOld || audit.violations > 0,
    words: `${found} ${relativeTime(at, now)}${isOld ? ", and is overdue" : ""}`,
  };
}

function webhooksHealth(webhooks) {
  if (!webhooks || webhooks.length === 0) {
    return null;
  }
  if (webhooks === "unknown") {
    return { name: "Webhooks", address: "/ops/webhooks", isBad: true, words: "can’t be read" };
  }
  const names = (list) => list.map(({ name }) => name).join(", ");
  const dead = webhooks.filter(({ deadLetters, parked }) => deadLetters > 0 || parked);
  const failing = webhooks.filter(
    ({ waiting, deliveries }) => waiting > 0 && retriedOf(deliveries) > 0,
  );
  const late = webhooks.filter(({ lagSeconds }) => lagSeconds > EVENTS_LATE);
  const known = { name: "Webhooks", address: "/ops/webhooks" };
  if (dead.length > 0) {
    return { ...known, isBad: true, words: `${names(dead)} failed to take events` };
  }
  if (failing.length > 0) {
    const words = `${names(failing)} doesn’t take all events now, and they are tried again`;
    return { ...known, isBad: true, words };
  }
  // A failure that newer deliveries have pushed out of the list is still an event that waits.
  if (late.length > 0) {
    const longest = Math.max(...late.map(({ lagSeconds }) => lagSeconds));
    return { ...known, isBad: true, words: `${names(late)} ${span(longest)} behind` };
  }
  const unknown = webhooks.filter(({ lagSeconds }) => lagSeconds == null);
  const words = unknown.length > 0 ? `${names(unknown)}: waiting time unknown` : "delivering";
  return { ...known, isUnknown: unknown.length > 0, words };
}

const rowAddress = ({ productId, warehouseId }) => `/ops/stock/${productId}/${warehouseId}`;

const lowColumns = [
  {
    name: "Product",
    isHead: true,
    cell: (row) => html`<a href=${rowAddress(row)}>${row.name}</a>`,
  },
  { name: "Warehouse", cell: (row) => row.warehouseCode },
  {
    name: "Left",
    isNumber: true,
    cell: (row) => html`<b>${count(row.availableStock)}</b> of ${count(row.totalQuantity)}`,
  },
];

function Low({ low }) {
  const rows = low.body.filter(({ totalQuantity }) => totalQuantity > 0).slice(0, SHOWN);
  return html`
    <section aria-labelledby="low">
      <h2 id="low">Low stock</h2>
      ${
        rows.length === 0
          ? html`<${Nothing}>Nothing has fewer than ${LOW} units left.<//>`
          : html`<${Table} label="Stock with few units left" columns=${lowColumns} rows=${rows}
              keyOf=${rowAddress} />`
      }
      <p class="more"><a href=${`/ops/stock?availableBelow=${LOW}`}>All low stock</a></p>
    </section>`;
}

function wordsOf({ items }) {
  const words = plural(
    items.reduce((sum, { quantity }) => sum + quantity, 0),
    "unit",
  );
  return items.length > 1 ? `${words} in ${items.length} lines` : words;
}

const endingColumns = [
  {
    name: "Hold",
    isHead: true,
    cell: (hold) => html`<a href=${`/ops/holds/${hold.id}`}>${wordsOf(hold)}</a>`,
  },
  { name: "Reference", cell: (hold) => hold.reference ?? "–" },
  { name: "Payment", cell: (hold) => (hold.payment ? "Under way" : "–") },
  { name: "Ends", isNumber: true, cell: (hold) => html`<${When} at=${hold.expiresAt} />` },
];

const Ending = ({ ending }) => html`
  <section aria-labelledby="ending">
    <h2 id="ending">Ending soon</h2>
    ${
      ending.body.length === 0
        ? html`<${Nothing}>No holds are live.<//>`
        : html`<${Table} label="The live holds that end next" columns=${endingColumns}
            rows=${ending.body} keyOf=${({ id }) => id} />`
    }
    <p class="more"><a href="/ops/holds?status=PENDING">All live holds</a></p>
  </section>`;

const minuteColumns = [
  { name: "Minute", isHead: true, cell: minuteOf },
  ...[...held, ...ends].map(({ name, title }) => ({
    name: title,
    isNumber: true,
    cell: (minute) => count(minute[name]),
  })),
];

// Hour is drawn again only when a figure of it has changed.
function Hour({ minutes, hour }) {
  return useMemo(
    () => html`
    <section aria-labelledby="hour">
      <h2 id="hour">The last hour</h2>
      <div class="charts">
        <${Bars} title="Holds made" minutes=${minutes} series=${held} />
        <${Bars} title="Holds ended" minutes=${minutes} series=${ends} />
        <${Shares} title="How they ended" hour=${hour} series=${ends} />
      </div>
      <details>
        <summary>Every minute as a table</summary>
        <${Table} label="The last hour, minute by minute" columns=${minuteColumns}
          rows=${minutes.toReversed()} keyOf=${({ at }) => at} />
      </details>
    </section>`,
    [JSON.stringify([minutes, hour])],
  );
}

const Loading = () => html`
  <div role="status"><span class="unseen">Loading the figures…</span>
    <ul class="tiles waiting" aria-hidden="true">
      ${[0, 1, 2, 3].map(() => html`<li><span class="words" /><span class="words" /></li>`)}
    </ul>
  </div>`;
