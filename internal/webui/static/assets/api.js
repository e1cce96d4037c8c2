// Calls to the API, with the keys that make a POST safe to repeat.

// A call that takes longer than this many ms counts as lost. The API itself gives up earlier.
const TIMEOUT = 12_000;

// A key is kept for so many ms for a retry. After that, the same click is a new request.
const KEY_LIFE = 10 * 60_000;

// The pauses in ms before a POST with an unknown outcome is sent again by itself. After the last
// one the customer decides.
const RETRY_AFTER = [400, 1_600];
const MAX_RETRY_AFTER = 5_000; // ms: a longer Retry-After is cut, as a customer is waiting

const pending = storage();

// The source of the caller's token, {token, renew}, or null where the page sends none.
let source = null;

// authorizeBy lets every call to the API carry a token. Only the console uses it: a shopper's page
// sends no token. token resolves to a token or null, and renew to whether there is another one.
export function authorizeBy(tokens) {
  source = tokens;
}

// ApiError is an answer other than 2xx. Without any answer its status is 0.
export class ApiError extends Error {
  constructor(status, problem = {}, retryAfter = 0) {
    super(problem.detail || problem.error || problem.title || "");
    this.status = status;
    this.problem = problem; // as the API sent it
    this.code = problem.code || "";
    this.shortages = problem.shortages || [];
    this.lines = problem.lines || [];
    this.limits = problem.limits || [];
    this.paymentReference = problem.paymentReference ?? null; // of the payment that was first
    this.details = problem.details || {};
    this.retryAfter = retryAfter; // in ms
  }

  // isUnknown is true if the request may have taken effect, or may still do so. Only a retry with
  // the same key can tell.
  get isUnknown() {
    return (
      this.status === 0 ||
      this.status === 429 ||
      this.status >= 500 ||
      this.code === "IDEMPOTENCY_KEY_IN_USE"
    );
  }

  // text describes the error to a person.
  get text() {
    const fields = Object.entries(this.details).map(
      ([field, messages]) => `${field}: ${[].concat(messages).join(", ")}`,
    );
    return fields.join("; ") || this.message || `The shop answered with an error (${this.status}).`;
  }
}

// FRESH_FOR is for how many ms after a POST the reads ask for an answer that has its effect. The
// answers of the back office come from a server that may be READER_LAG behind, which is at most as
// long. An operator sees a change of their own at once so.
const FRESH_FOR = 10_000;

let posted = -Infinity; // when the last POST was answered, by performance.now()

// cacheOf says how the browser's cache serves a request. A condition of our own goes past the
// browser's copy, so that we see the answer to it. "reload" sends Cache-Control: no-cache, which the
// API takes for a wish for an answer of this moment. Else the browser asks whether its copy is
// current.
function cacheOf(method, headers) {
  if (headers["If-None-Match"]) {
    return "no-store";
  }
  return method === "GET" && performance.now() - posted < FRESH_FOR ? "reload" : "no-cache";
}

// send sends a request, with the caller's token. If the API doesn't take the token, it sends the
// request once more with another one: the API has then done nothing.
async function send(method, url, headers, body) {
  const isApi = new URL(url, location.href).href.startsWith(`${location.origin}/api/`);
  for (let tries = 0; ; tries++) {
    const token = isApi && source ? await source.token() : null;
    const response = await fetch(url, {
      method,
      headers: token ? { ...headers, Authorization: `Bearer ${token}` } : headers,
      body,
      cache: cacheOf(method, headers),
      signal: AbortSignal.timeout(TIMEOUT),
    });
    if (response.status !== 401 || !token || tries > 0 || !(await source.renew())) {
      return response;
    }
  }
}

async function call(method, url, headers = {}, body = undefined) {
  let response, answer;
  try {
    response = await send(method, url, headers, body);
    answer = response.status === 304 ? null : await response.json();
  } catch {
    // A body that was cut off or isn't JSON counts as lost. An error status still counts.
    throw new ApiError(response && !response.ok ? response.status : 0);
  } finally {
    if (method === "POST") {
      posted = performance.now();
    }
  }
  if (!response.ok && response.status !== 304) {
    const seconds = Number(response.headers.get("Retry-After")) || 0;
    throw new ApiError(response.status, answer ?? {}, Math.min(seconds, 30) * 1000);
  }
  return { body: answer, next: nextPage(response), headers: response.headers };
}

// nextPage is the target of Link: <...>; rel="next" (RFC 8288), or null.
function nextPage(response) {
  const link = /<([^>]*)>\s*;[^,]*\brel="?next"?/i.exec(response.headers.get("Link") || "");
  if (!link) {
    return null;
  }
  const { pathname, search } = new URL(link[1], response.url);
  return pathname + search;
}

// MOST_ANSWERS bounds the answers that are kept for the next read of the same address.
const MOST_ANSWERS = 20;

const answers = new Map(); // with an ETag, by address, the oldest first
const lists = new Map(); // of pages, by address and number of pages

// get reads an address, and returns {body, next, headers}. If the answer is that of the last read,
// nothing is sent and read twice, and get returns the same object. Products get asOf: the number of
// the last change of the stock that they show.
export async function get(url) {
  const known = answers.get(url);
  const answer = await call("GET", url, known ? { "If-None-Match": known.etag } : {});
  const asOf = Number(answer.headers.get("Stock-As-Of") ?? NaN);
  const isSame = known && answer.body === null;
  const newest = isSame ? known.answer : answer;
  if (!Number.isNaN(asOf)) {
    for (const product of [].concat(newest.body)) {
      product.asOf = asOf;
    }
  }
  const etag = answer.headers.get("ETag");
  if (!isSame && etag) {
    keep(answers, url, { etag, answer });
  }
  return newest;
}

function keep(known, name, value) {
  known.delete(name);
  known.set(name, value);
  if (known.size > MOST_ANSWERS) {
    known.delete(known.keys().next().value);
  }
}

// getPages reads at most so many pages of a list, from url on. next is the address of the page
// after them, or null. If no page has changed, getPages returns the same object as before.
export async function getPages(url, most) {
  const pages = [];
  let next = url;
  while (pages.length < most && next) {
    const page = await get(next);
    pages.push(page);
    next = page.next;
  }
  const name = `${most} ${url}`;
  const known = lists.get(name);
  if (known?.pages.length === pages.length && pages.every((page, i) => page === known.pages[i])) {
    return known.list;
  }
  const list = { items: pages.flatMap(({ body }) => body), next };
  keep(lists, name, { pages, list });
  return list;
}

// post sends a request under the key of its intent. The first attempt makes the key and the body,
// and both are kept until an answer is final, even across a reload. So a repeated request is the
// same request and never acts twice. While the outcome is unknown, post repeats the request by
// itself a few times, and then leaves it to the customer.
export async function post(url, body = undefined, intent = `${url} ${JSON.stringify(body)}`) {
  const { key, payload } = requestOf(intent, body);
  const headers = { "Idempotency-Key": key };
  if (payload) {
    headers["Content-Type"] = "application/json";
  }
  for (let tries = 0; ; tries++) {
    try {
      const answer = await call("POST", url, headers, payload);
      pending.removeItem(intent);
      return answer.body;
    } catch (error) {
      if (!error.isUnknown) {
        pending.removeItem(intent);
      }
      if (!error.isUnknown || tries === RETRY_AFTER.length) {
        throw error;
      }
      await pause(Math.max(RETRY_AFTER[tries], Math.min(error.retryAfter, MAX_RETRY_AFTER)));
    }
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function requestOf(intent, body) {
  const kept = parse(pending.getItem(intent));
  if (kept?.key && Math.abs(Date.now() - kept.made) < KEY_LIFE) {
    return kept;
  }
  const fresh = { key: uuid(), payload: body && JSON.stringify(body), made: Date.now() };
  pending.setItem(intent, JSON.stringify(fresh));
  return fresh;
}

// parse reads JSON. It returns null for an empty text and for anything that isn't JSON.
export function parse(text) {
  try {
    return JSON.parse(text || "null");
  } catch {
    return null;
  }
}

// storage returns this tab's sessionStorage, or memory where the browser denies that.
export function storage() {
  try {
    return sessionStorage;
  } catch {
    const memory = new Map();
    return {
      getItem: (name) => memory.get(name),
      setItem: (name, value) => memory.set(name, value),
      removeItem: (name) => memory.delete(name),
    };
  }
}

// crypto.randomUUID exists in secure contexts only, and plain HTTP from another machine isn't one.
export function uuid() {
  if (crypto.randomUUID) {
    return crypto.randomUUID();
  }
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}
