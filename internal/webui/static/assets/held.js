// The shopper's own holds, on every page of the shop: a bar below the header, the time in the title
// of the tab, and a question in the last minute.

import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { get, post } from "./api.js";
import {
  forget,
  learn,
  liveHolds,
  markAsked,
  markLongest,
  useKept,
  useSecondsLeft,
} from "./kept.js";
import { Dialog, duration, html, plural, toast } from "./parts.js";

const ASK_AT = 60; // seconds before the end
const MORE = 5 * 60; // seconds that one click adds
const LOOK_EVERY = 60_000; // ms between two looks at whether the server agrees
const MOST_LOOKS = 5; // holds at a time: a shopper has one or two

// The holds end by themselves, are paid for on another device, or are released by an operator.
async function look() {
  for (const { id } of liveHolds().slice(0, MOST_LOOKS)) {
    try {
      const { body } = await get(`/api/reservations/${id}`);
      const status = body.expired ? "EXPIRED" : body.reservation.status;
      learn({ ...body.reservation, status }, body.remainingSeconds * 1000);
    } catch (error) {
      if (error.status === 404) {
        forget(id);
      } else {
        return; // the page says that it is cut off
      }
    }
  }
}

let base = document.title;
let left = null;

// setTitle names the page. The time of a hold stands before the name.
export function setTitle(text) {
  base = text;
  showTitle();
}

function showTitle() {
  const next = left === null ? base : `${duration(left)} · ${base}`;
  if (document.title !== next) {
    document.title = next;
  }
}

// mountHeld shows the bar below the page's header. A page that is about one hold gives its id: the
// bar leaves that hold out, and the title has its time.
export function mountHeld({ except = "" } = {}) {
  const node = document.createElement("div");
  document.querySelector("body > header").append(node);
  render(html`<${Held} except=${except} />`, node);
}

function Held({ except }) {
  const holds = useKept();
  useEffect(() => {
    const wake = () => document.hidden || look();
    const timer = setInterval(wake, LOOK_EVERY);
    document.addEventListener("visibilitychange", wake);
    wake();
    return () => clearInterval(timer);
  }, []);
  useEnd(holds.filter(({ id }) => id !== except)); // the page about a hold says so itself
  const [first] = holds.filter(({ id }) => !except || id === except);
  const shown = holds.filter(({ id }) => id !== except);
  useEffect(() => {
    if (!first) {
      left = null;
      showTitle();
    }
  }, [first?.id]);
  return html`
    ${first && html`<${Watch} key=${first.id} hold=${first} />`}
    ${shown.length > 0 && html`<${Bar} holds=${shown} />`}`;
}

// useEnd says that a hold has ended by itself.
function useEnd(holds) {
  const last = useRef([]);
  useEffect(() => {
    const gone = last.current.filter(({ id }) => !holds.some((hold) => hold.id === id));
    last.current = holds;
    if (gone.some(({ until }) => until <= Date.now())) {
      toast("Your hold has ended. What was in your cart is still there.");
    }
  });
}

// Watch keeps the time in the title, and asks in the last minute.
function Watch({ hold }) {
  const seconds = useSecondsLeft(hold.until);
  const [isOpen, setOpen] = useState(false);
  useEffect(() => {
    left = seconds;
    showTitle();
  }, [seconds]);
  const isDue = seconds > 0 && seconds <= ASK_AT && !hold.isPaying && hold.asked !== hold.expiresAt;
  useEffect(() => {
    if (isDue && !document.hidden) {
      setOpen(true);
    }
  });
  // The dialog closes when another tab has got more time, or the hold has ended.
  const isLast = seconds > 0 && seconds <= ASK_AT;
  if (!isOpen || !isLast) {
    return null;
  }
  return html`<${Ask} hold=${hold} seconds=${seconds} onClose=${() => {
    setOpen(false);
    markAsked(hold.id);
  }} />`;
}

// Ask offers more time. What the server refuses is said, and the purchase stays one click away.
function Ask({ hold, seconds, onClose }) {
  const [isBusy, setBusy] = useState(false);
  const [note, setNote] = useState("");
  const canExtend = !hold.isLongest;
  const link = useRef();
  useEffect(() => {
    if (!canExtend) {
      link.current.focus(); // the button that had the focus is gone
    }
  }, [canExtend]);

  async function extend(close) {
    if (isBusy) {
      return;
    }
    setBusy(true);
    setNote("");
    try {
      const body = { ttlSeconds: MORE };
      const answer = await post(`/api/reservations/${hold.id}/extend`, body, `extend ${hold.id}`);
      learn(answer.reservation);
      close();
      toast(`Your items are held for ${plural(MORE / 60, "more minute")}.`);
    } catch (error) {
      setNote(refusal(error));
      if (error.code === "EXTENSION_LIMIT") {
        markLongest(hold.id);
      }
      if (!error.isUnknown) {
        look();
      }
    } finally {
      setBusy(false);
    }
  }

  const text = canExtend
    ? "Do you need more time? When it runs out, someone else can take your items."
    : "You’ve reached the longest hold time. Complete your purchase while the time lasts.";
  return html`
    <${Dialog} title=${`${plural(seconds, "second")} left`} class="ask" onClose=${onClose}>${(
      close,
    ) => html`
      <p>${text}</p>
      <p class="note" role="alert">${note}</p>
      <footer>
        ${
          canExtend &&
          html`<button type="button" class="secondary" autofocus
          onClick=${() => extend(close)}>
          ${isBusy ? "One moment…" : "Hold it 5 more minutes"}</button>`
        }
        <a role="button" ref=${link} href=${`/reservation/${hold.id}`}
          onClick=${(event) => isHere(hold) && (event.preventDefault(), close())}>
          Complete purchase</a>
      </footer>`}
    <//>`;
}

const isHere = ({ id }) => location.pathname === `/reservation/${id}`;

function refusal(error) {
  switch (error.code) {
    case "EXTENSION_LIMIT":
      return "";
    case "PAYMENT_STARTED":
      return "You are paying already. The hold lasts until the payment is done.";
    case "RESERVATION_EXPIRED":
      return "The time is up, so the items are free again.";
  }
  return error.isUnknown ? "No answer from the shop. Try again: it counts once." : error.text;
}

// Bar counts the held items, and has the time of the hold that ends first.
function Bar({ holds }) {
  const [first] = holds;
  const seconds = useSecondsLeft(first.until);
  const units = holds.reduce(
    (sum, { items }) => items.reduce((all, { quantity }) => all + quantity, sum),
    0,
  );
  const isLast = seconds <= ASK_AT;
  return html`
    <div class=${isLast ? "heldbar last" : "heldbar"} role="region" aria-label="Held for you">
      <p>
        <span>${plural(units, "item")} held for you</span>
        <b role="timer" aria-label="Time left">${duration(seconds)}</b>
        <a href=${`/reservation/${first.id}`}>Complete purchase</a>
      </p>
    </div>`;
}
