// What a shopper can do with a hold: get more time, or release the items.

import { useEffect, useRef, useState } from "preact/hooks";
import { post } from "./api.js";
import { secondsLeft } from "./hold-time.js";
import { keptHold, learn, markLongest } from "./kept.js";
import { Dialog, html, minuteTime, plural } from "./parts.js";

const EXTENSION = 5 * 60; // seconds that one click adds

// newer returns the later of two states of the hold, as answers may arrive out of order.
export function newer(a, b) {
  if (!a || !b) {
    return a ?? b;
  }
  if ((a.status === "PENDING") !== (b.status === "PENDING")) {
    return a.status === "PENDING" ? b : a;
  }
  if (a.version !== b.version) {
    return a.version > b.version ? a : b;
  }
  return a.replacedBy ? a : b;
}

// useActions has the shopper's actions. While one runs, another does nothing.
export function useActions(id, newest, refresh) {
  const [busy, setBusy] = useState("");
  const [result, setResult] = useState({ text: "", isError: false });
  const isActing = useRef(false);

  // act returns whether the hold did as it was asked.
  async function act(verb, body, intent) {
    if (isActing.current) {
      return false;
    }
    isActing.current = true;
    setBusy(verb);
    setResult({ text: "", isError: false });
    try {
      const { reservation } = await post(`/api/reservations/${id}/${verb}`, body, intent);
      newest.current = newer(newest.current, reservation);
      learn(reservation);
      const text =
        verb === "extend" ? `Held until ${minuteTime(new Date(reservation.expiresAt))}.` : "";
      setResult({ text, isError: false });
      return true;
    } catch (error) {
      setResult({ text: explain(error), isError: error.code !== "EXTENSION_LIMIT" });
      if (error.code === "EXTENSION_LIMIT") {
        markLongest(id);
      }
      if (outcomes[error.code] && newest.current.status === "PENDING") {
        newest.current = { ...newest.current, status: outcomes[error.code] };
      }
      return false;
    } finally {
      isActing.current = false;
      setBusy("");
      refresh();
    }
  }
  return { busy, ...result, act };
}

// outcomes maps the code of a refusal to the status of the hold: it is resolved, so don't wait.
const outcomes = {
  RESERVATION_EXPIRED: "EXPIRED",
  RESERVATION_RELEASED: "RELEASED",
  RESERVATION_CONFIRMED: "CONFIRMED",
};

function explain(error) {
  switch (error.code) {
    case "RESERVATION_EXPIRED":
      return ""; // the page says so
    case "RESERVATION_RELEASED":
      return "These items were released already.";
    case "RESERVATION_CONFIRMED":
      return "This order is paid already.";
    case "PAYMENT_STARTED":
      return "You are paying in another window, so this can’t be changed now.";
    case "EXTENSION_LIMIT":
      return "You’ve reached the longest hold time.";
  }
  return error.isUnknown
    ? "No answer from the shop. Try again: it won’t be done twice."
    : error.text;
}

// Actions has the buttons of a hold that isn't being paid. An extension counts from now, so it
// includes the time left. Its button disappears after a refusal by the server; the heading then
// gets the focus.
export function Actions({ hold, lines, busy, act }) {
  const [isAsking, setAsking] = useState(false);
  const isLongest = keptHold(hold.id)?.isLongest === true;
  useEffect(() => {
    if (isLongest && document.activeElement === document.body) {
      document.getElementById("heading").focus();
    }
  }, [isLongest]);
  const more = { ttlSeconds: secondsLeft(hold) + EXTENSION };
  const extend = () => act("extend", more, `extend ${hold.id}`);
  return html`
    <p class="actions" aria-busy=${busy !== ""}>
      ${
        !isLongest &&
        html`
        <button type="button" class="secondary extend" onClick=${extend}>
          ${busy === "extend" ? "One moment…" : "Hold it 5 more minutes"}</button>`
      }
      <button type="button" class="secondary outline release" aria-haspopup="dialog"
        onClick=${() => setAsking(true)}>Release items</button>
    </p>
    ${
      isAsking &&
      html`<${Release} lines=${lines} busy=${busy} onClose=${() => setAsking(false)}
      onRelease=${() => act("release")} />`
    }`;
}

// Release is the second step before the items go back.
function Release({ lines, busy, onRelease, onClose }) {
  const units = lines.reduce((sum, { quantity }) => sum + quantity, 0);
  return html`
    <${Dialog} title="Release items?" onClose=${onClose}>${(close) => html`
      <p>${plural(units, "item goes", "items go")} back on the shelf, and anyone can
        take${units === 1 ? " it" : " them"}.</p>
      <footer>
        <button type="button" class="secondary" autofocus onClick=${close}>Keep holding</button>
        <button type="button" class="danger" aria-busy=${busy === "release"}
          onClick=${() => onRelease().then(close)}>
          ${busy === "release" ? "Releasing…" : "Release items"}</button>
      </footer>`}
    <//>`;
}
