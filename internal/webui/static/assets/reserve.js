// The dialog that reserves from one row of stock, or puts it into the cart.

import { useEffect, useRef, useState } from "preact/hooks";
import { post } from "./api.js";
import { count, Dialog, html, lineKey, Quantity, quantityError } from "./parts.js";

export function Reserve({ row, inCart, connection, onAdd, onClose, refresh }) {
  const [value, setValue] = useState("1");
  const [error, setError] = useState("");
  const { isBusy, reserve } = useReserve(refresh);

  // refuse says what is wrong, if anything is, and whether it is.
  function refuse(wrong) {
    setError(wrong);
    if (wrong) {
      document.getElementById("quantity").focus();
    }
    return wrong !== "";
  }

  // What is in the cart isn't held yet: it leaves the less to add to it, and as much as before to reserve now.
  function tooMuch() {
    const wrong = quantityError(value, row.availableStock);
    return wrong || Number(value) <= row.availableStock - inCart
      ? wrong : `Your cart has ${count(inCart)} of the ${count(row.availableStock)} left here already.`;
  }

  function add(close) {
    if (!isBusy && !refuse(tooMuch()) && !refuse(onAdd(row, Number(value)))) {
      close();
    }
  }

  async function submit(event) {
    event.preventDefault();
    if (isBusy || refuse(quantityError(value, row.availableStock))) {
      return;
    }
    setError("");
    const { error: refusal } = await reserve({ productId: row.productId, warehouseId: row.warehouseId, quantity: Number(value) });
    if (refusal) {
      setError(explain(refusal, row));
      document.getElementById("quantity")?.focus();
    }
  }

  return html`
    <${Dialog} title=${`Reserve ${row.productName}`} connection=${connection} onClose=${onClose}>${(close) => html`
      <form novalidate onSubmit=${submit} aria-busy=${isBusy}>
        <p>
          From <strong>${row.warehouseName}</strong>: ${count(row.availableStock)} available of ${count(row.totalQuantity)}.
          ${inCart > 0 && ` ${count(inCart)} in your cart.`}
        </p>
        <label for="quantity">Quantity</label>
        <${Quantity} id="quantity" autofocus label="Quantity" value=${value} most=${row.availableStock} error=${error}
          onInput=${(typed) => { setValue(typed); setError(""); }} />
        <p id="quantity-note" class="note" role="alert">${error}</p>
        <footer>
          <button type="button" class="secondary" onClick=${() => add(close)}>Add to cart</button>
          <button type="submit">${isBusy ? "Reserving…" : "Reserve now"}</button>
        </footer>
      </form>`}
    <//>`;
}

// useReserve makes a hold and goes to its page. While it is under way, and while the page is leaving, nothing else is begun: a double
// click is one click, and the second is told nothing. Who began is told {reservation}, or {error}; then the numbers are read anew.
export function useReserve(refresh) {
  const [isBusy, setBusy] = useState(false);
  const isLeaving = useRef(false);
  useEffect(() => { // who comes back to the page has left it
    const back = (event) => {
      if (event.persisted) {
        isLeaving.current = false;
        setBusy(false);
      }
    };
    addEventListener("pageshow", back);
    return () => removeEventListener("pageshow", back);
  }, []);

  async function reserve(wish, intent = undefined) {
    if (isLeaving.current) {
      return {};
    }
    isLeaving.current = true;
    setBusy(true);
    try {
      const { reservation } = await post("/api/reservations", wish, intent);
      location.assign(`/reservation/${encodeURIComponent(reservation.id)}`);
      return { reservation };
    } catch (error) {
      isLeaving.current = false;
      setBusy(false);
      refresh();
      return { error };
    }
  }
  return { isBusy, reserve };
}

// explain says in the customer's words why a line wasn't reserved.
export function explain(error, row) {
  if (error.code === "INSUFFICIENT_STOCK") {
    return shortage(error.shortages.find((short) => lineKey(short) === lineKey(row)), row.warehouseName);
  }
  if (error.code === "INVENTORY_NOT_FOUND") {
    return "This isn’t kept in that warehouse any more.";
  }
  if (error.isUnknown) {
    return "No answer from the shop. Try again: it won’t be reserved twice.";
  }
  return error.text;
}

// shortage says what is left of a line that was short, or "" of one that wasn't.
export function shortage(short, warehouseName) {
  if (!short) {
    return "";
  }
  return short.available > 0
    ? `Not reserved: only ${count(short.available)} left in ${warehouseName}.`
    : `Not reserved: somebody was faster, and none are left in ${warehouseName}.`;
}
