// The Adjudication page: each candidate that annotators disagree on, with what they say, until one word is final.

import { Board, ReasonButtons, listen } from './judging_board.js';
import { Sender, button, emptyState, field, isSeen, make, plural, voice, whenShown, whole } from './judging.js';
import { request } from './review_api.js';
import { verdictText } from './review_markup.js';
import { makeUuid } from './review_outbox.js';

const PAGE = 50;
const AHEAD = 12;

/** Fill the element with the page, afresh each time it comes into view. */
export function mount(element) {
  if (!element || element.page) return;
  element.page = new Adjudication(element);
}

class Adjudication {
  constructor(root) {
    this.root = root;
    root.classList.add('judging');
    this.words = voice();
    this.sender = new Sender(root, (text) => this.words.say(text, 'bad'));
    this.board = new Board();
    this.reasons = new ReasonButtons((reasons) => this.give('reject', reasons));
    this.reasons.root.hidden = true;
    this.count = make('p', { className: 'count', ariaLive: 'polite' });
    this.facts = make('p', { className: 'facts' });
    this.opinions = make('ul', { className: 'opinions', ariaLabel: 'What the annotators say' });
    this.note = make('input', { maxLength: 2000, placeholder: 'optional' });
    this.skips = make('input', { type: 'checkbox' });
    this.skips.addEventListener('change', () => this.load());
    this.none = make('div');
    this.content = make('div', { className: 'judge', hidden: true }, this.board.root, this.facts, this.opinions, this.controls());
    root.replaceChildren(
      this.words.element,
      make('div', { className: 'judge-line' }, this.count,
        make('label', { className: 'check' }, this.skips, 'also where some skipped and others did not')),
      this.content,
      this.none,
    );
    this.reset();
    listen(root, (event, key) => this.key(key));
    whenShown(root, () => this.sender.waiting || this.load());
  }

  controls() {
    this.verdicts = make(
      'div',
      { className: 'verdicts' },
      button('[A] Accept', () => this.give('accept', []), { className: 'accept' }),
      button('[R] Reject …', () => this.toggleReasons(), { className: 'reject', ariaExpanded: 'false' }),
      button('[U] Undo', () => this.undo()),
      button('[←] Back', () => this.go(-1)),
      button('[→] Forward', () => this.go(1)),
      ...this.board.views,
    );
    return make('div', { className: 'judge-controls' }, this.verdicts, field('Note', this.note), this.reasons.root);
  }

  reset() {
    this.items = [];
    this.position = 0;
    this.decided = new Map(); // by candidate: what was decided here
    this.done = []; // candidates in the order they were decided, for undo
    this.total = 0;
    this.cursor = null;
  }

  async load() {
    try {
      const page = await this.fetchPage(null);
      this.reset();
      this.take(page);
      this.total = page.total;
    } catch (error) {
      this.words.say(error.message, 'bad');
      return;
    }
    this.words.say('');
    this.show();
  }

  fetchPage(cursor) {
    const query = new URLSearchParams({ limit: PAGE, skips: this.skips.checked });
    if (cursor !== null) query.set('cursor', cursor);
    return request(`/adjudication?${query}`);
  }

  take(page) {
    this.items.push(...page.items.map(({ item, opinions }) => ({ ...item, opinions })));
    this.cursor = page.cursor;
  }

  async more() {
    if (this.cursor === null || this.items.length - this.position > AHEAD || this.fetching) return;
    this.fetching = true;
    const shown = this.position < this.items.length;
    try {
      this.take(await this.fetchPage(this.cursor));
    } catch (error) {
      this.words.say(error.message, 'bad');
    } finally {
      this.fetching = false;
    }
    if (!shown) this.show();
  }

  get current() {
    return this.items[this.position];
  }

  show() {
    const item = this.current;
    const open = this.total - this.decided.size;
    this.count.textContent = this.total ? `${plural(open, 'disagreement')} open · ${whole(this.decided.size)} decided just now` : '';
    this.content.hidden = !item;
    this.none.replaceChildren(...(item ? [] : [this.nothing(open)]));
    this.closeReasons();
    this.more();
    if (!item) return;
    this.board.show(this.items, this.position);
    const version = item.version > 1 ? ` · version ${item.version}` : '';
    this.facts.textContent = `${item.class_name} · ${item.source_name} · drop ${item.drop.toFixed(2)}${version}`;
    this.opinions.replaceChildren(
      ...item.opinions.map((opinion) =>
        make('li', { dataset: { verdict: opinion.verdict } }, make('strong', { textContent: opinion.annotator }), ' ', verdictText(opinion))),
      ...this.finalWord(item),
    );
  }

  finalWord(item) {
    const given = this.decided.get(item.id);
    return given ? [make('li', { className: 'final', dataset: { verdict: given.verdict } }, make('strong', { textContent: 'your final word' }), ' ', verdictText(given))] : [];
  }

  nothing(open) {
    const again = button('Look again', () => this.load());
    if (this.decided.size) {
      const text = open ? `${plural(open, 'disagreement')} passed over without a word.` : 'Undo brings the last one back. Builds follow what you decided.';
      const state = emptyState(open ? 'That was the last one.' : 'Every disagreement is decided.', text);
      state.append(make('p', { className: 'actions' }, button('[U] Undo', () => this.undo()), again));
      return state;
    }
    if (this.items.length) {
      const state = emptyState('That was the last one.', `${plural(open, 'disagreement')} passed over without a word.`);
      state.append(make('p', { className: 'actions' }, again));
      return state;
    }
    return emptyState(
      'No disagreement',
      'Annotators can only disagree on candidates that several of them judge. Set an overlap on Agreement, then let two or more review.',
      'agreement',
      'Go to Agreement',
    );
  }

  key({ action, reason, more }) {
    if (reason !== undefined && !this.reasons.root.hidden) this.reasons.pick(reason, more);
    else if (action === 'accept') this.give('accept', []);
    else if (action === 'reject') this.toggleReasons();
    else if (action === 'send') this.reasons.finish();
    else if (action === 'escape') this.closeReasons();
    else if (action === 'undo') this.undo();
    else if (action === 'left') this.go(-1);
    else if (action === 'right') this.go(1);
    else if (action === 'flicker' || action === 'mask') this.board.toggle(action);
    else return false;
    return true;
  }

  toggleReasons() {
    if (!this.current) return;
    if (!this.reasons.root.hidden) return this.closeReasons();
    this.reasons.root.hidden = false;
    this.verdicts.querySelector('.reject').ariaExpanded = 'true';
  }

  closeReasons() {
    this.reasons.clear();
    this.reasons.root.hidden = true;
    this.verdicts.querySelector('.reject').ariaExpanded = 'false';
  }

  go(step) {
    this.position = Math.max(0, Math.min(this.items.length, this.position + step));
    this.show();
  }

  give(verdict, reasons) {
    const item = this.current;
    if (!item) return;
    if (!this.board.seen()) {
      this.words.say('The result has not arrived yet.');
      return;
    }
    this.send({ candidate_id: item.id, verdict, reasons, note: this.note.value, result_sha256: item.sha256 });
    this.note.value = '';
    this.decided.set(item.id, { verdict, reasons });
    this.done = [...this.done.filter((id) => id !== item.id), item.id];
    this.position += 1;
    this.show();
  }

  undo() {
    const id = this.done.at(-1);
    if (id === undefined) {
      if (isSeen(this.root)) this.words.say('There is nothing to undo.');
      return;
    }
    this.send({ candidate_id: id, verdict: 'undo' });
    this.takeBack(id);
  }

  /** Show it as open again. */
  takeBack(id) {
    this.done = this.done.filter((other) => other !== id);
    this.decided.delete(id);
    this.position = this.items.findIndex((item) => item.id === id);
    this.show();
  }

  send(word) {
    const body = { uuid: makeUuid(), ...word };
    this.sender.send(
      () => request('/adjudication', { method: 'POST', body }),
      (error) => {
        this.takeBack(body.candidate_id);
        this.words.say(`${error.message} This one is open again.`, 'bad');
      },
    );
  }
}
