// The field for a quantity.

import { useLayoutEffect, useRef } from "preact/hooks";
import { count, html, NO_LIMIT } from "./parts.js";

// Quantity is a field for a number, with two buttons that change it by one, as the arrow keys do.
// The focus, a click and a step select the whole number, so that typing replaces it. The field
// isn't of the type number, because the mouse wheel changes the value of such a field.
export function Quantity({ id, value, most, label, error, autofocus, onInput }) {
  const number = Number(value);
  const step = (by) =>
    onInput(String(Math.max(1, Math.min(most, (Number.isInteger(number) ? number : 0) + by))));
  const select = (event) => event.target.select();
  // A press on selected text begins to drag it, and then the click would select nothing.
  const deselect = (event) => event.target.setSelectionRange(0, 0);
  const field = useRef(null);
  const stepped = useRef(false);
  useLayoutEffect(() => {
    if (stepped.current) {
      stepped.current = false;
      field.current.select(); // the new value has undone the selection
    }
  });
  function onKeyDown(event) {
    const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    const isPlain = !(event.shiftKey || event.altKey || event.ctrlKey || event.metaKey);
    if (by && isPlain) {
      event.preventDefault();
      stepped.current = true;
      step(by);
    }
  }
  return html`
    <div class="quantity">
      <button type="button" aria-label=${`One fewer: ${label}`} aria-disabled=${number <= 1}
        onClick=${() => number > 1 && step(-1)}>−</button>
      <input id=${id} ref=${field} type="text" inputmode="numeric" autocomplete="off" maxlength="7"
        required role="spinbutton" aria-valuemin="1" aria-valuemax=${most}
        aria-valuenow=${Number.isInteger(number) ? number : undefined}
        autofocus=${autofocus} aria-label=${label} aria-invalid=${error ? "true" : undefined}
        aria-describedby=${`${id}-note`} value=${value}
        onFocus=${select} onMouseDown=${deselect} onClick=${select} onKeyDown=${onKeyDown}
        onInput=${(event) => onInput(event.target.value)} />
      <button type="button" aria-label=${`One more: ${label}`} aria-disabled=${number >= most}
        onClick=${() => number < most && step(1)}>+</button>
    </div>`;
}

// quantityError returns the error of a typed quantity, or "".
export function quantityError(value, available) {
  const number = Number(value);
  if (!/^\d+$/.test(value.trim()) || number < 1) {
    return "Type a whole number, 1 or more.";
  }
  if (number > NO_LIMIT) {
    return `Type ${count(NO_LIMIT)} or less.`;
  }
  if (number > available) {
    return available > 0 ? `Only ${count(available)} left here.` : "None left here right now.";
  }
  return "";
}
