// The candidates asked for, as far as they are fetched, and where in them one is.

import { request } from './review_api.js';

const PAGE = 60;
const AGAIN_MS = 2000;

export class CandidateList {
  /**
   * @param {Filter} filter which candidates, in which order
   * @param {Outbox} outbox verdicts the server does not know of yet
   * @param {string} tab under which name candidates are leased
   * @param {{owner: Function, arrived: Function}} listeners owner(text) with the first page; arrived(changesWhatIsShown)
   */
  constructor(filter, outbox, tab, listeners) {
    this.filter = filter;
    this.outbox = outbox;
    this.tab = tab;
    this.listeners = listeners;
    this.ahead = 25; // fetch more when fewer are left; the view that is open sets it
    this.onScreen = 1; // candidates shown at once, from the position on
    this.generation = 0;
    this.stopped = false;
    this.clear();
  }

  clear() {
    this.generation += 1;
    this.items = [];
    this.position = 0;
    this.frontier = 0; // the first one that was not reached yet
    this.cursor = null;
    this.exhausted = false;
    this.failed = '';
    this.loading = null;
    clearTimeout(this.timer);
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  get current() {
    return this.items[this.position];
  }

  atEnd() {
    return this.position >= this.items.length;
  }

  refill() {
    this.loading ??= this.fetchPage(this.generation).finally(() => (this.loading = null));
    return this.loading;
  }

  refillIfShort() {
    if (!this.exhausted && this.items.length - this.position < this.ahead) this.refill();
  }

  async fetchPage(generation) {
    let page;
    try {
      page = await request(`/queue?${this.filter.query({ cursor: this.cursor, limit: PAGE, tab: this.tab })}`);
    } catch (error) {
      if (generation === this.generation) this.fail(error);
      return;
    }
    if (generation !== this.generation || this.stopped) return;
    this.failed = '';
    this.listeners.owner(page.owner);
    const shownUpTo = this.items.length;
    this.items.push(...this.unknown(page.items));
    this.cursor = page.cursor;
    this.exhausted = page.cursor === null;
    this.listeners.arrived(this.position >= shownUpTo);
    setTimeout(() => this.refillIfShort(), 0);
  }

  /** Those not in the list yet, and not judged by a verdict that is still on its way. */
  unknown(items) {
    const waiting = new Map(this.outbox.pending().map((event) => [event.candidate_id, event.verdict]));
    const known = new Set(this.items.map((item) => item.id));
    const onTheWay = (item) => this.filter.state === 'unreviewed' && (waiting.get(item.id) ?? 'undo') !== 'undo';
    return items.filter((item) => !known.has(item.id) && !onTheWay(item));
  }

  fail(error) {
    this.failed = error.message;
    this.listeners.arrived(this.atEnd());
    const mayPass = !error.status || error.status >= 500;
    if (mayPass) this.timer = setTimeout(() => this.failed && this.refill(), AGAIN_MS);
  }

  /** At the end of the list: look from its start for what was made, given back or passed over meanwhile. */
  lookForMore() {
    if (!this.exhausted || this.filter.state !== 'unreviewed' || this.outbox.pending().length) return;
    this.cursor = null;
    this.exhausted = false;
    this.refill();
  }

  /** The list's own object for a candidate; one that is not in it comes in at the current place. */
  adopt(item) {
    const index = this.items.findIndex((other) => other.id === item.id);
    if (index >= 0) return this.items[index];
    this.items.splice(Math.min(this.position, this.items.length), 0, item);
    return item;
  }

  /** The candidates whose lease this tab still needs: those on screen and those to come. */
  open() {
    if (this.filter.state !== 'unreviewed') return []; // nothing else is leased
    return this.items.slice(this.position).filter((item) => !item.verdict);
  }

  /** Take out candidates that went to somebody else, but none that is on screen or was already. */
  drop(ids) {
    const gone = new Set(ids);
    const reached = this.position + this.onScreen;
    this.items = this.items.filter((item, index) => index < reached || item.verdict || !gone.has(item.id));
  }
}
