// What the pages Adjudication, Agreement, Triage, Audit and Duplicates share: elements, requests that are made until
// they are answered, tables and messages. Data enters the document as text only.

import { RequestFailed } from './review_api.js';
import { REASONS } from './review_markup.js';

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 8000;
const SVG = 'http://www.w3.org/2000/svg';

/** An element with properties (those of ARIA and data too) and children; null children are left out. */
export function make(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, dataset);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** An SVG element with attributes. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A button that does one thing; words may begin with a key in brackets: "[A] Accept". */
export function button(words, act, properties = {}) {
  const [, key, text] = /^(?:\[(.+?)\] )?(.*)$/.exec(words);
  const made = make('button', { type: 'button', ...properties }, key ? make('kbd', { textContent: key }) : null, text);
  made.addEventListener('click', act);
  return made;
}

/** A label around its field. */
export function field(text, input, about = '') {
  return make('label', {}, make('span', { textContent: text }), input, about ? make('small', { textContent: about }) : null);
}

export function select(options, properties = {}) {
  const made = make('select', properties);
  made.append(...options.map(([value, text]) => make('option', { value, textContent: text })));
  return made;
}

/** A field for a number; wide enough for what it may hold. */
export function number(value, min, max, step = 1) {
  return make('input', { type: 'number', value, min, max, step, required: true });
}

/** Call load now and whenever the element comes into view again. */
export function whenShown(root, load) {
  new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && load()).observe(root);
}

/** Whether somebody is looking at the element. */
export function isSeen(root) {
  return root.isConnected && root.offsetParent !== null && !document.hidden;
}

/** A place for a sentence. say(text, tone) shows and speaks it; tone is info, good or bad. */
export function voice() {
  const element = make('p', { className: 'notice', hidden: true });
  const say = (text, tone = 'info') => {
    element.hidden = !text;
    element.className = `notice ${tone}`;
    element.setAttribute('role', tone === 'bad' ? 'alert' : 'status');
    element.textContent = text;
  };
  return { element, say };
}

/** What stands where there is nothing yet: what to do next, and where. */
export function emptyState(title, text, page = '', link = '') {
  const onward = page ? make('p', {}, make('a', { className: 'button-link', href: `#${page}`, textContent: link })) : null;
  return make('div', { className: 'empty-state' }, make('h3', { textContent: title }), make('p', { textContent: text }), onward);
}

/** A table; cells are text or elements. The first cell of a row is its header. */
export function table(caption, headers, rows, numeric = []) {
  const kind = (index) => ({ className: numeric.includes(index) ? 'number' : '' });
  const head = headers.map((text, index) => make('th', { scope: 'col', textContent: text, ...kind(index) }));
  const body = rows.map((cells) =>
    make('tr', {}, ...cells.map((cell, index) =>
      index === 0 ? make('th', { scope: 'row' }, cell) : make('td', kind(index), cell))));
  return make(
    'div',
    { className: 'table-frame', tabIndex: 0, role: 'region', ariaLabel: caption },
    make('table', {}, make('caption', { textContent: caption }), make('thead', {}, make('tr', {}, ...head)), make('tbody', {}, ...body)),
  );
}

export function heading(text) {
  return make('h3', { className: 'section-title', textContent: text });
}

export const whole = (count) => count.toLocaleString('en');
export const percent = (share, digits = 1) => (share === null ? '–' : `${(100 * share).toFixed(digits)} %`);
export const moment = (text) => (text ? new Date(text).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' }) : '–');
export const plural = (count, one, many = `${one}s`) => `${whole(count)} ${count === 1 ? one : many}`;

/** The seven reasons to choose one of. */
export function reasonChoice(properties = {}) {
  return select(REASONS, properties);
}

/**
 * Do it until the server has answered: a verdict is not lost because the server is away for a while. tell(sentence) says
 * what is the matter, '' once it is over. Raises RequestFailed when the server refuses.
 */
export async function insist(act, tell) {
  for (let delay = FIRST_DELAY_MS; ; delay = Math.min(2 * delay, LONGEST_DELAY_MS)) {
    try {
      const answer = await act();
      tell('');
      return answer;
    } catch (error) {
      if (!(error instanceof RequestFailed) || (error.status && error.status < 500)) throw error;
      tell(`${error.message} What you chose is kept here and sent again until it arrives.`);
      await new Promise((done) => setTimeout(done, delay));
    }
  }
}

/**
 * Sends what was decided, in order and one request at a time, while the page goes on. The element's data-waiting counts
 * what has not arrived; leaving the page then asks first.
 */
export class Sender {
  /** tell(sentence) says what is the matter, '' once it is over. */
  constructor(element, tell) {
    this.element = element;
    this.tell = tell;
    this.inTrouble = false;
    this.last = Promise.resolve();
    this.waiting = 0;
    this.count(0);
    window.addEventListener('beforeunload', (event) => this.waiting && event.preventDefault());
  }

  /** act() makes the request; refused(error) is told when the server will not take it. */
  send(act, refused) {
    this.count(1);
    this.last = this.last.then(async () => {
      try {
        await insist(act, (text) => this.trouble(text));
      } catch (error) {
        refused(error);
      }
      this.count(-1);
    });
  }

  trouble(text) {
    if (text || this.inTrouble) this.tell(text);
    this.inTrouble = Boolean(text);
  }

  count(change) {
    this.waiting += change;
    this.element.dataset.waiting = this.waiting;
  }
}
