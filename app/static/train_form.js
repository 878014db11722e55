// The form of a new run: every hyper-parameter at its published value, and what would go in as the server counts it.

import { ask } from './review_api.js';
import { button, field, make, plural, select, table, whole } from './judging.js';

const TRAINING = '/api/training';
const PLAN_DELAY_MS = 350;
const CLASSES_SHOWN = 8;
const KINDS = { id: 'few-shot photos', background: 'pseudo-OOD backgrounds', texture: 'pseudo-OOD textures', id_aug: 'ID augmentations' };
const WORDS = {
  last: 'the last one', held_out: 'the best on held-out photos', test: 'the best on the test sets, as published', end: 'at the end', middle: 'in the middle', front: 'at the front',
  float32: 'float32 (exact)', bfloat16: 'bfloat16', float16: 'float16',
};
// [option, label, explanation, [lowest, highest, step]]; how it is asked for follows from the published value.
const MAIN = [
  ['epochs', 'Epochs', '', [1, 10000, 1]],
  ['batch_size', 'Batch size', 'images a step', [1, 4096, 1]],
  ['lr', 'Learning rate', 'highest; SGD with a cosine', [0.000001, 10, 'any']],
];
const OF_OBJECTIVE = {
  ospcoop: [
    ['loss1', 'Local entropy weight', 'patches outside the object', [0, 100, 'any']],
    ['loss2', 'Global entropy weight', 'pseudo-OOD images', [0, 100, 'any']],
  ],
  coop: [],
  locoop: [
    ['locoop_weight', 'Regulariser weight', '', [0, 100, 'any']],
    ['locoop_rank', 'Rank', 'empty: a fifth of the classes', [1, 100000, 1]],
  ],
};
const FOLDED = [
  ['Prompt', [
    ['n_ctx', 'Context vectors', '', [1, 64, 1]],
    ['init_words', 'Initial words', 'empty: noise'],
    ['class_position', 'Class name stands', ''],
    ['class_specific', 'A context for each class', 'slower'],
    ['all_classes', 'A prompt for every class of the list', 'not only those with photos'],
  ]],
  ['Images', [
    ['min_drop', 'Least drop', 'of a background that nobody accepted', [-100, 100, 'any']],
    ['object_pixels', 'Object pixels', 'a patch with more is object', [0, 1024, 1]],
    ['min_visible', 'Least visible share', 'of the object after a crop', [0, 1, 'any']],
    ['random_position', 'Crop anywhere', 'published: always top left'],
  ]],
  ['Optimiser', [
    ['warmup_lr', 'Warm-up learning rate', '', [0, 1, 'any']],
    ['warmup_epochs', 'Warm-up epochs', '', [0, 1000, 1]],
    ['momentum', 'Momentum', '', [0, 1, 'any']],
    ['weight_decay', 'Weight decay', '', [0, 1, 'any']],
  ]],
  ['Which epoch is chosen', [
    ['selection', 'Take', ''],
    ['held_out_share', 'Held-out share', 'of the photos', [0.01, 0.99, 'any']],
  ]],
  ['Numbers and memory', [
    ['precision', 'Text tower', ''],
    ['feature_storage', 'Cached features', 'float16: half the disk'],
    ['text_memory', 'Text tower memory, MiB', '', [1, 1000000, 1]],
    ['as_published', 'Count as the reference does', 'visible share, initial words'],
  ]],
];

export class TrainForm {
  /** choices as the server gives them; started(answer) is called once runs wait for the worker. */
  constructor(choices, words, started) {
    this.choices = choices;
    this.words = words;
    this.started = started;
    this.inputs = new Map();
    this.build();
    this.change();
  }

  build() {
    const { choices } = this;
    this.objective = select(Object.entries(choices.objectives), { name: 'objective' });
    this.encoder = select(choices.encoders.map(({ name, label }) => [name, label]), { name: 'encoder' });
    this.fewshot = select(choices.fewshot_sets.map((one) => [one.id, setName(one)]), { name: 'fewshot_set' });
    this.textures = make('input', { type: 'checkbox', checked: true, name: 'textures' });
    this.idAugs = make('input', { type: 'checkbox', name: 'id_augs' });
    this.seeds = make('input', { type: 'text', value: '1', required: true, pattern: ' *[0-9]+( *[, ] *[0-9]+)* *', name: 'seeds', title: 'Whole numbers with commas between them' });
    this.name = make('input', { type: 'text', pattern: '[a-z0-9][a-z0-9_.\\-]*', maxLength: 76, name: 'name', placeholder: 'from its options', title: 'Lower-case letters, digits, - _ and .' });
    this.ofObjective = Object.fromEntries(Object.entries(OF_OBJECTIVE).map(([name, fields]) => [name, this.group('fields', fields)]));
    this.grade = make('p', { className: 'notice', textContent: 'The embedded encoder stands in for CLIP, so that everything can be tried on any machine. Its numbers say nothing of the paper’s.' });
    this.kinds = make('p', { className: 'actions' },
      make('label', { className: 'check' }, this.textures, 'with textures, where there are'),
      make('label', { className: 'check' }, this.idAugs, 'with ID augmentations and their crop'));
    this.changed = make('span', { className: 'aside', ariaLive: 'polite' });
    this.reset = button('Published values', () => this.toPublished(), { className: 'quiet' });
    this.start = make('button', { type: 'submit', className: 'primary', textContent: 'Start training' });
    this.plan = make('div', { className: 'stack plan', ariaLive: 'polite' });
    this.element = make('form', { className: 'train-form' },
      make('div', { className: 'panel' },
        make('div', { className: 'fields' }, field('Objective', this.objective), field('Encoder', this.encoder), field('Few-shot set', this.fewshot)),
        this.grade, this.kinds,
        make('div', { className: 'fields' }, field('Seeds', this.seeds, 'one run each: 1, 2, 3'), field('Name', this.name, 'optional')),
        this.group('fields', MAIN), ...Object.values(this.ofObjective),
        make('details', {}, make('summary', { textContent: 'All other hyper-parameters' }),
          make('div', { className: 'stack' }, ...FOLDED.map(([title, fields]) => make('fieldset', {}, make('legend', { textContent: title }), ...this.fields(fields))))),
        make('p', { className: 'actions' }, this.start, this.reset, this.changed)),
      make('div', { className: 'panel' }, make('h3', { textContent: 'What would go in' }), this.plan));
    this.element.addEventListener('input', (event) => this.change(event.target));
    this.element.addEventListener('submit', (event) => {
      event.preventDefault();
      this.send();
    });
  }

  group(className, fields) {
    return make('div', { className }, ...this.fields(fields));
  }

  fields(list) {
    return list.map(([name, label, about = '', limits]) => {
      const input = this.input(name, limits);
      this.inputs.set(name, input);
      if (input.type === 'checkbox') return make('label', { className: 'check' }, input, about ? `${label} (${about})` : label);
      return field(label, input, about);
    });
  }

  input(name, limits) {
    const value = this.choices.defaults[name];
    if (name in this.choices.choices) return select(this.choices.choices[name].map((one) => [one, WORDS[one] ?? one]), { name });
    if (typeof value === 'boolean') return make('input', { type: 'checkbox', checked: value, name });
    if (!limits) return make('input', { type: 'text', value: value ?? '', name, maxLength: 200 });
    const [min, max, step] = limits;
    return make('input', { type: 'number', value: value ?? '', min, max, step, required: value !== null, name });
  }

  /** What is published for an option; the epochs are fewer with ID augmentations. */
  published(name) {
    if (name === 'epochs') return this.idAugs.checked && this.objective.value === 'ospcoop' ? this.choices.epochs_with_id_aug : this.choices.epochs;
    return this.choices.defaults[name];
  }

  value(name) {
    const input = this.inputs.get(name);
    if (input.type === 'checkbox') return input.checked;
    if (input.type === 'number') return input.value === '' ? null : Number(input.value);
    return input.value.trim() || (this.choices.defaults[name] === null ? null : input.value);
  }

  /** Only what the chosen objective looks at is sent and said to differ. */
  different() {
    const others = Object.entries(OF_OBJECTIVE).filter(([name]) => name !== this.objective.value).flatMap(([, fields]) => fields.map(([name]) => name));
    return [...this.inputs.keys()].filter((name) => !others.includes(name) && this.value(name) !== this.published(name));
  }

  toPublished() {
    for (const [name, input] of this.inputs) {
      if (input.type === 'checkbox') input.checked = this.published(name);
      else input.value = this.published(name) ?? '';
    }
    this.change();
  }

  change(target) {
    const usesOod = this.objective.value === 'ospcoop';
    this.kinds.hidden = !usesOod;
    for (const [name, group] of Object.entries(this.ofObjective)) group.hidden = name !== this.objective.value || !group.children.length;
    for (const group of Object.values(this.ofObjective)) for (const input of group.querySelectorAll('input')) input.disabled = group.hidden;
    this.grade.hidden = this.choices.encoders.find(({ name }) => name === this.encoder.value).grade !== 'embedded';
    if (target === this.idAugs || target === this.objective) this.inputs.get('epochs').value = this.published('epochs');
    this.inputs.get('held_out_share').disabled = this.inputs.get('selection').value !== 'held_out';
    const different = this.different();
    this.changed.textContent = different.length ? `${plural(different.length, 'value differs', 'values differ')} from the published: ${different.map((name) => name.replaceAll('_', ' ')).join(', ')}.` : 'As published.';
    this.reset.hidden = !different.length;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), PLAN_DELAY_MS);
  }

  wish() {
    const options = Object.fromEntries(this.different().map((name) => [name, this.value(name)]));
    if (this.inputs.get('epochs').value !== '') options.epochs = this.value('epochs');
    return {
      options: { ...options, objective: this.objective.value },
      encoder: this.encoder.value,
      fewshot_set: Number(this.fewshot.value),
      textures: this.textures.checked,
      id_augs: this.idAugs.checked && this.objective.value === 'ospcoop',
    };
  }

  /** Count what would go in; only the newest answer is shown. */
  async look() {
    if (!this.element.checkValidity()) {
      this.plan.replaceChildren(make('p', { className: 'notice', textContent: 'A value is missing or outside its range.' }));
      this.start.disabled = false; // the browser says which one
      return;
    }
    const number = (this.asked = (this.asked ?? 0) + 1);
    let shown;
    let fits = true;
    try {
      const answer = await ask(`${TRAINING}/plan`, { method: 'POST', body: this.wish() });
      shown = dataSummary(answer.data, answer.class_names);
    } catch (error) {
      fits = false;
      shown = [make('p', { className: 'notice bad', textContent: error.message })];
    }
    if (number !== this.asked) return;
    this.start.disabled = !fits;
    this.plan.replaceChildren(...shown);
  }

  async send() {
    this.start.disabled = true;
    const seeds = this.seeds.value.split(/[ ,]+/).filter(Boolean).map(Number);
    try {
      const answer = await ask(`${TRAINING}/runs`, { method: 'POST', body: { ...this.wish(), seeds, name: this.name.value.trim() || null } });
      this.started(answer);
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
    this.start.disabled = false;
  }
}

function setName({ id, shots, seed, sources, classes }) {
  return `${id}: ${plural(shots, 'shot')}, seed ${seed}: ${plural(sources, 'photo')} of ${plural(classes, 'class', 'classes')}`;
}

/** What goes into a run, in elements: by kind, by class, and what is left out. names are classes' names by wnid. */
export function dataSummary(data, names = {}) {
  const held = data.held_out ?? {};
  const present = Object.keys(KINDS).filter((kind) => data.kinds?.[kind] || held[kind]);
  if (!present.length) return [make('p', { className: 'aside', textContent: 'Imported: the file does not say what it was trained on.' })];
  const some = Object.keys(held).length > 0;
  const rows = present.map((kind) => [KINDS[kind], whole(data.kinds[kind] ?? 0), ...(some ? [whole(held[kind] ?? 0)] : [])]);
  const all = present.reduce((sum, kind) => sum + (data.kinds[kind] ?? 0), 0);
  const said = [];
  if (data.without_mask) said.push(`${plural(data.without_mask, 'photo has', 'photos have')} no usable background, so they count as object throughout.`);
  said.push(...Object.entries(data.left_out ?? {}).map(([reason, count]) => `Left out: ${whole(count)}, ${reason}.`));
  if (data.crops) said.push('Images are cropped at random, as goes with ID augmentations; features cannot all be cached.');
  return [
    table('Images by kind', ['Kind', 'Images', ...(some ? ['Held out'] : [])], rows, [1, 2]),
    make('p', { className: 'aside', textContent: `${plural(all, 'image')}, ${plural(data.classes, 'class', 'classes')}.` }),
    ...said.map((textContent) => make('p', { className: 'aside', textContent })),
    byClass(data.by_class ?? {}, Object.keys(KINDS).filter((kind) => data.kinds[kind]), names),
  ];
}

function byClass(counts, kinds, names) {
  const classes = Object.entries(counts);
  const place = make('div');
  const show = (number) => {
    const rows = classes.slice(0, number).map(([wnid, of]) => [names[wnid] ? `${names[wnid]} (${wnid})` : wnid, ...kinds.map((kind) => whole(of[kind] ?? 0))]);
    const more = button(`Show all ${whole(classes.length)} classes`, () => show(classes.length), { className: 'quiet', hidden: number >= classes.length });
    place.replaceChildren(table('Images by class', ['Class', ...kinds.map((kind) => kind.replace('_', ' '))], rows, kinds.map((_, index) => index + 1)), more);
  };
  show(CLASSES_SHOWN);
  return make('details', {}, make('summary', { textContent: 'By class' }), place);
}
