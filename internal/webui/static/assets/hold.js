// The page of a hold: its items, its time, its checkout, and how it ended.

import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "./api.js";
import { Bank, Checkout, OnItsWay } from "./checkout.js";
import { DONE, LATE, OPEN, usePayment } from "./checkout-pay.js";
import { mountHeader } from "./header.js";
import { setTitle } from "./held.js";
import { Actions, newer, useActions } from "./hold-actions.js";
import { addressOf, Again, lacking } from "./hold-again.js";
import { Summary, useLines } from "./hold-lines.js";
import { clock, Dial, secondsLeft } from "./hold-time.js";
import { keep, keptHold, learn } from "./kept.js";
import { useLive } from "./live.js";
import { Alert, announce, Connection, Failure, html, start } from "./parts.js";
import { settings } from "./settings.js";

const AGAIN = 5_000; // ms until the settings are asked for again
const FOLLOWED = 3 * 60_000; // ms for which a hold that ended may still get a successor

const id = location.pathname.split("/")[2];
const path = `/api/reservations/${id}`;

// move opens the hold that took the place of this one. Back leads past this one.
const move = (hold) => location.replace(addressOf(hold.id));

// What the page says, by the state of the hold: its heading and a sentence.
const texts = {
  held: ["Held for you", "Nobody else can take these items while the time runs."],
  paying: ["Held for you", "You are paying. The items stay yours until the payment is done."],
  other: [
    "Someone else’s order",
    "This order was made in another browser, so you can only look at it.",
  ],
  bought: ["Thank you, it’s yours", "Your order is paid."],
  reacquired: [
    "Thank you, it’s yours",
    "Your money came after the time was up. We found you another one, so your order is paid.",
  ],
  twice: [
    "You have paid already",
    "Another payment for this order was first. The second one is refunded.",
  ],
  sold: ["Bought", "This order is paid."],
  released: ["Released", "The items went back on the shelf. Nothing was bought."],
  expired: ["Time’s up", "Your time ran out before you paid. Nothing was bought."],
  late: [
    "Time’s up",
    "Your payment isn’t done yet. If the money comes now, we’ll look for another one.",
  ],
  lost: [
    "Your money is on its way back",
    "It came after the time was up, and someone else had taken the items. You get a refund.",
  ],
  moved: ["You changed this order", "A new order has taken its place."],
  found: [
    "We found you another one",
    "The money came after the time was up, and the items were still there. The order is paid.",
  ],
};

const marks = {
  CONFIRMED: "done",
  RELEASED: "gone",
  EXPIRED: "late",
};

// stateOf names the state that the page shows.
function stateOf(hold, isOwn, attempt) {
  const outcome = attempt?.state === DONE ? attempt.outcome : "";
  switch (hold.status) {
    case "PENDING":
      if (!isOwn) {
        return "other";
      }
      // The attempt tells a moment before the hold does.
      return hold.payment || [OPEN, LATE].includes(attempt?.state) ? "paying" : "held";
    case "CONFIRMED":
      if (!isOwn) {
        return "sold";
      }
      return { REACQUIRED: "reacquired", ALREADY_PAID: "twice" }[outcome] ?? "bought";
    case "RELEASED":
      return hold.replacedBy ? "moved" : "released";
    default:
      if (outcome === "LOST") {
        return "lost";
      }
      if (hold.replacedBy) {
        return "found";
      }
      return attempt?.state === LATE || attempt?.state === OPEN ? "late" : "expired";
  }
}

// read returns the server's hold, or null without one. A dead hold is EXPIRED before any sweep.
async function read() {
  const sentAt = performance.now();
  try {
    const { body } = await get(path);
    clock.learn(body.serverTime, sentAt);
    const reservation = body.expired
      ? { ...body.reservation, status: "EXPIRED" }
      : body.reservation;
    learn(reservation, body.remainingSeconds * 1000);
    return { reservation };
  } catch (error) {
    if (error.status === 404) {
      return {};
    }
    throw error;
  }
}

// isFinal is true for a hold that won't change any more. One that has just ended may still get a
// successor, when money comes late.
function isFinal({ reservation: hold }) {
  if (!hold || hold.status === "CONFIRMED" || hold.replacedBy) {
    return true;
  }
  // A hold that has expired may be stored as it was before: only its end tells when that was.
  const ended = hold.status === "EXPIRED" ? hold.expiresAt : hold.updatedAt;
  return hold.status !== "PENDING" && clock.now() - Date.parse(ended) > FOLLOWED;
}

function Page() {
  const isDemo = useDemo();
  const live = useLive(read, [], isFinal, { holdId: id });
  const newest = useRef(null);
  newest.current = newer(newest.current, live.data?.reservation);
  if (live.data && !newest.current) {
    return html`<${Missing} />`;
  }
  if (!newest.current || isDemo === undefined) {
    return live.error
      ? html`<${Failure} error=${live.error} onRetry=${live.refresh} isPage />`
      : html`<${Loading} />`;
  }
  return html`
    <${Hold} hold=${newest.current} newest=${newest} isDemo=${isDemo} refresh=${live.refresh} />
    <${Connection} error=${live.error} at=${live.at} />`;
}

function Hold({ hold, newest, isDemo, refresh }) {
  const [isOwn, setOwn] = useState(() => keptHold(id) !== null);
  const lines = useLines(hold);
  const payment = usePayment(id, { refresh, onMove: (next) => (keep(next, lines), move(next)) });
  const actions = useActions(id, newest, refresh);
  const state = stateOf(hold, isOwn, payment.attempt);
  useOutcome(state);

  function claim() {
    keep(hold, lines, secondsLeft(hold) * 1000);
    setOwn(true);
    announce("This is your order now.");
  }

  const [title, text] = texts[state];
  return html`
    <article class=${`order ${state}`}>
      <header class=${hold.status.toLowerCase()}>
        <${Dial} hold=${hold} mark=${markOf(hold, state)} onEnd=${refresh} />
        <div>
          <h1 id="heading" tabindex="-1">${title}</h1>
          <p>${text}</p>
          <${Detail} hold=${hold} isOwn=${isOwn} lines=${lines} attempt=${payment.attempt} />
          ${state === "held" && html`<${Actions} hold=${hold} lines=${lines} ...${actions} />`}
          <${WayOn} state=${state} hold=${hold} lines=${lines} />
          <${Alert} class=${actions.isError ? "note result" : "result"} text=${actions.text} />
        </div>
      </header>
      <${Summary} lines=${lines} isDemo=${isDemo} isOver=${isOver(state)} isOwn=${isOwn} />
      <${Steps} state=${state} hold=${hold} lines=${lines} payment=${payment} isDemo=${isDemo}
        onClaim=${claim} />
    </article>`;
}

// isOver is true if the items are nobody's, or somebody else's.
const isOver = (state) => ["released", "expired", "lost"].includes(state);

const markOf = (hold, state) =>
  ({ moved: "moved", found: "done", lost: "gone" })[state] ?? marks[hold.status];

// useDemo is true on the demo, and undefined until the settings were asked for. It is null while
// they can't be read: nothing is shown then that one could pay with.
function useDemo() {
  const [isDemo, setDemo] = useState(undefined);
  useEffect(() => {
    let timer;
    const ask = () =>
      settings().then(
        ({ demo }) => setDemo(demo === true),
        () => {
          setDemo(null);
          timer = setTimeout(ask, AGAIN);
        },
      );
    ask();
    return () => clearTimeout(timer);
  }, []);
  return isDemo;
}

// Steps is the card with what one does next, where there is something to fill in or to decide.
function Steps({ state, hold, lines, payment, isDemo, onClaim }) {
  const { attempt } = payment;
  switch (state) {
    case "held":
    case "paying":
      return isDemo === null
        ? null
        : html`<${Checkout} hold=${hold} lines=${lines} payment=${payment} isDemo=${isDemo}
          onMove=${move} />`;
    case "other":
      return html`<${Claim} onClaim=${onClaim} />`;
    case "late":
      return attempt.state === LATE
        ? html`<${OnItsWay} payment=${payment} />`
        : html`<${Bank} lines=${lines} payment=${payment} isLate />`;
    default:
      // Another payment was first, and this one is still open at the bank.
      return attempt?.state === OPEN
        ? html`<${Bank} lines=${lines} payment=${payment} isLate />`
        : null;
  }
}

// WayOn has the links of a hold that has ended.
function WayOn({ state, hold, lines }) {
  switch (state) {
    case "held":
    case "paying":
    case "other":
    case "late":
      return null;
    case "moved":
    case "found":
      return html`<p class="actions"><a role="button" href=${addressOf(hold.replacedBy)}>
        Go to the order</a></p>`;
    case "released":
    case "expired":
    case "lost":
      return html`<${Again} hold=${hold} lines=${lines} isLost=${state === "lost"} />`;
    default:
      return html`<p class="actions"><a role="button" class="secondary" href="/">
        Back to the shop</a></p>`;
  }
}

// Detail says what is particular about a payment or a receipt.
function Detail({ hold, isOwn, lines, attempt }) {
  const facts = [];
  if (isOwn && hold.reference && hold.status === "CONFIRMED") {
    facts.push(html`The receipt goes to <b>${hold.reference}</b>.`);
  }
  if (attempt?.outcome === "ALREADY_PAID") {
    facts.push(html`Refunded: payment <code>${attempt.reference}</code>.`);
    facts.push(attempt.first && html`Kept: payment <code>${attempt.first}</code>.`);
  }
  if (attempt?.outcome === "REACQUIRED") {
    facts.push(html`Payment <code>${attempt.reference}</code>.`);
  }
  if (attempt?.outcome === "LOST") {
    facts.push(html`Refunded: payment <code>${attempt.reference}</code>.`);
    facts.push(...(attempt.shortages ?? []).map((short) => lacking(short, lines)));
  }
  return html`${facts.filter(Boolean).map((fact) => html`<p class="fact">${fact}</p>`)}`;
}

// useOutcome names the page, and announces each change of state, whoever caused it. If the focused
// button has disappeared, the focus goes to the heading, which names the state too.
function useOutcome(state) {
  const last = useRef(undefined);
  useEffect(() => {
    const [title, text] = texts[state];
    setTitle(`${title} · Allo`);
    const before = last.current;
    last.current = state;
    if (!before || texts[before][0] === title) {
      return;
    }
    if (document.activeElement === document.body) {
      document.getElementById("heading").focus();
    } else {
      announce(`${title}. ${text}`);
    }
  }, [state]);
}

// Claim lets a shopper use an order that was made on another device. It is a step of its own, so
// that nobody buys or releases a stranger's order with one click.
const Claim = ({ onClaim }) => html`
  <section class="payment" aria-labelledby="claim-title">
    <h2 id="claim-title">Is this your order?</h2>
    <p>If you made it on another device, you can go on here: pay for it, extend it or release
      it.</p>
    <button type="button" class="secondary" onClick=${onClaim}>This is my order</button>
  </section>`;

const Loading = () => html`
  <article class="order waiting">
    <header>
      <div class="dial"><svg viewBox="0 0 120 120" aria-hidden="true"><circle class="track" cx="60"
        cy="60" r="54" /></svg></div>
      <div><h1 id="heading" tabindex="-1">Your order</h1><p role="status">Loading…</p></div>
    </header>
  </article>`;

const Missing = () => html`
  <section class="blank">
    <svg class="picture" viewBox="0 0 64 48" aria-hidden="true">
      <circle cx="28" cy="20" r="14" /><path d="M38 30l14 14M23 15l10 10M33 15L23 25" />
    </svg>
    <h1>Order not found</h1>
    <p>There is no order at this address. Perhaps the link is incomplete.</p>
    <a role="button" href="/">Back to the shop</a>
  </section>`;

mountHeader({ except: id });
start(html`<${Page} />`);
