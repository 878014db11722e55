// The Agreement page: the overlap setting, kappa overall, by reason, pair and class, and gold items.

import { ask, request } from './review_api.js';
import { REASON_TEXT, VERDICTS, verdictText } from './review_markup.js';
import { button, draw, emptyState, field, heading, make, number, percent, reasonChoice, select, table, voice, whenShown, whole } from './judging.js';

const WIDTH = 220; // of the scale on which a kappa and its interval are drawn
const LOWEST = -0.2;

/** Fill the element with the page, afresh each time it comes into view. */
export function mount(element) {
  if (!element || element.page) return;
  element.page = new Agreement(element);
}

class Agreement {
  constructor(root) {
    root.classList.add('judging');
    this.words = voice();
    this.figures = make('div', { className: 'stack' });
    this.gold = make('div', { className: 'stack' });
    root.replaceChildren(
      make('div', { className: 'stack' }, this.words.element, this.overlapForm(), heading('Agreement'), this.figures,
        heading('Gold items'), this.goldForm(), this.gold),
    );
    whenShown(root, () => this.load());
  }

  async load() {
    try {
      const me = await ask('/api/me');
      this.isAdmin = me.role === 'admin';
      const [overlap, scores, gold] = await Promise.all([
        request('/overlap'), request('/gold/report'), this.isAdmin ? request('/gold') : null,
      ]);
      this.showOverlap(overlap);
      this.showGold(gold, scores);
      await this.loadFigures();
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
  }

  // ---- overlap ----

  overlapForm() {
    this.share = number(0, 0, 100, 0.1);
    this.k = number(2, 2, 20);
    this.seed = number(0, 0, 2 ** 31 - 2);
    this.save = make('button', { textContent: 'Save', className: 'primary' });
    this.onlyAdmins = make('span', { className: 'aside', textContent: 'Only an admin can change it.', hidden: true });
    const form = make('form', { className: 'panel' },
      make('h3', { textContent: 'Overlap' }),
      make('p', { className: 'aside', textContent: 'A random share of the candidates is given to several annotators; agreement is measured on it. The others are judged once.' }),
      make('div', { className: 'fields' }, field('Share of the candidates, %', this.share),
        field('Annotators for each of them', this.k), field('Seed', this.seed)),
      make('p', { className: 'actions' }, this.save, this.onlyAdmins));
    // What is typed must not be written over by an answer that comes late.
    for (const input of [this.share, this.k, this.seed]) input.disabled = true;
    form.addEventListener('input', () => (this.typed = true));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.typed = false;
      this.saveOverlap();
    });
    return form;
  }

  showOverlap({ share, k, seed }) {
    if (!this.typed) [this.share.value, this.k.value, this.seed.value] = [Number((100 * share).toFixed(4)), k, seed];
    this.save.hidden = !this.isAdmin;
    this.onlyAdmins.hidden = this.isAdmin;
    for (const input of [this.share, this.k, this.seed]) input.disabled = !this.isAdmin;
  }

  async saveOverlap() {
    const body = { share: this.share.value / 100, k: Number(this.k.value), seed: Number(this.seed.value) };
    await this.change('/overlap', { method: 'PUT', body }, 'The overlap is saved. Who is asked for what changes at once; verdicts stay.');
  }

  /** Change something on the server, then show everything as it is now. */
  async change(path, options, done) {
    try {
      await request(path, options);
      await this.load();
      this.words.say(done, 'good');
      return true;
    } catch (error) {
      this.words.say(error.message, 'bad');
      return false;
    }
  }

  // ---- kappa ----

  async loadFigures() {
    try {
      const [found, names] = await Promise.all([request('/agreement'), request('/agreement/classes')]);
      this.showFigures(found, names);
    } catch (error) {
      if (error.status !== 404) throw error;
      this.figures.replaceChildren(emptyState('Nothing to measure yet', error.message, 'generate', 'Go to Generate'));
    }
  }

  showFigures(found, names) {
    const { overall, reasons, pairs, classes } = found;
    if (!overall.items) {
      this.figures.replaceChildren(emptyState(
        'Nothing to measure yet',
        found.share ? `No candidate of the overlap has ${found.ratings_per_item} verdicts yet; the annotators go on reviewing.`
          : 'No candidate was judged by two annotators. Set an overlap above, then let two or more review.',
        'review', 'Go to Review'));
      return;
    }
    const sample = found.share ? `the overlap of ${percent(found.share)}` : 'what happens to be judged by two or more, which is no random sample';
    const left = found.left_out ? ` ${whole(found.left_out)} with another number of verdicts are left out.` : '';
    const rows = [['Accept or reject', overall], ...Object.entries(reasons).map(([name, one]) => [REASON_TEXT[name] ?? name, one])];
    this.figures.replaceChildren(
      make('dl', { className: 'figures' },
        figure('Fleiss’ kappa', kappaText(overall)), figure('95 % interval', intervalText(overall)),
        figure('Observed agreement', percent(overall.observed)), figure('Candidates', whole(overall.items)),
        figure('Verdicts for each', whole(found.ratings_per_item)), figure('Annotators', whole(found.annotators))),
      make('p', { className: 'aside', textContent: `Measured on ${sample}.${left} 1 is perfect agreement, 0 what chance would give. Intervals: ${whole(found.resamples)} bootstrap resamples, seed ${found.seed}.` }),
      kappaTable('Fleiss’ kappa, overall and by reason', 'Question', rows),
      pairs.length ? kappaTable('Cohen’s kappa by pair of annotators', 'Pair', pairs.map((pair) => [`${pair.a} and ${pair.b}`, pair])) : '',
      classes.length ? kappaTable(`Fleiss’ kappa by class (from ${found.min_items} candidates on)`, 'Class', classes.map((one) => [names[one.class_index] ?? `class ${one.class_index}`, one])) : '',
    );
  }

  // ---- gold ----

  goldForm() {
    this.candidate = make('input', { type: 'number', min: 1, step: 1, required: true });
    this.verdict = select([['accept', 'accept'], ['reject', 'reject']]);
    this.reason = reasonChoice({ disabled: true });
    this.verdict.addEventListener('change', () => (this.reason.disabled = this.verdict.value === 'accept'));
    this.note = make('input', { maxLength: 2000, placeholder: 'optional' });
    const form = make('form', { className: 'panel', hidden: true },
      make('h3', { textContent: 'Add a gold item' }),
      make('p', { className: 'aside', textContent: 'A candidate whose right verdict you know. Everybody is shown it like any other.' }),
      make('div', { className: 'fields' }, field('Candidate, by its id', this.candidate), field('Right is', this.verdict),
        field('Reason', this.reason), field('Note', this.note)),
      make('p', { className: 'actions' }, make('button', { textContent: 'Add', className: 'primary' })));
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      const { value } = this.candidate;
      const verdict = this.verdict.value;
      const body = { verdict, reasons: verdict === 'reject' ? [this.reason.value] : [], note: this.note.value };
      if (await this.change(`/gold/${value}`, { method: 'PUT', body }, `Candidate ${value} is a gold item now.`)) {
        form.reset();
        this.reason.disabled = true;
      }
    });
    this.form = form;
    return form;
  }

  showGold(gold, scores) {
    this.form.hidden = !this.isAdmin;
    const parts = [];
    if (gold?.length) parts.push(table('Gold items', ['Candidate', '', 'Right is', 'Note', 'Chosen by', 'Actions'], gold.map((one) => this.goldRow(one))));
    else if (gold) parts.push(emptyState('No gold item yet', 'Pick candidates on Review whose verdict is beyond doubt (the history names their id), some of each kind, and add them above.', 'review', 'Go to Review'));
    if (scores.length) parts.push(table('Accuracy on gold items, by annotator', ['Annotator', 'Judged', 'Right', 'Wrong accepts', 'Wrong rejects', 'Skipped', 'Accuracy', '95 % interval'], scores.map(scoreRow), [1, 2, 3, 4, 5, 6, 7]));
    else if (!gold || gold.length) parts.push(make('p', { className: 'aside', textContent: 'Nobody has judged a gold item yet.' }));
    this.gold.replaceChildren(...parts);
  }

  goldRow({ candidate_id: id, urls, verdict, reasons, note, created_by: by }) {
    const words = verdict === 'accept' ? 'Accept' : verdictText({ verdict, reasons }).replace(VERDICTS.reject, 'Reject');
    return [
      `Candidate ${id}`,
      make('img', { src: urls.thumbnail, alt: `Result of candidate ${id}`, loading: 'lazy', className: 'thumb' }),
      words,
      note,
      by,
      button('Remove', () => this.change(`/gold/${id}`, { method: 'DELETE' }, `Candidate ${id} is an ordinary candidate again.`), { ariaLabel: `Remove candidate ${id}` }),
    ];
  }
}

function figure(name, text) {
  return make('div', {}, make('dt', { textContent: name }), make('dd', { textContent: text }));
}

function kappaText({ kappa }) {
  return kappa === null ? 'undefined' : kappa.toFixed(2);
}

function intervalText({ low, high }) {
  return low === null || high === null ? '–' : `${low.toFixed(2)} to ${high.toFixed(2)}`;
}

function scoreRow(one) {
  const interval = one.low === null ? '–' : `${percent(one.low)} to ${percent(one.high)}`;
  return [one.name, ...[one.judged, one.correct, one.wrong_accepts, one.wrong_rejects, one.skipped].map(whole), percent(one.accuracy), interval];
}

function kappaTable(caption, what, rows) {
  const cells = rows.map(([name, one]) => [name, whole(one.items), one.observed === null ? '–' : percent(one.observed),
    one.kappa === null ? '–' : one.kappa.toFixed(2), intervalText(one), scale(one)]);
  return table(caption, [what, 'Candidates', 'Observed', 'Kappa', '95 % interval', 'From −0.2 to 1'], cells, [1, 2, 3, 4]);
}

/** Kappa as a dot and its interval as a line; the table's cells say the same in figures. */
function scale({ kappa, low, high }) {
  const x = (value) => (WIDTH * (Math.max(LOWEST, value) - LOWEST)) / (1 - LOWEST);
  const picture = draw('svg', { class: 'scale', viewBox: `-6 0 ${WIDTH + 12} 16`, 'aria-hidden': 'true' },
    draw('line', { class: 'axis', x1: 0, x2: WIDTH, y1: 8, y2: 8 }), draw('line', { class: 'axis', x1: x(0), x2: x(0), y1: 3, y2: 13 }));
  if (low !== null && high !== null) picture.append(draw('line', { class: 'interval', x1: x(low), x2: x(high), y1: 8, y2: 8 }));
  if (kappa !== null) picture.append(draw('circle', { class: 'dot', cx: x(kappa), cy: 8, r: 4 }));
  return picture;
}
