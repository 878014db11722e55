// How far one is, how far all are, how fast, and how much longer: the server's counts, moved on by one's own verdicts.

import { request } from './review_api.js';
import { progressText } from './review_text.js';

const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
const ANSWERS = new Set(['accept', 'reject']);
const TODAY_KEY = 'imagenet-bg.review.today.';
const STATE_OF = { accept: 'accepted', reject: 'rejected', skip: 'skipped' };

export class Progress {
  /**
   * @param {HTMLElement} root the review page
   * @param {{filter: Filter, outbox: Outbox, verdicts: Verdicts}} parts
   */
  constructor(root, { filter, outbox, verdicts }) {
    this.root = root.querySelector('.progress');
    this.filter = filter;
    this.outbox = outbox;
    this.verdicts = verdicts;
    this.counts = null;
    this.generation = 0;
  }

  clear() {
    this.counts = null;
    this.generation += 1;
  }

  /** Ask the server. Returns whether it answered. */
  async load() {
    const { generation } = this;
    let counts;
    try {
      counts = await request(`/progress?${this.filter.query({ order: null })}`);
    } catch {
      return false; // the list says what is wrong; the counts stay as they were
    }
    if (generation !== this.generation) return false;
    this.counts = counts;
    for (const event of this.outbox.pending()) if (STATE_OF[event.verdict]) this.moved(null, event.verdict);
    this.show();
    this.showPeople();
    return true;
  }

  /** A verdict of one's own was given, changed or taken back here; null stands for none. */
  given(before, after) {
    const { day, count } = this.today();
    const now = Math.max(0, count + Boolean(after) - Boolean(before));
    localStorage.setItem(TODAY_KEY + this.outbox.owner, JSON.stringify({ day, count: now }));
    this.moved(before, after);
  }

  /** The verdicts that this browser has given since midnight. */
  today() {
    const day = new Date().toDateString();
    const kept = JSON.parse(localStorage.getItem(TODAY_KEY + this.outbox.owner) ?? 'null');
    return kept?.day === day ? kept : { day, count: 0 };
  }

  moved(before, after) {
    if (!this.counts || before === after) return;
    this.counts[STATE_OF[before] ?? 'unreviewed'] -= 1;
    this.counts[STATE_OF[after] ?? 'unreviewed'] += 1;
    this.counts.together.decided += ANSWERS.has(after) - ANSWERS.has(before);
    this.show();
  }

  show() {
    const { accepted, rejected, together } = this.counts;
    const text = progressText(this.counts, this.verdicts.pace, this.today().count);
    this.root.querySelector('.progress-text').textContent = text;
    const wanted = Math.max(1, together.wanted);
    const meter = this.root.querySelector('.meter');
    meter.setAttribute('aria-label', `Progress: ${text}`);
    meter.querySelector('.own').style.width = `${(100 * (accepted + rejected)) / wanted}%`;
    meter.querySelector('.overall').style.width = `${(100 * together.decided) / wanted}%`;
  }

  /** Everybody's counts, for somebody who does not judge blind, once there are others. */
  showPeople() {
    const people = this.counts?.annotators ?? [];
    const others = people.some(({ user_id: id }) => !this.outbox.owner?.endsWith(`:${id}`));
    this.root.querySelector('.people').hidden = !others;
    this.root.querySelector('.people tbody').replaceChildren(...people.map(personRow));
  }
}

function personRow({ name, accepted, rejected, skipped, median_seconds: seconds, last_decision_at: last }) {
  const row = document.createElement('tr');
  const head = Object.assign(document.createElement('th'), { scope: 'row', textContent: name });
  const texts = [accepted, rejected, skipped, seconds?.toFixed(1) ?? '–', last ? WHEN.format(new Date(last)) : '–'];
  row.append(head, ...texts.map((text) => Object.assign(document.createElement('td'), { textContent: text })));
  return row;
}
