// Reads a CSV file of products, warehouses or stock, and checks its lines as the API does, so that
// most problems are known before anything is sent. The API checks them again.

import Papa from "papaparse";

// The limits of a file. A line of the API's longest fields takes under 3 KB.
const MOST_BYTES = 20_000_000;
const MOST_LINES = 50_000;

const MOST_CODE = 100; // characters of an SKU or a code
const MOST_NAME = 500; // characters of a name or a note
const MOST_LIMIT = 1_000_000; // units of a product's limit
const MOST_UNITS = 1_000_000_000; // units of a movement

const CONTROL = /\p{Cc}/u;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

// A reader of a column takes a field that isn't empty. It returns {value} or {problem}.
const text = (most) => (field) => {
  if (CONTROL.test(field)) {
    return { problem: "has a line break or another control character" };
  }
  return [...field].length > most
    ? { problem: `has more than ${most} characters` }
    : { value: field };
};
const code = (field) =>
  field.trim() === field
    ? text(MOST_CODE)(field)
    : { problem: "begins or ends with a space" };
const id = (field) => (UUID.test(field) ? { value: field } : { problem: "isn’t an id" });
const oneOf = (...values) => (field) =>
  values.includes(field.toUpperCase())
    ? { value: field.toUpperCase() }
    : { problem: `must be ${values.join(" or ")}` };
const whole = (least, most) => (field) => {
  if (!/^[+-]?\d{1,12}$/.test(field.trim())) {
    return { problem: "must be a whole number" };
  }
  const value = Number(field);
  return value < least || value > most
    ? { problem: `must be from ${numbers.format(least)} to ${numbers.format(most)}` }
    : { value };
};
const numbers = new Intl.NumberFormat("en");

// either is the problem of a line that has none of two fields, or both.
function either(line, one, other) {
  const [has, hasOther] = [line[one] !== undefined, line[other] !== undefined];
  if (has === hasOther) {
    const problem = has ? `can’t be given beside ${other}` : `is missing, and so is ${other}`;
    return [{ column: one, problem }];
  }
  return [];
}

const required = (line, column) =>
  line[column] === undefined ? [{ column, problem: "is missing" }] : [];

// KINDS are the files that can be imported. key is the column that a file of the kind has, and no
// file of a kind before it. A line's problems are {column, problem}. once is the column whose value
// no two lines share.
export const KINDS = {
  stock: {
    title: "Stock",
    one: "line of stock",
    many: "lines of stock",
    path: "/api/stock/movements",
    list: "lines",
    scope: "inventory:write",
    isMine: (header) => header.includes("delta") || header.includes("counted"),
    columns: {
      sku: text(MOST_NAME),
      productId: id,
      warehouse: text(MOST_NAME),
      warehouseId: id,
      delta: whole(-MOST_UNITS, MOST_UNITS),
      counted: whole(0, MOST_UNITS),
      asOfSeq: whole(1, Number.MAX_SAFE_INTEGER),
      note: text(MOST_NAME),
    },
    check: (line) => [
      ...either(line, "sku", "productId"),
      ...either(line, "warehouse", "warehouseId"),
      ...either(line, "delta", "counted"),
      ...(line.asOfSeq !== undefined && line.counted === undefined
        ? [{ column: "asOfSeq", problem: "goes with counted only" }]
        : []),
    ],
  },
  warehouses: {
    title: "Warehouses",
    one: "warehouse",
    many: "warehouses",
    path: "/api/catalog/warehouses",
    list: "items",
    scope: "catalog:write",
    once: "code",
    isMine: (header) => header.includes("code"),
    columns: { code, name: text(MOST_NAME), status: oneOf("OPEN", "CLOSED") },
    check: (line) => required(line, "code"),
  },
  products: {
    title: "Products",
    one: "product",
    many: "products",
    path: "/api/catalog/products",
    list: "items",
    scope: "catalog:write",
    once: "sku",
    isMine: (header) => header.includes("sku"),
    columns: {
      sku: code,
      name: text(MOST_NAME),
      status: oneOf("ACTIVE", "ARCHIVED"),
      maxPerHold: whole(0, MOST_LIMIT),
      maxPerOwner: whole(0, MOST_LIMIT),
    },
    check: (line) => required(line, "sku"),
  },
};

// FileError is why a file can't be imported at all.
export class FileError extends Error {}

// read reads a file. It resolves to {name, hash, kind, header, ignored, lines}. ignored has the
// columns that the API doesn't know. A line is {at, fields, values, problems}: at is the file's
// line on which it begins, fields are its texts, and values what the API gets. hash names the
// file's content, or is empty where the browser can't tell it.
export async function read(file) {
  if (file.size > MOST_BYTES) {
    throw new FileError(`The file has more than ${MOST_BYTES / 1_000_000} MB. Split it.`);
  }
  const bytes = await file.arrayBuffer();
  let content;
  try {
    content = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new FileError("The file isn’t UTF-8 text. In Excel, save it as “CSV UTF-8”.");
  }
  return { name: file.name, hash: await hashOf(bytes), ...parse(content) };
}

// hashOf is the SHA-256 of the bytes. A page over plain HTTP from another machine has none.
async function hashOf(bytes) {
  if (!crypto.subtle) {
    return "";
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// parse reads the text of a file.
export function parse(content) {
  const rows = rowsOf(content.replace(/\r\n?/g, "\n"));
  const first = rows.shift();
  if (!first) {
    throw new FileError("The file is empty.");
  }
  if (rows.length === 0) {
    throw new FileError("The file has a header and no lines.");
  }
  if (rows.length > MOST_LINES) {
    throw new FileError(`The file has more than ${numbers.format(MOST_LINES)} lines. Split it.`);
  }
  const known = Object.values(KINDS).flatMap(({ columns }) => Object.keys(columns));
  const header = first.fields.map((field) => {
    const name = field.trim();
    return known.find((column) => column.toLowerCase() === name.toLowerCase()) ?? name;
  });
  const kind = Object.keys(KINDS).find((name) => KINDS[name].isMine(header));
  if (!kind) {
    throw new FileError(
      "The first line must name the columns: sku and name for products, code and name for " +
        "warehouses, or sku, warehouse and delta or counted for stock.",
    );
  }
  const { columns } = KINDS[kind];
  const twice = header.find((name, i) => columns[name] && header.indexOf(name) !== i);
  if (twice) {
    throw new FileError(`The first line names the column ${twice} twice.`);
  }
  const ignored = header.filter((name) => !columns[name]);
  return { kind, header, ignored, lines: checked(KINDS[kind], header, rows) };
}

// rowsOf splits a text into rows {at, fields, problem}, without the empty ones. The separator is a
// tab or a semicolon if the first line has one, else a comma.
function rowsOf(content) {
  const [first] = content.trimStart().split("\n", 1);
  const delimiter = ["\t", ";"].find((sign) => first.includes(sign)) ?? ",";
  const rows = [];
  let [line, begin] = [1, 0];
  Papa.parse(content, {
    delimiter,
    newline: "\n",
    step({ data: fields, errors, meta: { cursor } }) {
      if (fields.some((field) => field.trim())) {
        rows.push({ at: line, fields, problem: errors[0]?.message });
      }
      line += content.slice(begin, cursor).split("\n").length - 1;
      begin = cursor;
    },
  });
  return rows;
}

function checked({ columns, check, once }, header, rows) {
  const places = new Map(); // of the values that no two lines share
  return rows.map(({ at, fields, problem }) => {
    const values = {};
    const problems = problem ? [{ column: "", problem: `${problem}.` }] : [];
    if (fields.length > header.length) {
      problems.push({ column: "", problem: "has more fields than the first line" });
    }
    header.forEach((name, i) => {
      const field = fields[i] ?? "";
      if (!columns[name] || !field.trim()) {
        return;
      }
      const { value, problem: wrong } = columns[name](field);
      if (wrong) {
        problems.push({ column: name, problem: wrong });
      }
      values[name] = wrong ? null : value;
    });
    problems.push(...check(values));
    const value = once && values[once];
    if (value && places.has(value)) {
      problems.push({ column: once, problem: `is on line ${places.get(value)} already` });
    } else if (value) {
      places.set(value, at);
    }
    return { at, fields, values, problems };
  });
}

// table writes rows of texts as CSV, with a mark that tells Excel that it is UTF-8.
export const table = (rows) => `\ufeff${Papa.unparse(rows)}\r\n`;
