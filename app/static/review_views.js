// Saved views: a filter and an order under a name, one's own or everybody's.

import { request } from './review_api.js';
import { Popover } from './review_popover.js';

export class Views {
  /**
   * @param {HTMLElement} root the review page
   * @param {Filter} filter
   * @param {Function} note shows a sentence
   */
  constructor(root, filter, note, signal) {
    this.root = root.querySelector('.views-menu');
    this.filter = filter;
    this.note = note;
    this.list = this.root.querySelector('.views-list');
    this.form = this.root.querySelector('.views-save');
    this.popover = new Popover(root, 'views', { opened: () => this.load(), signal });
    this.form.addEventListener('submit', (event) => this.save(event));
    this.list.addEventListener('click', (event) => this.click(event.target.closest('button')));
    this.load();
  }

  async load() {
    const views = await this.ask('/views');
    if (!views) return;
    this.root.hidden = false;
    this.views = views;
    this.root.querySelector('.views-none').hidden = views.length > 0;
    this.list.replaceChildren(...views.map((view) => this.row(view)));
  }

  row(view) {
    const row = document.createElement('li');
    const apply = button(view.name, 'apply', view.id);
    row.append(apply);
    const about = view.mine ? (view.shared ? 'for everybody' : '') : `by ${view.owner}`;
    if (about) row.append(Object.assign(document.createElement('span'), { className: 'views-about', textContent: about }));
    if (view.mine) {
      const remove = button('Delete', 'delete', view.id);
      remove.setAttribute('aria-label', `Delete the view ${view.name}`);
      row.append(remove);
    }
    return row;
  }

  async click(pressed) {
    const view = this.views?.find((other) => String(other.id) === pressed?.dataset.id);
    if (!view) return;
    if (pressed.dataset.does === 'apply') {
      this.popover.toggle(false);
      this.filter.use(view.query);
      this.filter.leave();
      this.note(`View: ${view.name}.`);
    } else if (await this.ask(`/views/${view.id}`, { method: 'DELETE' }, true)) {
      await this.load();
      this.form.elements.name.focus();
    }
  }

  async save(event) {
    event.preventDefault();
    const { name, shared } = this.form.elements;
    const body = { name: name.value.trim(), query: this.filter.read(), shared: shared.checked };
    if (!(await this.ask('/views', { method: 'POST', body }))) return;
    this.form.reset();
    await this.load();
    this.note(`Saved as ${body.name}.`);
  }

  /** The answer, or undefined after a sentence about what went wrong; true for an empty answer if that is enough. */
  async ask(path, options, emptyWillDo = false) {
    const problem = this.root.querySelector('.views-problem');
    problem.textContent = '';
    try {
      return (await request(path, options)) ?? emptyWillDo;
    } catch (error) {
      problem.textContent = error.message;
      return undefined;
    }
  }
}

function button(text, does, id) {
  const element = Object.assign(document.createElement('button'), { type: 'button', textContent: text });
  element.dataset.does = does;
  element.dataset.id = id;
  return element;
}
