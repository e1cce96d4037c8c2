// What keeps a page current: polling, the server's clock, and whether the browser is online.

import { useEffect, useRef, useState } from "preact/hooks";

// EVERY is how long a page waits between two looks, in ms: what changes is on the page within three seconds, the answer's own time
// included.
export const EVERY = 2_000;

// REFUSED_EVERY is how long it waits, in ms, when it was told that it may not look: a permission comes by a person's hand.
const REFUSED_EVERY = 60_000;

// isRefused says that an error is a no to who asks, not to what is asked.
export const isRefused = (error) => error?.status === 401 || error?.status === 403;

// poll runs task now, and again when the delay that task returned (in ms) is over; a task that returns 0 ends it. It rests while
// the page is hidden, and looks at once when it is shown again or the browser is back online.
function poll(task) {
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

  function wake() {
    if (document.hidden) {
      clearTimeout(timer);
    } else if (!ended) {
      run();
    }
  }

  document.addEventListener("visibilitychange", wake);
  addEventListener("online", wake);
  addEventListener("pageshow", (event) => event.persisted && wake());
  run();
  return run;
}

// useLive keeps what task reads current: {data, error, at} with the newest data, the error of the last look if it failed, and
// when the data was read. It looks at once when an input of the task changes, or refresh is called. isFinal tells data that won't
// change any more.
export function useLive(task, inputs = [], isFinal = () => false) {
  const [state, setState] = useState({ data: null, error: null, at: null });
  const latest = useRef();
  latest.current = task;
  const refresh = useRef(() => {});

  useEffect(() => {
    refresh.current = poll(async () => {
      try {
        const data = await latest.current();
        setState({ data, error: null, at: new Date() });
        return isFinal(data) ? 0 : EVERY;
      } catch (error) {
        setState((last) => ({ ...last, error }));
        return Math.max(isRefused(error) ? REFUSED_EVERY : EVERY, error.retryAfter || 0);
      }
    });
  }, []);
  const isStarted = useRef(false);
  useEffect(() => {
    if (isStarted.current) {
      refresh.current();
    }
    isStarted.current = true;
  }, inputs);
  return { ...state, refresh: () => refresh.current() };
}

// Clock tells the server's time, whatever the browser's clock says: it counts from an answer on by the time that has passed since.
// An answer says what the time was somewhere between its request and its arrival, and only moves us when we are outside of that,
// so that a slow answer doesn't make the countdown jump.
export class Clock {
  #offset = NaN; // the server's time minus the browser's monotonic one, in ms

  learn(serverTime, sentAt, receivedAt = performance.now()) {
    const server = Date.parse(serverTime);
    const [least, most] = [server - receivedAt, server - sentAt];
    if (!(this.#offset >= least && this.#offset <= most)) {
      this.#offset = (least + most) / 2;
    }
  }

  now() {
    return performance.now() + this.#offset;
  }
}

// useTick renders again every so many ms while it is on and the page is shown.
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
    return () => {
      removeEventListener("online", look);
      removeEventListener("offline", look);
    };
  }, []);
  return isOnline;
}
