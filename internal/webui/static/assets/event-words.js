// The words in which the console tells of events.

import { movements, signed, unitsOf, whose } from "./ops-words.js";
import { count, plural } from "./parts.js";

// TYPES are the types of events, in the order of a hold's life, and their words. tone is that of
// the hold's status.
export const TYPES = [
  { type: "allo.reservation.held", words: "Held", tone: "pending" },
  { type: "allo.reservation.extended", words: "Time changed", tone: "" },
  { type: "allo.reservation.payment-started", words: "Payment started", tone: "" },
  { type: "allo.reservation.payment-failed", words: "Payment failed", tone: "expired" },
  { type: "allo.reservation.confirmed", words: "Confirmed", tone: "confirmed" },
  { type: "allo.reservation.released", words: "Released", tone: "released" },
  { type: "allo.reservation.expired", words: "Expired", tone: "expired" },
  { type: "allo.stock.moved", words: "Stock changed", tone: "" },
];

const byType = new Map(TYPES.map((known) => [known.type, known]));

// wordsOfType are the words of a type. A type that this page doesn't know is its own.
export const wordsOfType = (type) => byType.get(type)?.words ?? type;

// toneOfType is the tone of a type, or "".
export const toneOfType = (type) => byType.get(type)?.tone ?? "";

const ID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";
const SUBJECT = new RegExp(`^(${ID})(?:[/-](${ID}))?(?:-\\d+)?$`);

// subjectOf tells what an event is about, by its subject or its id: {hold}, or {productId,
// warehouseId}, or null.
export function subjectOf(text) {
  const [, first, second] = SUBJECT.exec(text) ?? [];
  if (!first) {
    return null;
  }
  return second ? { productId: first, warehouseId: second } : { hold: first };
}

// addressOf is the console's page of a subject.
export const addressOf = ({ hold, productId, warehouseId }) =>
  hold ? `/ops/holds/${hold}` : `/ops/stock/${productId}/${warehouseId}`;

// detailOf tells of an event in a few words: "2 units, by an operator", "−3, now 17".
export function detailOf({ type, data }) {
  if (type === "allo.stock.moved") {
    const kind = movements[data.kind] ?? data.kind;
    return `${kind}: ${signed(data.delta)}, now ${count(data.totalAfter)}`;
  }
  if (!data?.reservation) {
    return "";
  }
  return [plural(unitsOf(data.reservation), "unit"), whose(data)].filter(Boolean).join(", ");
}
