// The Triage page's plots as inline SVG. Each has a title and a description that says what it shows in figures.

import { draw, make, percent, whole } from './judging.js';

const WIDTH = 420;
const HEIGHT = 260;
const LEFT = 48;
const RIGHT = 12;
const TOP = 26;
const BOTTOM = 42;
const FEATURE_HEIGHT = 22;
const FEATURE_LABEL = 170;
const SHOWN_FEATURES = 12;
const TICKS = [0, 0.25, 0.5, 0.75, 1];
let plots = 0;

/** Share accepted against P(accept), in bins; on the diagonal the model is calibrated. */
export function reliabilityPlot(bins, ece) {
  const { x, y, parts } = frame('P(accept), as the model says', 'accepted by people', percentTicks(), percentTicks());
  const most = Math.max(...bins.map((bin) => bin.judged));
  parts.push(
    draw('line', { class: 'guide', x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    draw('polyline', { class: 'curve', points: bins.map((bin) => `${x(bin.p_accept)},${y(bin.accepted)}`).join(' ') }),
    ...bins.map((bin) => draw('circle', { class: 'dot', cx: x(bin.p_accept), cy: y(bin.accepted), r: 3 + 5 * Math.sqrt(bin.judged / most) })),
  );
  const text = `Expected calibration error ${ece.toFixed(3)}. ` +
    bins.map((bin) => `Where it says ${percent(bin.p_accept, 0)}, people accepted ${percent(bin.accepted, 0)} of ${whole(bin.judged)}`).join('; ');
  return figure('Calibration', `${text}.`, parts, 'The larger a dot, the more verdicts. On the dashed line the model is right about itself.');
}

/** AUROC against how many verdicts were learnt from. */
export function learningPlot(points) {
  const most = Math.max(...points.map((point) => point.judged));
  const low = Math.min(0.5, ...points.map((point) => point.auroc));
  const ticks = [0, 0.5, 1].map((share) => [share, whole(Math.round(share * most))]);
  const up = [0, 0.5, 1].map((share) => [share, (low + share * (1 - low)).toFixed(2)]);
  const { x, y, parts } = frame('verdicts learnt from', 'AUROC', ticks, up);
  const place = (point) => [x(point.judged / most), y((point.auroc - low) / (1 - low))];
  parts.push(
    draw('polyline', { class: 'curve', points: points.map((point) => place(point).join(',')).join(' ') }),
    ...points.map((point) => draw('circle', { class: 'dot', cx: place(point)[0], cy: place(point)[1], r: 4 })),
  );
  const text = points.map((point) => `${point.auroc.toFixed(3)} with ${whole(point.judged)} verdicts`).join('; ');
  return figure('Learning curve', `AUROC ${text}.`, parts, 'Still rising: more verdicts would help. Flat: the features say no more.');
}

/** How P(accept) is spread over the candidates, with the bands that are looked at. */
export function spreadPlot(bins, { accept, reject }) {
  const most = Math.max(1, ...bins.map((bin) => bin.looked_at + bin.open));
  const up = [0, 0.5, 1].map((share) => [share, whole(Math.round(share * most))]);
  const { x, y, parts } = frame('P(accept)', 'candidates', percentTicks(), up);
  if (reject) parts.push(draw('rect', { class: 'band-reject', x: x(0), y: y(1), width: x(reject) - x(0), height: y(0) - y(1) }));
  if (accept) parts.push(draw('rect', { class: 'band-accept', x: x(accept), y: y(1), width: x(1) - x(accept), height: y(0) - y(1) }));
  for (const bin of bins) {
    const bar = (kind, from, count) => draw('rect', { class: kind, x: x(bin.lower) + 0.5, y: y((from + count) / most),
      width: Math.max(0.5, x(bin.upper) - x(bin.lower) - 1), height: y(0) - y(count / most) });
    parts.push(bar('bar-all', 0, bin.looked_at), bar('bar-open', bin.looked_at, bin.open));
  }
  const open = bins.reduce((sum, bin) => sum + bin.open, 0);
  const seen = bins.reduce((sum, bin) => sum + bin.looked_at, 0);
  const bands = [accept && `to accept from ${percent(accept)}`, reject && `to reject below ${percent(reject)}`].filter(Boolean);
  const text = `${whole(seen)} candidates looked at by somebody, ${whole(open)} open.` + (bands.length ? ` Bands: ${bands.join(', ')}.` : '');
  return figure('How P(accept) is spread', text, parts, make('span', {}, key('looked'), 'looked at ', key('open'), 'open ', key('in'), 'in a band'));
}

/** What the model leans on: growth of the log loss when a feature is shuffled. */
export function importancePlot(importances) {
  const shown = importances.slice(0, SHOWN_FEATURES);
  const most = Math.max(1e-9, ...shown.map((one) => one.log_loss_growth));
  const room = WIDTH - FEATURE_LABEL - 56;
  const parts = shown.flatMap((one, index) => {
    const top = index * FEATURE_HEIGHT;
    const width = (room * Math.max(0, one.log_loss_growth)) / most;
    return [
      draw('text', { x: FEATURE_LABEL - 8, y: top + 15, 'text-anchor': 'end' }, one.feature.replaceAll('_', ' ')),
      draw('rect', { class: 'bar-open', x: FEATURE_LABEL, y: top + 4, width: Math.max(1, width), height: FEATURE_HEIGHT - 8 }),
      draw('text', { x: FEATURE_LABEL + width + 6, y: top + 15 }, one.log_loss_growth.toFixed(3)),
    ];
  });
  const text = shown.map((one) => `${one.feature.replaceAll('_', ' ')} ${one.log_loss_growth.toFixed(3)}`).join('; ');
  return figure('What it leans on', `${text}.`, parts, 'How much the log loss grows when a feature is shuffled; a few of them may stand for one another.', shown.length * FEATURE_HEIGHT + 4);
}

function percentTicks() {
  return TICKS.map((share) => [share, percent(share, 0)]);
}

function frame(across, upward, xTicks, yTicks) {
  const x = (share) => LEFT + (WIDTH - LEFT - RIGHT) * share;
  const y = (share) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share;
  const parts = [
    draw('line', { class: 'axis', x1: x(0), y1: y(0), x2: x(1), y2: y(0) }),
    draw('line', { class: 'axis', x1: x(0), y1: y(0), x2: x(0), y2: y(1) }),
    ...xTicks.map(([share, text]) => draw('text', { x: x(share), y: y(0) + 17, 'text-anchor': share === 1 ? 'end' : 'middle' }, text)),
    ...yTicks.map(([share, text]) => draw('text', { x: LEFT - 6, y: y(share) + 4, 'text-anchor': 'end' }, text)),
    draw('text', { x: (x(0) + x(1)) / 2, y: HEIGHT - 6, 'text-anchor': 'middle' }, across),
    draw('text', { x: 4, y: 12 }, upward),
  ];
  return { x, y, parts };
}

function figure(title, description, parts, caption, height = HEIGHT) {
  const name = `plot-${(plots += 1)}`;
  const picture = draw(
    'svg',
    { viewBox: `0 0 ${WIDTH} ${height}`, role: 'img', 'aria-labelledby': `${name}-title ${name}-text` },
    draw('title', { id: `${name}-title` }, title),
    draw('desc', { id: `${name}-text` }, description),
    ...parts,
  );
  return make('figure', { className: 'plot' }, make('h4', { textContent: title }), picture, make('figcaption', {}, caption));
}

function key(kind) {
  return make('span', { className: `plot-key ${kind}`, ariaHidden: 'true' });
}
