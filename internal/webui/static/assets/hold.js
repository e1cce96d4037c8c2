// A hold: what it holds, how long, and the two ways out of it.

import { byId, element, get, poll, post, say, setText } from "./api.js";

const REFRESH = 2_000;
const MAX_CATALOG_PAGES = 20; // that we read for the names of a cart's lines

const path = `/api/reservations/${location.pathname.split("/")[2]}`;

const heading = byId("heading");
const explanation = byId("explanation");
const connection = byId("connection"); // whether the shop answers
const result = byId("result"); // of the last click
const countdown = byId("countdown");
const actions = byId("actions");
const back = byId("back");

const texts = {
  PENDING: ["Held for you", "Confirm before the time is up, or the hold ends by itself.", "What is held"],
  CONFIRMED: ["Purchased", "The purchase is confirmed. Thank you.", "What you bought"],
  RELEASED: ["Cancelled", "The hold was cancelled, and nothing was bought.", "What was held"],
  EXPIRED: ["Expired", "The time was up before the purchase was confirmed, so nothing was bought.", "What was held"],
};

let hold = null; // the reservation, once we have it
let offset = 0; // the server's clock minus ours, in ms
let busy = false;
let warned = false; // of the last minute
let asked = false; // the server, when our countdown ended
let passing = false; // the result means something only while the hold is PENDING

const refresh = poll(load);
setInterval(tick, 250);

byId("confirm").addEventListener("click", () => resolve("confirm"));
byId("cancel").addEventListener("click", () => resolve("release"));

async function load() {
  try {
    const { body } = await get(path);
    offset = Date.parse(body.serverTime) - Date.now();
    if (!hold) {
      showItems(body);
    }
    show(body.expired ? { ...body.reservation, status: "EXPIRED" } : body.reservation);
    setText(connection, "");
  } catch (error) {
    if (error.status === 404) {
      showNotFound();
      return 0;
    }
    setText(connection, "The shop can’t be reached. Trying again…");
    return Math.max(REFRESH, error.retryAfter || 0);
  }
  return hold.status === "PENDING" ? REFRESH : 0;
}

function show(reservation) {
  if (hold && hold.status !== "PENDING" && reservation.status === "PENDING") {
    return; // an answer that was under way when the hold was resolved
  }
  if (hold?.status !== reservation.status && passing) {
    say(result, "");
  }
  hold = reservation;
  const [title, text, held] = texts[hold.status];
  setText(heading, title);
  setText(explanation, text);
  document.title = `${title} · Allo Reservations`;

  const pending = hold.status === "PENDING";
  setText(byId("held"), held);
  setText(back, held === "What was held" ? "Back to the shop to reserve again" : "Back to the shop");
  if (!pending && actions.contains(document.activeElement)) {
    heading.focus(); // the button under the focus is about to go
  }
  actions.hidden = byId("left").hidden = !pending;
  byId("hold").hidden = false;
  tick();
}

function showItems({ reservation, product, warehouse }) {
  const lines = reservation.items.map((item) => element("li", {}, describe(item, product?.name, warehouse?.name)));
  byId("items").replaceChildren(...lines);
  if (!product || !warehouse) {
    nameItems(reservation.items, lines);
  }
}

const describe = (item, product, warehouse) =>
  `${item.quantity} × ${product || `product ${item.productId}`} from ${warehouse || `warehouse ${item.warehouseId}`}`;

// nameItems looks a cart's lines up in the catalog. Without it the ids stay.
async function nameItems(items, lines) {
  try {
    let next = "/api/products?limit=200";
    for (let page = 0; page < MAX_CATALOG_PAGES && next; page++) {
      const answer = await get(next);
      items.forEach((item, i) => {
        const product = answer.body.find(({ id }) => id === item.productId);
        const stock = product?.inventories.find(({ warehouseId }) => warehouseId === item.warehouseId);
        if (product) {
          setText(lines[i], describe(item, product.name, stock?.warehouseName));
        }
      });
      next = answer.next;
    }
  } catch { /* the ids say it too */ }
}

function showNotFound() {
  byId("hold").hidden = true;
  setText(heading, "Hold not found");
  setText(explanation, "There is no hold at this address. Perhaps the link is incomplete.");
  document.title = "Hold not found · Allo Reservations";
  setText(connection, "");
}

// tick shows the time that the server's clock leaves. Only the server ends the hold, so at zero we ask it.
function tick() {
  if (hold?.status !== "PENDING") {
    return;
  }
  const left = Math.max(0, Math.ceil((Date.parse(hold.expiresAt) - offset - Date.now()) / 1000));
  const [minutes, seconds] = [Math.floor(left / 60), left % 60];
  setText(countdown, `${minutes}:${String(seconds).padStart(2, "0")}`);
  if (left > 60) {
    warned = false;
  } else if (left > 0 && !warned) {
    warned = true;
    passing = true;
    say(result, "Less than a minute left.");
  }
  if (left > 0) {
    asked = false;
  } else if (!asked) {
    asked = true;
    refresh();
  }
}

// resolve confirms or releases. One action at a time: a second click while the first is under way does nothing.
async function resolve(verb) {
  if (busy || hold?.status !== "PENDING") {
    return;
  }
  setBusy(true);
  passing = true;
  say(result, verb === "confirm" ? "Confirming…" : "Cancelling…");
  try {
    const { reservation } = await post(`${path}/${verb}`);
    show(reservation);
  } catch (error) {
    passing = error.unknown;
    say(result, explain(error, verb), true);
    refresh();
  } finally {
    setBusy(false);
  }
}

function explain(error, verb) {
  const button = verb === "confirm" ? "Confirm purchase" : "Cancel";
  switch (error.code) {
    case "RESERVATION_EXPIRED":
      return "Too late: the hold had expired, so nothing was bought.";
    case "RESERVATION_RELEASED":
      return "The hold was cancelled before, so nothing was bought.";
    case "RESERVATION_CONFIRMED":
      return "Too late to cancel: the purchase is confirmed.";
    case "IDEMPOTENCY_KEY_IN_USE":
      return `This is still being done. Press ${button} again in a moment.`;
  }
  return error.unknown ? `No answer from the shop. Press ${button} again: it won’t be done twice.` : error.text;
}

function setBusy(value) {
  busy = value;
  actions.ariaBusy = String(value);
}
