// Polling, the server's clock, and whether the browser is online.

import { useEffect, useRef, useState } from "preact/hooks";

// EVERY is the pause in ms between two reads of a page's data. With the time of an answer, a change
// is on the page within three seconds.
export const EVERY = 2_000;

// REFUSED_EVERY is the pause in ms after a refusal: a person has to grant the permission.
const REFUSED_EVERY = 60_000;

// isRefused is true for an error that means that the caller lacks a permission.
export const isRefused = (error) => error?.status === 401 || error?.status === 403;

// poll runs task now, and again after the delay in ms that task returned, until task returns 0. It
// pauses while the page is hidden. It runs task at once when the page is shown again or the browser
// is back online.
function poll(task) {
  let timer,
    running = false,
    again = false,
    ended = false;

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

// useLive polls task and returns {data, error, at, refresh}: the newest data, the error of the last
// read if it failed, and the time at which the data was read. It reads at once when an input of the
// task changes or refresh is called. isFinal is true for data that won't change any more.
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

// Clock tells the server's time, whatever the browser's clock says. It takes the time of an answer
// and adds the time that has passed since. An answer's time lies between its request and its
// arrival. Clock moves only if it is outside of that, so that a slow answer doesn't make the
// countdown jump.
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
