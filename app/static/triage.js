// The Triage page: the newest model and its figures, training, and the bands that a person may let it decide.

import { mount as mountJobs } from './jobs.js';
import { ask } from './review_api.js';
import { button, emptyState, field, heading, isSeen, make, moment, number, percent, plural, table, voice, whenShown, whole } from './judging.js';
import { importancePlot, learningPlot, reliabilityPlot, spreadPlot } from './triage_plots.js';

const TRIAGE = '/api/triage';
const POLL_MS = 1000;

/** Fill the element with the page, afresh each time it comes into view. */
export function mount(element) {
  if (!element || element.page) return;
  element.page = new Triage(element);
}

class Triage {
  constructor(root) {
    this.root = root;
    root.classList.add('judging');
    this.words = voice();
    this.state = make('div', { className: 'stack' });
    this.train = button('Train now', () => this.startTraining(), { className: 'primary' });
    this.waiting = make('span', { className: 'aside', ariaLive: 'polite' });
    this.jobs = make('div', { className: 'jobs', hidden: true, dataset: { kinds: 'triage', limit: '1' } });
    this.bands = make('div', { className: 'stack' });
    this.plots = make('div', { className: 'plots' });
    this.spread = make('div');
    root.replaceChildren(make('div', { className: 'stack' }, this.words.element, this.state,
      make('p', { className: 'actions' }, this.train, this.waiting), this.jobs, this.bands, this.plots));
    whenShown(root, () => this.load());
  }

  async load() {
    try {
      const me = await ask('/api/me');
      this.isAdmin = me.role === 'admin';
      await this.refresh();
    } catch (error) {
      this.fail(error);
    }
  }

  fail(error) {
    if (error.status !== 409) {
      this.words.say(error.message, 'bad');
      return;
    }
    this.train.hidden = true;
    this.state.replaceChildren(emptyState('Nothing to learn from yet', error.message, 'generate', 'Go to Generate'));
  }

  /** Everything as the server says it is now. */
  async refresh() {
    const [status, confirmed] = await Promise.all([ask(TRIAGE), ask(`${TRIAGE}/bands/confirmed`)]);
    this.status = status;
    this.train.hidden = false;
    this.train.disabled = status.job_id !== null || Boolean(status.missing);
    this.showJobs();
    this.state.replaceChildren(status.model ? modelFigures(status) : emptyState(
      'No model yet', status.missing || 'There are verdicts enough: “Train now” makes the first model.', 'review', 'Go to Review'));
    this.plots.replaceChildren();
    this.bands.replaceChildren();
    if (status.model) await this.showModel(status.model.metrics, confirmed);
    if (status.job_id !== null) this.poll();
  }

  async showModel(metrics, confirmed) {
    this.plots.replaceChildren(
      reliabilityPlot(metrics.reliability, metrics.ece), learningPlot(metrics.learning_curve), importancePlot(metrics.importances), this.spread);
    this.acceptError ??= number(1, 0.1, 49, 0.1);
    this.rejectError ??= number(1, 0.1, 49, 0.1);
    this.proposal = make('div', { className: 'stack', ariaLive: 'polite' });
    const form = make('form', { className: 'panel' }, make('h3', { textContent: 'Proposed bands' }),
      make('p', { className: 'aside', textContent: 'At either end of P(accept) the model could decide what nobody has looked at. The error is what people’s verdicts show there; the bound holds with 95 %.' }),
      make('div', { className: 'fields' }, field('Wrong accepts at most, %', this.acceptError), field('Wrong rejects at most, %', this.rejectError),
        make('button', { textContent: 'Propose' })),
      this.proposal);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.propose();
    });
    this.bands.replaceChildren(heading('Bands'), this.activeBand(), form, this.earlier(confirmed));
    await this.propose();
  }

  // ---- training ----

  showJobs() {
    // The list of jobs is for admins; others see that it runs.
    this.jobs.hidden = !this.isAdmin || !(this.status.job_id !== null || this.jobs.display);
    if (!this.jobs.hidden) mountJobs(this.jobs, () => {});
    this.waiting.textContent = this.status.job_id !== null ? 'Training …' : this.status.missing ? '' : dueText(this.status);
  }

  async startTraining() {
    this.train.disabled = true;
    try {
      await ask(`${TRIAGE}/train`, { method: 'POST' });
      window.dispatchEvent(new Event('jobs:changed'));
      this.words.say('');
      await this.refresh();
    } catch (error) {
      this.train.disabled = false;
      this.words.say(error.message, 'bad');
    }
  }

  poll() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => (isSeen(this.root) ? this.look() : this.poll()), POLL_MS);
  }

  async look() {
    const before = this.status.model?.id;
    try {
      const { job_id: job } = await ask(TRIAGE);
      if (job !== null) {
        this.poll();
        return;
      }
      await this.refresh();
      const after = this.status.model?.id;
      if (after !== before) this.words.say(`Model ${after} is trained; the queue follows it.`, 'good');
      else this.words.say('The training ended without a new model: nothing has changed since the last one, or the job failed. The list of jobs on Overview says which.');
    } catch (error) {
      this.words.say(error.message, 'bad');
      if (!error.status) this.poll();
    }
  }

  // ---- bands ----

  activeBand() {
    const { band, auto_accepts: accepts, auto_rejects: rejects } = this.status;
    if (!band) return make('p', { className: 'notice', textContent: 'No band is in force: only people’s verdicts count.' });
    const ends = [band.accept_above !== null && `accepts from ${percent(band.accept_above)}`, band.reject_below !== null && `rejects below ${percent(band.reject_below)}`];
    const revoke = button('Revoke', () => this.revoke(band.id), { className: 'quiet', disabled: !this.isAdmin });
    return make('div', { className: 'panel in-force' },
      make('h3', { textContent: `Band ${band.id} is in force` }),
      make('p', {}, `The model ${ends.filter(Boolean).join(' and ')}: ${whole(accepts)} accepted, ${whole(rejects)} rejected by it now. ` +
        `Confirmed by ${band.confirmed_by}, ${moment(band.confirmed_at)}. A person’s verdict goes before it; builds tell the two apart.`),
      make('p', { className: 'actions' }, revoke, this.isAdmin ? null : make('span', { className: 'aside', textContent: 'Only an admin can revoke it.' })));
  }

  async propose() {
    const query = new URLSearchParams({ max_error: this.acceptError.value / 100, max_reject_error: this.rejectError.value / 100 });
    try {
      const found = await ask(`${TRIAGE}/bands?${query}`);
      this.showProposal(found);
    } catch (error) {
      this.proposal.replaceChildren(make('p', { className: 'notice bad', role: 'alert', textContent: error.message }));
    }
  }

  showProposal(found) {
    const ends = [['accept', found.accept], ['reject', found.reject]].filter(([, end]) => end);
    this.spread.replaceChildren(spreadPlot(this.status.histogram, { accept: found.accept?.threshold, reject: found.reject?.threshold }));
    const notes = found.notes.map((text) => make('p', { className: 'notice', textContent: text }));
    if (!ends.length) {
      this.proposal.replaceChildren(...notes);
      return;
    }
    const rows = ends.map(([verdict, end]) => [
      `${verdict} ${verdict === 'accept' ? 'from' : 'below'} ${percent(end.threshold)}`,
      whole(end.candidates), `${whole(end.errors)} of ${whole(end.judged)}`, percent(end.error, 2), percent(end.upper, 2), percent(end.expected, 2)]);
    this.proposal.replaceChildren(
      table('Bands that could be confirmed', ['Band', 'Would decide', 'Wrong among judged', 'Error', 'At most (95 %)', 'Model expects'], rows, [1, 2, 3, 4, 5]),
      make('p', { className: 'aside', textContent: `Of ${plural(found.open, 'open candidate')}, ${whole(found.left)} would be left to people.` }),
      ...notes,
      this.confirmation(found, ends),
    );
  }

  /** Two steps: which ends, then that one has read what they do. */
  confirmation(found, ends) {
    if (!this.isAdmin) return make('p', { className: 'aside', textContent: 'Only an admin can confirm bands.' });
    const wanted = Object.fromEntries(ends.map(([verdict]) => [verdict, make('input', { type: 'checkbox', checked: true })]));
    const understood = make('input', { type: 'checkbox' });
    const confirm = button('Confirm the bands', () => this.confirm(found, wanted), { className: 'primary', disabled: true });
    const boxes = [understood, ...Object.values(wanted)];
    const update = () => (confirm.disabled = !understood.checked || !Object.values(wanted).some((box) => box.checked));
    boxes.forEach((box) => box.addEventListener('change', update));
    return make('div', { className: 'confirm', role: 'group', ariaLabel: 'Confirm' },
      ...ends.map(([verdict, end]) => make('label', { className: 'check' }, wanted[verdict],
        `${verdict} ${plural(end.candidates, 'candidate')} that nobody has looked at`)),
      make('label', { className: 'check' }, understood, 'I let the model decide these. Its verdicts are marked as such, and I can revoke them.'),
      make('p', { className: 'actions' }, confirm));
  }

  async confirm(found, wanted) {
    const { model_id, max_error, max_reject_error } = found;
    const body = { model_id, max_error, max_reject_error, accept: Boolean(wanted.accept?.checked), reject: Boolean(wanted.reject?.checked) };
    await this.change(`${TRIAGE}/bands`, body, (band) => `Band ${band.id} is in force.`);
  }

  async revoke(bandId) {
    await this.change(`${TRIAGE}/bands/${bandId}/revoke`, undefined, () => `Band ${bandId} is revoked: its verdicts count no more.`);
  }

  async change(url, body, done) {
    try {
      const answer = await ask(url, { method: 'POST', body });
      await this.refresh();
      this.words.say(done(answer), 'good');
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
  }

  earlier(confirmed) {
    const past = confirmed.filter((band) => band.revoked_at);
    if (!past.length) return '';
    const rows = past.map((band) => [`Band ${band.id}`, `model ${band.model_id}`, `${band.confirmed_by}, ${moment(band.confirmed_at)}`, moment(band.revoked_at)]);
    return table('Bands that were revoked', ['Band', 'Of', 'Confirmed', 'Revoked'], rows);
  }
}

function modelFigures({ model, histogram }) {
  const { metrics } = model;
  const open = histogram.reduce((sum, bin) => sum + bin.open, 0);
  const facts = [
    ['Model', `${model.id}, ${moment(model.created_at)}`],
    ['Learnt from', `${whole(metrics.accepted)} accepted, ${whole(metrics.rejected)} rejected`],
    ['AUROC', metrics.auroc.toFixed(3)],
    ['Log loss', metrics.log_loss.toFixed(3)],
    ['Calibration error', metrics.ece.toFixed(3)],
    ['Learner', `${metrics.algorithm.replaceAll('_', ' ')}, ${metrics.calibration} calibration`],
    ['Open candidates', whole(open)],
  ];
  return make('dl', { className: 'figures' }, ...facts.map(([name, text]) => make('div', {}, make('dt', { textContent: name }), make('dd', { textContent: text }))));
}

function dueText({ model, new_decisions: fresh, due_after: after, is_due: due }) {
  if (!model) return '';
  if (due) return `${plural(fresh, 'new decision')}: a new version is due.`;
  return `${plural(fresh, 'new decision')} since; the next version is due after ${whole(after)}.`;
}
