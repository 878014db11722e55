// One result in detail: its scores drawn, backgrounds against their photos, classes, and the shortcut map of a background.

import { Chart, short } from './charts.js';
import { cent } from './evaluate_table.js';
import { ask } from './review_api.js';
import { button, field, heading, make, number, percent, plural, select, table, voice, whole } from './judging.js';
import { drawMap, makeMap } from './shortcut_map.js';

const FIGURES = '/api/figures';
const CLASSES_SHOWN = 10;
const MAX_RUNS = 4;
const DIAGONAL = [[0, 0, 1, 1]];

export class ResultDetail {
  constructor() {
    this.words = voice();
    this.title = heading('');
    const shares = { xDomain: [0, 1], yDomain: [0, 1], format: (value) => percent(value), formatTick: (value) => percent(value, 0), formatX: (value) => percent(value, 1), formatXTick: (value) => percent(value, 0) };
    const scores = { xLabel: 'score, higher = more OOD', xWord: 'score from', yLabel: 'share of images', format: (value) => percent(value), formatTick: (value) => percent(value, 0) };
    this.histogram = new Chart({ title: 'Scores', ...scores });
    this.roc = new Chart({ title: 'ROC', xLabel: 'ID images called OOD', yLabel: 'OOD images found', ...shares, newest: false, xWord: 'at' });
    this.reliability = new Chart({ title: 'Reliability', xLabel: 'confidence', yLabel: 'accuracy', ...shares, caption: 'ID images in bins of confidence; the larger a dot, the more images. On the dashed line the prompts are as right as they are sure.' });
    this.photos = new Chart({ title: 'Backgrounds and their photos', ...scores, caption: 'The less a detector is led by the background, the further the backgrounds lie to the right of their photos.' });
    this.paired = make('div', { className: 'stack' });
    this.classes = new ClassPanel();
    this.shortcuts = new ShortcutPanel();
    this.element = make('section', { className: 'stack', hidden: true }, this.title, this.words.element,
      make('div', { className: 'plots' }, ...[this.histogram, this.roc, this.reliability, this.photos].map((chart) => chart.element)),
      this.paired, this.classes.element, this.shortcuts.element);
  }

  /** Show a row of the table; runs are those that a shortcut map may compare. */
  async show(row, runs) {
    this.row = row;
    this.element.hidden = false;
    this.title.textContent = `${row.detector} on ${row.ood_set}, ${row.run}`;
    this.words.say('');
    this.paired.replaceChildren(...pairedFigures(row));
    try {
      const base = `${FIGURES}/evaluations/${row.evaluation}`;
      const [figures, hardest] = await Promise.all([ask(base), ask(`${base}/hardest`)]);
      if (this.row !== row) return;
      this.draw(figures);
      this.classes.show(base);
      this.shortcuts.show(row, hardest, runs);
    } catch (error) {
      if (this.row === row) this.words.say(error.message, 'bad');
    }
  }

  draw(figures) {
    const steps = (found, side) => found.edges.map((edge, index) => [edge, found[side][index] ?? 0]);
    const area = (found, id, ood) => [{ name: id, shape: 'area', points: steps(found, 'id') }, { name: ood, shape: 'area', points: steps(found, 'ood') }];
    this.histogram.show(area(figures.histogram, `ID: ${figures.id_set}`, `OOD: ${figures.ood_set}`));
    this.roc.caption.textContent = `AUROC ${figures.auroc.toFixed(4)}, of all images; on the dashed line scores tell nothing.`;
    this.roc.show([{ name: 'OOD found', points: figures.roc }], DIAGONAL);
    const dots = figures.reliability.map((bin) => [bin.confidence, bin.accuracy, bin.count]);
    this.reliability.show([{ name: `accuracy; expected calibration error ${figures.ece.toFixed(4)}`, shape: 'dots', points: dots }], DIAGONAL);
    this.photos.show(figures.photos ? area(figures.photos, 'photos', 'backgrounds') : []);
  }
}

function pairedFigures({ paired }) {
  if (!paired) return [];
  const between = ({ value, low, high }, say) => `${say(value)} (${say(low)} to ${say(high)})`;
  const signed = (value) => `${value > 0 ? '+' : ''}${short(value)}`;
  const facts = [
    ['Pairs', `${whole(paired.pairs)} of ${plural(paired.sources, 'photo')}`],
    ['Backgrounds that score below their photo', between(paired.lower, (value) => `${cent(value)} %`)],
    ['Mean rise of the score', between(paired.mean, signed)],
    ['Median rise of the score', between(paired.median, signed)],
    ['Backgrounds still taken for the removed class', between(paired.kept_class, (value) => `${cent(value)} %`)],
  ];
  return [
    make('h4', { className: 'sample-title', textContent: 'Each background against its own photo, with 95 % intervals' }),
    make('dl', { className: 'figures' }, ...facts.map(([name, text]) => make('div', {}, make('dt', { textContent: name }), make('dd', { textContent: text })))),
  ];
}

/** The classes, asked for when somebody opens them: a thousand of them take the server seconds. */
class ClassPanel {
  constructor() {
    this.place = make('div', { className: 'stack' });
    this.element = make('details', { className: 'fold' }, make('summary', { textContent: 'Classes' }), this.place);
    this.element.addEventListener('toggle', () => this.element.open && this.load());
  }

  /** Another evaluation, by its address. */
  show(address) {
    if (this.address === address) return;
    this.address = address;
    this.place.replaceChildren(make('p', { className: 'aside', textContent: 'Counting …' }));
    if (this.element.open) this.load();
  }

  async load() {
    const { address } = this;
    if (this.loaded === address) return;
    try {
      const classes = await ask(`${address}/classes`);
      if (this.address !== address) return;
      this.loaded = address;
      this.draw(classes, CLASSES_SHOWN);
    } catch (error) {
      this.place.replaceChildren(make('p', { className: 'notice bad', role: 'alert', textContent: error.message }));
    }
  }

  draw(classes, count) {
    const share = (value) => (value === null ? '–' : percent(value));
    const rows = classes.slice(0, count).map((one) => [`${one.name} (${one.wnid})`, whole(one.id_images), share(one.accuracy), share(one.id_auroc), whole(one.bg_images), share(one.bg_auroc), share(one.kept_class)]);
    this.place.replaceChildren(
      table('By class: its ID images against all OOD images, all ID images against its backgrounds', ['Class', 'ID images', 'Accuracy', 'AUROC', 'Backgrounds', 'AUROC of these', 'Still its class'], rows, [1, 2, 3, 4, 5, 6]),
      button(`Show all ${whole(classes.length)} classes`, () => this.draw(classes, classes.length), { className: 'quiet', hidden: count >= classes.length }));
  }
}

class ShortcutPanel {
  constructor() {
    this.words = voice();
    this.gallery = make('div', { className: 'gallery', role: 'group', ariaLabel: 'Backgrounds that look most ID' });
    this.candidate = number('', 1, 1e15);
    this.shown = select([['predicted', 'that zero-shot predicts'], ['source', 'that was removed']], { name: 'shown' });
    this.runs = make('div', { className: 'boxes' });
    this.start = make('button', { type: 'submit', className: 'primary', textContent: 'Make the map' });
    this.result = make('div');
    const form = make('form', { className: 'panel shortcut-form' },
      make('p', { className: 'aside', textContent: 'Which patches of a background push it towards a class? These look most ID to this detector; choose one, or any candidate by its number.' }),
      this.gallery,
      make('div', { className: 'fields' }, field('Candidate', this.candidate), field('Class', this.shown),
        make('fieldset', {}, make('legend', { textContent: 'Beside zero-shot' }), this.runs)),
      make('p', { className: 'actions' }, this.start), this.words.element, this.result);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.make();
    });
    this.element = make('div', { className: 'stack' }, heading('Shortcut map'), form);
  }

  show(row, hardest, runs) {
    this.encoder = row.encoder;
    this.evaluation = row.evaluation;
    this.gallery.hidden = !hardest.length;
    this.gallery.replaceChildren(...hardest.map((one) => this.thumbnail(one)));
    if (hardest.length) this.candidate.value = hardest[0].candidate_id;
    this.mark();
    const same = runs.filter((run) => run.encoder === row.encoder);
    const chosen = newestOfEach(same, row.run);
    this.runs.replaceChildren(...same.map((run) => make('label', { className: 'check' },
      make('input', { type: 'checkbox', value: run.name, checked: chosen.includes(run.name) }), run.name)));
    if (!same.length) this.runs.replaceChildren(make('p', { className: 'aside', textContent: 'No finished run on this encoder.' }));
    this.result.replaceChildren();
    this.words.say('');
  }

  thumbnail(one) {
    const choose = () => {
      this.candidate.value = one.candidate_id;
      this.mark();
    };
    const address = `/media/candidate/${one.candidate_id}/${one.result_sha256}/thumbnail.jpg`;
    const picture = make('img', { src: address, alt: `Candidate ${one.candidate_id}, ${one.source_class} removed`, loading: 'lazy' });
    const made = make('button', { type: 'button', className: 'pick', dataset: { candidate: one.candidate_id } }, picture,
      make('span', { textContent: `${one.predicted}, ${percent(one.confidence, 0)}` }), make('small', { textContent: `score ${short(one.score)}` }));
    made.addEventListener('click', choose);
    return made;
  }

  mark() {
    for (const one of this.gallery.children) one.setAttribute('aria-pressed', String(one.dataset.candidate === this.candidate.value));
  }

  async make() {
    const runs = [...this.runs.querySelectorAll('input:checked')].map((one) => one.value);
    const wanted = (this.wanted = Symbol('map'));
    this.start.disabled = true;
    try {
      const wish = { candidate: Number(this.candidate.value), runs, encoder: this.encoder, shown: this.shown.value, evaluation: this.evaluation };
      this.words.say('Waits for the worker.');
      const map = await makeMap(wish, (text) => this.words.say(text), () => this.wanted === wanted && this.element.isConnected);
      if (map) this.result.replaceChildren(drawMap(map));
      this.words.say('');
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
    this.start.disabled = false;
  }
}

/** The run that is looked at and the newest of each other objective, as many as a map holds. */
function newestOfEach(runs, own) {
  const chosen = runs.filter((run) => run.name === own);
  for (const run of runs) if (!chosen.some((one) => one.objective === run.objective)) chosen.push(run);
  return chosen.slice(0, MAX_RUNS).map((run) => run.name);
}
