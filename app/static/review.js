// The review page. What is seen changes at once; what is decided goes into a durable outbox and reaches the
// server when it can. The verdict names the candidate and the hash of the image that was on screen.

import { Filter } from './review_filter.js';
import { actionOf, isOurs } from './review_keys.js';
import { MARKUP, REASONS, VERDICTS } from './review_markup.js';
import { makeUuid, Outbox } from './review_outbox.js';
import { Ring } from './review_ring.js';
import { emptyText, progressText } from './review_text.js';

const API = '/api/review';
const PAGE = 60;
const REFILL_BELOW = 25;
const LOOK_AGAIN_MS = 10_000;
const COUNTS_MS = 60_000;
const TIMES_KEPT = 200;
const UNDO_DEPTH = 500;
const REASON_TEXT = Object.fromEntries(REASONS);
const STATE_OF = { accept: 'accepted', reject: 'rejected', skip: 'skipped' };

/** Build the page inside element; a second call replaces the first. */
export async function mount(element) {
  element.review?.destroy();
  await stylesheet();
  element.review = new Review(element);
}

function stylesheet() {
  const href = new URL('./review.css', import.meta.url).href;
  if (document.querySelector(`link[href="${href}"]`)) return Promise.resolve();
  const link = Object.assign(document.createElement('link'), { rel: 'stylesheet', href });
  return new Promise((done) => {
    link.onload = link.onerror = done;
    document.head.append(link);
  });
}

async function getJson(path) {
  const response = await fetch(API + path, { signal: AbortSignal.timeout(15_000) });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error ?? `error ${response.status}`);
  return body;
}

class Review {
  constructor(element) {
    element.classList.add('review-root');
    element.innerHTML = MARKUP;
    this.root = element;
    this.stage = this.find('.stage');
    this.ring = new Ring(this.stage);
    this.filter = new Filter(this.find('.filters'), () => this.reload(), () => this.stage.focus({ preventScroll: true }));
    this.outbox = new Outbox(`${API}/decisions`, {
      changed: (pending, problem) => this.showOutbox(pending, problem),
      refused: (event, sentence) => this.refused(event, sentence),
    });
    this.done = []; // what an undo takes back: {uuid, item, before}
    this.times = []; // of the verdicts, for the rate
    this.counts = null;
    this.lastReasons = null;
    this.picked = new Set();
    this.generation = 0;
    this.life = new AbortController();
    this.listen();
    this.reload();
    this.filter.loadClasses(() => getJson('/classes'));
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  destroy() {
    this.life.abort();
    clearInterval(this.countsTimer);
    clearInterval(this.againTimer);
    this.outbox.destroy();
    this.filter.destroy();
    this.ring.clear();
  }

  listen() {
    const { signal } = this.life;
    document.addEventListener('keydown', (event) => this.key(event), { signal });
    this.root.addEventListener('click', (event) => this.click(event), { signal });
    this.stage.addEventListener('pointermove', (event) => this.aim(event), { signal });
    this.stage.addEventListener('pointerdown', (event) => this.aim(event), { signal });
    this.countsTimer = setInterval(() => this.visible() && this.loadCounts(), COUNTS_MS);
    this.againTimer = setInterval(() => this.visible() && this.atEnd() && this.lookForMore(), LOOK_AGAIN_MS);
  }

  visible() {
    return this.root.isConnected && this.root.offsetParent !== null && document.visibilityState === 'visible';
  }

  // ---- the list ----

  /** Start the list anew with the filter as it is. */
  async reload() {
    this.generation += 1;
    this.items = [];
    this.position = 0;
    this.frontier = 0;
    this.cursor = null;
    this.exhausted = false;
    this.loading = null;
    this.ring.clear();
    this.closeReasons();
    this.render();
    this.loadCounts();
    await this.refill();
  }

  refill() {
    this.loading ??= this.fetchPage(this.generation).finally(() => (this.loading = null));
    return this.loading;
  }

  async fetchPage(generation) {
    let page;
    try {
      page = await getJson(`/queue?${this.filter.query({ cursor: this.cursor, limit: PAGE })}`);
    } catch (error) {
      if (generation === this.generation) this.loadFailed(error);
      return;
    }
    if (generation !== this.generation || this.life.signal.aborted) return;
    this.failed = '';
    if (this.outbox.owner !== page.owner) this.outbox.own(page.owner);
    const waiting = new Map(this.outbox.pending().map((event) => [event.candidate_id, event.verdict]));
    const known = new Set(this.items.map((item) => item.id));
    const unreviewed = this.filter.state === 'unreviewed';
    for (const item of page.items) {
      const verdict = waiting.get(item.id);
      if (known.has(item.id) || (unreviewed && verdict && verdict !== 'undo')) continue;
      this.items.push(item);
    }
    const wasAtEnd = this.position >= this.items.length - page.items.length;
    this.cursor = page.cursor;
    this.exhausted = page.cursor === null;
    if (wasAtEnd) this.render();
    else this.ring.prefetch(this.items, this.position);
    if (!this.exhausted && this.items.length - this.position < REFILL_BELOW) setTimeout(() => this.refill(), 0);
  }

  loadFailed(error) {
    this.failed = error instanceof TypeError || error.name === 'TimeoutError' ? 'The server does not answer.' : error.message;
    this.render();
    setTimeout(() => this.visible() && this.failed && this.refill(), 2000);
  }

  atEnd() {
    return this.position >= this.items.length;
  }

  /** At the end of the list: look from its start for what was made or passed over meanwhile. */
  lookForMore() {
    if (!this.exhausted || this.outbox.pending().length) return;
    if (this.filter.state !== 'unreviewed') return;
    this.cursor = null;
    this.exhausted = false;
    this.refill();
  }

  async loadCounts() {
    const { generation } = this;
    try {
      const counts = await getJson(`/progress?${this.filter.query({ order: null })}`);
      if (generation !== this.generation) return;
      this.counts = counts;
      for (const event of this.outbox.pending()) this.tally(null, STATE_OF[event.verdict]);
    } catch {
      return; // the list says what is wrong; the counts stay as they were
    }
    this.showProgress();
    if (this.atEnd()) this.showEmpty();
  }

  // ---- keys and buttons ----

  key(event) {
    if (!this.root.isConnected) {
      this.destroy();
      return;
    }
    if (!isOurs(event, this.root)) return;
    const open = !this.find('.reasons').hidden;
    if (event.key === 'Enter' && open && this.picked.size && !event.target.closest('.reasons')) {
      event.preventDefault();
      this.reject([...this.picked]);
      return;
    }
    const meant = actionOf(event);
    if (!meant || (meant.reason !== undefined && !open)) return;
    event.preventDefault();
    if (meant.reason !== undefined) this.reason(REASONS[meant.reason][0], meant.more);
    else this.act(meant.action);
  }

  click(event) {
    const button = event.target.closest('button');
    if (!button) return;
    if (button.dataset.reason) this.reason(button.dataset.reason, event.shiftKey);
    else if (button.dataset.action) this.act(button.dataset.action);
  }

  act(action) {
    switch (action) {
      case 'accept': case 'skip': return this.vote(action, []);
      case 'reject': return this.find('.reasons').hidden ? this.openReasons() : this.closeReasons();
      case 'again': return this.lastReasons ? this.reject(this.lastReasons) : this.openReasons();
      case 'undo': return this.undo();
      case 'back': return this.go(this.position - 1);
      case 'forward': return this.go(this.position + 1);
      case 'flicker': case 'mask': case 'zoom': return this.toggle(action);
      case 'legend': return this.legend(this.find('.legend').hidden);
      case 'escape': this.legend(false); return this.closeReasons();
      case 'cancel': return this.closeReasons();
      case 'retry': return this.outbox.retryNow();
      case 'reload': return this.reload();
      case 'clear': return this.filter.clear();
    }
  }

  toggle(view) {
    const button = this.find(`[data-action=${view}]`);
    const on = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', on);
    this.stage.classList.toggle(view === 'mask' ? 'no-mask' : view, view === 'mask' ? !on : on);
    if (view === 'flicker') this.find('.result-head').textContent = on ? 'Source, in the place of the result' : 'Result';
  }

  aim(event) {
    const picture = event.target.closest('.picture');
    if (!picture || !this.stage.classList.contains('zoom')) return;
    const box = picture.getBoundingClientRect();
    this.stage.style.setProperty('--aim-x', `${((event.clientX - box.left) / box.width) * 100}%`);
    this.stage.style.setProperty('--aim-y', `${((event.clientY - box.top) / box.height) * 100}%`);
  }

  legend(open) {
    this.find('.legend').hidden = !open;
    this.find('.views [data-action=legend]').setAttribute('aria-expanded', open);
  }

  openReasons() {
    if (this.atEnd()) return;
    this.picked.clear();
    this.showPicked();
    this.swapControls(true);
    this.say('Why is it rejected? Press 1 to 7.');
  }

  closeReasons() {
    this.swapControls(false);
  }

  swapControls(reasons) {
    const focused = document.activeElement;
    this.find('.reasons').hidden = !reasons;
    this.find('.actions').classList.toggle('covered', reasons);
    this.find('[data-action=reject]').setAttribute('aria-expanded', reasons);
    if (this.find('.controls').contains(focused) && !focused.checkVisibility?.({ visibilityProperty: true })) {
      this.stage.focus({ preventScroll: true });
    }
  }

  reason(value, more) {
    if (more && this.picked.has(value)) this.picked.delete(value);
    else this.picked.add(value);
    this.showPicked();
    if (!more) this.reject([...this.picked]);
  }

  showPicked() {
    for (const button of this.root.querySelectorAll('[data-reason]')) {
      button.setAttribute('aria-pressed', this.picked.has(button.dataset.reason));
    }
  }

  // ---- verdicts ----

  reject(reasons) {
    if (!this.vote('reject', reasons)) return;
    this.lastReasons = reasons;
    const again = this.find('[data-action=again]');
    again.disabled = false;
    again.title = reasons.map((reason) => REASON_TEXT[reason]).join(', ');
  }

  vote(verdict, reasons) {
    const item = this.items[this.position];
    if (!item) return false;
    if (!this.ring.seen()) {
      this.note('The result has not been shown yet; wait for it, or press → to pass it over.');
      return false;
    }
    const event = {
      uuid: makeUuid(),
      verdict,
      candidate_id: item.id,
      result_sha256: item.sha256,
      reasons,
      elapsed_ms: Math.round(performance.now() - this.shownAt),
    };
    if (!this.send(event)) return false;
    const fresh = !item.verdict;
    this.done.push({ uuid: event.uuid, item, before: { verdict: item.verdict, reasons: item.reasons } });
    if (this.done.length > UNDO_DEPTH) this.done.shift();
    this.tally(item.verdict && STATE_OF[item.verdict], STATE_OF[verdict]);
    Object.assign(item, { verdict, reasons });
    this.times = [...this.times.slice(-TIMES_KEPT), Date.now()];
    if (fresh) this.frontier = this.position + 1;
    const said = [VERDICTS[verdict], ...reasons.map((reason) => REASON_TEXT[reason].toLowerCase())].join(': ');
    this.go(Math.max(this.position + 1, this.frontier), `${said} (${item.class_name}). U undoes.`);
    return true;
  }

  send(event) {
    try {
      this.outbox.add(event);
    } catch (error) {
      this.note(`This browser cannot keep the verdict (${error.name}); free some of its storage and try again.`);
      return false;
    }
    return true;
  }

  async undo() {
    const entry = this.done.pop() ?? (await this.lastOnServer());
    if (!entry) return;
    const { item, before } = entry;
    const event = { uuid: makeUuid(), verdict: 'undo', undoes: entry.uuid, candidate_id: item.id, result_sha256: item.sha256 };
    if (!this.send(event)) {
      this.done.push(entry);
      return;
    }
    this.tally(item.verdict && STATE_OF[item.verdict], before.verdict && STATE_OF[before.verdict]);
    let index = this.items.findIndex((other) => other.id === item.id);
    if (index < 0) {
      index = Math.min(this.position, this.items.length);
      this.items.splice(index, 0, item);
    }
    Object.assign(this.items[index], before);
    this.times.pop();
    this.frontier = Math.min(this.frontier, index);
    this.go(index, `Undone: ${item.class_name} is to be judged again.`);
  }

  /** After a reload this page has no memory of its own; the server knows what stands. */
  async lastOnServer() {
    if (this.asking) return null;
    if (this.outbox.pending().length) {
      this.note('Undo waits until the verdicts before this reload have reached the server.');
      return null;
    }
    this.asking = true;
    try {
      const { uuid, item } = await getJson('/last');
      if (!uuid) this.note('There is nothing to undo.');
      return uuid && { uuid, item, before: { verdict: null, reasons: [] } };
    } catch {
      this.note('The server does not answer, so there is nothing to undo just now.');
      return null;
    } finally {
      this.asking = false;
    }
  }

  /** The server will never take this event: show the candidate as not judged. */
  refused(event, sentence) {
    this.done = this.done.filter((entry) => entry.uuid !== event.uuid);
    const item = this.items.find((other) => other.id === event.candidate_id);
    if (item) Object.assign(item, { verdict: null, reasons: [] });
    this.note(`A verdict was refused: ${sentence}`);
    this.loadCounts();
    this.showBadge();
  }

  tally(from, to) {
    if (!this.counts) return;
    if (from !== to) {
      this.counts[from ?? 'unreviewed'] -= 1;
      this.counts[to ?? 'unreviewed'] += 1;
    }
    this.showProgress();
  }

  // ---- what is shown ----

  go(position, said = '') {
    this.position = Math.max(0, Math.min(position, this.items.length));
    this.closeReasons();
    this.render();
    if (said) this.note(said);
    if (!this.exhausted && this.items.length - this.position < REFILL_BELOW) this.refill();
    if (this.atEnd()) this.lookForMore();
  }

  render() {
    if (this.stage.classList.contains('flicker')) this.toggle('flicker');
    this.ring.show(this.items, this.position);
    this.shownAt = performance.now();
    const item = this.items[this.position];
    const facts = item && {
      class_name: item.class_name,
      source_name: item.source_name,
      drop: item.drop.toFixed(2),
      residual: item.residual.toFixed(2),
      rank: String(item.rank),
      area: `${(item.area * 100).toFixed(1)} %`,
    };
    for (const cell of this.root.querySelectorAll('[data-fact]')) cell.textContent = facts?.[cell.dataset.fact] ?? '–';
    this.showBadge();
    this.showEmpty();
  }

  showBadge() {
    const item = this.items[this.position];
    const badge = this.find('.badge');
    badge.hidden = !item?.verdict;
    if (badge.hidden) return;
    badge.dataset.verdict = item.verdict;
    badge.textContent = [VERDICTS[item.verdict], ...item.reasons.map((reason) => REASON_TEXT[reason])].join(' · ');
  }

  showEmpty() {
    const empty = this.find('.empty');
    empty.hidden = !this.atEnd();
    for (const button of this.root.querySelectorAll('.verdicts button:not([data-action=undo], [data-action=again])')) {
      button.disabled = this.atEnd();
    }
    if (empty.hidden) return;
    const [title, text] = emptyText({
      failed: this.failed,
      loading: !this.exhausted || !this.counts,
      counts: this.counts,
      state: this.filter.state,
      filtered: this.filter.narrows(),
      shownAny: this.items.length > 0,
    });
    empty.querySelector('h3').textContent = title;
    empty.querySelector('p').textContent = text;
    empty.querySelector('[data-action=clear]').hidden = !this.filter.narrows() && this.filter.state === 'unreviewed';
    empty.querySelector('[data-action=reload]').hidden = !this.exhausted && !this.failed;
  }

  showProgress() {
    const { total, unreviewed } = this.counts;
    const bar = this.find('progress');
    bar.max = Math.max(1, total);
    bar.value = total - unreviewed;
    this.find('.progress-text').textContent = progressText(this.counts, this.times);
  }

  showOutbox(pending, problem) {
    const trouble = Boolean(pending && problem);
    const status = this.find('.status');
    status.classList.toggle('trouble', trouble);
    status.querySelector('button').hidden = !trouble;
    const verdicts = pending === 1 ? '1 verdict' : `${pending} verdicts`;
    if (trouble) {
      this.find('.status-text').textContent = `${verdicts} waiting: ${problem}. Kept in this browser.`;
      if (!this.inTrouble) this.say('The server cannot be reached. Verdicts are kept in this browser.');
    } else if (this.inTrouble) {
      this.note('All verdicts have reached the server.');
    }
    this.inTrouble = trouble;
  }

  /** One calm line above the pictures, spoken too. Trouble with the outbox keeps the line to itself. */
  note(text) {
    if (!this.find('.status').classList.contains('trouble')) this.find('.status-text').textContent = text;
    this.say(text);
  }

  say(text) {
    this.find('.spoken').textContent = text;
  }
}
