// Small charts as SVG. Their numbers are attributes, which our policy allows; their colours are
// classes.

import { useState } from "preact/hooks";
import { clockTime, count, html } from "./parts.js";

const HEIGHT = 60; // of a chart, in its own units. A bar is one unit wide
const PAGE = 10; // minutes that the keys Page up and Page down move by

// minuteOf is the time of day of a minute.
export const minuteOf = ({ at }) => clockTime(new Date(at)).slice(0, 5);

// Bars stacks the series of each minute: [{name, title}], from the bottom up in the legend's order.
// The mouse, a finger and the arrow keys pick a minute, whose values are then in the legend. While
// no minute is picked, the legend has the sums.
export function Bars({ title, minutes, series }) {
  const [picked, setPicked] = useState(null);
  const sums = minutes.map((minute) => series.reduce((sum, { name }) => sum + minute[name], 0));
  const most = Math.max(...sums, 1);
  const total = (name) => minutes.reduce((sum, minute) => sum + minute[name], 0);
  const minute = minutes[picked];
  const valueOf = (name) => (minute ? minute[name] : total(name));
  const words = (value) =>
    series.map(({ name, title: what }) => `${what} ${count(value(name))}`).join(", ");
  const when = minute ? `At ${minuteOf(minute)}` : "The last hour";

  const pick = (index) => setPicked(Math.max(0, Math.min(minutes.length - 1, index)));
  function onPointer(event) {
    const { left, width } = event.currentTarget.getBoundingClientRect();
    pick(Math.floor(((event.clientX - left) / width) * minutes.length));
  }
  function onKeyDown(event) {
    const now = picked ?? minutes.length - 1;
    const to = {
      ArrowLeft: now - 1,
      ArrowRight: now + 1,
      ArrowDown: now - 1,
      ArrowUp: now + 1,
      PageDown: now - PAGE,
      PageUp: now + PAGE,
      Home: 0,
      End: minutes.length - 1,
    }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      pick(to);
    } else if (event.key === "Escape") {
      setPicked(null);
    }
  }
  return html`
    <figure class="chart">
      <figcaption><h2>${title}</h2><small>${when}</small></figcaption>
      <${Legend} series=${series} valueOf=${valueOf} />
      <div class="plot" role="slider" tabindex="0" aria-label=${`${title}, minute by minute`}
        aria-valuemin="0" aria-valuemax=${minutes.length - 1}
        aria-valuenow=${picked ?? minutes.length - 1} aria-valuetext=${`${when}: ${words(valueOf)}`}
        onPointerMove=${onPointer} onPointerDown=${onPointer} onPointerLeave=${() =>
          setPicked(null)} onKeyDown=${onKeyDown} onBlur=${() => setPicked(null)}>
        <span class="scale" aria-hidden="true">${count(most)}</span>
        <svg viewBox=${`0 0 ${minutes.length} ${HEIGHT}`} preserveAspectRatio="none"
          aria-hidden="true">
          ${minute && html`<rect class="picked" x=${picked} width="1" height=${HEIGHT} />`}
          <path class="grid"
            d=${[0.5, HEIGHT / 2, HEIGHT - 0.5].map((y) => `M0 ${y}H${minutes.length}`).join("")} />
          ${minutes.map((one, x) => html`<${Stack} key=${one.at} x=${x} minute=${one}
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

const Legend = ({ series, valueOf }) => html`
  <dl class="legend">
    ${series.map(({ name, title }) => html`
      <div><dt><${Sample} of=${name} />${title}</dt><dd>${count(valueOf(name))}</dd></div>`)}
  </dl>`;

const Sample = ({ of }) =>
  html`<svg viewBox="0 0 8 8" aria-hidden="true"><rect class=${of} width="8" height="8" /></svg>`;

// Shares is one divided bar: the outcomes of the hour's holds.
export function Shares({ title, hour, series }) {
  const whole = series.reduce((sum, { name }) => sum + hour[name], 0);
  const share = (name) => (whole > 0 ? `${Math.round((100 * hour[name]) / whole)}%` : "–");
  let x = 0;
  const parts = series.map(({ name }) => {
    const width = whole > 0 ? (100 * hour[name]) / whole : 0;
    const part = html`<rect class=${name} x=${x} width=${width} height="8" />`;
    x += width;
    return part;
  });
  return html`
    <figure class="chart">
      <figcaption><h2>${title}</h2><small>The last hour</small></figcaption>
      <svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
        <rect class="track" width="100" height="8" />${parts}
      </svg>
      <dl class="shares">
        ${series.map(
          ({ name, title: what }) => html`
          <div><dt><${Sample} of=${name} />${what}</dt>
          <dd><b>${share(name)}</b> ${count(hour[name])}</dd></div>`,
        )}
      </dl>
    </figure>`;
}
