// The Build page's plots as inline SVG: how the drop is spread, and how many classes have how many members.

import { draw, make, plural, whole } from './judging.js';

const WIDTH = 640;
const LEFT = 52;
const RIGHT = 14;
const BOTTOM = 44;
const TICKS = 8;
const TICK_STEPS = [1, 2, 4, 5, 10]; // bins between two labels; the last serves any number that the server makes
const MOST_BARS = 40;
let plots = 0;

const short = (value) => String(Number(value.toPrecision(6)));

/** Bars for all candidates with the members' part filled, and the threshold as a line; null without candidates. */
export function dropHistogram({ edges, all, members, threshold }) {
  const most = Math.max(0, ...all);
  if (!most) return null;
  const { height, top, base, bar, axis, label } = frame(240, 26, most);
  const [low, high] = [edges[0], edges.at(-1)];
  const x = (value) => LEFT + ((WIDTH - LEFT - RIGHT) * (value - low)) / (high - low);
  const step = TICK_STEPS.find((one) => edges.length - 1 <= one * TICKS) ?? TICK_STEPS.at(-1);
  const parts = [
    ...all.map((count, at) => bar('bar-all', x(edges[at]), x(edges[at + 1]), count)),
    ...members.map((count, at) => bar('bar-members', x(edges[at]), x(edges[at + 1]), count)),
    ...axis('drop (logits of the true class)'),
    ...edges.filter((_, at) => at % step === 0).flatMap((edge) => label(x(edge), short(edge))),
  ];
  let where = '';
  if (threshold !== null) {
    where = ` The threshold is at ${short(threshold)}.`;
    if (threshold >= low && threshold <= high) {
      const place = x(threshold);
      const late = place > WIDTH * 0.7;
      parts.push(
        draw('line', { class: 'threshold', x1: place, y1: top - 16, x2: place, y2: base }),
        draw('text', { class: 'threshold-text', x: place + (late ? -6 : 6), y: top - 8, 'text-anchor': late ? 'end' : 'start' },
          `threshold ${short(threshold)}`),
      );
    }
  }
  const sum = (counts) => counts.reduce((total, count) => total + count, 0);
  const text = `${whole(sum(members))} members among ${whole(sum(all))} candidates; drops from ${short(low)} to ${short(high)}, ` +
    `at most ${whole(most)} candidates in one bar.${where}`;
  return figure('How the drop is spread', text, height, parts,
    make('span', { className: 'key members', ariaHidden: 'true' }), 'in the build',
    make('span', { className: 'key all', ariaHidden: 'true' }), 'left out');
}

/** How many classes have how many members; counts[n] classes have n. */
export function balancePlot(counts) {
  const wide = Math.ceil(counts.length / MOST_BARS);
  const bars = [];
  for (let from = 0; from < counts.length; from += wide) {
    bars.push({ from, to: Math.min(from + wide, counts.length) - 1, classes: counts.slice(from, from + wide).reduce((a, b) => a + b, 0) });
  }
  const most = Math.max(1, ...bars.map((one) => one.classes));
  const { height, bar, axis, label } = frame(180, 14, most);
  const step = (WIDTH - LEFT - RIGHT) / bars.length;
  const every = Math.ceil(bars.length / 12);
  const said = ({ from, to }) => (from === to ? String(from) : `${from}–${to}`);
  const parts = [
    ...bars.map((one, at) => {
      const made = bar(one.from === 0 && one.to === 0 ? 'bar-none' : 'bar-members', LEFT + at * step, LEFT + (at + 1) * step, one.classes);
      made.append(draw('title', {}, `${plural(one.classes, 'class', 'classes')} with ${said(one)} members`));
      return made;
    }),
    ...axis('members in a class'),
    ...bars.filter((_, at) => at % every === 0).flatMap((one, at) => label(LEFT + (at * every + 0.5) * step, said(one))),
  ];
  const text = bars.filter((one) => one.classes).map((one) => `${plural(one.classes, 'class', 'classes')} with ${said(one)} members`).join('; ');
  return figure('How the members are spread over the classes', `${text}.`, height, parts, 'Height: how many classes.');
}

function frame(height, top, most) {
  const base = height - BOTTOM;
  return {
    height,
    top,
    base,
    bar: (kind, from, to, count) => {
      const tall = ((base - top) * count) / most;
      return draw('rect', { class: kind, x: from + 0.5, y: base - tall, width: Math.max(to - from - 1, 0.5), height: tall });
    },
    axis: (across) => [
      draw('line', { class: 'axis', x1: LEFT, y1: base, x2: WIDTH - RIGHT, y2: base }),
      draw('text', { x: LEFT - 6, y: top + 5, 'text-anchor': 'end' }, whole(most)),
      draw('text', { x: LEFT - 6, y: base + 4, 'text-anchor': 'end' }, '0'),
      draw('text', { x: (LEFT + WIDTH - RIGHT) / 2, y: height - 6, 'text-anchor': 'middle' }, across),
    ],
    label: (at, words) => [
      draw('line', { class: 'axis', x1: at, y1: base, x2: at, y2: base + 4 }),
      draw('text', { x: at, y: base + 18, 'text-anchor': 'middle' }, words),
    ],
  };
}

function figure(title, description, height, parts, ...caption) {
  const name = `build-plot-${(plots += 1)}`;
  const picture = draw('svg', { viewBox: `0 0 ${WIDTH} ${height}`, role: 'img', 'aria-labelledby': `${name}-title ${name}-text` },
    draw('title', { id: `${name}-title` }, title), draw('desc', { id: `${name}-text` }, description), ...parts);
  return make('figure', { className: 'histogram' }, make('h4', { textContent: title }), picture, make('figcaption', {}, ...caption));
}
