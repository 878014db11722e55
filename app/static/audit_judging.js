// Judging an audit's sample blind: the pictures alone, L when any of the object is left, N when nothing is.

import { RequestFailed, ask } from './review_api.js';
import { REASON_TEXT } from './review_markup.js';
import { makeUuid } from './review_outbox.js';
import { Board, ReasonButtons, listen } from './judging_board.js';
import { Sender, button, make, whole } from './judging.js';

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
    this.sender = new Sender(this.root, (text) => this.listeners.say(text, 'bad'));
    listen(this.root, (event, key) => this.key(event, key));
  }

  /** Judge what is open of an audit; for a second reading, what one has not judged oneself. */
  async start(auditId, { second = false } = {}) {
    this.auditId = auditId;
    this.second = second;
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

  /** Once everything has arrived. */
  async leave() {
    await this.sender.last;
    this.root.hidden = true;
    this.listeners.ended();
  }

  /** All are judged; unless one comes back refused. */
  async finish() {
    this.count.textContent = 'That was the last one.';
    this.facts.replaceChildren();
    if (this.second && !this.items.length) this.listeners.say('Nothing is left for a second reading: you have judged all of it yourself.');
    await this.sender.last;
    if (!this.current) await this.leave();
  }

  async fetchPage() {
    if (this.exhausted || this.fetching) return;
    this.fetching = true;
    try {
      const query = new URLSearchParams({ after: this.after, limit: PAGE, second_reading: this.second });
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
      this.finish();
      return;
    }
    const judged = this.judged + this.given.size;
    this.count.textContent = this.second
      ? `Second reading: ${whole(this.given.size)} judged`
      : `${whole(judged)} of ${whole(this.drawn)} judged`;
    this.bar.hidden = this.second;
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
    if (!this.position) return;
    this.position -= 1;
    this.show();
  }

  /** Only over what was judged before: a sample is judged to the end. */
  forward() {
    if (!this.given.has(this.current?.id)) return;
    this.position += 1;
    this.show();
  }

  give(left, reasons) {
    const item = this.current;
    if (!item) return;
    if (!this.board.seen()) {
      this.listeners.say('The result has not arrived yet.');
      return;
    }
    const judgement = { uuid: makeUuid(), candidate_id: item.id, result_sha256: item.sha256, object_left: left, reasons };
    this.send(item, judgement);
    this.given.set(item.id, { left, reasons });
    this.position += 1;
    this.show();
  }

  send(item, judgement) {
    const { auditId } = this;
    this.sender.send(
      async () => {
        const [answer] = await ask(`/api/audits/${auditId}/judgements`, { method: 'POST', body: { judgements: [judgement] } });
        if (answer.status === 'refused') throw new RequestFailed(answer.error, 422);
      },
      (error) => {
        this.given.delete(item.id);
        this.position = this.items.indexOf(item);
        this.show();
        this.listeners.say(`${error.message} Judge it again.`, 'bad');
      },
    );
  }
}
