// The form of a new evaluation: prompts, detectors, sets.

import { ask } from './review_api.js';
import { emptyState, field, make, number, plural, select, whole } from './judging.js';

const EVALUATION = '/api/evaluation';
const GROUPS = { classic: 'classic', other: '', bg: 'Bg' };

export class EvaluateForm {
  /** choices as the server gives them; started() is called once the evaluation waits for the worker. */
  constructor(choices, words, started) {
    this.choices = choices;
    this.words = words;
    this.started = started;
    this.ood = choices.sets.filter((one) => one.role === 'ood');
    this.inside = choices.sets.filter((one) => one.role === 'id');
    this.element = this.missing() ?? this.build();
  }

  missing() {
    if (!this.inside.length) return emptyState('No ID images yet', 'Detectors are judged on the val photos of the workspace, or on a folder of ID images: `launch.py sets add NAME FOLDER --role id`.', 'sources', 'Go to Sources');
    if (!this.ood.length) return emptyState('No OOD set yet', 'Freeze a build, which is a Bg set, or add a folder of images: `launch.py sets add iNaturalist FOLDER`.', 'build', 'Go to Build');
    return null;
  }

  build() {
    const { choices } = this;
    this.runs = boxes(choices.runs.map((run) => [run.name, `${run.name}${run.grade === 'embedded' ? ' (embedded)' : ''}`]), []);
    this.encoder = select(choices.encoders.map(({ name, label }) => [name, label]), { name: 'encoder' });
    this.encoderField = field('Encoder', this.encoder, 'of the zero-shot prompts; runs bring their own');
    this.detectors = boxes(Object.entries(choices.detectors), choices.default_detectors);
    this.idSet = select(this.inside.map((one) => [one.name, setWords(one)]), { name: 'id_set' });
    this.oodSets = boxes(this.ood.map((one) => [one.name, setWords(one)]), newestOf(this.ood));
    this.temperature = number(choices.temperature, 0.001, 1000, 'any');
    this.localWeight = number(choices.local_weight, 0, 100, 'any');
    this.resamples = number(choices.resamples, 1, 100000);
    this.seed = number(0, 0, 1e9);
    this.labels = make('input', { type: 'text', placeholder: 'a path on the server', name: 'labels' });
    this.labelsField = field('Negative labels', this.labels, 'a folder of WordNet files, or a file with a label a line');
    this.start = make('button', { type: 'submit', className: 'primary', textContent: 'Evaluate' });
    this.about = make('span', { className: 'aside', ariaLive: 'polite' });
    const form = make('form', { className: 'panel evaluate-form' },
      make('div', { className: 'fields' },
        group('Prompts', make('p', { className: 'aside', textContent: 'Zero-shot is always evaluated beside the runs.' }),
          choices.runs.length ? this.runs.element : make('p', { className: 'aside', textContent: 'No finished run yet: the Train page makes one.' }), this.encoderField),
        group('Detectors', this.detectors.element, this.labelsField),
        group('Sets', field('ID set', this.idSet), make('p', { className: 'aside', textContent: 'OOD sets; none chosen means all.' }), this.oodSets.element)),
      make('details', {}, make('summary', { textContent: 'Temperature, weights, bootstrap' }),
        make('div', { className: 'fields' }, field('Temperature', this.temperature, 'MCM and GL-MCM'), field('Local weight', this.localWeight, 'GL-MCM'),
          field('Bootstrap resamples', this.resamples, 'for the 95 % intervals'), field('Bootstrap seed', this.seed))),
      make('p', { className: 'actions' }, this.start, this.about));
    form.addEventListener('input', () => this.change());
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.send();
    });
    this.change();
    return form;
  }

  change() {
    const [runs, detectors, sets] = [this.runs.chosen().length, this.detectors.chosen(), this.oodSets.chosen().length || this.ood.length];
    this.encoderField.hidden = runs > 0;
    this.labelsField.hidden = !detectors.some((name) => this.choices.need_labels.includes(name));
    this.start.disabled = !detectors.length;
    this.about.textContent = detectors.length
      ? `${plural(runs + 1, 'set')} of prompts × ${plural(detectors.length, 'detector')} × ${plural(sets, 'OOD set')}: at least ${whole((runs + 1) * detectors.length * sets)} results; what is known already is not computed again.`
      : 'Choose at least one detector.';
  }

  async send() {
    this.start.disabled = true;
    const body = {
      runs: this.runs.chosen(), encoder: this.encoder.value, detectors: this.detectors.chosen(), id_set: this.idSet.value, ood_sets: this.oodSets.chosen(),
      temperature: Number(this.temperature.value), local_weight: Number(this.localWeight.value), resamples: Number(this.resamples.value), seed: Number(this.seed.value),
      labels: this.labels.value.trim() && !this.labelsField.hidden ? this.labels.value.trim() : null,
    };
    try {
      await ask(EVALUATION, { method: 'POST', body });
      this.started();
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
    this.change();
  }
}

function group(title, ...children) {
  return make('fieldset', {}, make('legend', { textContent: title }), ...children);
}

/** Boxes to tick, some of them ticked; chosen() gives the ticked values. */
function boxes(options, ticked) {
  const inputs = options.map(([value]) => make('input', { type: 'checkbox', value, checked: ticked.includes(value) }));
  const element = make('div', { className: 'boxes' }, ...options.map(([, text], index) => make('label', { className: 'check' }, inputs[index], text)));
  return { element, chosen: () => inputs.filter((one) => one.checked).map((one) => one.value) };
}

function setWords({ name, images, group: kind, skipped }) {
  const facts = [plural(images, 'image'), GROUPS[kind], skipped ? `${whole(skipped)} unreadable` : ''].filter(Boolean);
  return `${name} (${facts.join(', ')})`;
}

/** Every registered set, and of the builds of a name the newest, which the server lists first. */
function newestOf(sets) {
  const seen = new Set();
  return sets.filter((one) => {
    const name = one.kind === 'build' ? one.name.replace(/-v\d+$/, '') : one.name;
    if (one.kind === 'build' && seen.has(name)) return false;
    seen.add(name);
    return true;
  }).map((one) => one.name);
}
