// The result tables: sorted by a column at a press, best in bold, intervals under the values.

import { button, field, heading, make, select, table, whole } from './judging.js';

const WORDS = [['ood_set', 'OOD set'], ['detector', 'Detector'], ['run', 'Prompts'], ['selection', 'Epoch chosen']];
const ALL = '';
const EXPORTS = [['csv', 'CSV'], ['md', 'Markdown'], ['tex', 'LaTeX']];

/** A fraction in per cent, two digits. */
export const cent = (value) => (100 * value).toFixed(2);

export class ResultTables {
  /** choose(row) is called when somebody wants to see a result in detail. */
  constructor(choose) {
    this.choose = choose;
    this.sorting = null;
    this.shownSet = select([[ALL, 'all']], { name: 'filter_set' });
    this.shownDetector = select([[ALL, 'all']], { name: 'filter_detector' });
    for (const input of [this.shownSet, this.shownDetector]) input.addEventListener('change', () => this.draw());
    this.said = make('ul', { className: 'notice sentences' });
    this.main = make('div', { className: 'stack' });
    this.more = make('div', { className: 'stack' });
    const links = EXPORTS.map(([ending, text]) => make('a', { className: 'button-link quiet', href: `/api/evaluation/results/table.${ending}`, download: '', textContent: text }));
    this.element = make('div', { className: 'stack' }, heading('Results'),
      make('div', { className: 'result-bar' }, field('OOD set', this.shownSet), field('Detector', this.shownDetector), make('span', { className: 'actions' }, make('span', { className: 'aside', textContent: 'Save all as' }), ...links)),
      this.main, this.said, this.more);
  }

  show(results) {
    this.results = results;
    this.element.hidden = !results.rows.length;
    offer(this.shownSet, results.rows.map((row) => row.ood_set));
    offer(this.shownDetector, results.rows.map((row) => row.detector));
    this.said.replaceChildren(...results.sentences.map((textContent) => make('li', { textContent })));
    this.draw();
    this.more.replaceChildren(...this.averages(), ...this.seeds());
  }

  mark(evaluation) {
    this.marked = evaluation;
    for (const row of this.main.querySelectorAll('tr[data-evaluation]')) row.classList.toggle('chosen', Number(row.dataset.evaluation) === evaluation);
  }

  // ---- the results ----

  draw() {
    const { rows } = this.results;
    const shown = rows.filter((row) => [ALL, row.ood_set].includes(this.shownSet.value) && [ALL, row.detector].includes(this.shownDetector.value));
    const places = [...new Set(shown.map((row) => `${row.encoder}\n${row.id_set}`))];
    this.main.replaceChildren(...places.map((place) => this.table(shown.filter((row) => `${row.encoder}\n${row.id_set}` === place))));
    this.mark(this.marked);
  }

  table(rows) {
    const { encoder, grade, id_set: idSet, id_images: images, classes } = rows[0];
    const caption = `${encoder}${grade === 'embedded' ? ' (embedded, not CLIP)' : ''}, ID set ${idSet}: ${whole(images)} images, ${whole(classes)} classes; per cent with 95 % intervals`;
    const heads = [...WORDS.map(([name, text]) => this.head(name, text, false)), ...Object.entries(this.results.columns).map(([name, text]) => this.head(name, text, true))];
    return make('div', { className: 'table-frame results', tabIndex: 0, role: 'region', ariaLabel: caption },
      make('table', {}, make('caption', { textContent: caption }), make('thead', {}, make('tr', {}, ...heads)), make('tbody', {}, ...this.sorted(rows).map((row) => this.line(row)))));
  }

  head(name, text, isNumber) {
    const arrow = this.lowerIsBetter(name) ? '↓' : '↑';
    const way = this.sorting?.name === name ? (this.sorting.falling ? 'descending' : 'ascending') : 'none';
    const mark = way === 'none' ? '' : way === 'descending' ? ' ▾' : ' ▴';
    const press = button(`${text}${isNumber ? ` ${arrow}` : ''}${mark}`, () => this.sortBy(name, isNumber), { className: 'sort', title: isNumber ? (arrow === '↓' ? 'lower is better' : 'higher is better') : '', dataset: { sort: name } });
    const head = make('th', { scope: 'col', className: isNumber ? 'number' : '' }, press);
    head.setAttribute('aria-sort', way);
    return head;
  }

  lowerIsBetter(name) {
    return this.results.lower_is_better.includes(name);
  }

  sortBy(name, isNumber) {
    const first = isNumber && !this.lowerIsBetter(name);
    this.sorting = this.sorting?.name === name ? (this.sorting.falling === first ? { name, falling: !first } : null) : { name, falling: first };
    this.draw();
    this.main.querySelector(`[data-sort="${name}"]`)?.focus();
  }

  sorted(rows) {
    if (!this.sorting) return rows;
    const { name, falling } = this.sorting;
    const value = (row) => row.metrics[name]?.value ?? row[name];
    const order = (a, b) => (typeof a === 'number' ? a - b : String(a).localeCompare(String(b)));
    return [...rows].sort((a, b) => (falling ? order(value(b), value(a)) : order(value(a), value(b))));
  }

  line(row) {
    const look = button(row.ood_set, () => this.choose(row), { className: 'run-name', ariaLabel: `Show ${row.detector} on ${row.ood_set}, ${row.run}` });
    const set = make('span', {}, look, row.group === 'bg' ? make('span', { className: 'chip', textContent: 'Bg' }) : null, make('span', { className: 'aside', textContent: ` ${whole(row.ood_images)}` }));
    const numbers = Object.keys(this.results.columns).map((name) => {
      const { value, low, high } = row.metrics[name];
      const shown = row.best.includes(name) ? make('strong', { textContent: cent(value) }) : cent(value);
      return make('td', { className: 'number' }, shown, make('span', { className: 'interval', textContent: `${cent(low)} – ${cent(high)}` }));
    });
    const element = make('tr', { dataset: { evaluation: row.evaluation } }, make('th', { scope: 'row' }, set), make('td', { textContent: row.detector }), make('td', { textContent: row.run }), make('td', { textContent: row.selection || '–' }), ...numbers);
    element.addEventListener('click', (event) => event.target.closest('button') || this.choose(row));
    return element;
  }

  // ---- averages and seeds ----

  averages() {
    const { averages, columns } = this.results;
    if (!averages.length) return [];
    const rows = averages.map((one) => [one.id_set, one.detector, one.run, ...Object.keys(columns).map((name) => (one.best.includes(name) ? make('strong', { textContent: cent(one.metrics[name]) }) : cent(one.metrics[name])))]);
    return [table('Average of the classic four sets, per cent. The Bg sets are never part of it.', ['ID set', 'Detector', 'Prompts', ...Object.values(columns)], rows, rows[0].map((_, index) => index).slice(3))];
  }

  seeds() {
    const { seeds, columns } = this.results;
    if (!seeds.length) return [];
    const rows = seeds.map((one) => [one.ood_set, one.detector, one.method, [...one.seeds].sort((a, b) => a - b).join(', '), ...Object.keys(columns).map((name) => `${cent(one.mean[name])} ± ${cent(one.spread[name])}`)]);
    return [table('Mean and standard deviation over seeds, per cent', ['OOD set', 'Detector', 'Method', 'Seeds', ...Object.values(columns)], rows, rows[0].map((_, index) => index).slice(4))];
  }
}

/** The values to choose of, keeping what is chosen. */
function offer(input, values) {
  const chosen = input.value;
  const options = [ALL, ...new Set(values)];
  input.replaceChildren(...options.map((value) => make('option', { value, textContent: value || 'all' })));
  input.value = options.includes(chosen) ? chosen : ALL;
}
