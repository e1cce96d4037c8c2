// Holding the items of a hold that has ended once more.

import { useEffect, useState } from "preact/hooks";
import { get, post } from "./api.js";
import { keepCart, useCart } from "./cart.js";
import { keep } from "./kept.js";
import { Alert, count, html, lineKey } from "./parts.js";
import { byNearness } from "./where.js";

// addressOf is the page of a hold.
export const addressOf = (id) => `/reservation/${encodeURIComponent(id)}`;

// lacking says which line was short.
export function lacking(short, lines) {
  const line = lines.find((other) => lineKey(other) === lineKey(short));
  const name = line?.productName ?? "a product";
  const where = line?.warehouseName ?? "its warehouse";
  return short.available > 0
    ? `Only ${count(short.available)} of ${name} left in ${where}.`
    : `No ${name} left in ${where}.`;
}

// Again holds the same items once more. Where that can't be, it offers other warehouses in the
// place of it. isLost means that somebody else took the items, so it asks for the offers at once.
export function Again({ hold, lines, isLost }) {
  const cart = useCart();
  const [failure, setFailure] = useState("");
  const [offers, setOffers] = useState([]);
  const [isChecking, setChecking] = useState(isLost && lines.length === 1);
  const [busy, setBusy] = useState("");
  useEffect(() => {
    if (isChecking) {
      others(lines[0]).then((found) => {
        setOffers(found);
        setChecking(false);
      });
    }
  }, []);

  async function reserve(wanted, intent) {
    if (busy) {
      return;
    }
    setBusy(intent);
    setFailure("");
    const items = wanted.map(({ productId, warehouseId, quantity }) => ({
      productId,
      warehouseId,
      quantity,
    }));
    try {
      const { reservation } = await post("/api/reservations", { items }, `${intent} ${hold.id}`);
      (isSame(wanted, cart.lines) ? keepCart : keep)(reservation, wanted);
      location.assign(addressOf(reservation.id));
    } catch (error) {
      setFailure(whyNot(error, lines));
      setOffers(lines.length === 1 ? await others(lines[0]) : []);
      setBusy("");
      // The button that was clicked may be gone, with what it offered.
      requestAnimationFrame(() => {
        if (document.activeElement === document.body) {
          document.querySelector(".again button, .again a").focus();
        }
      });
    }
  }

  const offer = (line, n) => html`
    <button type="button" class=${n > 0 ? "secondary" : ""}
      onClick=${() => reserve([line], line.warehouseId)}>
      ${`Hold it from ${line.warehouseName} (${line.left} left)`}</button>`;
  return html`
    <div class="again">
      <${Alert} class="note" text=${failure} />
      <p class="actions" aria-busy=${busy !== ""}>
        ${
          !isChecking &&
          offers.length === 0 &&
          html`<button type="button" onClick=${() => reserve(lines, "again")}>
          ${busy === "again" ? "One moment…" : "Hold again"}</button>`
        }
        ${offers.map(offer)}
        <a role="button" class="secondary" href="/">Back to the shop</a>
      </p>
    </div>`;
}

// isSame is true if two lists have the same units of the same lines. If the lines are those of the
// shopper's cart, the new hold is the cart's.
function isSame(a, b) {
  const text = (list) =>
    list
      .map((line) => `${lineKey(line)} ${line.quantity}`)
      .sort()
      .join();
  return text(a) === text(b);
}

// others returns the other warehouses that have enough for a line, as lines. It returns none if the
// line's own warehouse has enough again.
async function others(line) {
  try {
    const { body } = await get(`/api/products/${line.productId}`);
    const found = body.inventories.filter((stock) => stock.availableStock >= line.quantity);
    if (found.some(({ warehouseId }) => warehouseId === line.warehouseId)) {
      return [];
    }
    return byNearness(found).map(({ warehouseId, warehouseName, availableStock, orMore }) => ({
      ...line,
      warehouseId,
      warehouseName,
      left: `${count(availableStock)}${orMore ? "+" : ""}`,
    }));
  } catch {
    return []; // the failure says enough
  }
}

function whyNot(error, lines) {
  const nameOf = (key) => lines.find((line) => lineKey(line) === lineKey(key))?.productName;
  switch (error.code) {
    case "INSUFFICIENT_STOCK":
      return `Sorry, someone was faster. ${error.shortages
        .map((short) => lacking(short, lines))
        .join(" ")}`;
    case "NOT_FOR_SALE":
      return error.lines
        .map((line) => `${nameOf(line) ?? "A product"} isn’t sold from there any more.`)
        .join(" ");
    case "LIMIT_EXCEEDED":
      return "That is more than one customer may have.";
  }
  return error.isUnknown ? "No answer from the shop. Try again: it is held once." : error.text;
}
