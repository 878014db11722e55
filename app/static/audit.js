// The Audit page: what can be audited, how large a sample states what, the audits so far, and what each comes to.

import { ask } from './review_api.js';
import { REASON_TEXT } from './review_markup.js';
import { Judging } from './audit_judging.js';
import { button, emptyState, field, heading, make, moment, number, percent, plural, select, table, voice, whenShown, whole } from './judging.js';

const AUDITS = '/api/audits';
const STRATA_TEXT = {
  drop: 'quarters of the drop',
  class_group: 'tenths of the class list',
  decided_by: 'who decided: people, the model, nobody',
  none: 'nothing: one simple random sample',
};
const PRESET_TEXT = { bg: 'Bg as it would be now', bg_s: 'Bg(S) as it would be now' };
const METHOD_TEXT = { census: 'everything was judged', clopper_pearson: 'exact (Clopper–Pearson)', stratified: 'stratified, from exact intervals' };

/** Fill the element with the page, afresh each time it comes into view. */
export function mount(element) {
  if (!element || element.page) return;
  element.page = new AuditPage(element);
}

class AuditPage {
  constructor(root) {
    this.root = root;
    root.classList.add('judging');
    this.words = voice();
    this.judging = new Judging({ say: this.words.say, ended: () => this.judged() });
    this.form = this.drawForm();
    this.list = make('div');
    this.report = make('section', { className: 'report', ariaLabel: 'Report', hidden: true });
    this.overview = make('div', { className: 'stack' }, this.form, this.report, heading('Audits'), this.list);
    root.replaceChildren(this.words.element, this.judging.root, this.overview);
    whenShown(root, () => this.judging.root.hidden && this.load());
  }

  drawForm() {
    this.from = make('select', { name: 'from' });
    this.size = number(300, 1, 20_000);
    this.strata = make('select');
    this.seed = number(0, 0, 2 ** 31 - 1);
    this.bound = number(1, 0.05, 50, 0.05);
    this.expected = number(0, 0, 49, 0.05);
    this.answer = make('output', { className: 'answer' });
    this.use = button('Take this size', () => (this.size.value = this.needed), { className: 'quiet' });
    for (const input of [this.bound, this.expected]) input.addEventListener('input', () => this.calculate());
    const calculator = make('fieldset', {}, make('legend', { textContent: 'How many are needed?' }),
      field('To state “object left in ≤ …” %', this.bound), field('when so many are expected, %', this.expected),
      make('p', { className: 'actions' }, this.answer, this.use));
    this.draw = make('button', { textContent: 'Draw the sample', className: 'primary' });
    const form = make('form', { className: 'panel' },
      make('h3', { textContent: 'Draw an audit' }),
      make('div', { className: 'fields' }, field('From', this.from), field('Divided by', this.strata),
        field('Sample size', this.size), field('Seed', this.seed)),
      calculator, make('p', { className: 'actions' }, this.draw));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.submit();
    });
    return form;
  }

  async load() {
    try {
      const [choices, audits] = await Promise.all([ask(`${AUDITS}/choices`), ask(AUDITS)]);
      this.choices = choices;
      this.show(audits);
      this.calculate();
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
  }

  show(audits) {
    this.audits = audits;
    const chosen = this.from.value;
    const builds = this.choices.builds.map(({ label, images, statement }) => [`build:${label}`, `${label}, ${plural(images, 'image')}: ${statement}`]);
    const presets = this.choices.presets.map(({ name }) => [`preset:${name}`, PRESET_TEXT[name] ?? name]);
    this.from.replaceChildren(...select([...builds, ...presets]).children);
    this.from.value = chosen;
    if (!this.from.value) this.from.selectedIndex = 0;
    if (!this.strata.children.length) {
      this.strata.replaceChildren(...select(this.choices.strata.map((name) => [name, STRATA_TEXT[name] ?? name])).children);
      this.strata.value = 'drop';
    }
    this.list.replaceChildren(audits.length ? this.auditTable(audits) : emptyState(
      'No audit yet',
      'Freeze a build on Build, draw a sample of it above and judge it. Until then a build says “not audited”.',
      'build',
      'Go to Build',
    ));
  }

  auditTable(audits) {
    const labels = new Map(this.choices.builds.map((build) => [build.id, build.label]));
    const rows = audits.map((audit) => [
      `Audit ${audit.id}`,
      labels.get(audit.build_id) ?? 'a rule',
      `${whole(audit.judged)} of ${whole(audit.drawn)}`,
      make('span', { className: 'long', textContent: audit.statement }),
      `${audit.created_by}, ${moment(audit.created_at)}`,
      make('div', { className: 'actions' },
        audit.is_complete ? null : button('Judge', () => this.judge(audit.id), { className: 'primary', ariaLabel: `Judge audit ${audit.id}` }),
        audit.judged ? button('Second reading', () => this.judge(audit.id, true), { ariaLabel: `Second reading of audit ${audit.id}` }) : null,
        button('Report', () => this.showReport(audit.id), { ariaLabel: `Report of audit ${audit.id}` })),
    ]);
    return table('Audits, newest first', ['Audit', 'Of', 'Judged', 'It says', 'Drawn', 'Actions'], rows, [2]);
  }

  async calculate() {
    this.use.hidden = true;
    if (!this.bound.checkValidity() || !this.expected.checkValidity()) {
      this.answer.textContent = 'Give percentages below 50.';
      return;
    }
    const query = new URLSearchParams({ bound: this.bound.value / 100, expected: this.expected.value / 100 });
    const asked = String(query);
    this.asked = asked;
    try {
      const { size } = await ask(`${AUDITS}/sample-size?${query}`);
      if (asked !== this.asked) return;
      this.needed = size;
      this.answer.textContent = `To state ≤ ${this.bound.value} % (95 %) you need ${whole(size)}.`;
      this.use.hidden = false;
    } catch (error) {
      if (asked === this.asked) this.answer.textContent = error.message;
    }
  }

  async submit() {
    const [kind, name] = this.from.value.split(/:(.*)/);
    const body = { [kind]: name, size: Number(this.size.value), seed: Number(this.seed.value), strata: this.strata.value };
    this.draw.disabled = true;
    try {
      const audit = await ask(AUDITS, { method: 'POST', body });
      this.report.hidden = true;
      await this.load();
      this.words.say(`Audit ${audit.id} is drawn: ${plural(audit.drawn, 'image')}. “Judge” starts it.`, 'good');
    } catch (error) {
      this.words.say(error.message, 'bad');
    } finally {
      this.draw.disabled = false;
    }
  }

  judge(auditId, second = false) {
    this.words.say('');
    this.overview.hidden = true;
    this.judging.start(auditId, { second });
  }

  /** Back from judging, to the end or not. */
  async judged() {
    this.overview.hidden = false;
    await Promise.all([this.load(), this.showReport(this.judging.auditId)]);
  }

  async showReport(auditId) {
    try {
      const report = await ask(`${AUDITS}/${auditId}/report`);
      this.report.replaceChildren(...this.reportParts(report));
      this.report.hidden = false;
      this.report.scrollIntoView({ block: 'nearest' });
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
  }

  reportParts(report) {
    const facts = [['Judged', `${whole(report.judged)} of ${whole(report.drawn)} drawn, of ${whole(report.population)}`],
      ['Object left in', plural(report.object_left, 'image')]];
    if (report.interval) {
      facts.push(['Estimated share', percent(report.share, 2)],
        [`Two-sided interval (${percent(report.confidence, 0)})`, report.interval.map((end) => percent(end, 2)).join(' to ')],
        [`At most (${percent(report.confidence, 0)})`, percent(report.upper, 2)],
        ['Purity', `${percent(report.purity, 2)}, at least ${percent(report.purity_at_least, 2)}`],
        ['Method', METHOD_TEXT[report.method] ?? report.method]);
    }
    facts.push(['Judged by', report.auditors.map(({ name, judged }) => `${name} (${whole(judged)})`).join(', ') || 'nobody yet'],
      ['When', report.last_judged_at ? `${moment(report.first_judged_at)} to ${moment(report.last_judged_at)}` : '–'],
      ['Drawn', `by ${report.created_by}, ${moment(report.drawn_at)}, seed ${report.seed}`]);
    if (report.disputed) facts.push(['Auditors differ on', plural(report.disputed, 'image')]);
    const reasons = Object.entries(report.reasons).map(([name, count]) => `${REASON_TEXT[name] ?? name} ${whole(count)}`);
    if (reasons.length) facts.push(['What was left', reasons.join(', ')]);
    const strata = report.strata.map(({ name, population, drawn, judged, object_left: left }) => [name, whole(population), whole(drawn), whole(judged), whole(left)]);
    return [
      heading(`Audit ${report.audit_id}`),
      make('p', { className: `notice ${report.is_complete ? 'good' : ''}`, textContent: report.statement }),
      make('dl', { className: 'figures' }, ...facts.map(([name, text]) => make('div', {}, make('dt', { textContent: name }), make('dd', { textContent: text })))),
      table(`Strata: ${STRATA_TEXT[report.strata_by] ?? report.strata_by}`, ['Stratum', 'Members', 'Drawn', 'Judged', 'Object left'], strata, [1, 2, 3, 4]),
    ];
  }
}
