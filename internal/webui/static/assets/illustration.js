// The drawings of the products. The demo's have their own; any other product gets one of a few
// shapes, in colours that depend on its id. All are flat shapes of a few colours in a box of 240 by
// 180, so that they belong together.

import { html } from "./parts.js";

// range is [0, 1, ..., n - 1].
const range = (n) => Array.from({ length: n }, (_, i) => i);

// Ground is the shadow that a thing stands on.
const Ground = ({ x = 120, y = 158, width = 62 }) =>
  html`<ellipse cx=${x} cy=${y} rx=${width} ry="6" fill="#000" opacity=".13" />`;

const Headphones = () => html`
  <${Ground} width="74" />
  <path d="M58 116V98a62 62 0 0 1 124 0v18" fill="none" stroke="#343a63" stroke-width="11" />
  <path d="M75 66a62 62 0 0 1 90 0" fill="none" stroke="#6f75a8" stroke-width="11" />
  ${[0, 1].map(
    (side) => html`
    <g transform=${side ? "translate(240 0) scale(-1 1)" : undefined}>
      <rect x="44" y="100" width="34" height="56" rx="16" fill="#4d52c9" />
      <rect x="44" y="100" width="16" height="56" rx="8" fill="#6d73e6" />
      <rect x="74" y="104" width="15" height="48" rx="7" fill="#20233b" />
      <path d="M53 117v22" stroke="#fff" stroke-width="3" stroke-linecap="round" opacity=".55" />
    </g>`,
  )}`;

// The keys of the rows, in units of a key. The colours are by place in the row.
const keyRows = [
  [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1.6],
  [1.4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1.2],
  [1.7, 1, 1, 1, 1, 1, 1, 1, 1, 1.9],
  [1.2, 1.2, 1.2, 4.8, 1.1, 1, 1.1],
];

const Keyboard = () => html`
  <${Ground} y="146" width="96" />
  <rect x="22" y="52" width="196" height="92" rx="13" fill="#28324a" />
  <rect x="22" y="48" width="196" height="90" rx="13" fill="#3d4a69" />
  ${keyRows.map((row, y) => {
    let x = 31;
    return row.map((width, i) => {
      const wide = width * 15.4;
      const isAccent = (y === 0 && i === 0) || (y === 2 && i === 9);
      const isSide = i === 0 || i === row.length - 1;
      const fill = isAccent ? "#ff8a5c" : isSide ? "#b9c4dc" : "#eef2fa";
      const key = html`
        <rect x=${x} y=${57 + y * 19.5} width=${wide - 2.6} height="16" rx="3.5" fill="#1d263b"
          opacity=".35" />
        <rect x=${x} y=${56 + y * 19.5} width=${wide - 2.6} height="14" rx="3.5" fill=${fill} />`;
      x += wide;
      return key;
    });
  })}`;

const Mug = () => html`
  <${Ground} x="114" width="58" />
  <path d="M154 78h14a20 20 0 0 1 0 46h-16" fill="none" stroke="#c64f2b" stroke-width="12" />
  <path d="M66 62h92v68a26 26 0 0 1-26 26H92a26 26 0 0 1-26-26z" fill="#e66a3f" />
  <path d="M66 62h26v94a26 26 0 0 1-26-26z" fill="#f2855c" />
  <path d="M66 112h92v10H66z" fill="#fff3e4" opacity=".85" />
  <ellipse cx="112" cy="62" rx="46" ry="11" fill="#b8431f" />
  <ellipse cx="112" cy="64" rx="38" ry="7.5" fill="#4a2415" />
  <path d="M98 44c-6-8 6-12 0-22M124 44c-6-8 6-12 0-22" fill="none" stroke="#9aa3b2"
    stroke-width="4" stroke-linecap="round" opacity=".65" />`;

const Lamp = () => html`
  <${Ground} x="96" width="58" />
  <path d="M139 66l54 82H91z" fill="#ffd873" opacity=".38" />
  <path d="M96 150L74 92l52-44" fill="none" stroke="#2f3b4c" stroke-width="7"
    stroke-linejoin="round" stroke-linecap="round" />
  <circle cx="74" cy="92" r="8" fill="#f0b429" />
  <rect x="62" y="146" width="68" height="12" rx="6" fill="#2f3b4c" />
  <path d="M122 30l36 25-38 29c-13-15-12-39 2-54z" fill="#167d74" />
  <path d="M122 30l12 8c-12 10-13 27-6 40l-8 6c-13-15-12-39 2-54z" fill="#25a196" />
  <ellipse cx="139" cy="70" rx="24" ry="6.5" transform="rotate(-37 139 70)" fill="#fff2c4" />`;

const Backpack = () => html`
  <${Ground} width="56" />
  <path d="M100 38c0-24 40-24 40 0" fill="none" stroke="#5c4630" stroke-width="8" />
  <rect x="56" y="92" width="18" height="52" rx="9" fill="#8a6a44" />
  <rect x="166" y="92" width="18" height="52" rx="9" fill="#8a6a44" />
  <path d="M68 80a52 48 0 0 1 104 0v62a14 14 0 0 1-14 14H82a14 14 0 0 1-14-14z" fill="#b48a57" />
  <path d="M68 80a52 48 0 0 1 104 0v12H68z" fill="#c99e69" />
  <path d="M70 92h100" stroke="#7a5c38" stroke-width="3" stroke-dasharray="5 4" />
  <rect x="80" y="104" width="80" height="42" rx="9" fill="#96713f" />
  <path d="M80 116h80" stroke="#6b4f2c" stroke-width="3" />
  <rect x="94" y="70" width="9" height="42" rx="3" fill="#5c4630" />
  <rect x="137" y="70" width="9" height="42" rx="3" fill="#5c4630" />
  <rect x="91" y="88" width="15" height="9" rx="2" fill="#f0cf8e" />
  <rect x="134" y="88" width="15" height="9" rx="2" fill="#f0cf8e" />`;

const Kettle = () => html`
  <${Ground} x="122" width="60" />
  <path d="M78 130C56 128 60 88 38 74" fill="none" stroke="#3c4654" stroke-width="8"
    stroke-linecap="round" />
  <path d="M158 76c46-6 44 62 10 60" fill="none" stroke="#7a4a2b" stroke-width="10"
    stroke-linecap="round" />
  <path d="M90 72h64l18 74a10 10 0 0 1-10 10H82a10 10 0 0 1-10-10z" fill="#556274" />
  <path d="M90 72h20l-12 84H82a10 10 0 0 1-10-10z" fill="#6f7e92" />
  <path d="M88 72a34 14 0 0 1 68 0z" fill="#3c4654" />
  <rect x="115" y="44" width="14" height="16" rx="6" fill="#7a4a2b" />
  <path d="M84 132h76" stroke="#3c4654" stroke-width="3" opacity=".6" />`;

const Notebooks = () => html`
  <${Ground} width="70" />
  <g transform="rotate(-9 120 100)">
    <rect x="72" y="34" width="88" height="118" rx="7" fill="#f4efe4" />
    <rect x="66" y="32" width="88" height="118" rx="7" fill="#23655b" />
    <rect x="66" y="32" width="15" height="118" rx="6" fill="#174b43" />
  </g>
  <g transform="rotate(7 130 104)">
    <rect x="94" y="42" width="84" height="114" rx="7" fill="#f4efe4" />
    <rect x="88" y="40" width="84" height="114" rx="7" fill="#e2a03f" />
    <rect x="88" y="40" width="14" height="114" rx="6" fill="#bd7f24" />
    <rect x="114" y="60" width="44" height="22" rx="3" fill="#fff7e6" />
    <path d="M121 68h30M121 74h20" stroke="#bd7f24" stroke-width="2.5" stroke-linecap="round" />
    <path d="M162 40v114" stroke="#8c5a12" stroke-width="4" />
  </g>`;

const Bottle = () => html`
  <${Ground} width="38" />
  <rect x="103" y="18" width="34" height="24" rx="6" fill="#26364a" />
  <path d="M110 18v-2a10 8 0 0 1 20 0v2" fill="none" stroke="#26364a" stroke-width="5" />
  <rect x="107" y="40" width="26" height="10" fill="#c9d4de" />
  <path d="M107 48h26c2 12 20 14 20 34v62a14 14 0 0 1-14 14h-38a14 14 0 0 1-14-14V82c0-20
    18-22 20-34z" fill="#2f86b8" />
  <path d="M107 48h10c0 12-14 16-14 34v76h-2a14 14 0 0 1-14-14V82c0-20 18-22 20-34z"
    fill="#55a8d6" />
  <path d="M87 104l66-14v26l-66 14z" fill="#f6f1e3" />
  <path d="M112 115l8-10 5 6 4-4 6 7z" fill="#26364a" />`;

const Camera = () => html`
  <${Ground} width="82" />
  <rect x="62" y="46" width="30" height="16" rx="4" fill="#6b6f78" />
  <path d="M96 64l10-24h36l10 24z" fill="#3a3d45" />
  <rect x="112" y="46" width="24" height="12" rx="3" fill="#a9d3e6" />
  <rect x="164" y="50" width="18" height="12" rx="4" fill="#c0392b" />
  <rect x="38" y="60" width="164" height="96" rx="13" fill="#c7c9cf" />
  <rect x="38" y="78" width="164" height="62" fill="#3a3d45" />
  <circle cx="120" cy="109" r="42" fill="#25272d" />
  <circle cx="120" cy="109" r="34" fill="#565a64" />
  <circle cx="120" cy="109" r="26" fill="#17191d" />
  <circle cx="120" cy="109" r="18" fill="#2c4f7a" />
  <circle cx="112" cy="101" r="6" fill="#fff" opacity=".75" />
  <circle cx="127" cy="117" r="3" fill="#fff" opacity=".4" />
  <rect x="50" y="65" width="24" height="8" rx="4" fill="#8b8f99" />
  <circle cx="186" cy="69" r="4" fill="#e66a3f" />`;

const Blanket = () => html`
  <${Ground} width="82" />
  ${range(3).map(
    (i) => html`
    <rect x=${42 + i * 3} y=${118 - i * 36} width=${156 - i * 6} height="38" rx="19"
      fill=${["#a94f5d", "#c9707c", "#e09aa1"][i]} />
    <path d=${`M${60 + i * 3} ${137 - i * 36}h${120 - i * 6}`} stroke="#fff" stroke-width="3"
      stroke-dasharray="10 7" opacity=".55" />`,
  )}
  ${range(9).map(
    (i) => html`<path d=${`M${66 + i * 13} 154v8`} stroke="#a94f5d" stroke-width="4"
      stroke-linecap="round" />`,
  )}
  <rect x="142" y="58" width="22" height="98" rx="3" fill="#f6ead7" />
  <path d="M147 74h12M147 82h12M147 90h8" stroke="#a94f5d" stroke-width="2.5" />`;

const TableClock = () => html`
  <${Ground} width="58" />
  <path d="M88 138l-12 20M152 138l12 20" stroke="#5d3a1f" stroke-width="9" stroke-linecap="round" />
  <circle cx="120" cy="94" r="60" fill="#8a5a33" />
  <circle cx="120" cy="94" r="50" fill="#fbf5e9" />
  ${range(12).map(
    (i) => html`<path d=${i % 3 ? "M120 50v5" : "M120 50v9"} stroke="#2d3138"
      stroke-width=${i % 3 ? 2.5 : 4} stroke-linecap="round" transform=${`rotate(${i * 30} 120 94)`}
      />`,
  )}
  <path d="M120 94L98 78" stroke="#2d3138" stroke-width="6" stroke-linecap="round" />
  <path d="M120 94l24-24" stroke="#2d3138" stroke-width="4" stroke-linecap="round" />
  <circle cx="120" cy="94" r="5" fill="#e66a3f" />`;

// A leaf of the plant, with its place and its turn.
const leaves = [
  [-62, 0.86, "#2f7d4f"],
  [58, 0.9, "#2f7d4f"],
  [-30, 1.02, "#3f9a64"],
  [30, 1, "#3f9a64"],
  [0, 1.12, "#57b87c"],
];

const Plant = () => html`
  <${Ground} width="44" />
  ${leaves.map(
    ([turn, size, fill]) => html`
    <g transform=${`translate(120 112) rotate(${turn}) scale(${size})`}>
      <path d="M0 0v-44" stroke="#2b6b45" stroke-width="4" />
      <path d="M0-30c-28-2-32-30-20-46 6-8 14-10 20-12 6 2 14 4 20 12 12 16 8 44-20 46z"
        fill=${fill} />
      <path d="M0-34v-46M-26-52l14-2M26-52l-14-2M-24-66l13-1M24-66l-13-1" stroke="#fff"
        stroke-width="2.5" stroke-linecap="round" opacity=".45" />
    </g>`,
  )}
  <path d="M82 108h76l-9 44a8 8 0 0 1-8 6H99a8 8 0 0 1-8-6z" fill="#d9835b" />
  <path d="M82 108h22l6 50H99a8 8 0 0 1-8-6z" fill="#e89c78" />
  <rect x="77" y="100" width="86" height="15" rx="5" fill="#c26d45" />`;

// The shapes for any other product. ink is dark, and paint and shine are two tones of one colour.
const Carton = ({ paint, shine, ink }) => html`
  <${Ground} width="72" />
  <path d="M52 74l68 26v58l-68-28z" fill=${shine} />
  <path d="M188 74l-68 26v58l68-28z" fill=${paint} />
  <path d="M52 74l68-28 68 28-68 26z" fill=${shine} opacity=".7" />
  <path d="M86 60l68 27v22l-16-6v-9L70 67z" fill="#fff" opacity=".75" />
  <path d="M136 130l34-14" stroke=${ink} stroke-width="4" stroke-linecap="round" opacity=".5" />`;

const Jar = ({ paint, shine, ink }) => html`
  <${Ground} width="48" />
  <rect x="80" y="34" width="80" height="24" rx="7" fill=${ink} />
  <rect x="72" y="56" width="96" height="102" rx="20" fill=${paint} />
  <path d="M92 56h10v102H92a20 20 0 0 1-20-20V76a20 20 0 0 1 20-20z" fill=${shine} />
  <rect x="72" y="88" width="96" height="42" fill="#fff" opacity=".85" />
  <path d="M90 102h60M90 114h36" stroke=${ink} stroke-width="5" stroke-linecap="round" />`;

const Pouch = ({ paint, shine, ink }) => html`
  <${Ground} width="58" />
  <path d="M70 40h100l-4 16c10 34 12 68 6 102H68c-6-34-4-68 6-102z" fill=${paint} />
  <path d="M70 40h32c-10 38-12 78-6 118H68c-6-34-4-68 6-102z" fill=${shine} />
  <path d="M70 40h100l-3 12H73z" fill=${ink} />
  <circle cx="122" cy="106" r="27" fill="#fff" opacity=".85" />
  <path d="M110 108l9 9 16-20" fill="none" stroke=${ink} stroke-width="6" stroke-linecap="round"
    stroke-linejoin="round" />`;

const Tube = ({ paint, shine, ink }) => html`
  <${Ground} width="36" />
  <rect x="92" y="26" width="56" height="106" rx="10" fill=${paint} />
  <rect x="92" y="26" width="22" height="106" rx="9" fill=${shine} />
  <path d="M86 22h68v12H86z" fill=${ink} opacity=".85" />
  <rect x="102" y="128" width="36" height="30" rx="5" fill=${ink} />
  <path d="M120 52v54" stroke="#fff" stroke-width="12" stroke-linecap="round" opacity=".8" />`;

// The demo's drawings, by SKU, each with the hue of its background.
const drawn = {
  "WH-100": [Headphones, 0],
  "MK-200": [Keyboard, 1],
  "CM-300": [Mug, 2],
  "DL-110": [Lamp, 3],
  "CB-210": [Backpack, 4],
  "PK-310": [Kettle, 1],
  "NS-120": [Notebooks, 2],
  "TB-220": [Bottle, 5],
  "FC-320": [Camera, 4],
  "WB-130": [Blanket, 0],
  "TC-230": [TableClock, 3],
  "PM-330": [Plant, 5],
};

const shapes = [Carton, Jar, Pouch, Tube];

const colours = [
  { paint: "#4d52c9", shine: "#7277e2", ink: "#23264f" },
  { paint: "#1f7f8c", shine: "#3aa3b0", ink: "#123f47" },
  { paint: "#d9633b", shine: "#ef8a66", ink: "#5e2413" },
  { paint: "#c08a1e", shine: "#dfad48", ink: "#553b08" },
  { paint: "#3b8a55", shine: "#5fb17a", ink: "#173b24" },
  { paint: "#a3487f", shine: "#c671a4", ink: "#481c37" },
];

// sum is a number that depends on a text, the same for ever.
const sum = (text) => [...text].reduce((hash, c) => (hash * 31 + c.codePointAt(0)) % 65_521, 7);

// Illustration draws a product {id, sku}. It says nothing to a screen reader: the name stands
// beside it.
export function Illustration({ product: { id, sku } }) {
  const hash = sum(String(id));
  const [Drawing, hue] = drawn[sku] ?? [shapes[hash % shapes.length], (hash >> 3) % 6];
  return html`
    <svg class=${`drawing hue-${hue}`} viewBox="0 0 240 180" aria-hidden="true" focusable="false">
      <rect class="wall" width="240" height="180" />
      <circle class="spot" cx="120" cy="92" r="78" />
      <${Drawing} ...${colours[(hash >> 6) % colours.length]} />
    </svg>`;
}
