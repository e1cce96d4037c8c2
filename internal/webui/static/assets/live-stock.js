// Reading products with their stock again and again, and the changes that are pushed in between.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useLive } from "./live.js";

// DRAW_EVERY is the least pause in ms between two drawings of what was pushed.
const DRAW_EVERY = 50;

// MOST_PUSHED bounds the pushed rows that are kept. A page shows fewer rows, and reads them again
// within a minute.
const MOST_PUSHED = 10_000;

// useStock reads products with their stock, as useLive does, and follows the changes of the stock.
// task resolves to {items, ...}, with products that get or getPages returned: their asOf says which
// pushed rows are older than what was read.
export function useStock(task, inputs = []) {
  const pushed = useRef(null);
  pushed.current ??= new Pushed();
  const [changes, draw] = useState(0);
  const timer = useRef(null);
  function drawSoon() {
    timer.current ??= setTimeout(() => {
      timer.current = null;
      draw((n) => n + 1);
    }, DRAW_EVERY);
  }
  useEffect(() => () => clearTimeout(timer.current), []);

  const live = useLive(
    async () => {
      const data = await task();
      if (pushed.current.forget(data.items)) {
        drawSoon();
      }
      return data;
    },
    inputs,
    undefined,
    { onRow: (row) => pushed.current.keep(row) && drawSoon() },
  );
  const data = useMemo(
    () => live.data && { ...live.data, items: pushed.current.applied(live.data.items) },
    [live.data, changes],
  );
  return { ...live, data };
}

// Pushed keeps the pushed rows that are newer than what was read.
class Pushed {
  #rows = new Map(); // by key, the oldest first

  // keep takes a row, unless a newer one came before it. It reports whether it took the row.
  keep(row) {
    const key = `${row.productId} ${row.warehouseId}`;
    if (this.#rows.get(key)?.asOf >= row.asOf) {
      return false;
    }
    this.#rows.delete(key);
    this.#rows.set(key, row);
    if (this.#rows.size > MOST_PUSHED) {
      this.#rows.delete(this.#rows.keys().next().value);
    }
    return true;
  }

  // forget drops the rows of products that were just read as of the same change or a later one. It
  // reports whether there were any. An answer that doesn't say as of when counts as newer.
  forget(items) {
    const before = this.#rows.size;
    for (const product of items) {
      for (const stock of product.inventories) {
        const key = `${product.id} ${stock.warehouseId}`;
        if (this.#rows.get(key)?.asOf <= (product.asOf ?? Infinity)) {
          this.#rows.delete(key);
        }
      }
    }
    return this.#rows.size < before;
  }

  // applied returns products with the pushed rows that are newer. A product without one stays the
  // same object.
  applied(items) {
    return items.map((product) => {
      let isChanged = false;
      const inventories = product.inventories.map((stock) => {
        const row = this.#rows.get(`${product.id} ${stock.warehouseId}`);
        if (!(row?.asOf > (product.asOf ?? 0))) {
          return stock;
        }
        isChanged = true;
        const { totalQuantity, reservedQuantity, availableStock, orMore } = row;
        return { ...stock, totalQuantity, reservedQuantity, availableStock, orMore };
      });
      return isChanged ? { ...product, inventories } : product;
    });
  }
}
