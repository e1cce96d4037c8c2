// What both pages share: calls to the API, the keys that make a POST safe to repeat, polling, and building elements.

// A call that takes longer than this counts as lost. The API itself gives up earlier.
const TIMEOUT = 20_000;

// A key is kept this long for a retry. Later than that, the same click is a new wish.
const KEY_LIFE = 10 * 60_000;

const keys = storage();

// ApiError is an answer that isn't 2xx, or no answer at all: then its status is 0.
export class ApiError extends Error {
  constructor(status, problem = {}, retryAfter = 0) {
    super(problem.detail || problem.error || problem.title || "");
    this.status = status;
    this.code = problem.code || "";
    this.shortages = problem.shortages || [];
    this.details = problem.details || {};
    this.retryAfter = retryAfter; // in ms
  }

  // unknown says that the request may have taken effect, or may yet do so: only a retry with the same key can tell.
  get unknown() {
    return this.status === 0 || this.status === 429 || this.status >= 500 ||
      this.code === "IDEMPOTENCY_KEY_IN_USE";
  }

  // text is the error for a person to read.
  get text() {
    const fields = Object.entries(this.details).map(([field, messages]) => `${field}: ${[].concat(messages).join(", ")}`);
    return fields.join("; ") || this.message || `The shop answered with an error (${this.status}).`;
  }
}

async function call(method, url, headers = {}, body = undefined) {
  let response, answer;
  try {
    response = await fetch(url, {
      method, headers, body, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT),
    });
    answer = await response.json();
  } catch {
    // An answer that was cut off, or isn't the API's, is as good as lost; a status that says no is still a no.
    throw new ApiError(response && !response.ok ? response.status : 0);
  }
  if (!response.ok) {
    const seconds = Number(response.headers.get("Retry-After")) || 0;
    throw new ApiError(response.status, answer ?? {}, Math.min(seconds, 30) * 1000);
  }
  return { body: answer, next: nextPage(response) };
}

// nextPage is the target of Link: <...>; rel="next" (RFC 8288), or null.
function nextPage(response) {
  const link = /<([^>]*)>\s*;[^,]*\brel="?next"?/i.exec(response.headers.get("Link") || "");
  return link && new URL(link[1], response.url).href;
}

export const get = (url) => call("GET", url);

// post sends the request under the key of its intent, which is its address and body. The key is made by the first try and
// kept until an answer settles it, even across a reload, so that repeating a lost request never acts twice.
export async function post(url, body) {
  const payload = body && JSON.stringify(body);
  const intent = `key ${url} ${payload || ""}`;
  const headers = { "Idempotency-Key": keyFor(intent) };
  if (payload) {
    headers["Content-Type"] = "application/json";
  }
  try {
    const answer = await call("POST", url, headers, payload);
    keys.removeItem(intent);
    return answer.body;
  } catch (error) {
    if (!error.unknown) {
      keys.removeItem(intent);
    }
    throw error;
  }
}

function keyFor(intent) {
  const [key, made] = (keys.getItem(intent) || "").split(" ");
  if (key && Math.abs(Date.now() - made) < KEY_LIFE) {
    return key;
  }
  const fresh = uuid();
  keys.setItem(intent, `${fresh} ${Date.now()}`);
  return fresh;
}

// storage is this tab's sessionStorage, or memory where the browser denies that.
function storage() {
  try {
    return sessionStorage;
  } catch {
    const memory = new Map();
    return {
      getItem: (intent) => memory.get(intent),
      setItem: (intent, value) => memory.set(intent, value),
      removeItem: (intent) => memory.delete(intent),
    };
  }
}

// crypto.randomUUID exists in secure contexts only; plain HTTP on another machine's name isn't one.
function uuid() {
  if (crypto.randomUUID) {
    return crypto.randomUUID();
  }
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

// poll runs task now, and again when the delay that task returned (in ms) is over; a task that returns 0 ends it. It rests
// while the page is hidden. The function that it returns runs task at once, or once more if it is running.
export function poll(task) {
  let timer, running = false, again = false, ended = false;

  async function run() {
    clearTimeout(timer);
    if (running) {
      again = true;
      return;
    }
    running = true;
    let delay;
    do {
      again = false;
      delay = await task();
    } while (again);
    running = false;
    ended = delay === 0;
    if (!ended && !document.hidden) {
      timer = setTimeout(run, delay);
    }
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(timer);
    } else if (!ended && !running) {
      run();
    }
  });
  run();
  return run;
}

export const byId = (id) => document.getElementById(id);

// element makes one; strings among the children become text, never markup.
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

// setText leaves an unchanged node alone, so that a live region doesn't repeat itself.
export function setText(node, text) {
  if (node.textContent !== String(text)) {
    node.textContent = text;
  }
}

// say shows the result of an action in its live region.
export function say(node, text, isError = false) {
  node.classList.toggle("error", isError);
  setText(node, text);
}
