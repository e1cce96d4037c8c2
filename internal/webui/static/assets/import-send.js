// Sends the lines of a checked file in calls, one after another. It can be stopped, and goes on
// where it stopped, after a reload too. A line that is sent twice takes effect once: a product or a
// warehouse becomes what it is already, and a line of stock has its number under one reference.

import { parse, post } from "./api.js";
import { KINDS } from "./import-file.js";

const CALL = 500; // lines: the API's limit of a call
const SOURCE = "console"; // of the movements that an import makes
const MOST_REPAIRS = 10; // times that a call is sent again without the lines that the API refused
const MOST_FAILURES = 8; // times in a row that a call may fail before a person decides
const [FIRST_PAUSE, LONGEST_PAUSE] = [2_000, 30_000]; // ms before a failed call is sent again

const KEPT = "ops.imports"; // localStorage: how far each file's import came, by the file's hash
const MOST_KEPT = 20; // imports
const MOST_KEPT_REFUSED = 2_000; // refused lines of an import: they take about 200 bytes each

// MOST_REFERENCE is the most characters of an import's reference. The API takes 100, and each call
// adds its number.
export const MOST_REFERENCE = 90;

// A line that is left out goes as a line of no product, which the API refuses. So the lines after
// it keep their numbers. Then a corrected file can be imported under the same reference: only what
// was refused before takes effect.
const NOBODY = "00000000-0000-0000-0000-000000000000";
const LEFT_OUT = { productId: NOBODY, warehouseId: NOBODY, delta: 1 };

// job is the import of this page, or null: {file, kind, reference, clamp, position, counts,
// refused, before, state, problem}.
//
// - position counts the lines that are done, and counts has their number by their outcome;
// - refused maps the index of a line to why the API refused it;
// - before is the kept import if the file was imported before, or null;
// - state is "ready", "sending", "waiting" until a failed call is sent again, "stopping" after the
//   call under way, "stopped", or "done";
// - problem says why it waits, or why it has stopped by itself.
let job = null;
let wake = () => {}; // ends the pause
const listeners = new Set();

export const currentJob = () => job;

// onJob calls listener after each change of the job, until the returned function is called.
export function onJob(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function change(changes) {
  job = job && { ...job, ...changes };
  listeners.forEach((listener) => listener(job));
}

// begin makes a job of a file. One that was stopped goes on where it was, under its reference.
export function begin(file) {
  const known = keptImports().find(({ hash }) => hash === file.hash);
  const going = known && !known.isDone ? known : null;
  job = {
    file,
    kind: KINDS[file.kind],
    reference: known?.reference ?? referenceOf(file),
    clamp: known?.clamp ?? false,
    position: going?.position ?? 0,
    counts: going?.counts ?? {},
    refused: new Map(going?.refused),
    before: known?.isDone ? known : null,
    state: going ? "stopped" : "ready",
    problem: "",
  };
  change({});
}

// referenceOf proposes a reference: the file's name and today.
function referenceOf({ name }) {
  const now = new Date();
  const day = [now.getFullYear(), now.getMonth() + 1, now.getDate()]
    .map((part) => String(part).padStart(2, "0"))
    .join("-");
  const plain = [...name.replace(/\p{Cc}/gu, " ")].slice(0, MOST_REFERENCE - day.length - 1);
  return `${plain.join("")} ${day}`;
}

// set changes the reference or what becomes of lines that would leave less than is held.
export const set = (changes) => change(changes);

// clear forgets the job. What was sent stays.
export function clear() {
  job = null;
  change({});
}

export function stop() {
  if (job.state === "waiting") {
    change({ state: "stopped", problem: "" });
    wake();
  } else if (job.state === "sending") {
    change({ state: "stopping" });
  }
}

// isLeftOut is true for a line that isn't sent.
const isLeftOut = (index) => job.file.lines[index].problems.length > 0 || job.refused.has(index);

// start sends the lines that aren't done yet.
export async function start() {
  if (["sending", "waiting", "stopping"].includes(job.state)) {
    return;
  }
  change({ state: "sending", problem: "" });
  addEventListener("beforeunload", warn);
  try {
    for (let failures = 0; job.state === "sending" && job.position < job.file.lines.length; ) {
      try {
        await sendNext();
        failures = 0;
        keep();
      } catch (error) {
        failures++;
        await fail(error, failures);
      }
    }
  } finally {
    removeEventListener("beforeunload", warn);
  }
  if (job.position === job.file.lines.length) {
    change({ state: "done", problem: "" });
    keep();
  } else if (job.state === "stopping") {
    change({ state: "stopped" });
  }
}

// warn lets the browser ask before the page is left in the middle of an import.
const warn = (event) => event.preventDefault();

// fail waits until a call that failed may be sent again, or stops where only a person can help.
async function fail(error, failures) {
  const problem = problemOf(error);
  if (job.state === "stopping" || !error?.isUnknown || failures > MOST_FAILURES) {
    change({ state: "stopped", problem });
    return;
  }
  change({ state: "waiting", problem });
  const pause = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1));
  await new Promise((resolve) => {
    wake = resolve;
    addEventListener("online", resolve, { once: true });
    setTimeout(resolve, Math.max(pause, error.retryAfter));
  });
  if (job.state === "waiting") {
    change({ state: "sending", problem: "" });
  }
}

// problemOf tells in words why a call failed.
function problemOf(error) {
  const words = {
    0: navigator.onLine ? "The shop can’t be reached." : "You are offline.",
    401: "Your sign-in has ended. Sign in again, and then go on.",
    403: `Your account can’t import this. It needs the permission ${job.kind.scope}.`,
    413: "The next lines take more than 1 MB, which is too much for a call. Shorten their texts.",
    429: "The shop is busy.",
    503: "The shop is busy or restarting.",
  };
  return words[error?.status] ?? error?.text ?? `This page has a mistake: ${error}`;
}

// sendNext sends the next call. The API refuses a whole call over one line that isn't valid. So
// sendNext leaves those lines out, and sends the call again.
async function sendNext() {
  const end = Math.min(job.position + CALL, job.file.lines.length);
  const indexes = Array.from({ length: end - job.position }, (_, i) => job.position + i);
  for (let repairs = 0; ; repairs++) {
    try {
      await sendLines(indexes);
      change({ position: end });
      return;
    } catch (error) {
      const found = invalidLines(error, indexes);
      if (found.size === 0 || repairs === MOST_REPAIRS) {
        throw error;
      }
      change({ refused: new Map([...job.refused, ...found]) });
    }
  }
}

// sentOf is the lines of a call: all of them for stock, as their numbers count.
const sentOf = (indexes) =>
  job.kind === KINDS.stock ? indexes : indexes.filter((index) => !isLeftOut(index));

// invalidLines reads from a refusal which lines aren't valid, and why.
function invalidLines(error, indexes) {
  const found = new Map();
  const sent = sentOf(indexes);
  for (const [field, messages] of Object.entries(error?.details ?? {})) {
    const [, index, column] = /^(?:lines|items)\[(\d+)\]\.(\w+)$/.exec(field) ?? [];
    if (index !== undefined && !isLeftOut(sent[index])) {
      found.set(sent[index], `${column} ${[].concat(messages).join(", ")}`);
    }
  }
  return found;
}

async function sendLines(indexes) {
  const sent = sentOf(indexes);
  if (sent.every(isLeftOut)) {
    return;
  }
  const { file, kind, reference, clamp } = job;
  const lines = sent.map((index) => (isLeftOut(index) ? LEFT_OUT : file.lines[index].values));
  const body = { [kind.list]: lines };
  if (kind === KINDS.stock) {
    body.source = SOURCE;
    body.reference = `${reference}/${1 + indexes[0] / CALL}`;
    body.onHeld = clamp ? "CLAMP" : "FAIL";
  }
  const { results } = await post(kind.path, body, `import ${file.hash} ${reference} ${indexes[0]}`);
  take(sent, results);
}

// take counts the results of a call, one for each line that was sent.
function take(sent, results) {
  const counts = { ...job.counts };
  const refused = new Map(job.refused);
  const count = (name) => (counts[name] = (counts[name] ?? 0) + 1);
  results.forEach(({ outcome, problem, shortfall }, i) => {
    if (isLeftOut(sent[i])) {
      return;
    }
    count(outcome);
    if (shortfall) {
      count("CLAMPED");
    }
    if (problem) {
      refused.set(sent[i], reasonOf(problem));
    }
  });
  change({ counts, refused });
}

// refusedOf lists the lines of a job that didn't take effect: {index, at, reason}. Those with a
// problem of their own are there from the beginning.
export function refusedOf({ file, refused }) {
  return file.lines.flatMap(({ at, problems }, index) => {
    const reason = problems.length > 0 ? wordsOf(problems) : refused.get(index);
    return reason ? [{ index, at, reason }] : [];
  });
}

// wordsOf tells the problems of a line.
const wordsOf = (problems) =>
  problems.map(({ column, problem }) => `${column} ${problem}`.trim()).join("; ");

// reasonOf tells why the API refused a line.
function reasonOf({ code, detail, held }) {
  if (code !== "STOCK_HELD") {
    return detail;
  }
  return held > 0
    ? `Less would be left than the ${held} that customers hold.`
    : "Less than zero would be left.";
}

// ---- What is kept across a reload

// keptImports lists the imports that this browser knows, the newest first: {hash, name, total,
// reference, clamp, position, counts, refused, isDone, at}.
export const keptImports = () => parse(local()?.getItem(KEPT)) ?? [];

function keep() {
  const { file, reference, clamp, position, counts, refused, state } = job;
  if (!file.hash) {
    return; // nothing tells this file from another one
  }
  const entry = {
    hash: file.hash,
    name: file.name,
    total: file.lines.length,
    reference,
    clamp,
    position,
    counts,
    refused: [...refused].slice(0, MOST_KEPT_REFUSED),
    isDone: state === "done",
    at: new Date().toISOString(),
  };
  save([entry, ...keptImports().filter(({ hash }) => hash !== file.hash)].slice(0, MOST_KEPT));
}

// forget drops what is kept of an import.
export function forget(hash) {
  save(keptImports().filter((entry) => entry.hash !== hash));
  change({});
}

// save writes the list, and drops the oldest entries while the browser has no room for them.
function save(entries) {
  for (let n = entries.length; n >= 0; n--) {
    try {
      local()?.setItem(KEPT, JSON.stringify(entries.slice(0, n)));
      return;
    } catch {
      // The next try has one entry fewer.
    }
  }
}

// local returns the browser's localStorage, or null where it denies that.
function local() {
  try {
    return localStorage;
  } catch {
    return null;
  }
}
