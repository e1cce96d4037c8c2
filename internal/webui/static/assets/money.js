// The prices of the demo. The service knows no prices: a shop has its own.

import { useEffect, useState } from "preact/hooks";
import { settings } from "./settings.js";

// The prices of the demo's catalog in cents, by SKU.
const known = {
  "WH-100": 14900,
  "MK-200": 12900,
  "CM-300": 1800,
  "DL-110": 8900,
  "CB-210": 7400,
  "PK-310": 6900,
  "NS-120": 2400,
  "TB-220": 3200,
  "FC-320": 24900,
  "WB-130": 9800,
  "TC-230": 5600,
  "PM-330": 4200,
};

// Any other SKU has a price between these, in whole dollars.
const [LEAST, MOST] = [9, 189];

// priceOf returns the demo's price of an SKU in cents. It is the same for ever.
export function priceOf(sku) {
  const sum = [...String(sku)].reduce((hash, c) => (hash * 31 + c.codePointAt(0)) % 65_521, 7);
  return known[sku] ?? (LEAST + (sum % (MOST - LEAST + 1))) * 100;
}

const dollars = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" });

// money formats cents.
export const money = (cents) => dollars.format(cents / 100);

// totalOf returns the sum of lines {sku, quantity} in cents.
export const totalOf = (lines) =>
  lines.reduce((sum, line) => sum + priceOf(line.sku) * line.quantity, 0);

// usePrices is true on the demo. It is undefined until the settings are read, and false where
// there are no prices to show.
export function usePrices() {
  const [isDemo, setDemo] = useState(undefined);
  useEffect(() => {
    settings().then(
      ({ demo }) => setDemo(demo === true),
      () => setDemo(false),
    );
  }, []);
  return isDemo;
}
