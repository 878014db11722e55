// Which candidates are asked for. Kept for the tab, so that a reload shows the same list.

const KEY = 'imagenet-bg.review.filter';
const RETRY_MS = 5000;

export class Filter {
  /**
   * @param {HTMLFormElement} form
   * @param {Function} changed called when other candidates are asked for
   * @param {Function} leave called to give the focus back to the pictures
   */
  constructor(form, changed, leave) {
    this.form = form;
    this.changed = changed;
    this.leave = leave;
    this.byPointer = false;
    const saved = JSON.parse(sessionStorage.getItem(KEY) ?? '{}');
    for (const [name, value] of Object.entries(saved)) {
      if (form.elements[name]) form.elements[name].value = value;
    }
    this.savedClass = saved.class_index;
    form.addEventListener('submit', (event) => event.preventDefault());
    form.addEventListener('change', () => this.apply());
    form.addEventListener('pointerdown', () => (this.byPointer = true));
    form.addEventListener('keydown', (event) => this.key(event));
  }

  get state() {
    return this.form.elements.state.value;
  }

  query(extra = {}) {
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries({ ...Object.fromEntries(new FormData(this.form)), ...extra })) {
      if (value !== '' && value !== null) parameters.set(name, value);
    }
    return parameters;
  }

  /** Whether anything but the state restricts the list. */
  narrows() {
    return this.query({ order: null, state: null }).size > 0;
  }

  clear() {
    this.form.reset();
    this.apply();
  }

  apply() {
    if (!this.form.reportValidity()) return;
    sessionStorage.setItem(KEY, JSON.stringify(Object.fromEntries(new FormData(this.form))));
    // Who chose with the pointer wants the keys back; who walks by keyboard must keep their place.
    if (this.byPointer && document.activeElement instanceof HTMLSelectElement) this.leave();
    this.byPointer = false;
    this.changed();
  }

  key(event) {
    this.byPointer = false;
    if (event.key !== 'Escape' && !(event.key === 'Enter' && event.target.matches('input'))) return;
    event.preventDefault();
    event.stopPropagation();
    this.leave();
  }

  /** Offer the classes that have candidates; a class chosen before the reload is chosen again. */
  async loadClasses(fetchClasses) {
    const select = this.form.elements.class_index;
    try {
      const options = (await fetchClasses()).map((entry) => new Option(`${entry.name} (${entry.candidates})`, entry.class_index));
      select.append(...options);
    } catch {
      this.timer = setTimeout(() => this.loadClasses(fetchClasses), RETRY_MS);
      return;
    }
    if (!this.savedClass) return;
    select.value = this.savedClass;
    if (select.value) this.changed();
    else select.value = '';
  }

  destroy() {
    clearTimeout(this.timer);
  }
}
