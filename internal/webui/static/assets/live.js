// Reading a page's data again and again, the server's clock, and whether the browser is online.

import { useEffect, useRef, useState } from "preact/hooks";

// EVERY is the pause in ms between two reads of a page that follows no live channel.
export const EVERY = 2_000;

// The pauses in ms between two reads of a page that follows the live channel. While it is
// connected, a read only mends what a push missed. Cut off, the page reads at once, and then so
// often.
const CONNECTED_EVERY = 60_000;
const CUT_EVERY = 5_000;

// SPREAD is by which part a pause is longer or shorter by chance, so that the pages of a server
// that restarts don't read all at once.
const SPREAD = 0.25;

// REFUSED_EVERY is the pause in ms after a refusal: a person has to grant the permission.
const REFUSED_EVERY = 60_000;

// isRefused is true for an error that means that the caller lacks a permission.
export const isRefused = (error) => error?.status === 401 || error?.status === 403;

// poll runs task now, and again after the delay in ms that task returned, until task returns 0 or
// end is called. It pauses while the page is hidden. It runs task at once when run is called, when
// the page is shown again or when the browser is back online.
function poll(task) {
  const listening = new AbortController();
  let timer,
    running = false,
    again = false,
    ended = false;

  async function run() {
    clearTimeout(timer);
    if (running || ended) {
      again = true;
      return;
    }
    running = true;
    let delay;
    do {
      again = false;
      delay = await task();
    } while (again && !ended);
    running = false;
    if (delay === 0) {
      end();
    } else if (!ended && !document.hidden) {
      timer = setTimeout(run, delay);
    }
  }

  function wake() {
    if (document.hidden) {
      clearTimeout(timer);
    } else {
      run();
    }
  }

  function end() {
    ended = true;
    clearTimeout(timer);
    listening.abort();
  }

  const { signal } = listening;
  document.addEventListener("visibilitychange", wake, { signal });
  addEventListener("online", wake, { signal });
  addEventListener("pageshow", (event) => event.persisted && wake(), { signal });
  run();
  return { run, end };
}

// useLive polls task and returns {data, error, at, state, refresh}: the newest data, the error of
// the last read if it failed, the time at which the data was read, and the state of the live
// channel ("", or as stream says it). It reads at once when an input of the task changes or refresh
// is called. isFinal is true for data that won't change any more. A task that returns the same data
// as before draws nothing.
//
// follow says what of the live channel the page follows: {onRow, holdId, onHold}, see stream. By
// default onHold reads again. It is that of the first call. Without follow the page polls.
export function useLive(task, inputs = [], isFinal = () => false, follow = null) {
  const [live, setLive] = useState({ data: null, error: null, at: null });
  const [state, setState] = useState("");
  const latest = useRef();
  latest.current = task;
  const polled = useRef(null);

  useEffect(() => {
    const channel = follow && followed(follow, () => polled.current.run(), setState);
    polled.current = poll(async () => {
      try {
        const data = await latest.current();
        setLive((last) => {
          if (last.data !== data || last.error) {
            return { data, error: null, at: new Date() };
          }
          last.at = new Date();
          return last;
        });
        if (isFinal(data)) {
          channel?.end();
          return 0;
        }
        channel?.start();
        return channel?.pause() ?? EVERY;
      } catch (error) {
        setLive((last) => ({ ...last, error }));
        const least = isRefused(error) ? REFUSED_EVERY : channel ? spread(CUT_EVERY) : EVERY;
        return Math.max(least, error.retryAfter || 0);
      }
    });
    return () => {
      polled.current.end();
      channel?.end();
    };
  }, []);
  const isStarted = useRef(false);
  useEffect(() => {
    if (isStarted.current) {
      polled.current.run();
    }
    isStarted.current = true;
  }, inputs);
  return { ...live, state, refresh: () => polled.current?.run() };
}

const spread = (pause) => pause * (1 - SPREAD + 2 * SPREAD * Math.random());

// followed opens the live channel at the first start, so that the script is loaded after the first
// view. It calls read, which reads the page's data again, at each change of the channel's state:
// changes may have been missed.
function followed(follow, read, onState) {
  let state = "";
  let close = null; // null before the first start
  let isEnded = false;
  async function start() {
    if (close || isEnded) {
      return;
    }
    close = () => {};
    try {
      const { stream } = await import("./stream.js");
      if (!isEnded) {
        close = stream({
          onHold: read,
          ...follow,
          onState(now) {
            state = now;
            onState(now);
            read();
          },
        });
      }
    } catch {
      close = null; // the script wasn't loaded: the next read tries again
    }
  }
  return {
    start,
    pause: () => (state === "connected" ? CONNECTED_EVERY : spread(CUT_EVERY)),
    end() {
      isEnded = true;
      close?.();
    },
  };
}

// Clock tells the server's time, whatever the browser's clock says. It takes the time of an answer
// and adds the time that has passed since. An answer's time lies between its request and its
// arrival. Clock moves only if it is outside of that, so that a slow answer doesn't make the
// countdown jump.
export class Clock {
  #offset = NaN; // the server's time minus the browser's monotonic one, in ms
  #least = -Infinity; // the smallest that the offset can be

  learn(serverTime, sentAt, receivedAt = performance.now()) {
    const server = Date.parse(serverTime);
    const [least, most] = [server - receivedAt, server - sentAt];
    if (!(this.#offset >= least && this.#offset <= most)) {
      this.#offset = (least + most) / 2;
    }
    this.#least = Math.max(this.#least, least);
  }

  now() {
    return performance.now() + this.#offset;
  }

  // earliest is a time that the server's clock has reached, however slow the answers were.
  earliest() {
    return performance.now() + this.#least;
  }
}

// useTick renders again every so many ms while isOn is true and the page is shown.
export function useTick(every, isOn) {
  const [, setTick] = useState(0);
  useEffect(() => {
    if (!isOn) {
      return undefined;
    }
    const timer = setInterval(() => document.hidden || setTick((n) => n + 1), every);
    return () => clearInterval(timer);
  }, [every, isOn]);
}

export function useOnline() {
  const [isOnline, setOnline] = useState(navigator.onLine);
  useEffect(() => {
    const look = () => setOnline(navigator.onLine);
    addEventListener("online", look);
    addEventListener("offline", look);
    look(); // the connection may have been lost since the first render
    return () => {
      removeEventListener("online", look);
      removeEventListener("offline", look);
    };
  }, []);
  return isOnline;
}
