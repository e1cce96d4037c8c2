// The page of a hold: its items, its countdown and its buttons.

import { useEffect, useRef, useState } from "preact/hooks";
import { get, getPages, post } from "./api.js";
import { Clock, isRefused, useLive, useTick } from "./live.js";
import {
  Alert,
  announce,
  clockTime,
  Connection,
  count,
  duration,
  Failure,
  html,
  lineKey,
  plural,
  start,
} from "./parts.js";
import { NOT_FOR_SALE, remember, shortage, useReserve } from "./reserve.js";

const MAX_CATALOG_PAGES = 20; // read for the names of a cart's lines
const NAMES_AGAIN = 5_000; // ms until the next attempt to read the names
const EXTENSION = 5 * 60; // seconds that one click adds
const TICK = 250; // ms; the seconds change on time, and the ring moves evenly
const RING = 100; // the ring's length, in its own units
const WARNINGS = [60, 30, 10]; // seconds before the end at which the time is announced

const id = location.pathname.split("/")[2];
const path = `/api/reservations/${id}`;
const clock = new Clock();

const texts = {
  PENDING: ["Held for you", "Confirm before the time is up, or the hold ends by itself."],
  CONFIRMED: ["Purchased", "Your purchase is confirmed. Thank you!"],
  RELEASED: ["Cancelled", "This hold was cancelled. Nothing was bought."],
  EXPIRED: ["Expired", "The time was up before the purchase was confirmed. Nothing was bought."],
};

const isFinal = (view) => view.reservation?.status !== "PENDING";

// read returns the server's hold, or null without one. A dead hold is EXPIRED before any sweep.
async function read() {
  const sentAt = performance.now();
  try {
    const { body } = await get(path);
    clock.learn(body.serverTime, sentAt);
    return {
      ...body,
      reservation: body.expired ? { ...body.reservation, status: "EXPIRED" } : body.reservation,
    };
  } catch (error) {
    if (error.status === 404) {
      return {};
    }
    throw error;
  }
}

// newer returns the later of two states of the hold, as answers may arrive out of order.
function newer(a, b) {
  if (!a || !b) {
    return a ?? b;
  }
  if ((a.status === "PENDING") !== (b.status === "PENDING")) {
    return a.status === "PENDING" ? b : a;
  }
  return Date.parse(a.updatedAt) > Date.parse(b.updatedAt) ? a : b;
}

const millisecondsLeft = (hold) => Math.max(0, Date.parse(hold.expiresAt) - clock.now());

const secondsLeft = (hold) => Math.ceil(millisecondsLeft(hold) / 1000);

function Hold() {
  const live = useLive(read, [], isFinal);
  const newest = useRef(null);
  newest.current = newer(newest.current, live.data?.reservation);
  const { busy, result, limit, act } = useActions(newest, live.refresh);
  const names = useNames(live.data);
  const hold = newest.current;

  useOutcome(hold?.status);
  useEffect(() => {
    if (hold) {
      remember(hold, millisecondsLeft(hold));
    }
  }, [hold?.status, hold?.expiresAt]);

  if (live.data && !hold) {
    return html`<${Missing} />`;
  }
  if (!hold) {
    return live.error
      ? html`<${Failure} error=${live.error} onRetry=${live.refresh} isPage />`
      : html`<${Loading} />`;
  }
  const [title, text] = texts[hold.status];
  return html`
    <section class=${`hold ${hold.status.toLowerCase()}`} aria-labelledby="heading">
      <${Dial} hold=${hold} onEnd=${live.refresh} />
      <div class="about">
        <h1 id="heading" tabindex="-1">${title}</h1>
        <p>${text}</p>
        <ul class="items">${hold.items.map((item) => html`<${Item} key=${lineKey(item)} item=${item}
          names=${names} />`)}</ul>
        ${
          hold.status === "PENDING"
            ? html`<${Actions} hold=${hold} busy=${busy} act=${act} result=${result}
              isLongest=${limit === hold.expiresAt} />`
            : html`<${WayOn} hold=${hold} names=${names} result=${result} />`
        }
      </div>
    </section>
    <${Connection} error=${live.error} at=${live.at} />`;
}

// useActions has the actions of the buttons. While one runs, another does nothing.
function useActions(newest, refresh) {
  const [busy, setBusy] = useState("");
  const [result, setResult] = useState({ text: "", isError: false });
  const [limit, setLimit] = useState(""); // the end that the server refused to move
  const isActing = useRef(false);

  async function act(verb, body, intent) {
    if (isActing.current) {
      return;
    }
    isActing.current = true;
    setBusy(verb);
    setResult({ text: "", isError: false });
    try {
      const { reservation } = await post(`${path}/${verb}`, body, intent);
      newest.current = newer(newest.current, reservation);
      setResult({
        text: verb === "extend" ? `Held until ${clockTime(new Date(reservation.expiresAt))}.` : "",
        isError: false,
      });
    } catch (error) {
      setResult({ text: explain(error, verb), isError: true });
      if (error.code === "EXTENSION_LIMIT") {
        setLimit(newest.current.expiresAt);
      }
      if (outcomes[error.code] && newest.current.status === "PENDING") {
        newest.current = { ...newest.current, status: outcomes[error.code] };
      }
    } finally {
      isActing.current = false;
      setBusy("");
      refresh();
    }
  }
  return { busy, result, limit, act };
}

// useOutcome announces the end of the hold, whoever caused it. If the focused button has
// disappeared, the focus goes to the heading, which names the outcome too.
function useOutcome(status) {
  const last = useRef(undefined);
  useEffect(() => {
    if (!status) {
      return;
    }
    const [title, text] = texts[status];
    document.title = `${title} · Allo Reservations`;
    if (last.current && document.activeElement === document.body) {
      document.getElementById("heading").focus();
    } else if (last.current) {
      announce(`${title}. ${text}`);
    }
    last.current = status;
  }, [status]);
}

// outcomes maps the code of a refusal to the status of the hold: it is resolved, so don't wait.
const outcomes = {
  RESERVATION_EXPIRED: "EXPIRED",
  RESERVATION_RELEASED: "RELEASED",
  RESERVATION_CONFIRMED: "CONFIRMED",
};

function explain(error, verb) {
  switch (error.code) {
    case "RESERVATION_EXPIRED":
      return verb === "confirm"
        ? "Too late: the time was up, so nothing was bought."
        : "Too late: the time was up.";
    case "RESERVATION_RELEASED":
      return "This hold was cancelled before, so nothing was bought.";
    case "RESERVATION_CONFIRMED":
      return "The purchase is already confirmed.";
    case "EXTENSION_LIMIT":
      return "It can’t be held five minutes longer. Confirm it, or let it go.";
  }
  if (isRefused(error)) {
    return "Only the payment service can do this. Pay, and this page will show it.";
  }
  return error.isUnknown
    ? "No answer from the shop. Try again: it won’t be done twice."
    : error.text;
}

// Dial shows the time left by the server's clock, or the outcome. Only the server ends the hold, so
// at zero the page asks it.
function Dial({ hold, onEnd }) {
  const isPending = hold.status === "PENDING";
  useTick(TICK, isPending);
  const left = isPending ? secondsLeft(hold) : 0;
  // A pending hold got its end at its last change.
  const whole = Date.parse(hold.expiresAt) - Date.parse(hold.updatedAt);
  useWarnings(left, isPending);
  useEffect(() => {
    if (isPending && left === 0) {
      onEnd();
    }
  }, [isPending && left === 0]);

  const share = isPending ? Math.min(1, millisecondsLeft(hold) / whole) : 1;
  return html`
    <div class=${left <= 60 && isPending ? "dial last" : "dial"}>
      <svg viewBox="0 0 120 120" aria-hidden="true">
        <circle class="track" cx="60" cy="60" r="54" pathLength=${RING} />
        <circle class="rest" cx="60" cy="60" r="54" pathLength=${RING} transform="rotate(-90 60 60)"
          stroke-dasharray=${isPending ? RING : undefined}
            stroke-dashoffset=${RING * (1 - share)} />
        ${!isPending && html`<path class="mark" d=${marks[hold.status]} />`}
      </svg>
      ${
        isPending &&
        html`
        <p role="timer" aria-label="Time left"><b id="countdown">${duration(left)}</b><small>
          ${left > 0 ? "left" : "checking…"}</small></p>`
      }
    </div>`;
}

const marks = {
  CONFIRMED: "M38 62l15 15 30-34",
  RELEASED: "M42 42l36 36M78 42L42 78",
  EXPIRED: "M60 32v30l20 12",
};

// useWarnings announces the time left at each of WARNINGS, and once to a page that opens in the
// last minute. An extension starts over.
function useWarnings(left, isPending) {
  const last = useRef(Infinity);
  useEffect(() => {
    const due = WARNINGS.findLast((at) => left <= at) ?? Infinity;
    if (isPending && left > 0 && due < last.current) {
      announce(left === 60 ? "One minute left." : `${plural(left, "second")} left.`);
    }
    last.current = due;
  }, [left, isPending]);
}

// Actions has the buttons of a pending hold. An extension counts from now, so it includes the time
// left. Its button disappears after a refusal by the server; the heading then gets the focus.
function Actions({ hold, busy, act, result, isLongest }) {
  useEffect(() => {
    if (isLongest && document.activeElement === document.body) {
      document.getElementById("heading").focus();
    }
  }, [isLongest]);
  const extend = () => act("extend", { ttlSeconds: secondsLeft(hold) + EXTENSION }, `extend ${id}`);
  return html`
    <p class="actions" aria-busy=${busy !== ""}>
      <button type="button" onClick=${() => act("confirm")}>
        ${busy === "confirm" ? "Confirming…" : "Confirm purchase"}</button>
      ${
        !isLongest &&
        html`
        <button type="button" class="secondary" onClick=${extend}>
          ${busy === "extend" ? "Extending…" : "5 more minutes"}</button>`
      }
      <button type="button" class="secondary outline" onClick=${() => act("release")}>
        ${busy === "release" ? "Cancelling…" : "Cancel"}
      </button>
    </p>
    <${Result} ...${result} />`;
}

const Result = ({ text, isError }) =>
  html`<${Alert} class=${isError ? "note result" : "result"} text=${text} />`;

// WayOn has the links of a hold that has ended, and the result of the last click.
function WayOn({ hold, names, result }) {
  const [refusal, setRefusal] = useState(null);
  const { isBusy, reserve } = useReserve(() => {});
  if (hold.status === "CONFIRMED") {
    return html`<p class="actions"><a role="button" href="/">Back to the shop</a></p><${Result}
      ...${result} />`;
  }
  async function again() {
    setRefusal("");
    const { error } = await reserve({ items: hold.items }, `again ${id}`);
    if (error) {
      setRefusal(whyNot(error, names));
    }
  }
  return html`
    <p class="actions" aria-busy=${isBusy}>
      <button type="button" onClick=${again}>${isBusy ? "Reserving…" : "Reserve again"}</button>
      <a role="button" class="secondary" href="/">Back to the shop</a>
    </p>
    <${Result} text=${refusal ?? result.text} isError />`;
}

function whyNot(error, names) {
  if (error.code === "INSUFFICIENT_STOCK") {
    return error.shortages
      .map((short) => {
        const { product = "A product", warehouse = "its warehouse" } =
          names?.get(lineKey(short)) ?? {};
        return `${product}: ${shortage(short, warehouse)}`;
      })
      .join(" ");
  }
  if (error.code === "NOT_FOR_SALE") {
    return error.lines
      .map((line) => `${names?.get(lineKey(line))?.product ?? "A product"}: ${NOT_FOR_SALE}`)
      .join(" ");
  }
  return error.isUnknown
    ? "No answer from the shop. Try again: it won’t be reserved twice."
    : error.text;
}

function Item({ item, names }) {
  const { product, warehouse } = names
    ? (names.get(lineKey(item)) ?? {})
    : { product: "…", warehouse: "…" };
  return html`
    <li>
      <b>${count(item.quantity)} ×</b>${" "}
      <span>${product ?? `Product ${item.productId}`}<br /><small>
        ${warehouse ?? `Warehouse ${item.warehouseId}`}</small></span>
    </li>`;
}

// useNames returns the names of the hold's lines. The hold's answer has the names of a single line,
// and the catalog those of a cart. Until they are known the page shows ids, and reads the catalog
// again.
function useNames(view) {
  const [names, setNames] = useState(null);
  const { reservation, product, warehouse } = view ?? {};
  const isCart = Boolean(reservation && !(product && warehouse));
  useEffect(() => {
    if (!isCart) {
      return undefined;
    }
    let timer;
    const ask = () =>
      getPages("/api/products?limit=200", MAX_CATALOG_PAGES).then(
        (catalog) => {
          const found = catalog.items.flatMap((p) =>
            p.inventories.map((stock) => [
              lineKey({ productId: p.id, warehouseId: stock.warehouseId }),
              { product: p.name, warehouse: stock.warehouseName },
            ]),
          );
          setNames(new Map(found));
        },
        () => {
          setNames(new Map());
          timer = setTimeout(ask, NAMES_AGAIN);
        },
      );
    ask();
    return () => clearTimeout(timer);
  }, [isCart]);
  if (product && warehouse) {
    return new Map([
      [lineKey(reservation.items[0]), { product: product.name, warehouse: warehouse.name }],
    ]);
  }
  return names;
}

const Loading = () => html`
  <section class="hold waiting" role="status">
    <div class="dial"><svg viewBox="0 0 120 120" aria-hidden="true"><circle class="track" cx="60"
      cy="60" r="54" /></svg></div>
    <div class="about"><h1 id="heading" tabindex="-1">Your hold</h1><p>Loading…</p></div>
  </section>`;

const Missing = () => html`
  <section class="blank">
    <svg class="picture" viewBox="0 0 64 48" aria-hidden="true">
      <circle cx="28" cy="20" r="14" /><path d="M38 30l14 14M23 15l10 10M33 15L23 25" />
    </svg>
    <h1>Hold not found</h1>
    <p>There is no hold at this address. Perhaps the link is incomplete.</p>
    <a role="button" href="/">Back to the shop</a>
  </section>`;

start(html`<${Hold} />`);
