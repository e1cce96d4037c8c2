// The live channel: one WebSocket that speaks the protocol of AppSync Events. What is pushed may
// come late, twice or not at all, so a page polls too (live.js).

// START is how many ms a connection with its subscriptions may take.
const START = 15_000;

// The first pause in ms before the next attempt to connect, and the longest. Each is up to twice as
// long as the one before, and by chance down to half of that, so that the pages of a server that
// restarts don't come back all at once.
const [FIRST_PAUSE, LONGEST_PAUSE] = [1_000, 30_000];

// HIDDEN is how many ms a hidden page keeps its connection. What is pushed to it costs money.
const HIDDEN = 60_000;

// stream connects to the live channel, and returns a function that ends it. It calls:
//
// - onRow(row) for each change of a stock row: {productId, warehouseId, totalQuantity,
//   reservedQuantity, availableStock, asOf};
// - onHold(change) for each change of the hold holdId: {reservationId, version, asOf};
// - onState("connected"), onState("cut") when the connection is lost, and onState("none") when
//   there is no live channel.
export function stream({ onRow, holdId, onHold, onState = () => {} }) {
  const listening = new AbortController();
  let failures = 0; // attempts since the last connection
  let state = "";
  let cut = () => {}; // ends the connection
  let wake = () => {}; // ends the pause
  let isAway = false; // the browser keeps the page for a way back

  function tell(now) {
    if (now !== state && !listening.signal.aborted) {
      state = now;
      onState(now);
    }
  }

  const listen = (target, type, does) =>
    target.addEventListener(type, does, { signal: listening.signal });
  let leaving;
  listen(document, "visibilitychange", () => {
    clearTimeout(leaving);
    if (document.hidden) {
      leaving = setTimeout(() => cut(), HIDDEN);
    } else {
      wake();
    }
  });
  listen(window, "offline", () => cut());
  listen(window, "online", () => wake());
  listen(window, "pagehide", () => {
    isAway = true;
    cut();
  });
  listen(window, "pageshow", () => {
    isAway = false;
    wake();
  });

  async function run() {
    while (!listening.signal.aborted) {
      await shown();
      try {
        const live = await where();
        if (!live) {
          tell("none");
          return;
        }
        if (!listening.signal.aborted) {
          await follow(live);
        }
      } catch {
        // No answer, or a broken one: the next attempt may do better.
      }
      tell("cut");
      await pause();
    }
  }

  // follow connects, and resolves when the connection has ended.
  function follow({ url, protocol, channel, holdsChannel, authorization }) {
    return new Promise((resolve) => {
      const socket = new WebSocket(url, [protocol, `header-${encode(authorization)}`]);
      const channels = [onRow && channel, holdId && holdsChannel.replace("{id}", holdId)];
      const receivers = [onRow, onHold];
      const send = (frame) => socket.send(JSON.stringify(frame));
      let waiting = channels.filter(Boolean).length; // subscriptions without an answer
      let patience = START;
      let timer;

      cut = () => {
        clearTimeout(timer);
        cut = () => {};
        socket.onmessage = socket.onclose = null;
        socket.close();
        resolve();
      };
      const expect = () => {
        clearTimeout(timer);
        timer = setTimeout(() => cut(), patience);
      };

      const answers = {
        connection_ack({ connectionTimeoutMs }) {
          patience = connectionTimeoutMs;
          channels.forEach(
            (name, id) =>
              name && send({ type: "subscribe", id: String(id), channel: name, authorization }),
          );
        },
        subscribe_success() {
          if (--waiting === 0) {
            failures = 0;
            tell("connected");
          }
        },
        subscribe_error: () => cut(),
        connection_error: () => cut(),
        data: ({ id, event }) =>
          [].concat(event).forEach((text) => receivers[id]?.(JSON.parse(text))),
      };
      socket.onopen = () => send({ type: "connection_init" });
      socket.onmessage = ({ data }) => {
        const frame = JSON.parse(data);
        answers[frame.type]?.(frame);
        if (waiting === 0) {
          expect();
        }
      };
      socket.onclose = () => cut();
      expect();
    });
  }

  // pause waits until it is time to connect again.
  function pause() {
    const most = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** failures++);
    return new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, most * (0.5 + Math.random() / 2));
    });
  }

  // shown waits until the page is shown.
  async function shown() {
    while ((document.hidden || isAway) && !listening.signal.aborted) {
      await new Promise((resolve) => {
        wake = resolve;
      });
    }
  }

  run();
  return () => {
    clearTimeout(leaving);
    listening.abort();
    cut();
    wake();
  };
}

// where asks for the live channel. It returns null where there is none, as on a release that
// doesn't know the question.
async function where() {
  const response = await fetch("/api/live", {
    cache: "no-cache",
    signal: AbortSignal.timeout(START),
  });
  if (response.status === 204 || response.status === 404) {
    return null;
  }
  if (!response.ok) {
    throw new Error(`GET /api/live: ${response.status}`);
  }
  return response.json();
}

// encode writes a value as JSON in base64url, which a WebSocket's subprotocol may contain.
const encode = (value) =>
  btoa(JSON.stringify(value)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
