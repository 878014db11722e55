// Judging an audit's sample blind: the pictures alone, L when any of the object is left, N when nothing is.

import { ask } from './review_api.js';
import { REASON_TEXT } from './review_markup.js';
import { makeUuid } from './review_outbox.js';
import { Board, ReasonButtons, listen } from './judging_board.js';
import { button, insist, make, whole } from './judging.js';

const AHEAD = 12;
const PAGE = 40;

export class Judging {
  /** @param {{say: Function, ended: Function}} listeners say(sentence, tone); ended() when there is no more to judge */
  constructor(listeners) {
    this.listeners = listeners;
    this.board = new Board();
    this.reasons = new ReasonButtons((reasons) => this.give(true, reasons));
    this.count = make('p', { className: 'count', ariaLive: 'polite' });
    this.facts = make('p', { className: 'facts' });
    this.bar = make('progress', { ariaLabel: 'Judged' });
    const verdicts = make(
      'div',
      { className: 'verdicts' },
      button('[L] Object left', () => this.give(true, []), { className: 'reject' }),
      button('[N] Nothing left', () => this.give(false, []), { className: 'accept' }),
      button('[U] Back to the last', () => this.back()),
      ...this.board.views,
      button('Stop for now', () => this.leave()),
    );
    this.root = make(
      'section',
      { className: 'judge', hidden: true, ariaLabel: 'Judge the sample' },
      make('div', { className: 'judge-line' }, this.count, this.bar),
      this.board.root,
      this.facts,
      make('div', { className: 'judge-controls' }, verdicts,
        make('p', { className: 'aside', textContent: 'Something left, and of this sort (optional; Shift picks several, Enter sends):' }),
        this.reasons.root),
    );
    listen(this.root, (event, key) => this.key(event, key));
  }

  /** Judge what is open of an audit. */
  async start(auditId) {
    this.auditId = auditId;
    this.items = [];
    this.position = 0;
    this.given = new Map();
    this.after = -1;
    this.exhausted = false;
    this.root.hidden = false;
    this.root.scrollIntoView({ block: 'start' });
    await this.fetchPage();
    this.show();
  }

  leave() {
    this.root.hidden = true;
    this.listeners.ended();
  }

  async fetchPage() {
    if (this.exhausted || this.fetching) return;
    this.fetching = true;
    try {
      const query = new URLSearchParams({ after: this.after, limit: PAGE });
      const page = await ask(`/api/audits/${this.auditId}/next?${query}`);
      if (!this.items.length) [this.drawn, this.judged] = [page.drawn, page.judged];
      this.items.push(...page.items.map((item) => ({ ...item, id: item.candidate_id })));
      this.exhausted = page.items.length < PAGE;
      this.after = page.items.at(-1)?.position ?? this.after;
    } catch (error) {
      this.listeners.say(error.message, 'bad');
    } finally {
      this.fetching = false;
    }
  }

  get current() {
    return this.items[this.position];
  }

  async show() {
    if (!this.current && !this.exhausted) await this.fetchPage();
    const item = this.current;
    if (!item) {
      this.leave();
      return;
    }
    const judged = this.judged + this.given.size;
    this.count.textContent = `${whole(judged)} of ${whole(this.drawn)} judged`;
    this.bar.max = this.drawn;
    this.bar.value = judged;
    this.board.show(this.items, this.position);
    this.reasons.clear();
    const before = this.given.get(item.id);
    const said = before ? ` · you said: ${before.left ? ['object left', ...before.reasons.map((one) => REASON_TEXT[one])].join(', ') : 'nothing left'}` : '';
    this.facts.replaceChildren('Is anything left of the ', make('strong', { textContent: item.class_name }), `?${said}`);
    if (this.items.length - this.position < AHEAD) this.fetchPage();
  }

  key(event, { action, reason, more }) {
    const letter = event.key.toLowerCase();
    if (letter === 'l' || letter === 'n') this.give(letter === 'l', []);
    else if (reason !== undefined) this.reasons.pick(reason, more);
    else if (action === 'send') this.reasons.finish();
    else if (action === 'escape') this.reasons.clear();
    else if (action === 'undo' || action === 'left') this.back();
    else if (action === 'right') this.forward();
    else if (action === 'flicker' || action === 'mask') this.board.toggle(action);
    else return false;
    return true;
  }

  back() {
    if (this.busy || !this.position) return;
    this.position -= 1;
    this.show();
  }

  /** Only over what was judged before: a sample is judged to the end. */
  forward() {
    if (this.busy || !this.given.has(this.current.id)) return;
    this.position += 1;
    this.show();
  }

  async give(left, reasons) {
    const item = this.current;
    if (this.busy) return;
    if (!this.board.seen()) {
      this.listeners.say('The result has not arrived yet.');
      return;
    }
    this.busy = true;
    const judgement = { uuid: makeUuid(), candidate_id: item.id, result_sha256: item.sha256, object_left: left, reasons };
    try {
      const [answer] = await insist(
        () => ask(`/api/audits/${this.auditId}/judgements`, { method: 'POST', body: { judgements: [judgement] } }),
        (text) => this.listeners.say(text, 'bad'),
      );
      if (answer.status === 'refused') {
        this.listeners.say(answer.error, 'bad');
        return;
      }
      this.given.set(item.id, { left, reasons });
      this.position += 1;
    } catch (error) {
      this.listeners.say(error.message, 'bad');
      return;
    } finally {
      this.busy = false;
    }
    this.show();
  }
}
