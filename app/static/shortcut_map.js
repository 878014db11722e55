// The shortcut map: for a background, the patches that push it most towards a class, by zero-shot and trained prompts side
// by side, on one colour scale. A job makes the numbers; ospcoop/figures/svg.py draws the same as a file.

import { ask } from './review_api.js';
import { draw, make, percent } from './judging.js';

const FIGURES = '/api/figures';
const SIDE = 224;
const POLL_MS = 700;
// matplotlib's inferno at six places, lowest to highest.
const HEAT = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];
const HEAT_OPACITY = 0.6;

/** The colour of evidence at a share 0 to 1 of the scale. */
export function heatColour(share) {
  const at = Math.min(1, Math.max(0, share)) * (HEAT.length - 1);
  const low = Math.min(Math.floor(at), HEAT.length - 2);
  return `rgb(${HEAT[low].map((channel, index) => Math.round(channel + (HEAT[low + 1][index] - channel) * (at - low))).join(' ')})`;
}

/** Ask for a map and wait until it is made. tell(sentence) says how far it is; alive() whether somebody still wants it. */
export async function makeMap(wish, tell, alive) {
  let { job_id: job } = await ask(`${FIGURES}/shortcuts`, { method: 'POST', body: wish });
  for (;;) {
    const answer = await ask(`${FIGURES}/shortcuts/${job}`);
    if (answer.map) return { ...answer.map, job };
    if (answer.state === 'failed' || answer.state === 'cancelled') throw new Error(answer.error || 'It was cancelled.');
    tell(answer.message);
    await new Promise((done) => setTimeout(done, POLL_MS));
    if (!alive()) return null;
  }
}

/** The map as elements. */
export function drawMap(map) {
  const address = `/media/candidate/${map.candidate}/${map.result_sha256}/result.png`;
  const legend = make('div', { className: 'heat-scale' },
    make('span', { textContent: '0' }), make('span', { className: 'heat-bar', ariaHidden: 'true', style: `background: linear-gradient(to right, ${HEAT.map((_, index) => heatColour(index / (HEAT.length - 1))).join(', ')})` }),
    make('span', { textContent: map.highest.toPrecision(3) }), make('span', { className: 'aside', textContent: `probability of ${map.class_name} at a patch, of ${map.classes} classes` }));
  const own = make('figure', { className: 'shortcut' }, make('h4', { textContent: 'Background' }),
    make('img', { src: address, alt: `Candidate ${map.candidate}, ${map.source_class} removed` }),
    make('figcaption', { textContent: `${map.source_class} was removed` }));
  return make('div', { className: 'stack shortcut-map' },
    make('div', { className: 'shortcuts' }, own, ...map.panels.map((panel) => drawPanel(panel, map, address))),
    legend,
    make('p', { className: 'aside' }, `The patches with most evidence are outlined. All panels share the colours. Zero-shot prompt: “${map.zero_shot_prompt}”. `,
      make('a', { href: `${FIGURES}/shortcuts/${map.job}/figure.svg`, download: '', textContent: 'Save as SVG' })));
}

function drawPanel(panel, map, address) {
  const rows = panel.evidence;
  const [high, wide] = [SIDE / rows.length, SIDE / rows[0].length];
  const cells = rows.flatMap((values, row) => values.map((value, column) =>
    draw('rect', { x: column * wide, y: row * high, width: wide, height: high, fill: heatColour(map.highest ? value / map.highest : 0), 'fill-opacity': HEAT_OPACITY },
      draw('title', {}, `row ${row + 1}, column ${column + 1}: ${value.toPrecision(3)}`))));
  const outlines = panel.top.map((patch) =>
    draw('rect', { class: 'outline', x: (patch % rows[0].length) * wide, y: Math.floor(patch / rows[0].length) * high, width: wide, height: high }));
  const best = panel.top.map((patch) => rows.flat()[patch].toPrecision(2)).join(', ');
  const text = `${panel.name}: evidence for ${map.class_name}, highest at patches with ${best}.`;
  return make('figure', { className: 'shortcut' }, make('h4', { textContent: panel.name }),
    draw('svg', { viewBox: `0 0 ${SIDE} ${SIDE}`, role: 'img', 'aria-label': text },
      draw('image', { href: address, width: SIDE, height: SIDE, preserveAspectRatio: 'none' }), ...cells, ...outlines),
    make('figcaption', { textContent: `whole image ${percent(panel.probability)}; taken for ${panel.predicted}, ${percent(panel.predicted_probability)}` }));
}
