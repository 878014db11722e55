// The Train page: a new run, the list of runs as they stand, and the curves of the one that is looked at.

import { Chart, short } from './charts.js';
import { ask } from './review_api.js';
import { button, emptyState, heading, isSeen, make, moment, plural, voice, whenShown, whole } from './judging.js';
import { TrainForm, dataSummary } from './train_form.js';

const TRAINING = '/api/training';
const ACTIVE_MS = 1000;
const IDLE_MS = 5000;
const KEPT_RUN = 'train:run';
const STATES = { queued: 'Waiting', running: 'Running', done: 'Done', failed: 'Failed', cancelled: 'Cancelled', stopped: 'Stopped' };
const COLUMNS = ['Run', 'Objective', 'Encoder', 'Seed', 'Images', 'State', 'Epochs', 'Chosen', 'Begun', ''];
const NUMERIC = [3, 4, 6, 7];
const LOSSES = { loss: 'total', loss_id: 'cross entropy', loss_ood: 'global entropy, pseudo-OOD', loss_en: 'local entropy, outside the object' };
const VALIDATED_ON = {
  held_out: 'Held-out train photos against their own backgrounds; no test set takes part.',
  test: 'As published, the test sets take part in the choice of the epoch.',
};
const KNOWN = [...Object.keys(LOSSES), 'accuracy', 'images_per_s'];

/** Fill the element with the page, afresh each time it comes into view. */
export function mount(element) {
  if (!element || element.page) return;
  element.page = new Train(element);
}

class Train {
  constructor(root) {
    this.root = root;
    root.classList.add('judging');
    this.words = voice();
    this.fresh = make('details', { className: 'fold' }, make('summary', { textContent: 'New run' }));
    this.list = new RunList((name) => this.choose(name), (name, act) => this.act(name, act), () => this.older());
    this.run = new RunView();
    this.body = make('div', { className: 'stack' }, this.words.element);
    root.replaceChildren(this.body);
    this.chosen = sessionStorage.getItem(KEPT_RUN);
    whenShown(root, () => this.load());
  }

  async load() {
    try {
      const [choices] = await Promise.all([ask(TRAINING), this.look()]);
      this.show(choices);
      this.words.say('');
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
    this.poll();
  }

  show(choices) {
    const sets = JSON.stringify(choices.fewshot_sets);
    if (sets !== this.sets) {
      this.sets = sets;
      this.form = choices.fewshot_sets.length ? new TrainForm(choices, this.words, (answer) => this.started(answer)) : null;
      const nothing = emptyState('No few-shot set yet',
        'A run learns from a few train photos of each class. Import them with `launch.py import FOLDER --split train`, generate their backgrounds, then draw the set with `launch.py fewshot`.',
        'sources', 'Go to Sources');
      this.fresh.replaceChildren(this.fresh.querySelector('summary'), this.form?.element ?? nothing);
      this.fresh.open = !this.list.runs.length;
    }
    if (!this.fresh.isConnected) this.body.append(this.fresh, heading('Runs'), this.list.element, this.run.element);
  }

  started({ started, refused }) {
    this.words.say([`${started.join(', ')}: queued.`, ...refused].join(' '), 'good');
    window.dispatchEvent(new Event('jobs:changed'));
    this.fresh.open = false;
    this.choose(started[0]);
  }

  // ---- following ----

  poll() {
    clearTimeout(this.timer);
    const wait = this.list.runs.some((run) => run.job_id !== null) ? ACTIVE_MS : IDLE_MS;
    this.timer = setTimeout(async () => {
      if (isSeen(this.root)) await this.follow();
      this.poll();
    }, wait);
  }

  async follow() {
    try {
      await this.look();
      if (this.lost) this.words.say('');
      this.lost = false;
    } catch (error) {
      this.lost = true;
      this.words.say(`${error.message} Trying again.`, 'bad');
    }
  }

  /** The list as it stands now, and the run that is looked at. */
  async look() {
    this.list.show(await ask(`${TRAINING}/runs`));
    const known = this.list.runs.map((run) => run.name);
    const running = this.list.runs.find((run) => run.job_id !== null) ?? this.list.runs[0];
    if (!this.chosen && running) this.chosen = running.name;
    if (!known.length) this.chosen = null;
    this.list.mark(this.chosen);
    if (this.chosen) {
      const asked = this.chosen;
      const brief = this.run.shown === asked ? '?brief=true' : '';
      const run = await ask(`${TRAINING}/runs/${encodeURIComponent(asked)}${brief}`).catch((error) => this.forget(error));
      if (run && asked === this.chosen) this.run.show(run);
    } else {
      this.run.element.hidden = true;
    }
  }

  /** A run that is not there (any more) is not asked for again. */
  forget(error) {
    if (error.status !== 404) throw error;
    sessionStorage.removeItem(KEPT_RUN);
    this.chosen = null;
    return null;
  }

  async choose(name) {
    this.chosen = name;
    sessionStorage.setItem(KEPT_RUN, name);
    await this.follow();
    this.poll();
  }

  async older() {
    try {
      const last = this.list.runs.at(-1);
      this.list.append(await ask(`${TRAINING}/runs?before=${last.id}`));
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
  }

  async act(name, act) {
    try {
      await ask(`${TRAINING}/runs/${encodeURIComponent(name)}/${act}`, { method: 'POST' });
      this.words.say(act === 'resume' ? `${name} goes on once the worker is free.` : `${name} stops after its step; whole epochs are kept.`, 'good');
      window.dispatchEvent(new Event('jobs:changed'));
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
    await this.choose(name);
  }
}

class RunList {
  constructor(choose, act, older) {
    this.acts = { choose, act };
    this.rows = new Map();
    this.later = []; // older ones that were asked for
    this.body = make('tbody');
    const head = COLUMNS.map((text, index) => make('th', { scope: 'col', textContent: text, className: NUMERIC.includes(index) ? 'number' : '' }));
    this.more = button('Older runs', older, { className: 'quiet', hidden: true });
    this.frame = make('div', { className: 'table-frame runs', tabIndex: 0, role: 'region', ariaLabel: 'Runs' },
      make('table', {}, make('caption', { textContent: 'Runs' }), make('thead', {}, make('tr', {}, ...head)), this.body));
    this.none = emptyState('No run yet', '“Start training” in the form above begins one; each shows up here with its curves.');
    this.element = make('div', { className: 'stack' }, this.none, this.frame, this.more);
    this.runs = [];
  }

  show(newest) {
    const ids = new Set(newest.map((run) => run.id));
    this.later = this.later.filter((run) => !ids.has(run.id));
    this.runs = [...newest, ...this.later];
    this.more.hidden = this.later.length > 0 || newest.length < 50;
    this.draw();
  }

  append(older) {
    this.later.push(...older);
    this.runs.push(...older);
    this.more.hidden = older.length < 50;
    this.draw();
  }

  draw() {
    this.none.hidden = this.runs.length > 0;
    this.frame.hidden = !this.runs.length;
    for (const run of this.runs) {
      if (!this.rows.has(run.name)) this.rows.set(run.name, new RunRow(run, this.acts));
      this.rows.get(run.name).show(run);
    }
    const wanted = this.runs.map((run) => this.rows.get(run.name).element);
    // Rows stay where they are unless the order has changed: a button that has the focus keeps it.
    if (wanted.length !== this.body.children.length || wanted.some((row, index) => row !== this.body.children[index])) this.body.replaceChildren(...wanted);
  }

  mark(name) {
    for (const [key, row] of this.rows) row.mark(key === name);
  }
}

class RunRow {
  constructor(run, { choose, act }) {
    this.name = button(run.name, () => choose(run.name), { className: 'run-name' });
    this.chip = make('span');
    this.message = make('span', { className: 'aside' });
    this.bar = make('progress', { ariaLabel: `Progress of ${run.name}` });
    this.epochs = make('td', { className: 'number' });
    this.chosen = make('td', { className: 'number' });
    this.cancel = button('Cancel', () => act(run.name, 'cancel'), { ariaLabel: `Cancel ${run.name}` });
    this.resume = button('Go on', () => act(run.name, 'resume'), { ariaLabel: `Go on with ${run.name}` });
    const grade = run.grade === 'embedded' ? make('span', { className: 'badge embedded', textContent: 'embedded' }) : run.encoder;
    this.element = make('tr', {}, make('th', { scope: 'row' }, this.name), make('td', { textContent: run.objective }), make('td', {}, grade),
      make('td', { className: 'number', textContent: run.seed }), make('td', { className: 'number', textContent: whole(run.images) }),
      make('td', { className: 'run-state' }, this.chip, this.bar, this.message), this.epochs, this.chosen,
      make('td', { textContent: moment(run.created_at) }), make('td', {}, this.cancel, this.resume));
  }

  show(run) {
    this.chip.className = `chip ${run.state}`;
    this.chip.textContent = STATES[run.state];
    this.message.textContent = run.state === 'running' ? run.message : '';
    this.bar.hidden = run.state !== 'running' || !run.total;
    this.bar.max = run.total ?? 1;
    this.bar.value = run.done;
    this.epochs.textContent = run.epochs === null ? whole(run.epochs_done) : `${run.epochs_done} of ${run.epochs}`;
    this.chosen.textContent = run.chosen_epoch === null ? '–' : run.chosen_epoch + 1;
    this.cancel.hidden = run.job_id === null;
    this.resume.hidden = !run.can_resume;
  }

  mark(isChosen) {
    this.name.setAttribute('aria-pressed', String(isChosen));
    this.element.classList.toggle('chosen', isChosen);
  }
}

class RunView {
  constructor() {
    const epochs = { xLabel: 'epoch', xWord: 'epoch', whole: true };
    this.losses = new Chart({ title: 'Losses', yLabel: 'mean loss', ...epochs, caption: 'Entropies enter with a minus: falling means less sure about backgrounds, which is wanted.' });
    this.accuracy = new Chart({ title: 'Training accuracy', yLabel: 'top-1, %', ...epochs });
    this.lr = new Chart({ title: 'Learning rate', yLabel: 'learning rate', ...epochs });
    this.validation = new Chart({ title: 'Validation', yLabel: 'AUROC', ...epochs, format: (value) => value.toFixed(4) });
    this.plots = make('div', { className: 'plots' }, ...[this.losses, this.accuracy, this.lr, this.validation].map((chart) => chart.element));
    this.title = heading('');
    this.said = make('div', { className: 'stack' });
    this.waiting = make('p', { className: 'aside', textContent: 'The curves begin with the first finished epoch.' });
    this.facts = make('div', { className: 'stack' });
    this.element = make('section', { className: 'stack', hidden: true }, this.title, this.said, this.waiting, this.plots,
      make('details', { className: 'fold' }, make('summary', { textContent: 'Options and data of this run' }), this.facts));
  }

  show(run) {
    this.element.hidden = false;
    this.title.textContent = run.name;
    this.say(run);
    const { curves } = run;
    this.waiting.hidden = curves.length > 0 || run.job_id === null;
    this.plots.hidden = !curves.length;
    const of = (read) => curves.map((one) => [one.epoch + 1, read(one)]).filter(([, value]) => Number.isFinite(value));
    const line = (name, word) => ({ name: word, points: of((one) => one.metrics[name]) });
    const others = [...new Set(curves.flatMap((one) => Object.keys(one.metrics)))].filter((name) => !KNOWN.includes(name));
    this.losses.show(Object.entries(LOSSES).map(([name, word]) => line(name, word)));
    this.accuracy.show([line('accuracy', 'accuracy')]);
    this.lr.show([{ name: 'learning rate', points: of((one) => one.lr) }]);
    this.validation.caption.textContent = VALIDATED_ON[run.options.selection] ?? '';
    this.validation.show(others.map((name) => line(name, name.replaceAll('_', ' '))));
    if (this.shown !== run.name) {
      this.shown = run.name;
      this.facts.replaceChildren(optionList(run), ...dataSummary(run.data));
    }
  }

  say(run) {
    const texts = [];
    const last = run.curves.at(-1);
    if (run.error) texts.push([run.error, 'bad']);
    if (run.state === 'stopped') texts.push(['It was begun, but no job works on it. “Go on” continues behind its last whole epoch.', '']);
    if (last) {
      const speed = last.metrics.images_per_s ? `, ${whole(Math.round(last.metrics.images_per_s))} images/s` : '';
      const chosen = run.chosen_epoch === null ? '' : ` Epoch ${run.chosen_epoch + 1} is chosen.`;
      texts.push([`${plural(run.epochs_done, 'epoch')} done; the last one took ${short(last.seconds)} s${speed}.${chosen}`, '']);
    }
    if (run.grade === 'embedded') texts.push(['Trained on the embedded encoder, which stands in for CLIP: these numbers say nothing of the paper’s.', '']);
    const now = JSON.stringify(texts);
    if (now === this.saying) return;
    this.saying = now;
    this.said.replaceChildren(...texts.map(([textContent, tone]) => make('p', { className: tone ? `notice ${tone}` : 'aside', textContent })));
  }
}

function optionList(run) {
  const facts = [...Object.entries(run.options), ['encoder', run.encoder], ['data sha256', run.data.sha256 ?? '–'], ['checkpoints', run.folder]];
  return make('dl', { className: 'figures' },
    ...facts.map(([name, value]) => make('div', {}, make('dt', { textContent: name.replaceAll('_', ' ') }), make('dd', { textContent: value === null ? 'none' : String(value) }))));
}
