// The console's dialog that receives a delivery: several lines under one reference.

import { useEffect, useRef, useState } from "preact/hooks";
import { post } from "./api.js";
import { ConfirmStep } from "./console-parts.js";
import { FindProduct, useWarehouses } from "./ops-names.js";
import { doText, problemText, wholeNumber, wordsOf } from "./ops-words.js";
import { html, plural } from "./parts.js";

// SOURCE names the documents of this dialog. Together with the reference it makes a delivery count
// once, however often and by whomever it is sent.
const SOURCE = "console delivery";

const MAX_LINES = 50; // of a delivery that is typed; the import takes longer ones
const MAX_REFERENCE = 100; // characters, as the API takes
const MAX_UNITS = 1_000_000_000; // of a line, as the API takes

// Receive asks for the lines of a delivery and books them, all or none. first may be the product of
// the first line, {id, name, sku, warehouseId}. onDone gets what was done, in words.
export function Receive({ first = null, onDone, onClose }) {
  const open = useWarehouses();
  const [reference, setReference] = useState("");
  const [lines, setLines] = useState(first ? [lineOf(first, first.warehouseId)] : []);
  const [isLost, setLost] = useState(false);
  const [refused, setRefused] = useState([]);

  const add = (product) =>
    setLines([...lines, lineOf(product, lines.at(-1)?.warehouseId ?? open[0]?.id ?? "")]);
  const change = (at, changes) => {
    setLines(lines.map((line, i) => (i === at ? { ...line, ...changes } : line)));
    setRefused(refused.filter((result) => result.line !== at + 1));
  };
  const remove = (at) => {
    setLines(lines.filter((_, i) => i !== at));
    setRefused([]); // the lines have other numbers now
  };
  useLineFocus(lines.length);

  async function receive() {
    setRefused([]);
    check(reference, lines);
    try {
      const { results } = await post("/api/stock/movements", bodyOf(reference, lines));
      return outcome(reference, results);
    } catch (error) {
      setLost(Boolean(error.isUnknown));
      const results = error.problem?.results ?? [];
      if (results.some(({ problem }) => problem?.code === "REFERENCE_REUSED")) {
        throw { text: problemText({ code: "REFERENCE_REUSED" }), field: "reference" };
      }
      setRefused(results);
      throw error;
    }
  }
  return html`
    <${ConfirmStep} title="Receive a delivery" action="Add to stock" onConfirm=${receive}
      onDone=${onDone} onClose=${onClose} wordsOf=${words}>
      <fieldset class="delivery" disabled=${isLost}>
        <label for="reference">Reference, such as the number of the delivery note</label>
        <input id="reference" type="text" maxlength=${MAX_REFERENCE} autocomplete="off"
          spellcheck="false" value=${reference}
          onInput=${({ target }) => setReference(target.value)} />
        ${lines.length > 0 && html`
          <ul>${lines.map((line, i) => html`<${Line} key=${line.key} line=${line} number=${i}
            open=${open} problem=${refused.find((result) => result.line === i + 1)?.problem}
            onChange=${(changes) => change(i, changes)} onRemove=${() => remove(i)} />`)}</ul>`}
        ${lines.length < MAX_LINES && html`<${FindProduct} id="delivered"
          label=${lines.length > 0 ? "Another product" : "Product"} placeholder="Name or SKU"
          onPick=${add} />`}
      </fieldset>
      <${Effect} lines=${lines} open=${open} />
    <//>`;
}

// useLineFocus moves the focus to the units of a new line. When a line is removed, its button is
// gone, and the focus goes to the field that finds another product.
function useLineFocus(length) {
  const last = useRef(length);
  useEffect(() => {
    if (length !== last.current) {
      const id = length > last.current ? `line-${length - 1}-units` : "delivered";
      document.getElementById(id)?.focus();
    }
    last.current = length;
  }, [length]);
}

let keys = 0; // of the lines

const lineOf = ({ id, name, sku }, warehouseId) => ({
  key: (keys += 1), productId: id, product: name, sku, warehouseId, typed: "",
});

// nameIn is the name of a warehouse among the open ones. The row's own may be closed.
const nameIn = (open, id) => open.find((one) => one.id === id)?.name ?? "its warehouse";

function Line({ line, number, open, problem, onChange, onRemove }) {
  const id = `line-${number}`;
  const isClosed = !open.some((one) => one.id === line.warehouseId);
  return html`
    <li class="delivery-line">
      <p><b>${line.product}</b> <small>${line.sku}</small></p>
      <label for=${`${id}-units`}>Units
        <input id=${`${id}-units`} class="number" type="text" inputmode="numeric" maxlength="10"
          autocomplete="off" aria-label=${`Units of ${line.product}`} value=${line.typed}
          aria-invalid=${problem ? "true" : undefined}
          onInput=${({ target }) => onChange({ typed: target.value })} /></label>
      <label for=${`${id}-warehouse`}>Warehouse
        <select id=${`${id}-warehouse`} aria-label=${`Warehouse of ${line.product}`}
          value=${line.warehouseId}
          onChange=${({ target }) => onChange({ warehouseId: target.value })}>
          ${isClosed && html`<option value=${line.warehouseId}>${
            line.warehouseId ? "This closed warehouse" : "Choose one"}</option>`}
          ${open.map((one) => html`<option key=${one.id} value=${one.id}>${one.name}</option>`)}
        </select></label>
      <button type="button" class="secondary small" aria-label=${`Remove ${line.product}`}
        onClick=${onRemove}>Remove</button>
      ${problem && html`<p class="note">${problemText(problem)}</p>`}
    </li>`;
}

const effectOf = ({ product, typed }) =>
  doText({ product, quantity: wholeNumber(typed) }, "goes", "go");

// Effect says what will happen.
function Effect({ lines, open }) {
  const known = lines.filter(({ typed }) => wholeNumber(typed) > 0);
  return html`
    <p>${known.length > 0 ? "What will happen:" : "Choose what came, and how much of it."}</p>
    <ul class="effects">${known.map(
      (line) => html`<li key=${line.key}>${effectOf(line)} on the shelf in
        ${" "}${nameIn(open, line.warehouseId)}.</li>`,
    )}</ul>`;
}

// check throws {text, field} for a delivery that isn't whole.
function check(reference, lines) {
  if (!reference.trim()) {
    throw { text: "Type a reference: the same delivery then counts once.", field: "reference" };
  }
  if (lines.length === 0) {
    throw { text: "Choose a product.", field: "delivered" };
  }
  for (const [i, { product, typed, warehouseId }] of lines.entries()) {
    if (!(wholeNumber(typed) >= 1 && wholeNumber(typed) <= MAX_UNITS)) {
      throw {
        text: `${product}: type how many units came, a whole number from 1.`,
        field: `line-${i}-units`,
      };
    }
    if (!warehouseId) {
      throw { text: `${product}: choose a warehouse.`, field: `line-${i}-warehouse` };
    }
  }
}

const bodyOf = (reference, lines) => ({
  source: SOURCE,
  reference: reference.trim(),
  together: true,
  lines: lines.map(({ productId, warehouseId, typed }) => ({
    productId, warehouseId, delta: wholeNumber(typed), note: "Delivery",
  })),
});

// outcome tells what was done. A line that was booked before changes nothing.
function outcome(reference, results) {
  const delivery = `Delivery ${reference.trim()}`;
  const added = results.filter(({ outcome: one }) => one !== "REPLAYED");
  if (added.length === 0) {
    return `${delivery} was booked before. Nothing was added again.`;
  }
  const units = added.reduce((sum, { delta }) => sum + delta, 0);
  const before = results.length - added.length;
  const rest = before > 0 ? ` ${plural(before, "line was", "lines were")} booked before.` : "";
  return `${delivery}: ${plural(units, "unit")} added in ${plural(added.length, "line")}.${rest}`;
}

const words = (error) =>
  error.code === "MOVEMENTS_REFUSED"
    ? "Nothing was added: see the lines that were refused."
    : wordsOf(error);
