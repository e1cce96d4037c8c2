// The console's page of the webhooks: how each endpoint does, its last deliveries, and its dead
// letters once more.

import { useEffect, useRef, useState } from "preact/hooks";
import { get, post } from "./api.js";
import { ConfirmStep, Nothing, retriedOf, span, Table, When } from "./console-parts.js";
import { subjectOf, wordsOfType } from "./event-words.js";
import { Subject } from "./ops-events.js";
import { useNames } from "./ops-names.js";
import { Unread, useRead } from "./ops-read.js";
import { wordsOf } from "./ops-words.js";
import { Connection, count, html, plural } from "./parts.js";

const EVERY = 10_000; // ms between two reads, each of which asks for several queues
const LATE = 60; // s: events are delivered within seconds
const SOON = 2_000; // ms between two reads while a redelivery may still move events
const SOON_FOR = 60_000; // ms after a redelivery

export function View({ can }) {
  const redeliveredAt = useRef(-Infinity);
  const read = useRead(
    async () => (await get("/api/webhooks")).body,
    [],
    () => (performance.now() - redeliveredAt.current < SOON_FOR ? SOON : EVERY),
  );
  const [asked, setAsked] = useState(null);
  const [told, setTold] = useState("");
  function onDone({ name, deadLetters }) {
    redeliveredAt.current = performance.now();
    setTold(
      deadLetters > 0
        ? `${plural(deadLetters, "event")} on the way to ${name} again.`
        : `There was nothing to send to ${name}. It gets new events from now on.`,
    );
    read.refresh();
  }
  if (!read.data) {
    return html`<h1>Webhooks</h1><${Unread} of=${read} />`;
  }
  return html`
    <h1>Webhooks</h1>
    <${Told} text=${told} />
    ${read.data.length === 0 && html`
      <${Nothing}>No webhook is set up. The setting <code>webhooks</code> of the deployment names
        the endpoints that get events.<//>`}
    ${read.data.map((webhook) => html`
      <${Webhook} key=${webhook.name} webhook=${webhook} can=${can}
        onAsk=${can("events:write") && (() => setAsked(webhook))} />`)}
    <${Connection} error=${read.error} at=${read.at} />
    ${asked && html`
      <${Step} webhook=${asked} onDone=${onDone} onClose=${() => setAsked(null)} />`}`;
}

// Told is the outcome of a redelivery. It gets the focus, as the button may be gone.
function Told({ text }) {
  const node = useRef();
  useEffect(() => {
    if (text) {
      node.current.focus();
    }
  }, [text]);
  return html`<p ref=${node} class=${text ? "told good" : "told"} role="status"
    tabindex="-1">${text}</p>`;
}

// stateOf tells how an endpoint does: {words, tone}.
function stateOf({ parked, deadLetters, waiting, lagSeconds, deliveries }) {
  const last = deliveries?.[0];
  if (parked) {
    return { tone: "bad", words: "Paused: the endpoint answered 410 Gone" };
  }
  if (deadLetters > 0) {
    return { tone: "bad", words: `${plural(deadLetters, "event")} given up` };
  }
  const retried = retriedOf(deliveries);
  if (retried > 0) {
    const are = retried === 1 ? "is" : "are";
    return { tone: "low", words: `${plural(retried, "event")} failed, and ${are} tried again` };
  }
  // A failure that newer deliveries have pushed out of the list is still an event that waits.
  if (lagSeconds > LATE) {
    return { tone: "low", words: `${span(lagSeconds)} behind` };
  }
  if (waiting > 0) {
    return { tone: "", words: "Delivering" };
  }
  return { tone: "good", words: last ? "All delivered" : "Nothing to deliver" };
}

function Webhook({ webhook, can, onAsk }) {
  const { name, url, types, parked, waiting, lagSeconds, deadLetters, deliveries } = webhook;
  const { words, tone } = stateOf(webhook);
  const facts = [
    ["Endpoint", url],
    ["Events", types.length > 0 ? types.map(wordsOfType).join(", ") : "All"],
    ["Waiting", count(waiting)],
    waiting > 0 && ["Longest wait", lagSeconds == null ? "Unknown" : span(lagSeconds)],
    ["Failed events", count(deadLetters)],
  ].filter(Boolean);
  return html`
    <section class="webhook" aria-labelledby=${`webhook-${name}`}>
      <header>
        <h2 id=${`webhook-${name}`}>${name}</h2>
        <p class=${`state ${tone}`}>${words}</p>
        ${onAsk && (deadLetters > 0 || parked) && html`
          <button type="button" onClick=${onAsk}>Redeliver</button>`}
      </header>
      <dl class="facts">${facts.map(([term, value]) => html`
        <div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}
      </dl>
      <h3>Last deliveries</h3>
      <${Deliveries} name=${name} deliveries=${deliveries} can=${can} />
    </section>`;
}

function Deliveries({ name, deliveries, can }) {
  const about = (deliveries ?? []).map(({ id }) => subjectOf(id));
  useNames(can("inventory:read") ? about.filter((one) => one?.productId) : []);
  if (!deliveries) {
    return html`<${Nothing}>The last deliveries can’t be read right now.<//>`;
  }
  if (deliveries.length === 0) {
    return html`<${Nothing}>None in the last day.<//>`;
  }
  return html`
    <${Table} label=${`Last deliveries to ${name}`} columns=${columns} rows=${deliveries}
      keyOf=${({ id, at, attempt }) => `${id} ${attempt} ${at}`} />`;
}

const outcomes = {
  DELIVERED: { words: "Delivered", tone: "confirmed" },
  FAILED: { words: "Failed", tone: "pending" },
  DEAD: { words: "Given up", tone: "expired" },
};

const columns = [
  { name: "When", cell: ({ at }) => html`<${When} at=${at} />` },
  { name: "Event", isHead: true, cell: ({ type }) => wordsOfType(type) },
  { name: "About", cell: ({ id }) => html`<${Subject} subject=${id} />` },
  {
    name: "Outcome",
    isWide: true,
    cell: ({ outcome }) => html`
      <span class=${`status ${outcomes[outcome]?.tone ?? ""}`}>
        ${outcomes[outcome]?.words ?? outcome}</span>`,
  },
  { name: "Answer", isNumber: true, cell: answerOf },
  { name: "Attempt", isNumber: true, cell: ({ attempt }) => count(attempt) },
  {
    name: "Took",
    isNumber: true,
    cell: (delivery) => (isSent(delivery) ? `${count(delivery.milliseconds)} ms` : "–"),
  },
];

// isSent is false for an event that was given up without an attempt: its endpoint is parked.
const isSent = ({ outcome, status, milliseconds }) =>
  outcome !== "DEAD" || status !== null || milliseconds > 0;

// answerOf is the endpoint's answer to a delivery.
function answerOf(delivery) {
  return delivery.status ?? (isSent(delivery) ? "None" : "Not sent");
}

// Step says what a redelivery will do.
function Step({ webhook: { name, url, deadLetters, parked }, onDone, onClose }) {
  return html`
    <${ConfirmStep} title=${`Redeliver to ${name}`} action="Redeliver" onDone=${onDone}
      wordsOf=${wordsOf} onClose=${onClose}
      onConfirm=${() => post(`/api/webhooks/${encodeURIComponent(name)}/redeliver`)}>
      <ul>
        ${parked && html`<li>The endpoint counts as working again.</li>`}
        <li>${deadLetters > 0
          ? `${plural(deadLetters, "event")} will be sent to ${url} again.`
          : `New events will be sent to ${url}.`}</li>
        ${deadLetters > 0 && html`
          <li>They arrive after newer ones. A receiver that follows the sequence skips those that
            are too old.</li>`}
      </ul>
    <//>`;
}
