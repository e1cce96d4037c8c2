// Small charts as SVG. Their numbers are attributes, which our policy allows; their colours are
// classes.

import { count, html } from "./parts.js";

const HEIGHT = 60; // of a chart, in its own units. A bar is one unit wide

// Bars stacks the series of each minute: [{name, title}], from the bottom up in the legend's order.
export function Bars({ title, minutes, series }) {
  const sums = minutes.map((minute) => series.reduce((sum, { name }) => sum + minute[name], 0));
  const most = Math.max(...sums, 1);
  const total = (name) => minutes.reduce((sum, minute) => sum + minute[name], 0);
  const totals = series.map(
    ({ name, title: what }) => `${what.toLowerCase()} ${count(total(name))}`,
  );
  return html`
    <figure class="chart">
      <figcaption><h2>${title}</h2><${Legend} series=${series} /></figcaption>
      <div class="plot">
        <span class="scale" aria-hidden="true">${count(most)}</span>
        <svg viewBox=${`0 0 ${minutes.length} ${HEIGHT}`} preserveAspectRatio="none" role="img"
          aria-label=${`${title}, the last hour: ${totals.join(", ")}; ` +
            `the most in a minute ${count(most)}.`}>
          <path class="grid"
            d=${[0.5, HEIGHT / 2, HEIGHT - 0.5].map((y) => `M0 ${y}H${minutes.length}`).join("")} />
          ${minutes.map((minute, x) => html`<${Stack} key=${minute.at} x=${x} minute=${minute}
            series=${series} most=${most} />`)}
        </svg>
        <p class="axis" aria-hidden="true"><span>an hour ago</span><span>now</span></p>
      </div>
    </figure>`;
}

function Stack({ x, minute, series, most }) {
  let top = HEIGHT;
  return series.map(({ name }) => {
    const height = (minute[name] / most) * HEIGHT;
    top -= height;
    return html`<rect class=${name} x=${x + 0.1} y=${top} width="0.8" height=${height} />`;
  });
}

const Legend = ({ series }) =>
  html`<ul class="legend">${series.map(({ name, title }) => html`<li><${Sample} of=${name} />
    ${title}</li>`)}</ul>`;

const Sample = ({ of }) =>
  html`<svg viewBox="0 0 8 8" aria-hidden="true"><rect class=${of} width="8" height="8" /></svg>`;

// Shares is one divided bar: the outcomes of the hour's holds.
export function Shares({ title, hour, series }) {
  const whole = series.reduce((sum, { name }) => sum + hour[name], 0);
  const percent = (name) => (whole > 0 ? Math.round((100 * hour[name]) / whole) : 0);
  let x = 0;
  const parts = series.map(({ name }) => {
    const width = whole > 0 ? (100 * hour[name]) / whole : 0;
    const part = html`<rect class=${name} x=${x} width=${width} height="8" />`;
    x += width;
    return part;
  });
  return html`
    <figure class="chart">
      <figcaption><h2>${title}</h2><small>each rounded to 1 %</small></figcaption>
      <svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" role="img"
        aria-label=${series.map((one) => `${one.title} ${percent(one.name)} %`).join(", ")}>
        <rect class="track" width="100" height="8" />${parts}
      </svg>
      <dl class="shares">
        ${series.map(
          ({ name, title: what }) => html`
          <div><dt><${Sample} of=${name} />${what}</dt>
          <dd><b>${whole > 0 ? `${percent(name)} %` : "–"}</b> ${count(hour[name])}</dd></div>`,
        )}
      </dl>
    </figure>`;
}

// Line draws the newest values, oldest first, on a scale that reaches at least to least.
export function Line({ title, values, room, least, label }) {
  const most = Math.max(...values, least);
  const y = (value) => HEIGHT - 1 - (value / most) * (HEIGHT - 2);
  const points = values.map((value, i) => `${room - values.length + i} ${y(value)}`);
  return html`
    <figure class="chart">
      <figcaption><h2>${title}</h2></figcaption>
      <div class="plot">
        <span class="scale" aria-hidden="true">${label(most)}</span>
        <svg viewBox=${`0 0 ${room - 1} ${HEIGHT}`} preserveAspectRatio="none" role="img"
          aria-label=${`${title}: now ${label(values.at(-1) ?? 0)}, ` +
            `the most since this page was opened ${label(Math.max(0, ...values))}.`}>
          <path class="grid"
            d=${`M0 .5H${room}M0 ${HEIGHT / 2}H${room}M0 ${HEIGHT - 0.5}H${room}`} />
          ${points.length > 1 && html`<path class="line" d=${`M${points.join("L")}`}
            vector-effect="non-scaling-stroke" />`}
        </svg>
        <p class="axis" aria-hidden="true"><span>since you opened this page</span><span>now</span>
          </p>
      </div>
    </figure>`;
}
