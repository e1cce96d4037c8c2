// The time that is left of a hold, as a ring with a countdown, or a mark for how it ended.

import { useEffect, useRef } from "preact/hooks";
import { Clock, useTick } from "./live.js";
import { announce, duration, html, plural } from "./parts.js";

const TICK = 250; // ms; the seconds change on time, and the ring moves evenly
const RING = 100; // the ring's length, in its own units
const LAST = 60; // seconds: the last minute looks different
const WARNINGS = [60, 30, 10]; // seconds before the end at which the time is announced

// clock is the server's. The page's reads teach it.
export const clock = new Clock();

const millisecondsLeft = (hold) => Math.max(0, Date.parse(hold.expiresAt) - clock.now());

// secondsLeft returns the whole seconds until a hold ends, rounded up.
export const secondsLeft = (hold) => Math.ceil(millisecondsLeft(hold) / 1000);

// Dial shows the time left by the server's clock, or the outcome. Only the server ends the hold, so
// at zero the page asks it: onEnd.
export function Dial({ hold, mark, onEnd }) {
  const isPending = hold.status === "PENDING";
  useTick(TICK, isPending);
  const left = isPending ? secondsLeft(hold) : 0;
  // A pending hold got its end at its last change.
  const whole = Date.parse(hold.expiresAt) - Date.parse(hold.updatedAt);
  useWarnings(left, isPending);
  useEffect(() => {
    if (isPending && left === 0) {
      onEnd();
    }
  }, [isPending && left === 0]);

  const share = isPending ? Math.min(1, millisecondsLeft(hold) / whole) : 1;
  return html`
    <div class=${left <= LAST && isPending ? "dial last" : "dial"}>
      <svg viewBox="0 0 120 120" aria-hidden="true">
        <circle class="track" cx="60" cy="60" r="54" pathLength=${RING} />
        <circle class="rest" cx="60" cy="60" r="54" pathLength=${RING} transform="rotate(-90 60 60)"
          stroke-dasharray=${isPending ? RING : undefined}
            stroke-dashoffset=${RING * (1 - share)} />
        ${!isPending && html`<path class="mark" d=${marks[mark]} />`}
      </svg>
      ${
        isPending &&
        html`
        <p role="timer" aria-label="Time left"><b id="countdown">${duration(left)}</b><small>
          ${left > 0 ? "left" : "checking…"}</small></p>`
      }
    </div>`;
}

const marks = {
  done: "M38 62l15 15 30-34",
  gone: "M42 42l36 36M78 42L42 78",
  late: "M60 32v30l20 12",
  moved: "M36 60h48M66 42l18 18-18 18",
};

// useWarnings announces the time left at each of WARNINGS, and once to a page that opens in the
// last minute. An extension starts over.
function useWarnings(left, isPending) {
  const last = useRef(Infinity);
  useEffect(() => {
    const due = WARNINGS.findLast((at) => left <= at) ?? Infinity;
    if (isPending && left > 0 && due < last.current) {
      announce(left === 60 ? "One minute left." : `${plural(left, "second")} left.`);
    }
    last.current = due;
  }, [left, isPending]);
}
