// The words in which the console tells of holds and of stock.

import { count, plural } from "./parts.js";

// isId is true for a text that is an id of a hold, a product or a warehouse.
export const isId = (text) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);

// The statuses of a hold, in words. A dead hold is EXPIRED before any sweep.
export const statuses = {
  PENDING: "Live",
  CONFIRMED: "Confirmed",
  RELEASED: "Released",
  EXPIRED: "Expired",
};

// statusOf is the status of a hold that the list or the hold's own answer shows.
export const statusOf = (hold) => (hold.expired ? "EXPIRED" : hold.status);

// statusWord is the status of a hold in words. A live hold may be being paid.
export const statusWord = (hold) =>
  statusOf(hold) === "PENDING" && hold.payment ? "Being paid" : statuses[statusOf(hold)];

// unitsOf is the number of units of a hold.
export const unitsOf = (hold) => hold.items.reduce((sum, { quantity }) => sum + quantity, 0);

// The steps of time that timeSpan writes, in seconds.
const [MINUTE, HOUR, DAY] = [60, 3600, 86_400];

// timeSpan writes a number of seconds as a person says it: "45 s", "9 min", "2 h", "3 d". Above a
// minute it changes once a minute, so that a page of holds that runs down draws next to nothing.
export function timeSpan(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < MINUTE) {
    return `${whole} s`;
  }
  if (whole < HOUR) {
    return `${Math.floor(whole / MINUTE)} min`;
  }
  return whole < DAY ? `${Math.floor(whole / HOUR)} h` : `${count(Math.floor(whole / DAY))} d`;
}

const dayTime = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});
const yearTime = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
});
const YEAR = 300 * DAY * 1000; // ms: a time that is further away has its year

// moment writes a time of RFC 3339 in the time zone of the browser.
export function moment(time) {
  const date = new Date(time);
  const format = Math.abs(Date.now() - date) > YEAR ? yearTime : dayTime;
  return format.format(date);
}

// actorName names who did something. The API names an account by its subject and its issuer, which
// is the same for all of them.
export function actorName(actor) {
  const account = /^sub "(.*)" of "/.exec(actor)?.[1];
  return account ? `the account ${account}` : actor;
}

// whose tells who changed a hold, by a row of its history.
export function whose({ cause, actor }) {
  const by = actor ? ` (${actorName(actor)})` : "";
  switch (cause) {
    case "sweep":
      return "its time was up";
    case "reclaim":
      return "its time was up, and another shopper took the units";
    case "operator":
      return `by an operator${by}`;
    case "replaced":
      return "because another hold took its place";
    default:
      return actor ? `by ${actorName(actor)}` : "";
  }
}

// The kinds of a hold's history, in words.
const happened = {
  held: "Held",
  extended: "Time changed",
  "payment-started": "Payment started",
  "payment-failed": "Payment failed",
  confirmed: "Confirmed",
  released: "Released",
  expired: "Expired",
};

// transition tells of a row of a hold's history: {title, text}.
export function transition(row) {
  const ends = `until ${moment(row.expiresAt)}`;
  const who = whose(row);
  const isOpen = ["held", "extended", "payment-started", "payment-failed"].includes(row.kind);
  return {
    title: happened[row.kind] ?? row.kind,
    text: [isOpen ? ends : "", who].filter(Boolean).join(", "),
  };
}

// The kinds of movements, in words.
export const movements = {
  OPENING: "First stock",
  ADJUSTMENT: "Adjusted",
  COUNT: "Counted",
  SALE: "Sold",
  RETURN: "Came back",
};

// wholeNumber reads a typed number, or NaN.
export const wholeNumber = (text) => (/^\d+$/.test(text.trim()) ? Number(text) : NaN);

// signed writes a change of units with its sign.
export const signed = (delta) => (delta < 0 ? `−${count(-delta)}` : `+${count(delta)}`);

// lineText is a line of a hold by its names: "2 × Ceramic Mug, Los Angeles".
export const lineText = ({ quantity, product, warehouse }) =>
  `${count(quantity)} × ${product}, ${warehouse}`;

// unitsText is a line of a hold in a sentence: "2 units of Ceramic Mug".
export const unitsText = ({ quantity, product }) => `${plural(quantity, "unit")} of ${product}`;

// doText is what a line's units do: doText(line, "goes", "go") is "1 unit of Ceramic Mug goes".
export const doText = (line, one, many) =>
  `${unitsText(line)} ${line.quantity === 1 ? one : many}`;

// lost is what a person reads when no answer came. The step keeps its key, so that the same step
// again has one effect.
const lost =
  "No answer came, so this may or may not have been done. Try again: it is never done twice.";

// refusedText tells that the account lacks the permission.
const refusedText = "Your account may not do this. Nothing was changed.";

// refusal tells of an error of a step. known has texts by the code of the error.
export function refusal(error, known = {}) {
  if (error.isUnknown) {
    return lost;
  }
  if (error.status === 401 || error.status === 403) {
    return refusedText;
  }
  return known[error.code] ?? error.text;
}

// wordsOf tells an error of a step. A step throws {text} for a field that is wrong.
export const wordsOf = (error, known) =>
  error.isUnknown === undefined ? error.text : refusal(error, known);

// problemText tells why a line of a delivery or of a correction was refused.
export function problemText({ code, held, detail }) {
  switch (code) {
    case "STOCK_HELD":
      return (
        `${plural(held, "unit is", "units are")} held for shoppers, ` +
        "so the total can’t go below that."
      );
    case "SEQ_UNKNOWN":
      return "The stock row has no such movement any more. Open this page again, and count anew.";
    case "REFERENCE_REUSED":
      return "This reference was booked before with other numbers. Use a new reference.";
    case "PRODUCT_NOT_FOUND":
      return "There is no such product.";
    case "WAREHOUSE_NOT_FOUND":
      return "There is no such warehouse.";
    case "TOO_MANY_UNITS":
      return "A stock row can’t have so many units.";
    default:
      return detail;
  }
}
