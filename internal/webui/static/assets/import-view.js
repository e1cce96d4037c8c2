// The console's import: choose a file, look at what is in it, send it, and get back what was
// refused.

import { useEffect, useRef, useState } from "preact/hooks";
import { fullTime, Table } from "./console-parts.js";
import { FileError, KINDS, read, table } from "./import-file.js";
import {
  begin,
  clear,
  currentJob,
  forget,
  keptImports,
  MOST_REFERENCE,
  onJob,
  refusedOf,
  set,
  start,
  stop,
} from "./import-send.js";
import { Alert, count, html, plural } from "./parts.js";

const SHOWN = 5; // first lines
const NUMBERS = ["delta", "counted", "asOfSeq", "maxPerHold", "maxPerOwner"]; // columns
const SHOWN_PROBLEMS = 50; // lines with a problem, or refused ones; a download has all

// The words for the lines of an outcome.
const OUTCOMES = {
  CREATED: "new",
  UPDATED: "changed",
  APPLIED: "applied",
  UNCHANGED: "as they were",
  REPLAYED: "applied before, under the same reference",
  CLAMPED: "taken down only to what is held",
};

const stages = {
  ready: "ready",
  sending: "busy",
  waiting: "busy",
  stopping: "busy",
  stopped: "stopped",
  done: "done",
};

export function View({ can }) {
  const [job, setJob] = useState(currentJob());
  useEffect(() => onJob(setJob), []);
  const stage = job ? stages[job.state] : "choose";
  const node = useRef();
  const last = useRef(stage);
  // A step takes its buttons away, so the focus goes to the heading of the next one.
  useEffect(() => {
    if (last.current !== stage) {
      last.current = stage;
      node.current.querySelector("h2").focus();
    }
  }, [stage]);
  const steps = { choose: Choose, ready: Ready, busy: Busy, stopped: Stopped, done: Done };
  return html`
    <div class="importer" ref=${node}>
      <h1>Import</h1>
      <${steps[stage]} job=${job} can=${can} />
    </div>`;
}

const Heading = ({ children }) => html`<h2 tabindex="-1">${children}</h2>`;

// linesOf names a number of lines of a file.
const linesOf = ({ kind }, number) => plural(number, kind.one, kind.many);

function Choose() {
  const [state, setState] = useState({ isReading: false, problem: "" });
  const [isOver, setOver] = useState(false);
  async function take(file) {
    if (!file || state.isReading) {
      return;
    }
    setState({ isReading: true, problem: "" });
    try {
      begin(await read(file));
    } catch (error) {
      const known = error instanceof FileError;
      setState({ isReading: false, problem: known ? error.message : "The file can’t be read." });
    }
  }
  function onDrop(event) {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer.files[0]);
  }
  function onDragOver(event) {
    event.preventDefault();
    setOver(true);
  }
  function onChange({ target }) {
    take(target.files[0]);
    target.value = ""; // so that the same file can be chosen again
  }
  return html`
    <section>
      <${Heading}>Choose a file<//>
      <label class=${isOver ? "drop over" : "drop"} onDragOver=${onDragOver}
        onDragLeave=${() => setOver(false)} onDrop=${onDrop}>
        <input type="file" accept=".csv,.tsv,.txt,text/csv" onChange=${onChange} />
        <svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 3v12M7 10l5 5 5-5M4 20h16" /></svg>
        <strong>${state.isReading ? "Reading the file…" : "Drop a CSV file here, or choose one"}
        </strong>
        <small>Nothing is sent before you have seen what is in it.</small>
      </label>
      <${Alert} class="note" text=${state.problem} />
    </section>
    <${Unfinished} />
    <${Formats} />`;
}

// Unfinished lists the imports that were stopped. A browser doesn't let a page open a file again by
// itself.
function Unfinished() {
  const entries = keptImports().filter(({ isDone }) => !isDone);
  if (entries.length === 0) {
    return null;
  }
  return html`
    <section>
      <h2>Stopped before the end</h2>
      <p class="soft">Choose the same file again to continue.</p>
      <ul class="unfinished">
        ${entries.map(({ hash, name, position, total, at }) => html`
          <li key=${hash}>
            <span><b>${name}</b>
              <small>${count(position)} of ${plural(total, "line")} sent,
                ${` ${fullTime(new Date(at))}`}</small></span>
            <button type="button" class="secondary" aria-label=${`Forget ${name}`}
              onClick=${() => forget(hash)}>Forget</button>
          </li>`)}
      </ul>
    </section>`;
}

// FORMATS has what a file of each kind can have: its columns, each with what it is, and the rows of
// an example.
const FORMATS = [
  {
    kind: KINDS.stock,
    columns: {
      "sku or productId": "Required. Which product.",
      "warehouse or warehouseId": "Required. Which warehouse: by its code, or by its id.",
      "delta or counted": "Required. How many were added (−3 takes away), or how many are there.",
      asOfSeq: "The movement after which was counted. What was sold since is taken off.",
      note: "Why. Others see it beside the movement.",
    },
    example: [["sku", "warehouse", "delta", "note"], ["MUG-1", "NY", "24", "Delivery"]],
  },
  {
    kind: KINDS.products,
    columns: {
      sku: "Required. Your own code of the product.",
      name: "Required for a new product.",
      status: "ACTIVE or ARCHIVED. An archived product isn’t for sale.",
      maxPerHold: "The most units of one hold.",
      maxPerOwner: "The most units of one customer.",
    },
    example: [["sku", "name", "status"], ["MUG-1", "Ceramic Mug", "ACTIVE"]],
  },
  {
    kind: KINDS.warehouses,
    columns: {
      code: "Required. Your own code of the warehouse.",
      name: "Required for a new warehouse.",
      status: "OPEN or CLOSED. Nothing is sold from a closed warehouse.",
    },
    example: [["code", "name", "status"], ["NY", "New York", "OPEN"]],
  },
];

const Formats = () => html`
  <section>
    <h2>What a file can have</h2>
    <p class="soft">The first line names the columns, in any order.</p>
    <div class="formats">
      ${FORMATS.map(({ kind: { title }, columns, example }) => html`
        <div key=${title}>
          <h3>${title}</h3>
          <dl>${Object.entries(columns).map(([name, words]) => html`
            <div key=${name}>
              <dt>${name.split(" or ").map((one, i) => html`${i > 0 && " or "}<code>${one}</code>`)}
              </dt>
              <dd>${words}</dd>
            </div>`)}
          </dl>
          <button type="button" class="secondary small"
            aria-label=${`Download an example: ${title}`}
            onClick=${() => save(`${title.toLowerCase()}-example.csv`, example)}>
            Download an example</button>
        </div>`)}
    </div>
  </section>`;

// Ready shows what is in the file, before anything is sent.
function Ready({ job, can }) {
  const { file, kind, before } = job;
  const wrong = refusedOf(job);
  const good = file.lines.length - wrong.length;
  const mayImport = can(kind.scope);
  return html`
    <section>
      <${Heading}>${file.name}<//>
      <p class="sum">
        <b>${linesOf(job, file.lines.length)}</b>
        ${wrong.length === 0
          ? " without a problem."
          : `: ${count(good)} can be imported, and ${plural(wrong.length, "line")} can’t.`}
      </p>
      ${before && html`
        <p class="notice">This file was imported on ${fullTime(new Date(before.at))}. What was
          applied then isn’t applied again, unless you change the reference.</p>`}
      ${file.ignored.length > 0 && html`
        <p class="notice ignored">Left out, because the shop has no such
          ${file.ignored.length === 1 ? " column" : " columns"}:
          ${` ${file.ignored.map((name) => name || "(no name)").join(", ")}.`}</p>`}
      <${Settings} job=${job} />
      ${!mayImport && html`
        <p class="problem">Your account can’t import this. It needs the permission
          <code>${kind.scope}</code>.</p>`}
      <p class="actions">
        ${mayImport && good > 0 && html`
          <button type="button" aria-disabled=${!job.reference.trim()}
            onClick=${() => job.reference.trim() && start()}>
            ${`Import ${linesOf(job, good)}`}</button>`}
        <button type="button" class="secondary" onClick=${clear}>Choose another file</button>
      </p>
    </section>
    <${Refused} title="Lines with a problem" job=${job} />
    <${First} file=${file} />`;
}

// Settings are for stock alone.
function Settings({ job }) {
  if (job.kind !== KINDS.stock) {
    return null;
  }
  return html`
    <div class="settings">
      <label>Reference
        <input type="text" maxlength=${MOST_REFERENCE} value=${job.reference} required
          aria-describedby="reference-note"
          onInput=${({ target }) => set({ reference: target.value })} />
        <small id="reference-note">It names this delivery or count. A line is applied once under
          it: so you can correct a file and import it again. A new delivery needs a new one.</small>
      </label>
      <label>If less would be left than is held
        <select value=${job.clamp ? "clamp" : "fail"}
          onChange=${({ target }) => set({ clamp: target.value === "clamp" })}>
          <option value="fail">Refuse the line</option>
          <option value="clamp">Go down to what is held</option>
        </select>
        <small>Customers keep what they hold in both cases.</small>
      </label>
    </div>`;
}

// First shows the first lines, as they are in the file.
const First = ({ file }) => html`
  <section>
    <h2>${file.lines.length > SHOWN ? `The first ${SHOWN} lines` : "The lines"}</h2>
    <${Table} label="The first lines of the file" keyOf=${({ at }) => at}
      rows=${file.lines.slice(0, SHOWN)}
      columns=${[
        { name: "Line", cell: ({ at }) => count(at), isNumber: true, isHead: true },
        ...file.header.map((name, i) => ({
          name: name || "(no name)",
          isNumber: NUMBERS.includes(name),
          cell: ({ fields }) => fields[i] ?? "",
        })),
      ]} />
  </section>`;

// Refused lists the lines that aren't imported, and why.
function Refused({ title, job, hasDownload = true }) {
  const lines = refusedOf(job);
  if (lines.length === 0) {
    return null;
  }
  const columns = [
    { name: "Line", cell: ({ at }) => count(at), isNumber: true, isHead: true },
    { name: "Problem", cell: ({ reason }) => reason, isWide: true },
    {
      name: "In the file",
      cell: ({ index }) => html`<code>${shortOf(job.file.lines[index].fields)}</code>`,
      isWide: true,
    },
  ];
  return html`
    <section>
      <h2>${title}</h2>
      <${Table} label=${title} columns=${columns} rows=${lines.slice(0, SHOWN_PROBLEMS)}
        keyOf=${({ index }) => index} />
      ${lines.length > SHOWN_PROBLEMS && html`
        <p class="soft">And ${count(lines.length - SHOWN_PROBLEMS)} more.</p>`}
      ${hasDownload && html`<p class="actions"><${Download} job=${job} /></p>`}
    </section>`;
}

// Download saves the refused lines.
function Download({ job, isFirst = false }) {
  const lines = refusedOf(job);
  return html`
    <button type="button" class=${isFirst ? "" : "secondary"}
      onClick=${() => downloadRefused(job, lines)}>
      ${`Download ${plural(lines.length, "line")} with the problems`}</button>`;
}

// shortOf shows the fields of a line, without the empty ones at its end.
const shortOf = (fields) => fields.join(", ").replace(/[, ]+$/, "");

// downloadRefused saves the refused lines as a CSV file. It can be corrected and imported: the two
// columns in front are ignored then.
function downloadRefused({ file }, lines) {
  const rows = lines.map(({ index, at, reason }) => [at, reason, ...file.lines[index].fields]);
  save(`${file.name.replace(/\.\w+$/, "")}-refused.csv`, [
    ["line", "problem", ...file.header],
    ...rows,
  ]);
}

// save gives the person a CSV file of some rows.
function save(name, rows) {
  const content = table(rows);
  const url = URL.createObjectURL(new Blob([content], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // a slow browser may still read it
}

function Progress({ job }) {
  const { position, file } = job;
  const total = file.lines.length;
  return html`
    <p class="sum" id="import-progress">${count(position)} of ${linesOf(job, total)}</p>
    <progress max=${total} value=${position} aria-labelledby="import-progress" />`;
}

function Busy({ job }) {
  const notes = {
    sending: "You can look at other pages of the console meanwhile.",
    waiting: `${job.problem} We keep trying.`,
    stopping: "Stopping after the lines under way…",
  };
  return html`
    <section>
      <${Heading}>Importing ${job.file.name}<//>
      <${Progress} job=${job} />
      <p class=${job.state === "waiting" ? "notice warning" : "soft"} role="status">
        ${notes[job.state]}</p>
      <p class="actions">
        <button type="button" class="secondary" onClick=${stop}
          aria-disabled=${job.state === "stopping"}>Stop</button>
      </p>
    </section>`;
}

function Stopped({ job, can }) {
  return html`
    <section>
      <${Heading}>${`${job.file.name} stopped at ${count(job.position)} of ${
        count(job.file.lines.length)}`}<//>
      <${Progress} job=${job} />
      <${Alert} class="problem" text=${job.problem} />
      <p class="soft">What was sent stays. It continues where it
        stopped${job.kind === KINDS.stock ? ", under the same reference" : ""}.</p>
      <p class="actions">
        ${can(job.kind.scope) && html`<button type="button" onClick=${start}>Continue</button>`}
        <button type="button" class="secondary" onClick=${clear}>Choose another file</button>
      </p>
    </section>
    <${Refused} title="Refused so far" job=${job} />`;
}

function Done({ job }) {
  const refused = refusedOf(job).length;
  const done = job.file.lines.length - refused;
  const outcomes = Object.entries(OUTCOMES).filter(([name]) => job.counts[name]);
  return html`
    <section>
      <${Heading}>${refused > 0
        ? `${job.file.name}: ${count(done)} imported, ${count(refused)} refused`
        : `${job.file.name} is imported`}<//>
      <ul class="outcomes">
        ${outcomes.map(([name, words]) => html`
          <li key=${name}><b>${count(job.counts[name])}</b> ${words}</li>`)}
        <li class=${refused > 0 ? "bad" : ""}><b>${count(refused)}</b> refused</li>
      </ul>
      ${refused > 0 && html`
        <p class="soft">The refused lines changed nothing. Correct them in your file, and
          import it again${job.kind === KINDS.stock ? " under the same reference" : ""}. Or
          download them alone, and correct and import that.</p>`}
      <p class="actions">
        ${refused > 0 && html`<${Download} job=${job} isFirst />`}
        <button type="button" class=${refused > 0 ? "secondary" : ""} onClick=${clear}>
          Import another file</button>
        <a role="button" class="secondary" href="/ops/stock">See the stock</a>
      </p>
    </section>
    <${Refused} title="Refused lines" job=${job} hasDownload=${false} />`;
}
