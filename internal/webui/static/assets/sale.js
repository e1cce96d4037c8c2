// The flash sale of the demo: 200 buyers fight for what is left of a product, drawn live. The
// demo's server sends the buyers, over HTTP as real ones; this page only watches.

import { useEffect, useRef, useState } from "preact/hooks";
import { get, getPages, post } from "./api.js";
import { mountHeader } from "./header.js";
import { setTitle } from "./held.js";
import { Illustration } from "./illustration.js";
import { useLive } from "./live.js";
import { Alert, announce, Connection, count, Failure, html, plural, start } from "./parts.js";
import { settings } from "./settings.js";

const LOOK_EVERY = 180; // ms between two looks at a sale that runs
const LOOK_AGAIN = 2_000; // ms until the next look after a failed one

// What each letter of a sale's buyers means.
const kinds = {
  w: ["waiting", "on the way"],
  t: ["trying", "at the shelf"],
  h: ["holding", "paying"],
  s: ["sold", "bought one"],
  r: ["refused", "too late"],
  u: ["unanswered", "gave up"],
};

const isOpen = (sale) => sale?.phase === "RUNNING" || sale?.phase === "CHECKING";

function Sale() {
  const catalog = useLive(readShop);
  const [chosen, setChosen] = useState("");
  const first = useRef(""); // stays: the stock changes under the page, above all by the sale
  const { sale, error, begin, restock, busy } = useSale(catalog.refresh);
  if (!catalog.data) {
    return catalog.error
      ? html`<${Failure} error=${catalog.error} onRetry=${catalog.refresh} isPage />`
      : html`<h1>Flash sale</h1><p role="status">Loading…</p>`;
  }
  if (!catalog.data.isDemo) {
    return html`<${Off} />`;
  }
  const products = catalog.data.items;
  const isFirst = ({ id }) => id === (chosen || first.current);
  const product = products.find(isFirst) ?? favourite(products);
  first.current ||= product?.id ?? "";
  if (!product) {
    return html`<${Empty} />`;
  }
  const running = isOpen(sale);
  return html`
    <div class="intro"><div>
      <h1>Flash sale</h1>
      <p>Two hundred buyers come within two seconds, and all of them want the same thing. Watch that
        not one unit is sold twice.</p>
    </div></div>
    <div class="sale">
      <section class="pick" aria-labelledby="pick-title">
        <h2 id="pick-title" class="unseen">What is sold</h2>
        <div class="poster"><${Illustration} product=${product} /></div>
        <label>Product
          <select value=${product.id} onChange=${(event) => setChosen(event.target.value)}>
            ${products.map(
              (p) => html`<option key=${p.id} value=${p.id} selected=${p.id === product.id}>
                ${p.name}</option>`,
            )}
          </select></label>
        <p class="stock"><b>${count(left(product))}</b>${" left in "}
          ${plural(product.inventories.length, "warehouse")}</p>
        <button type="button" aria-disabled=${running || left(product) === 0}
          onClick=${() => running || left(product) === 0 || begin(product)}>
          ${running ? "Selling…" : "Send 200 buyers"}</button>
        <button type="button" class="secondary" aria-disabled=${running}
          onClick=${() => running || restock(product)}>
          ${busy === "restock" ? "One moment…" : "Restock"}</button>
        <${Alert} class="note" text=${error} />
      </section>
      <${Stage} sale=${sale} />
    </div>
    <${Connection} error=${catalog.error} at=${catalog.at} />`;
}

// readShop reads the first page of the catalog: what the demo sells.
async function readShop() {
  const { demo } = await settings();
  if (!demo) {
    return { isDemo: false, items: [] };
  }
  const { items } = await getPages("/api/products", 1);
  return { isDemo: true, items: items.filter((product) => product.inventories.length > 0) };
}

const left = (product) => product.inventories.reduce((sum, row) => sum + row.availableStock, 0);

// favourite is the product whose sale is shown first: some of it is left, and far less than there
// are buyers.
const favourite = (products) =>
  products.find((product) => left(product) >= 20 && left(product) <= 60) ??
  products.find((product) => left(product) > 0) ??
  products[0];

// useSale follows the newest sale. Only while one runs it looks often.
function useSale(onEnd) {
  const [sale, setSale] = useState(null);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState("");
  const isActing = useRef(false);
  const following = useRef(false);

  // follow looks at the sale until it has ended.
  async function follow() {
    if (following.current) {
      return;
    }
    following.current = true;
    for (let newest = null; ; ) {
      try {
        newest = (await get("/demo/sale")).body;
        setSale(newest);
      } catch {
        await pause(LOOK_AGAIN);
        continue;
      }
      if (!isOpen(newest)) {
        break;
      }
      await pause(LOOK_EVERY);
    }
    following.current = false;
    onEnd();
  }

  useEffect(() => {
    settings().then(
      ({ demo }) => demo && follow(),
      () => {},
    );
  }, []);

  async function act(name, path, product) {
    if (isActing.current) {
      return null;
    }
    isActing.current = true;
    setBusy(name);
    setError("");
    try {
      return await post(path, { productId: product.id }, `${name} ${product.id}`);
    } catch (refusal) {
      setError(refusal.isUnknown ? "No answer from the demo. Try again." : refusal.text);
      return null;
    } finally {
      isActing.current = false;
      setBusy("");
    }
  }

  async function begin(product) {
    const begun = await act("begin", "/demo/sale", product);
    if (begun) {
      announce(`The sale of ${product.name} has begun.`);
      setSale(begun);
      document.querySelector(".stage").scrollIntoView({ block: "nearest" });
    }
    follow(); // a refusal may mean that another sale runs
  }

  async function restock(product) {
    const done = await act("restock", "/demo/sale/restock", product);
    if (done) {
      announce(`${plural(done.added, "unit")} came in.`);
      onEnd();
    }
  }
  return { sale, error, busy, begin, restock };
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Stage draws the buyers as dots, and counts them.
function Stage({ sale }) {
  useVerdict(sale);
  if (!sale) {
    return html`
      <section class="stage" aria-labelledby="stage-title">
        <h2 id="stage-title">The buyers</h2>
        <${Dots} buyers=${"w".repeat(200)} />
        <p class="muted">Nobody has come yet.</p>
      </section>`;
  }
  const figures = [
    ["Sold", sale.sold, "sold"],
    ["Too late", sale.refused, "refused"],
    ["Left", sale.left, "waiting"],
    ["Oversold", sale.oversold ?? "…", sale.oversold > 0 ? "bad" : "good"],
  ];
  return html`
    <section class="stage" aria-labelledby="stage-title">
      <h2 id="stage-title">${sale.productName}: ${count(sale.stock)} left, 200 buyers</h2>
      <${Dots} buyers=${sale.buyers} />
      <ul class="key">${Object.entries(kinds).map(
        ([letter, [kind, words]]) =>
          (letter !== "u" || sale.unanswered > 0) &&
          html`<li key=${kind}><span class=${`dot ${kind}`} aria-hidden="true" /> ${words}</li>`,
      )}</ul>
      <dl class="figures">${figures.map(
        ([name, value, kind]) => html`
        <div key=${name} class=${kind}><dt>${name}</dt>
          <dd>${typeof value === "number" ? count(value) : value}</dd></div>`,
      )}</dl>
      <${Verdict} sale=${sale} />
    </section>`;
}

// Dots has a dot for each buyer. A screen reader gets the counts instead.
const Dots = ({ buyers }) => html`
  <div class="dots" aria-hidden="true">${[...buyers].map(
    (letter, n) => html`<span key=${n} class=${`dot ${kinds[letter]?.[0]}`} />`,
  )}</div>`;

const promised = (oversold) =>
  oversold === 0
    ? "Nobody was sold one that wasn’t there."
    : `${plural(oversold, "buyer")} got one that wasn’t there.`;

// verdict says how a sale stands, in a sentence.
function verdict(sale) {
  const took = `${(sale.milliseconds / 1000).toFixed(1)} s`;
  switch (sale.phase) {
    case "RUNNING":
      return "The buyers are at it.";
    case "CHECKING":
      return `All buyers are done after ${took}. The audit reads every hold and every movement.`;
    case "FAILED":
      return `The sale couldn’t be checked: ${sale.problem}`;
    default:
      return (
        `${plural(sale.sold, "buyer")} got one, and ${count(sale.refused)} came too late. ` +
        `${promised(sale.oversold)} It took ${took}.`
      );
  }
}

function Verdict({ sale }) {
  const { audit, phase, oversold, unanswered } = sale;
  const isGood = phase === "DONE" && audit?.violations === 0 && oversold === 0;
  return html`
    <div class=${isGood ? "verdict good" : phase === "DONE" ? "verdict bad" : "verdict"}>
      <p>${verdict(sale)}</p>
      ${unanswered > 0 && html`<p>${plural(unanswered, "buyer")} gave up without an answer.</p>`}
      ${
        audit &&
        html`<p><b>${
          audit.violations === 0
            ? "We checked every hold: nothing is wrong."
            : `The audit found ${plural(audit.violations, "broken promise")}.`
        }</b></p>
        ${
          audit.found.length > 0 &&
          html`<ul>${audit.found.map((text) => html`<li>${text}</li>`)}</ul>`
        }`
      }
    </div>`;
}

// useVerdict announces the phases of a sale, which the dots show only to those who see them.
function useVerdict(sale) {
  const last = useRef("");
  useEffect(() => {
    const now = sale ? `${sale.id} ${sale.phase}` : "";
    // A page that opens after a sale finds it done: that is no news.
    if (now && last.current !== now && (last.current || isOpen(sale))) {
      announce(verdict(sale));
    }
    last.current = now;
  }, [sale?.id, sale?.phase]);
}

const Off = () => html`
  <section class="blank">
    <h1>No flash sale here</h1>
    <p>The simulated sale runs in the demo only. In a real shop, real buyers do this.</p>
    <a role="button" href="/">Go to the shop</a>
  </section>`;

const Empty = () => html`
  <section class="blank">
    <h1>The shelves are empty</h1>
    <p>There is nothing to sell yet.</p>
    <a role="button" href="/">Go to the shop</a>
  </section>`;

mountHeader();
setTitle("Flash sale · Allo");
start(html`<${Sale} />`);
