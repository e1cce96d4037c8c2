// The dialog that reserves units of one stock row, or puts them into the cart.

import { useEffect, useRef, useState } from "preact/hooks";
import { parse, post, storage } from "./api.js";
import {
  Alert,
  correct,
  count,
  Dialog,
  html,
  lineKey,
  most,
  Quantity,
  quantityError,
  units,
} from "./parts.js";

export function Reserve({ row, inCart, connection, onAdd, onClose, refresh }) {
  const [value, setValue] = useState("1");
  const [error, setError] = useState("");
  const { isBusy, reserve } = useReserve(refresh);

  // refuse shows an error, or clears it when wrong is empty. It returns whether there is an error.
  function refuse(wrong) {
    setError(wrong);
    if (wrong) {
      correct("quantity");
    }
    return wrong !== "";
  }

  // Units in the cart aren't held yet. They count against what can be added to the cart, but not
  // against what can be reserved now.
  function tooMuch() {
    const wrong = quantityError(value, most(row));
    return wrong || Number(value) <= most(row) - inCart
      ? wrong
      : `Your cart has ${count(inCart)} of the ${units(row)} left here already.`;
  }

  function add(close) {
    if (!isBusy && !refuse(tooMuch()) && !refuse(onAdd(row, Number(value)))) {
      close();
    }
  }

  async function submit(event) {
    event.preventDefault();
    if (isBusy || refuse(quantityError(value, most(row)))) {
      return;
    }
    setError("");
    const { error: refusal } = await reserve({
      productId: row.productId,
      warehouseId: row.warehouseId,
      quantity: Number(value),
    });
    if (refusal) {
      setError(explain(refusal, row));
      correct("quantity");
    }
  }

  return html`
    <${Dialog} title=${`Reserve ${row.productName}`} connection=${connection} onClose=${onClose}>${(
      close,
    ) => html`
      <form novalidate onSubmit=${submit} aria-busy=${isBusy}>
        <p>
          From <strong>${row.warehouseName}
            </strong>: ${units(row)} available${
              row.totalQuantity === null ? "" : ` of ${count(row.totalQuantity)}`
            }.
          ${inCart > 0 && ` ${count(inCart)} in your cart.`}
        </p>
        <label for="quantity">Quantity</label>
        <${Quantity} id="quantity" autofocus label="Quantity" value=${value}
          most=${most(row)} error=${error}
          onInput=${(typed) => {
            setValue(typed);
            setError("");
          }} />
        <${Alert} id="quantity-note" class="note" text=${error} />
        <footer>
          <button type="button" class="secondary" onClick=${() => add(close)}>Add to cart</button>
          <button type="submit">${isBusy ? "Reserving…" : "Reserve now"}</button>
        </footer>
      </form>`}
    <//>`;
}

const kept = storage();

// ownHolds are the live holds that this tab has shown: [{id, keys, until}], with the keys of the
// lines, and the end by the browser's clock.
export function ownHolds() {
  const holds = parse(kept.getItem("holds"));
  return Array.isArray(holds) ? holds.filter((hold) => hold.until > Date.now()) : [];
}

// remember keeps a hold that is pending, for so many ms, and forgets any other.
export function remember({ id, status, items }, left) {
  const holds = ownHolds().filter((hold) => hold.id !== id);
  if (status === "PENDING") {
    holds.push({ id, keys: items.map(lineKey), until: Date.now() + left });
  }
  kept.setItem("holds", JSON.stringify(holds));
}

// useReserve makes a hold and goes to its page. While a request runs and while the page closes, a
// second call does nothing and gets {}: a double click counts once. The first call gets
// {reservation}, or {error} after a refresh of the numbers.
export function useReserve(refresh) {
  const [isBusy, setBusy] = useState(false);
  const isLeaving = useRef(false);
  useEffect(() => {
    // the customer may come back to this page from the hold's
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

// What the customer reads about an archived product or a closed warehouse.
export const NOT_FOR_SALE = "Not reserved: it isn’t sold from there any more.";

// explain tells the customer why a line wasn't reserved.
export function explain(error, row) {
  if (error.code === "INSUFFICIENT_STOCK") {
    return shortage(
      error.shortages.find((short) => lineKey(short) === lineKey(row)),
      row.warehouseName,
    );
  }
  if (error.code === "INVENTORY_NOT_FOUND") {
    return "That warehouse doesn’t stock this product any more.";
  }
  if (error.code === "NOT_FOR_SALE") {
    return NOT_FOR_SALE;
  }
  if (error.isUnknown) {
    return "No answer from the shop. Try again: it won’t be reserved twice.";
  }
  return error.text;
}

// shortage tells how many units are left of a short line. It returns "" for any other line.
export function shortage(short, warehouseName) {
  if (!short) {
    return "";
  }
  if (short.orMore) {
    return `Not reserved: fewer than ${count(short.requested)} left in ${warehouseName}.`;
  }
  return short.available > 0
    ? `Not reserved: only ${count(short.available)} left in ${warehouseName}.`
    : `Not reserved: somebody was faster, and none are left in ${warehouseName}.`;
}
