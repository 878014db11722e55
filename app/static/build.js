// The Build page: choose a rule, see at once what it takes in and what that changes, freeze it, compare the frozen ones.

import { ask } from './review_api.js';
import { balancePlot, dropHistogram } from './build_plots.js';
import { FrozenBuilds } from './build_frozen.js';
import { RuleForm } from './build_form.js';
import { thumbnails } from './build_thumbnails.js';
import { emptyState, field, heading, make, plural, select, table, voice, whenShown, whole } from './judging.js';

const BUILDS = '/api/builds';
const PAUSE_MS = 120;
const FREEZE_MS = 120_000; // 50,000 candidates with agreement and gold take seconds
const MARKED = 'The rule cannot be used yet: see the field that is marked. What is shown below is of the rule before.';
const REFERENCE_TEXT = { bg: 'Bg as it would be now', bg_s: 'Bg(S) as it would be now' };

/** Fill the element with the page; what is chosen stays when it comes into view again. */
export function mount(element) {
  if (!element || element.page) return;
  element.page = new BuildPage(element);
}

class BuildPage {
  constructor(root) {
    root.classList.add('judging');
    this.form = new RuleForm(() => this.changed());
    this.against = make('select');
    this.against.addEventListener('input', () => this.changed(0));
    this.fault = voice();
    this.spoken = make('p', { className: 'unseen', role: 'status' });
    this.members = make('div', { id: 'build-members', className: 'stack' });
    this.frozen = new FrozenBuilds();
    const against = field('Compared with', this.against);
    against.id = 'build-against';
    root.replaceChildren(make('div', { className: 'stack' }, this.form.root, this.fault.element, against, this.spoken, this.members,
      heading('Freeze'), this.freezeForm(), this.frozen.root));
    whenShown(root, () => this.load());
  }

  freezeForm() {
    this.name = make('input', { type: 'text', value: 'bg', autocomplete: 'off' });
    this.note = make('input', { type: 'text', maxLength: 500, placeholder: 'optional; stands on the data card' });
    this.button = make('button', { id: 'build-freeze', className: 'primary', textContent: 'Freeze this build' });
    this.message = voice();
    const name = field('Name: lower-case letters, digits and _', this.name);
    const note = field('Note', this.note);
    name.id = 'build-name';
    note.id = 'build-note';
    const form = make('form', { className: 'panel' }, make('div', { className: 'fields freeze-fields' }, name, note, this.button),
      make('div', { id: 'build-message' }, this.message.element));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.freeze();
    });
    return form;
  }

  async load() {
    try {
      const [choices, builds] = await Promise.all([ask(`${BUILDS}/choices`), ask(BUILDS)]);
      this.candidates = choices.candidates;
      this.form.offer(choices);
      this.offerReferences(choices.presets, builds);
      this.frozen.show(builds, (build) => this.take(build));
      await this.look();
    } catch (error) {
      this.fault.say(error.message, 'bad');
    }
  }

  offerReferences(presets, builds) {
    const chosen = this.against.value;
    const options = [...presets.map(({ name }) => [`preset:${name}`, REFERENCE_TEXT[name] ?? name]),
      ...builds.map(({ label, images }) => [`build:${label}`, `${label}: ${plural(images, 'image')}`])];
    this.against.replaceChildren(...select(options).children);
    this.against.value = chosen;
    if (!this.against.value) this.against.selectedIndex = 0;
  }

  take(build) {
    this.form.fill(build.rule);
    this.form.edited();
    this.form.root.scrollIntoView({ block: 'nearest' });
  }

  changed(pause = PAUSE_MS) {
    if (this.form.chosen !== 'custom') this.name.value = this.form.chosen;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), pause);
  }

  /** Ask what the rule takes in. One question is under way at a time; the last one asked meanwhile follows it. */
  async look() {
    if (this.asking) {
      this.again = true;
      return;
    }
    this.asking = true;
    try {
      await this.ask();
    } finally {
      this.asking = false;
      if (this.again) {
        this.again = false;
        this.look();
      }
    }
  }

  async ask() {
    if (!this.candidates) {
      this.members.replaceChildren(emptyState('No candidates yet', 'A build is chosen from candidates; make some first.', 'generate', 'Go to Generate'));
      return;
    }
    const [kind, name] = this.against.value.split(/:(.*)/);
    try {
      const answer = await ask(`${BUILDS}/what-if`, { method: 'POST', body: { rule: this.form.rule(), against: { [kind]: name } } });
      if (answer.error) this.refused(this.form.blame(answer) ? MARKED : answer.error);
      else {
        this.fault.say('');
        this.members.classList.remove('stale');
        this.show(answer);
      }
    } catch (error) {
      this.refused(error instanceof SyntaxError ? MARKED : error.message);
    }
  }

  refused(sentence) {
    this.members.classList.add('stale');
    this.fault.say(sentence, 'bad');
  }

  show(answer) {
    const { change, balance } = answer;
    const reference = REFERENCE_TEXT[change.reference] ?? change.reference;
    const moved = `${plural(change.entered, 'enters', 'enter')}, ${plural(change.left, 'leaves', 'leave')}`;
    this.spoken.textContent = `${whole(answer.members)} of ${plural(answer.candidates, 'candidate')} in the build. Against ${reference}: ${moved}.`;
    const counts = table('Candidates under the rule', ['Candidates', 'Count'], [
      ['In the build', make('strong', { textContent: whole(answer.members) })],
      ...answer.excluded.map(({ text, count }) => [`Left out: ${text}`, whole(count)]),
      ['All candidates', whole(answer.candidates)],
    ], [1]);
    const changes = table(`Against ${reference} (${plural(change.before, 'image')})`, ['Change', 'Count'], [
      ['Enter', whole(change.entered)],
      ['Leave', whole(change.left)],
      ...change.classes.map((one) => [make('span', { className: 'aside', textContent: one.class_name }), `${one.change > 0 ? '+' : '−'}${whole(Math.abs(one.change))}`]),
    ], [1]);
    const spread = `${whole(balance.with_members)} of ${plural(balance.classes, 'class', 'classes')} have members; ${whole(balance.smallest)} to ` +
      `${whole(balance.largest)} a class, median ${balance.median}.`;
    const without = balance.empty_classes.length
      ? ` Without any: ${balance.empty_classes.join(', ')}${balance.classes - balance.with_members > balance.empty_classes.length ? ', …' : ''}.` : '';
    const samples = [
      thumbnails(`Enters: ${change.entered_sample.length} of ${whole(change.entered)}`, change.entered_sample, 'Nothing enters.'),
      thumbnails(`Leaves: ${change.left_sample.length} of ${whole(change.left)}`, change.left_sample, 'Nothing leaves.'),
    ];
    this.members.replaceChildren(
      make('p', { className: 'rule', textContent: answer.rule_in_words }),
      make('div', { className: 'columns build' }, make('div', { className: 'stack' }, counts, changes),
        make('div', { className: 'stack' }, ...[dropHistogram(answer.histogram), balancePlot(balance.class_counts)].filter(Boolean),
          make('p', { className: 'aside', textContent: spread + without }))),
      make('div', { className: 'columns halves', id: 'build-changes' }, ...samples),
      answer.members
        ? thumbnails(`A sample of ${answer.sample.length} of the ${whole(answer.members)} members`, answer.sample)
        : emptyState('The rule takes in nothing', 'Loosen a bound, or judge more candidates.', 'review', 'Go to Review'),
    );
  }

  async freeze() {
    this.button.disabled = true;
    try {
      const body = { name: this.name.value, note: this.note.value, rule: this.form.rule() };
      const { label, images, is_new: isNew } = await ask(BUILDS, { method: 'POST', body, patience: FREEZE_MS });
      this.message.say(isNew ? `Frozen as ${label} with ${plural(images, 'image')}. It can be exported now.`
        : `${label} holds exactly this already; nothing new was frozen.`, 'good');
      this.note.value = '';
      await this.load();
    } catch (error) {
      if (error.answer) this.form.blame(error.answer);
      this.message.say(error.message, 'bad');
    } finally {
      this.button.disabled = false;
      this.button.focus();
    }
  }
}
