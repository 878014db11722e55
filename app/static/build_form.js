// The rule of a build as a form: presets, bounds with sliders, and a free expression whose errors are said at their place.

import { field, make, select } from './judging.js';

const CUSTOM = 'custom';
const STEPS = 100;
const REVIEW = [
  ['not_rejected', 'Nobody rejects it'],
  ['accepted', 'Somebody accepts it, nobody rejects it'],
  ['any', 'Whatever was said'],
];
const DROP_BOUNDS = [
  ['drop_above', 'above (>)'],
  ['drop_at_least', 'at least (≥)'],
];
const TYPE_TEXT = { number: 'number', text: 'text', yes_no: 'true or false' };
const EXAMPLE = 'area < 0.5 and not (p_accept < 0.2) and class not in ("tench", "n01443537")';

/** The form. changed() is called when the rule that it says may be another one; rule() gives it, or throws a Fault. */
export class RuleForm {
  constructor(changed) {
    this.changed = changed;
    this.preset = make('fieldset', { id: 'build-preset', className: 'presets' }, make('legend', { textContent: 'Start from' }));
    this.verdicts = select(REVIEW);
    this.dropBound = select(DROP_BOUNDS);
    this.auto = make('input', { type: 'checkbox', checked: true });
    const edited = () => this.edited();
    this.drop = new Bound('build-drop', 'Drop', 'lowest', edited);
    this.areaMin = new Bound('build-area-min', 'Smallest area', 'lowest', edited);
    this.areaMax = new Bound('build-area-max', 'Largest area', 'highest', edited);
    this.residual = new Bound('build-residual', 'Largest residual', 'highest', edited);
    for (const input of [this.verdicts, this.dropBound, this.auto]) input.addEventListener('input', edited);
    this.expression = new ExpressionField(edited);
    this.bounds = { drop_above: this.drop, drop_at_least: this.drop, area_min: this.areaMin, area_max: this.areaMax, residual_max: this.residual };
    const review = field('Review', this.verdicts);
    review.id = 'build-verdicts';
    this.root = make('div', { className: 'panel' }, this.preset,
      make('div', { className: 'fields rule-fields' }, review, field('Drop bound', this.dropBound),
        this.drop.root, this.areaMin.root, this.areaMax.root, this.residual.root),
      make('label', { className: 'check' }, this.auto, make('span', { textContent: 'Where no person has judged, the verdicts of confirmed triage bands count' })),
      this.expression.root);
  }

  /** What there is to choose from; keeps what was chosen. */
  offer({ presets, fields, operators, ranges, expression_length: length }) {
    this.presets = presets;
    if (this.preset.children.length === 1) {
      const options = [...presets.map(({ name, text }) => [name, text]), [CUSTOM, 'Custom']];
      this.preset.append(...options.map(([value, text]) => {
        const input = make('input', { type: 'radio', name: 'build-preset', value });
        input.addEventListener('input', () => this.choose(value));
        return make('label', { className: 'check' }, input, make('span', { textContent: text }));
      }));
      this.mark(presets[0].name);
      this.expression.explain(fields, operators, length);
    }
    this.drop.range(ranges.drop);
    this.residual.range(ranges.residual);
    for (const bound of [this.areaMin, this.areaMax]) bound.range(ranges.area && [0, 1]);
  }

  get chosen() {
    return this.preset.querySelector('input:checked')?.value ?? CUSTOM;
  }

  mark(name) {
    for (const input of this.preset.querySelectorAll('input')) input.checked = input.value === name;
  }

  choose(name) {
    const preset = this.presets.find((one) => one.name === name);
    if (preset) this.fill(preset.rule);
    this.changed();
  }

  edited() {
    this.mark(CUSTOM);
    this.changed();
  }

  /** Show a rule, as a build stores it. */
  fill(rule) {
    this.verdicts.value = rule.verdicts;
    this.dropBound.value = rule.drop_at_least === null ? 'drop_above' : 'drop_at_least';
    this.drop.set(rule.drop_at_least ?? rule.drop_above);
    this.areaMin.set(rule.area_min);
    this.areaMax.set(rule.area_max);
    this.residual.set(rule.residual_max);
    this.auto.checked = rule.auto;
    this.expression.input.value = rule.expression;
  }

  /** The rule's fields as the server takes them. Throws a sentence when a number cannot be read. */
  rule() {
    this.clear();
    return {
      verdicts: this.verdicts.value,
      [this.dropBound.value]: this.drop.read(),
      area_min: this.areaMin.read(),
      area_max: this.areaMax.read(),
      residual_max: this.residual.read(),
      expression: this.expression.input.value,
      auto: this.auto.checked,
    };
  }

  clear() {
    for (const part of [...Object.values(this.bounds), this.expression]) part.blame('');
  }

  /** Say what the server refuses where it was typed; false when it is about no field of the form. */
  blame({ error, field: name, position }) {
    const part = name === 'expression' ? this.expression : this.bounds[name];
    part?.blame(error.replace(`${name}: `, ''), position);
    return Boolean(part);
  }
}

/** A number that may be left empty, with a slider whose loosest end stands for none. */
class Bound {
  constructor(id, name, loosest, edited) {
    this.name = name;
    this.loosest = loosest;
    this.text = make('input', { type: 'text', inputMode: 'decimal', placeholder: 'none', autocomplete: 'off' });
    this.slider = make('input', { type: 'range', ariaLabel: `${name}, slider`, disabled: true });
    this.fault = make('small', { className: 'fault', id: `${id}-fault`, hidden: true });
    this.text.setAttribute('aria-describedby', this.fault.id);
    this.text.addEventListener('input', () => {
      this.follow();
      edited();
    });
    this.slider.addEventListener('input', () => {
      this.text.value = this.slider.value === this.end() ? '' : String(Number(Number(this.slider.value).toPrecision(6)));
      this.speak();
      edited();
    });
    this.root = make('div', { id, className: 'bound' }, field(name, this.text), this.slider, this.fault);
  }

  /** The slider's ends; without candidates it cannot be moved. */
  range(ends) {
    this.slider.disabled = !ends;
    if (!ends) return;
    const [low, high] = ends;
    const rough = Math.max((high - low) / STEPS, 1e-6);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = Number((power * [1, 2, 5, 10].find((one) => one * power >= rough * 0.999)).toPrecision(3));
    this.slider.min = Number((Math.floor(low / step) * step).toPrecision(6));
    this.slider.max = Number((Math.ceil(high / step) * step).toPrecision(6));
    this.slider.step = step;
    this.follow();
  }

  end() {
    return this.loosest === 'lowest' ? this.slider.min : this.slider.max;
  }

  set(value) {
    this.text.value = value === null ? '' : String(value);
    this.follow();
  }

  follow() {
    const value = Number(this.text.value);
    this.slider.value = this.text.value.trim() === '' || Number.isNaN(value) ? this.end() : value;
    this.speak();
  }

  speak() {
    this.slider.setAttribute('aria-valuetext', this.text.value.trim() || 'none');
  }

  read() {
    const words = this.text.value.trim();
    if (!words) return null;
    const value = Number(words);
    if (Number.isFinite(value)) return value;
    const sentence = `“${words}” is not a number; write one such as 0.5, or leave it empty.`;
    this.blame(sentence);
    throw new SyntaxError(`${this.name}: ${sentence}`);
  }

  blame(sentence) {
    this.fault.hidden = !sentence;
    this.fault.textContent = sentence;
    this.text.setAttribute('aria-invalid', String(Boolean(sentence)));
  }
}

/** The free condition, with what it may say beside it. */
class ExpressionField {
  constructor(edited) {
    this.input = make('textarea', { rows: 2, spellcheck: false, placeholder: EXAMPLE });
    this.input.setAttribute('aria-describedby', 'build-where-fault');
    this.input.addEventListener('input', edited);
    this.place = make('code', { className: 'place' });
    this.sentence = make('span');
    this.fault = make('div', { className: 'fault', id: 'build-where-fault', hidden: true }, this.place, this.sentence);
    this.about = make('div', { className: 'language' });
    this.root = make('div', { id: 'build-where', className: 'expression' },
      field('And this condition', this.input), this.fault,
      make('details', {}, make('summary', { textContent: 'Fields and operators' }), this.about));
  }

  explain(fields, operators, length) {
    this.input.maxLength = length;
    const row = (name, meaning) => [make('dt', {}, make('code', { textContent: name })), make('dd', { textContent: meaning })];
    const list = (rows) => make('dl', {}, ...rows.flat());
    this.about.replaceChildren(
      list(fields.map(({ name, type, meaning, values }) => row(name, `${TYPE_TEXT[type]}: ${meaning}${values.length ? ` (${values.join(', ')})` : ''}`))),
      list(operators.map(([text, meaning]) => row(text, meaning))),
      make('p', { className: 'aside', textContent: 'A comparison with a value that is not known is neither true nor false, and leaves the candidate out.' }),
    );
  }

  /** position: the character from 0 where reading stopped. */
  blame(sentence, position = null) {
    this.fault.hidden = !sentence;
    this.input.setAttribute('aria-invalid', String(Boolean(sentence)));
    this.sentence.textContent = sentence;
    const text = this.input.value;
    this.place.hidden = position === null;
    if (position === null) return;
    const from = Math.max(0, position - 30);
    const word = /^(\w+|\S)?/.exec(text.slice(position))[0] || ' ';
    this.place.replaceChildren(from ? '…' : '', text.slice(from, position), make('mark', { textContent: word }), text.slice(position + word.length, position + word.length + 20));
  }
}
