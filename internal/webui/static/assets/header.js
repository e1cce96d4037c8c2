// The header of the shop's pages: the search, and the cart with what is in it.

import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useCart } from "./cart.js";
import { mountHeld } from "./held.js";
import { money, totalOf, usePrices } from "./money.js";
import { closeToast, count, html, toast } from "./parts.js";

// mountHeader puts the cart's button into the header, and the bar of own holds below it. except is
// the id of the hold that the page is about.
export function mountHeader({ except = "" } = {}) {
  mountHeld({ except });
  const node = document.getElementById("cart");
  node.replaceChildren();
  render(html`<${CartButton} />`, node);
}

// WITHIN is the most ms until the drawer is fetched. A browser that is busy for longer fetches it
// all the same: the cart has to open also after the shop has gone down.
const WITHIN = 500;

// The drawer is fetched when the browser has nothing else to do, after WITHIN, or with the first
// click.
const drawer = () => import("./cart-drawer.js");

function CartButton() {
  const cart = useCart();
  const hasPrices = usePrices();
  const [Drawer, setDrawer] = useState(null);
  // The number of the drawer that is open, or 0. A dialog tells a moment later that it was closed,
  // and by then the next one may be open.
  const [opened, setOpened] = useState(0);
  const openings = useRef(0);
  const open = async () => {
    try {
      const { CartDrawer } = await drawer();
      closeToast(); // it would lie behind the cart
      setDrawer(() => CartDrawer);
      openings.current += 1;
      setOpened(openings.current);
    } catch {
      toast("The cart can’t be shown right now. Check your connection, and try again.");
    }
  };
  useEffect(() => {
    const idle = globalThis.requestIdleCallback ?? ((fn) => setTimeout(fn, WITHIN));
    idle(() => drawer().catch(() => {}), { timeout: WITHIN });
    if (location.hash === "#cart") {
      history.replaceState(history.state, "", location.pathname + location.search);
      open();
    }
  }, []);
  const total = hasPrices && cart.units > 0 ? money(totalOf(cart.lines)) : "";
  return html`
    <button type="button" class="cart" aria-haspopup="dialog" onClick=${() => open()}>
      <svg viewBox="0 0 20 20" aria-hidden="true">
        <path d="M4 6.5h12l-1 11H5zM7 8.5V6a3 3 0 0 1 6 0v2.5" /></svg>
      ${total && html`<span class="unseen">Cart, </span>`}
      <span class="total">${total || "Cart"}</span>${" "}
      <span class=${cart.units > 0 ? "number" : "number none"}>${count(cart.units)}</span>
      <span class="unseen">${cart.units === 1 ? " item" : " items"}</span>
    </button>
    ${opened > 0 && Drawer && html`<${Drawer} key=${opened}
      onClose=${() => setOpened((now) => (now === opened ? 0 : now))} />`}`;
}
