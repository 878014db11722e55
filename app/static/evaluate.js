// The Evaluate page: a new evaluation and its progress, the tables, one result in detail.

import { ResultDetail } from './evaluate_detail.js';
import { EvaluateForm } from './evaluate_form.js';
import { ResultTables } from './evaluate_table.js';
import { mount as mountJobs } from './jobs.js';
import { ask } from './review_api.js';
import { emptyState, make, voice, whenShown } from './judging.js';

const EVALUATION = '/api/evaluation';
const KEPT_ROW = 'evaluate:evaluation';

/** Fill the element with the page, afresh each time it comes into view. */
export function mount(element) {
  if (!element || element.page) return;
  element.page = new Evaluate(element);
}

class Evaluate {
  constructor(root) {
    this.words = voice();
    this.fresh = make('details', { className: 'fold' }, make('summary', { textContent: 'New evaluation' }));
    this.jobs = make('div', { className: 'jobs', dataset: { kinds: 'evaluate', limit: '1' } });
    this.none = emptyState('No result yet', '“Evaluate” in the form above fills the table; commands do the same: `launch.py evaluate`.');
    this.tables = new ResultTables((row) => this.choose(row));
    this.detail = new ResultDetail();
    this.body = make('div', { className: 'stack' }, this.words.element, this.fresh, this.jobs, this.none, this.tables.element, this.detail.element);
    this.none.hidden = this.tables.element.hidden = true;
    root.classList.add('judging');
    root.replaceChildren(this.body);
    whenShown(root, () => this.load());
  }

  async load() {
    try {
      const [choices, results] = await Promise.all([ask(EVALUATION), ask(`${EVALUATION}/results`)]);
      this.show(choices, results);
      mountJobs(this.jobs, () => this.load());
      this.words.say('');
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
  }

  show(choices, results) {
    const { job_id: job, ...offered } = choices;
    const now = JSON.stringify(offered);
    if (now !== this.offered) {
      const isFirst = this.offered === undefined;
      this.offered = now;
      this.choices = choices;
      this.form = new EvaluateForm(choices, this.words, () => this.started());
      this.fresh.replaceChildren(this.fresh.querySelector('summary'), this.form.element);
      if (isFirst) this.fresh.open = !results.rows.length && job === null;
    }
    this.none.hidden = results.rows.length > 0;
    this.tables.show(results);
    const kept = Number(sessionStorage.getItem(KEPT_ROW));
    const row = results.rows.find((one) => one.evaluation === kept);
    if (row && this.detail.row?.evaluation !== kept) this.choose(row);
  }

  started() {
    this.fresh.open = false;
    this.words.say('Queued; the table fills when it is done.', 'good');
    window.dispatchEvent(new Event('jobs:changed'));
  }

  choose(row) {
    sessionStorage.setItem(KEPT_ROW, row.evaluation);
    this.tables.mark(row.evaluation);
    this.detail.show(row, this.choices.runs);
  }
}
