// The checkout of a hold: where the receipt goes, and the demo's payment.

import { useEffect, useRef, useState } from "preact/hooks";
import { post, storage } from "./api.js";
import { begun, DONE, LATE, OPEN, STARTING, write } from "./checkout-pay.js";
import { priceText } from "./hold-lines.js";
import { secondsLeft } from "./hold-time.js";
import { keep } from "./kept.js";
import { useTick } from "./live.js";
import { Alert, correct, html, plural } from "./parts.js";

const MAX_CONTACT = 100; // characters, the API's own limit of a reference
// The least time of the hold that takes this one's place, in seconds. The customer is about to pay.
const LEAST_LEFT = 60;

const kept = storage();

// Checkout is the part of the page on which one pays. It needs the demo: elsewhere the shop's own
// payment page takes its place.
export function Checkout({ hold, lines, payment, isDemo, onMove }) {
  if (!isDemo) {
    return html`
      <section class="payment" aria-labelledby="checkout-title">
        <h2 id="checkout-title">Payment</h2>
        <p>Payment opens here. Your items stay held meanwhile.</p>
      </section>`;
  }
  const { attempt } = payment;
  if (attempt?.state === OPEN) {
    return html`<${Bank} lines=${lines} payment=${payment} />`;
  }
  if (attempt?.state === LATE) {
    return html`<${OnItsWay} payment=${payment} />`; // the hold ends within a second
  }
  if (hold.payment && attempt?.state !== STARTING) {
    return html`<${Elsewhere} payment=${payment} />`;
  }
  return html`<${Contact} hold=${hold} lines=${lines} payment=${payment} onMove=${onMove} />`;
}

// contactError returns what is wrong with a contact, or "".
function contactError(text) {
  const isMail = /^\S+@\S+\.\S+$/.test(text);
  const isPhone = /^[+\d][\d ()/.-]{5,}$/.test(text);
  if (!text) {
    return "Type an email address or a phone number.";
  }
  return isMail || isPhone
    ? ""
    : "Type an email address, such as ada@example.com, or a phone number.";
}

// Contact asks where the receipt goes. The contact is the hold's reference, which is given to a
// hold when it is made. Asking before the hold would leave the units to others while one types. So
// the hold is replaced: in one transaction, a new one with the contact takes its units and its
// time, and nobody can be faster. Another click with the same contact only pays.
function Contact({ hold, lines, payment, onMove }) {
  const [text, setText] = useState(hold.reference ?? kept.getItem("contact") ?? "");
  const [wrong, setWrong] = useState("");
  const [failure, setFailure] = useState("");
  const [isMoving, setMoving] = useState(false);
  const isBusy = isMoving || payment.busy !== "";

  async function submit(event) {
    event.preventDefault();
    if (isBusy) {
      return;
    }
    const contact = text.trim();
    const error = contactError(contact);
    setWrong(error);
    setFailure("");
    if (error) {
      correct("contact");
      return;
    }
    kept.setItem("contact", contact);
    if (contact === hold.reference) {
      payment.start();
      return;
    }
    setMoving(true);
    try {
      onMove(await withContact(hold, lines, contact));
    } catch (refusal) {
      setFailure(whyNotMoved(refusal));
      setMoving(false);
    }
  }

  const price = priceText(lines);
  const pay = price ? `Continue to pay ${price}` : "Continue to payment";
  return html`
    <section class="payment" aria-labelledby="checkout-title">
      <h2 id="checkout-title">Checkout</h2>
      <${Failed} attempt=${payment.attempt} />
      <form novalidate onSubmit=${submit} aria-busy=${isBusy}>
        <label for="contact">Where do we send the receipt?</label>
        <input id="contact" type="text" autocomplete="email" inputmode="email"
          maxlength=${MAX_CONTACT} placeholder="Email or phone number" value=${text}
          aria-invalid=${wrong ? "true" : undefined} aria-describedby="contact-note"
          onInput=${(e) => {
            setText(e.target.value);
            setWrong("");
          }} />
        <p id="contact-note" class="note">${wrong}</p>
        <button type="submit">${isBusy ? "One moment…" : pay}</button>
        <${Alert} class="note" text=${failure || whyNotPaid(payment.error)} />
        <p class="hint"><small>This is the demo: no receipt is sent, and no money moves.</small></p>
      </form>
    </section>`;
}

// withContact makes the hold that takes this one's place, and leaves a payment there to be begun.
async function withContact(hold, lines, reference) {
  const wish = {
    items: hold.items,
    ttlSeconds: Math.max(LEAST_LEFT, secondsLeft(hold)),
    reference,
    replaces: hold.id,
  };
  const intent = `contact ${hold.id} ${reference}`;
  const { reservation } = await post("/api/reservations", wish, intent);
  keep(reservation, lines);
  write(reservation.id, begun());
  return reservation;
}

function whyNotMoved(error) {
  switch (error.code) {
    case "PAYMENT_STARTED":
      return "You are paying for this order in another window.";
    case "RESERVATION_CONFIRMED":
      return "This order is paid already.";
    case "INSUFFICIENT_STOCK":
      return "The time was up, and someone else has taken the items.";
  }
  return error.isUnknown ? "No answer from the shop. Try again: it counts once." : error.text;
}

function whyNotPaid(error) {
  if (!error) {
    return "";
  }
  switch (error.code) {
    case "EXTENSION_LIMIT":
      return "This order was held for as long as it can be, so no new payment can begin.";
    case "RESERVATION_EXPIRED":
      return "The time was up before the payment began. Nothing was charged.";
    case "RESERVATION_RELEASED":
      return "These items were released before the payment began. Nothing was charged.";
  }
  return error.isUnknown ? "No answer from the shop. Try again: you pay once." : error.text;
}

const Failed = ({ attempt }) =>
  attempt?.state === DONE &&
  attempt.outcome === "FAILED" &&
  html`<p class="notice" role="status">The payment failed, and nothing was charged. Your items are
    still held: you can try again.</p>`;

// useFocus puts the focus on a part that has just taken the place of another one.
function useFocus() {
  const node = useRef();
  useEffect(() => node.current.focus(), []);
  return node;
}

// Bank stands in for the page of a payment provider. Its buttons choose what the provider does.
// When another payment was first meanwhile, this one may still bring money.
export function Bank({ lines, payment, isLate = false }) {
  const heading = useFocus();
  const { attempt, busy, error, pay, fail, lapse } = payment;
  const price = priceText(lines);
  return html`
    <section class="payment bank" aria-labelledby="bank-title" aria-busy=${busy !== ""}>
      <p class="tag">Demo bank</p>
      <h2 id="bank-title" tabindex="-1" ref=${heading}>
        ${price ? `Pay ${price}` : "Pay for your order"}</h2>
      <p>Payment <code>${attempt.reference}</code>. No money moves: choose what the bank does.</p>
      <div class="choices">
        <button type="button" onClick=${pay}>
          ${busy === "PAY" ? "Paying…" : "The payment goes through"}</button>
        <button type="button" class="secondary" onClick=${fail}>
          ${busy === "FAIL" ? "One moment…" : "The payment fails"}</button>
        ${
          !isLate &&
          html`
          <button type="button" class="secondary" onClick=${lapse}>
            ${busy === "LAPSE" ? "One moment…" : "The money comes after the hold has ended"}
          </button>`
        }
      </div>
      <${Alert} class="note" text=${whyNotPaid(error)} />
    </section>`;
}

// Elsewhere is shown while another window, or another device, is at the bank.
const Elsewhere = ({ payment: { start, busy, error } }) => html`
  <section class="payment" aria-labelledby="checkout-title" aria-busy=${busy !== ""}>
    <h2 id="checkout-title">You are paying in another window</h2>
    <p>Finish there, and this page shows it. Or pay here instead: only one payment can buy the
      items, and any other is refunded.</p>
    <button type="button" class="secondary" onClick=${start}>
      ${busy === "START" ? "One moment…" : "Pay here instead"}</button>
    <${Alert} class="note" text=${whyNotPaid(error)} />
  </section>`;

// OnItsWay is shown between the end of the hold and the money's arrival.
export function OnItsWay({ payment: { attempt, busy, error, pay } }) {
  const heading = useFocus();
  const left = Math.max(0, Math.ceil((attempt.arrives - Date.now()) / 1000));
  useTick(250, attempt.state === LATE && left > 0);
  useEffect(() => {
    if (left === 0) {
      pay();
    }
  }, [left === 0]);
  return html`
    <section class="payment bank" aria-labelledby="bank-title" aria-busy=${busy !== ""}>
      <p class="tag">Demo bank</p>
      <h2 id="bank-title" tabindex="-1" ref=${heading}>Your money is still on its way</h2>
      <p>The hold has ended, so anyone can take the items now. Try it in another window.
        ${left > 0 ? ` The money arrives in ${plural(left, "second")}.` : " The money arrives."}</p>
      <button type="button" onClick=${pay}>
        ${busy === "PAY" ? "Arriving…" : "Let it arrive now"}</button>
      <${Alert} class="note" text=${whyNotPaid(error)} />
    </section>`;
}
