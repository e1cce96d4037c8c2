// A payment of the demo: the page plays the payment provider, and tells the shop's back end what it
// did (POST /demo/payments). A real shop takes this file's place by its own payment page.

import { useEffect, useRef, useState } from "preact/hooks";
import { parse, post, storage, uuid } from "./api.js";

// The states of an attempt to pay.
//
//   STARTING  the back end is being told that the customer has gone to pay
//   OPEN      the customer is at the payment page
//   LATE      the hold has been left to end, and the money is still on its way
//   DONE      the outcome is known: see OUTCOMES
export const [STARTING, OPEN, LATE, DONE] = ["STARTING", "OPEN", "LATE", "DONE"];

// The outcomes of an attempt.
//
//   PAID          the money came in time
//   REACQUIRED    it came after the end, and there were units for a new hold
//   LOST          it came after the end, and nothing was left: it is refunded
//   ALREADY_PAID  another payment was first: this one is refunded
//   FAILED        there was no money
export const OUTCOMES = ["PAID", "REACQUIRED", "LOST", "ALREADY_PAID", "FAILED"];

// The money of a late payment comes so many ms after the choice. The hold ends in the first second,
// so there is time for somebody else to take the units.
const ARRIVES_AFTER = 12_000;

const kept = storage();
const nameOf = (id) => `payment ${id}`;

const read = (id) => parse(kept.getItem(nameOf(id)));

// write keeps the attempt of a hold for this tab: a reload goes on with the same payment.
export function write(id, attempt) {
  if (attempt) {
    kept.setItem(nameOf(id), JSON.stringify(attempt));
  } else {
    kept.removeItem(nameOf(id));
  }
}

// begun is a new attempt to pay, with a payment of its own.
export const begun = () => ({ reference: `demo-${uuid().slice(0, 8)}`, state: STARTING });

// usePayment returns this tab's attempt to pay for a hold, or null, and the steps that a payment
// provider takes. onMove is called with the hold that took the place of this one. refresh reads the
// hold again.
export function usePayment(id, { onMove, refresh }) {
  const [attempt, setAttempt] = useState(() => read(id));
  const [busy, setBusy] = useState("");
  const [error, setError] = useState(null);
  const isActing = useRef(false);

  function set(next) {
    write(id, next);
    setAttempt(next);
  }

  // step tells the back end one step. One click is one step, however often it is clicked.
  async function step(name, on) {
    if (isActing.current) {
      return;
    }
    isActing.current = true;
    setBusy(name);
    setError(null);
    const { reference } = on;
    const wish = { reservationId: id, paymentReference: reference, step: name };
    try {
      const answer = await post("/demo/payments", wish, `${name} ${id} ${reference}`);
      set(after(name, on, answer));
      if (answer.outcome === "REACQUIRED") {
        const successor = answer.reservation;
        write(successor.id, { ...on, state: DONE, outcome: "REACQUIRED" });
        onMove(successor);
      }
    } catch (refusal) {
      const ended = outcomeOf(refusal);
      if (ended) {
        set({ ...on, state: DONE, ...ended });
      } else if (name === "START" && !refusal.isUnknown) {
        set(null);
      }
      setError(ended ? null : refusal);
    } finally {
      isActing.current = false;
      setBusy("");
      refresh();
    }
  }

  // An attempt that was begun before a reload, or before the hold was replaced, goes on here.
  useEffect(() => {
    if (attempt?.state === STARTING) {
      step("START", attempt);
    }
  }, []);

  return {
    attempt,
    busy,
    error,
    start: () => step("START", attempt?.state === STARTING ? attempt : begun()),
    pay: () => step("PAY", attempt),
    fail: () => step("FAIL", attempt),
    lapse: () => step("LAPSE", attempt),
    clear: () => set(null),
  };
}

// after is the attempt after a step that succeeded.
function after(step, attempt, { outcome }) {
  switch (step) {
    case "START":
      return { ...attempt, state: OPEN };
    case "FAIL":
      return { ...attempt, state: DONE, outcome: "FAILED" };
    case "LAPSE":
      return { ...attempt, state: LATE, arrives: Date.now() + ARRIVES_AFTER };
    default:
      return { ...attempt, state: DONE, outcome: outcome === "REACQUIRED" ? outcome : "PAID" };
  }
}

// outcomeOf is the outcome that a refusal means, or null. Each is final for the payment.
function outcomeOf({ code, shortages, paymentReference }) {
  switch (code) {
    case "PAYMENT_LOST":
      return { outcome: "LOST", shortages };
    case "ALREADY_PAID":
      return { outcome: "ALREADY_PAID", first: paymentReference };
    default:
      return null;
  }
}
