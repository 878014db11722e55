// Which candidates are asked for, in which order. Kept for the tab, so that a reload shows the same list.

const KEY = 'imagenet-bg.review.filter';
const RETRY_MS = 5000;
const NOT_NARROWING = ['state', 'order'];
const RANGES = { drop: ['Drop', ''], residual: ['Residual', ''], area: ['Area', ' %'], p_accept: ['P(accept)', ''] };
const CHOICES = { class_index: '', kind: '', recipe: 'Recipe ', annotator: 'By ', verdict: 'Verdict: ' };
const SWITCHES = { disagreement: 'Annotators disagree', duplicates: 'Near-duplicates' };
const PERCENT = new Set(['area_min', 'area_max']); // asked of people in percent, of the server as a fraction

export class Filter {
  /**
   * @param {HTMLElement} root the review page
   * @param {Function} changed called when other candidates are asked for
   * @param {Function} leave called to give the focus back to the pictures
   */
  constructor(root, changed, leave) {
    this.form = root.querySelector('.filters');
    this.chips = root.querySelector('.chips');
    this.count = root.querySelector('.filters .count');
    this.changed = changed;
    this.leave = leave;
    this.byPointer = false;
    this.wanted = {}; // choices whose options are not there yet
    this.write(JSON.parse(sessionStorage.getItem(KEY) ?? '{}'));
    this.form.addEventListener('submit', (event) => event.preventDefault());
    this.form.addEventListener('change', () => this.apply());
    this.form.addEventListener('pointerdown', () => (this.byPointer = true));
    this.form.addEventListener('keydown', (event) => this.key(event));
    this.chips.addEventListener('click', (event) => this.remove(event.target.closest('button')));
  }

  get state() {
    return this.form.elements.state.value;
  }

  /** The filter and the order as the routes take them; what is not set is left out. */
  read() {
    const query = { ...this.wanted };
    for (const [name, text] of new FormData(this.form)) {
      if (text !== '') query[name] = PERCENT.has(name) ? String(Number((text / 100).toPrecision(12))) : text;
    }
    return query;
  }

  query(extra = {}) {
    const entries = Object.entries({ ...this.read(), ...extra });
    return new URLSearchParams(entries.filter(([, value]) => value !== null));
  }

  /** Fill the form from such a query, leaving nothing of the one before. */
  write(query) {
    this.form.reset();
    this.wanted = {};
    for (const [name, value] of Object.entries(query)) {
      const field = this.form.elements[name];
      if (!field) continue;
      if (field.type === 'checkbox') {
        field.checked = String(value) === 'true';
        continue;
      }
      field.value = PERCENT.has(name) ? String(Number((value * 100).toPrecision(12))) : value;
      if (field.value === '') this.wanted[name] = String(value);
    }
    this.showChips();
  }

  /** Ask for what a saved view holds. */
  use(query) {
    this.write(query);
    this.apply();
  }

  /** Whether anything but the state restricts the list. */
  narrows() {
    return Object.keys(this.read()).some((name) => !NOT_NARROWING.includes(name));
  }

  clear() {
    this.use({});
  }

  apply() {
    for (const name of Object.keys(RANGES)) this.checkRange(name);
    if (!this.form.reportValidity()) return;
    for (const name of Object.keys(this.wanted)) if (this.form.elements[name].value !== '') delete this.wanted[name];
    this.keep();
    this.showChips();
    // Who chose with the pointer wants the keys back; who walks by keyboard must keep their place.
    const chosen = document.activeElement instanceof HTMLSelectElement && !document.activeElement.closest('.popover');
    if (this.byPointer && chosen) this.leave();
    this.byPointer = false;
    this.changed();
  }

  keep() {
    sessionStorage.setItem(KEY, JSON.stringify(this.read()));
  }

  checkRange(name) {
    const [low, high] = ['min', 'max'].map((end) => this.form.elements[`${name}_${end}`]);
    const crossed = low.value !== '' && high.value !== '' && Number(low.value) > Number(high.value);
    high.setCustomValidity(crossed ? `Not below the ${low.value} it starts from.` : '');
  }

  key(event) {
    this.byPointer = false;
    if (event.target.closest('.popover')) return; // closes by itself
    if (event.key !== 'Escape') return;
    event.preventDefault();
    event.stopPropagation();
    this.leave();
  }

  // ---- chips ----

  showChips() {
    const parts = [...this.rangeChips(), ...this.choiceChips()];
    this.chips.replaceChildren(...parts.map(([text, names]) => chip(text, names)));
    const hidden = parts.filter(([, names]) => !names.includes('class_index')).length;
    this.count.textContent = hidden ? ` (${hidden})` : '';
  }

  rangeChips() {
    const parts = [];
    for (const [name, [title, unit]] of Object.entries(RANGES)) {
      const [low, high] = ['min', 'max'].map((end) => this.form.elements[`${name}_${end}`].value);
      if (low === '' && high === '') continue;
      const bounds = high === '' ? `≥ ${low}` : low === '' ? `≤ ${high}` : `${low} to ${high}`;
      parts.push([`${title} ${bounds}${unit}`, [`${name}_min`, `${name}_max`]]);
    }
    return parts;
  }

  choiceChips() {
    const parts = [];
    for (const [name, before] of Object.entries(CHOICES)) {
      const { value, selectedOptions } = this.form.elements[name];
      if (value !== '') parts.push([before + (selectedOptions[0].dataset.name ?? selectedOptions[0].text), [name]]);
    }
    for (const [name, text] of Object.entries(SWITCHES)) if (this.form.elements[name].checked) parts.push([text, [name]]);
    return parts;
  }

  remove(button) {
    if (!button) return;
    for (const name of button.dataset.names.split(' ')) {
      const field = this.form.elements[name];
      if (field.type === 'checkbox') field.checked = false;
      else field.value = '';
    }
    this.apply();
    this.leave();
  }

  // ---- choices that the workspace holds ----

  /**
   * Offer further choices in a select; one chosen before they were there is chosen again.
   * @param {string} name of the field
   * @param {Function} fetchChoices gives [value, text, name for the chip] for each
   */
  async offer(name, fetchChoices) {
    const select = this.form.elements[name];
    let choices;
    try {
      choices = await fetchChoices();
    } catch (error) {
      if (!error.status) this.timer = setTimeout(() => this.offer(name, fetchChoices), RETRY_MS);
      return;
    }
    this.add(select, choices);
  }

  /** Who else has judged; null for somebody who judges blind and is not asked. */
  offerOthers(annotators) {
    if (!annotators) return;
    this.form.querySelector('.of-others').hidden = false;
    const select = this.form.elements.annotator;
    const known = new Set(Array.from(select.options, (option) => option.value));
    const others = annotators.filter(({ user_id }) => !known.has(String(user_id)));
    this.add(select, others.map(({ user_id, name }) => [user_id, name, name]));
  }

  add(select, choices) {
    const { name } = select;
    const options = choices.map(([value, text, short]) => {
      const option = new Option(text, value);
      option.dataset.name = short;
      return option;
    });
    select.append(...options);
    const value = this.wanted[name];
    if (value === undefined) return;
    delete this.wanted[name];
    select.value = options.some((option) => option.value === value) ? value : '';
    this.showChips();
    if (select.value === '') this.apply();
  }

  destroy() {
    clearTimeout(this.timer);
  }
}

function chip(text, names) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'chip';
  button.dataset.names = names.join(' ');
  button.setAttribute('aria-label', `${text}: take this filter off`);
  const cross = document.createElement('span');
  cross.setAttribute('aria-hidden', 'true');
  cross.textContent = '×';
  button.append(text, cross);
  return button;
}
