// Reads for the views of the console: a read that repeats while the page is shown and ends with its
// view, and the total of a list.

import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "./api.js";
import { Problem, textOf } from "./console-parts.js";
import { isRefused } from "./live.js";
import { html } from "./parts.js";

// REFUSED_EVERY is the pause in ms after a refusal: a person has to grant the permission.
const REFUSED_EVERY = 60_000;

// FAILED_EVERY is the least pause in ms after a read that failed.
const FAILED_EVERY = 2_000;

// TOTAL_EVERY is the pause in ms between two counts of a list, which read more than a page does.
const TOTAL_EVERY = 60_000;

// useRead runs read now, again every so many ms, and at once when an input changes. With every 0 it
// doesn't repeat. It pauses while the page is hidden, and reads when it is shown again or back
// online. It returns {data, error, at, isCurrent, refresh}: the newest data, the error of the last
// read if that failed, when the data was read, and whether it is of the present inputs.
export function useRead(read, inputs, every) {
  const key = JSON.stringify(inputs);
  const [state, setState] = useState({ data: null, error: null, at: null, key: null });
  const latest = useRef();
  latest.current = { read, every };
  const refresh = useRef(() => {});

  useEffect(() => {
    const loop = new Loop(latest, key, setState);
    refresh.current = () => loop.run();
    loop.run();
    return () => loop.end();
  }, [key]);
  return { ...state, isCurrent: state.key === key, refresh: () => refresh.current() };
}

// Loop repeats a read until it is ended.
class Loop {
  #timer;
  #isRunning = false;
  #isDue = false; // another read was asked for while one ran
  #isEnded = false;
  #wake = () => document.hidden || this.run();

  constructor(latest, key, setState) {
    Object.assign(this, { latest, key, setState });
    document.addEventListener("visibilitychange", this.#wake);
    addEventListener("online", this.#wake);
  }

  end() {
    this.#isEnded = true;
    clearTimeout(this.#timer);
    document.removeEventListener("visibilitychange", this.#wake);
    removeEventListener("online", this.#wake);
  }

  async run() {
    clearTimeout(this.#timer);
    this.#isDue = true;
    if (this.#isRunning) {
      return;
    }
    this.#isRunning = true;
    let pause = 0;
    while (this.#isDue && !this.#isEnded) {
      this.#isDue = false;
      pause = await this.#read();
    }
    this.#isRunning = false;
    if (pause > 0 && !this.#isEnded) {
      this.#timer = setTimeout(this.#wake, pause);
    }
  }

  // #read returns the pause in ms until the next read, or 0 for none.
  async #read() {
    const { read, every } = this.latest.current;
    try {
      const data = await read();
      this.#set(() => ({ data, error: null, at: new Date(), key: this.key }));
      return typeof every === "function" ? every(data) : every;
    } catch (error) {
      this.#set((last) => ({ ...last, error }));
      const least = isRefused(error) ? REFUSED_EVERY : FAILED_EVERY;
      return Math.max(least, error.retryAfter || 0);
    }
  }

  #set(change) {
    if (!this.#isEnded) {
      this.setState(change);
    }
  }
}

// readList reads a page of a list: {items, next, at}. at is the browser's monotonic time of the
// read, from which the times left count.
export async function readList(path, asked, cursor, size) {
  const query = new URLSearchParams(asked);
  query.set("limit", size);
  if (cursor) {
    query.set("cursor", cursor);
  }
  const { body, next } = await get(`${path}?${query}`);
  return { items: body, next, at: performance.now() };
}

// useTotal counts a list now and then: the API's Total-Count, or null while it isn't known. A list
// of what was updated since a time has no total.
export function useTotal(path, asked) {
  const { data, isCurrent, refresh } = useRead(
    async () => {
      if (asked.has("updatedSince")) {
        return null;
      }
      const query = new URLSearchParams(asked);
      query.set("limit", 1);
      query.set("total", "true");
      const { headers } = await get(`${path}?${query}`);
      return headers.get("Total-Count");
    },
    [path, String(asked)],
    TOTAL_EVERY,
  );
  return { total: isCurrent ? data : null, recount: refresh };
}

// Unread takes the place of what useRead hasn't read yet: it loads, or it couldn't be had.
export function Unread({ of: { error, refresh } }) {
  if (!error) {
    return html`<p role="status" class="muted">Loading…</p>`;
  }
  const text = error.isUnknown ? "The shop gave no answer. This page keeps trying." : textOf(error);
  return html`<${Problem} text=${text} onRetry=${refresh} />`;
}
