// The review page. What is seen changes at once; what is decided goes into a durable outbox and reaches the
// server when it can. The verdict names the candidate and the hash of the image that was on screen.

import { API, request } from './review_api.js';
import { Filter } from './review_filter.js';
import { Grid } from './review_grid.js';
import { History } from './review_history.js';
import { actionOf, isOurs } from './review_keys.js';
import { Leases } from './review_leases.js';
import { CandidateList } from './review_list.js';
import { MaskEditor } from './mask_editor.js';
import { MARKUP, REASONS } from './review_markup.js';
import { Outbox } from './review_outbox.js';
import { Popover } from './review_popover.js';
import { Progress } from './review_progress.js';
import { Single } from './review_single.js';
import { emptyText, NO_MASK } from './review_text.js';
import { Verdicts } from './review_verdicts.js';
import { Views } from './review_views.js';

const MODE_KEY = 'imagenet-bg.review.mode';
const STYLES = ['review.css', 'review_grid.css', 'review_panels.css', 'mask_editor.css'];
const LOOK_AGAIN_MS = 10_000;
const COUNTS_MS = 60_000;
const COUNTS_AGAIN_MS = 5_000;

/** Build the page inside element; a second call replaces the first. */
export async function mount(element) {
  element.review?.destroy();
  await Promise.all(STYLES.map(stylesheet));
  element.review = new Review(element);
}

function stylesheet(name) {
  const href = new URL(name, import.meta.url).href;
  if (document.querySelector(`link[href="${href}"]`)) return Promise.resolve();
  const link = Object.assign(document.createElement('link'), { rel: 'stylesheet', href });
  return new Promise((done) => {
    link.onload = link.onerror = done;
    document.head.append(link);
  });
}

class Review {
  constructor(element) {
    element.classList.add('review-root');
    element.innerHTML = MARKUP;
    this.root = element;
    this.life = new AbortController();
    const { signal } = this.life;
    const voice = {
      note: (text) => this.note(text),
      say: (text) => this.say(text),
      large: () => this.setMode('single'),
    };
    this.filter = new Filter(element, () => this.reload(), () => this.view.focus());
    this.outbox = new Outbox(`${API}/decisions`, {
      changed: (pending, problem) => this.showOutbox(pending, problem),
      refused: (event, sentence) => this.refused(event, sentence),
    });
    this.leases = new Leases(
      { open: () => this.list.open(), lost: (ids) => this.lost(ids), visible: () => this.visible() },
      signal,
    );
    this.list = new CandidateList(this.filter, this.outbox, this.leases.tab, {
      owner: (owner) => this.own(owner),
      arrived: (changesWhatIsShown) => this.arrived(changesWhatIsShown),
    });
    this.verdicts = new Verdicts(this.outbox, this.list, {
      note: voice.note,
      moved: (before, after) => this.progress.given(before, after),
    });
    this.progress = new Progress(element, this);
    this.single = new Single(element, this.list, this.verdicts, voice);
    this.grid = new Grid(element, this.list, this.verdicts, voice, signal);
    this.history = new History(this.find('.drawer'));
    this.editor = new MaskEditor(this.find('.mask-editor'), { made: (old, item) => this.remade(old, item) });
    this.views = new Views(element, this.filter, voice.note, signal);
    this.popover = new Popover(element, 'more', { signal });
    this.people = new Popover(element, 'people', { opened: () => this.loadCounts(), signal });
    this.listen();
    this.view = this.single;
    this.setMode(localStorage.getItem(MODE_KEY) ?? 'single', { focus: false });
    // Not before somebody looks: candidates that are fetched are leased, and others must do without them.
    this.watcher = new IntersectionObserver(([entry]) => entry.isIntersecting && this.seen());
    this.watcher.observe(element);
  }

  seen() {
    if (this.started) {
      this.leases.renew();
      return;
    }
    this.started = true;
    this.reload();
    this.offerChoices();
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  destroy() {
    this.life.abort();
    this.watcher.disconnect();
    clearInterval(this.countsTimer);
    clearTimeout(this.countsAgain);
    clearInterval(this.againTimer);
    this.outbox.destroy();
    this.filter.destroy();
    this.list.stop();
    this.single.clear();
    this.grid.clear();
  }

  listen() {
    const { signal } = this.life;
    document.addEventListener('keydown', (event) => this.key(event), { signal });
    this.root.addEventListener('click', (event) => this.click(event), { signal });
    window.addEventListener('pagehide', () => this.outbox.owner && this.verdicts.save(this.outbox.owner), { signal });
    this.countsTimer = setInterval(() => this.visible() && this.loadCounts(), COUNTS_MS);
    this.againTimer = setInterval(() => this.visible() && this.list.atEnd() && this.list.lookForMore(), LOOK_AGAIN_MS);
  }

  visible() {
    return this.root.isConnected && this.root.offsetParent !== null && document.visibilityState === 'visible';
  }

  offerChoices() {
    this.filter.offer('class_index', async () => {
      const classes = await request('/classes');
      return classes.map(({ class_index, name, candidates }) => [class_index, `${name} (${candidates})`, name]);
    });
    this.filter.offer('recipe', async () => {
      const recipes = await request('/recipes');
      return recipes.filter(({ active }) => !active).map(({ id, hash, candidates }) => {
        return [id, `${hash.slice(0, 8)} (${candidates} candidates)`, hash.slice(0, 8)];
      });
    });
  }

  // ---- the list ----

  /** Start the list anew with the filter as it is. */
  reload() {
    this.list.clear();
    this.progress.clear();
    this.single.clear();
    this.grid.clear();
    this.show();
    this.loadCounts();
    return this.list.refill();
  }

  /** Whose verdicts these are is known. */
  own(owner) {
    if (this.outbox.owner === owner) return;
    this.verdicts.restore(owner);
    this.outbox.own(owner);
    this.progress.showPeople();
  }

  arrived(changesWhatIsShown) {
    this.view.more(changesWhatIsShown);
    this.showEmpty();
  }

  lost(ids) {
    this.list.drop(ids);
    this.view.more(false);
  }

  async loadCounts() {
    clearTimeout(this.countsAgain);
    if (!(await this.progress.load())) {
      this.countsAgain = setTimeout(() => this.visible() && this.loadCounts(), COUNTS_AGAIN_MS);
      return;
    }
    this.filter.offerOthers(this.progress.counts.annotators);
    if (this.list.atEnd()) this.showEmpty();
  }

  show() {
    this.view.show();
    this.showEmpty();
  }

  // ---- keys and buttons ----

  key(event) {
    if (!this.root.isConnected) {
      this.destroy();
      return;
    }
    if (!isOurs(event, this.root)) return;
    const meant = actionOf(event);
    if (!meant || (event.repeat && this.view !== this.grid)) return;
    const known = meant.action ? this.act(meant.action) : this.view.reason(REASONS[meant.reason][0], meant.more);
    if (known) event.preventDefault();
  }

  click(event) {
    const button = event.target.closest('button');
    if (!button) return;
    const { reason, action } = button.dataset;
    if (reason && this.view === this.grid) this.grid.pick(reason, event.shiftKey);
    else if (reason) this.single.reason(reason, event.shiftKey);
    else if (action) this.act(action);
    // After a press with the pointer, Enter and Space are about the tiles again, not about the button.
    if (event.detail && button.closest('.grid-controls') && this.view === this.grid) this.grid.focus();
  }

  /** Do it; false when there is no such action just now. */
  act(action) {
    switch (action) {
      case 'undo': this.undo(false); break;
      case 'undo-page': this.undo(true); break;
      case 'redo': this.redo(false); break;
      case 'redo-page': this.redo(true); break;
      case 'one': this.setMode('single'); break;
      case 'grid': this.setMode(this.view === this.grid ? 'single' : 'grid'); break;
      case 'history': this.openHistory(); break;
      case 'edit': this.openEditor(); break;
      case 'legend': this.legend(this.find('.legend').hidden); break;
      case 'escape': this.legend(false); return this.view.act(action);
      case 'retry': this.outbox.retryNow(); break;
      case 'reload': this.reload(); break;
      case 'clear': this.filter.clear(); break;
      case 'close-popover': this.popover.toggle(false); break;
      default: {
        const known = this.view.act(action);
        this.showEmpty();
        return known;
      }
    }
    return true;
  }

  setMode(mode, { focus = true } = {}) {
    this.view.leave();
    this.view = mode === 'grid' ? this.grid : this.single;
    this.view.enter();
    localStorage.setItem(MODE_KEY, mode);
    this.find('[data-action=one]').setAttribute('aria-pressed', mode !== 'grid');
    this.find('.modes [data-action=grid]').setAttribute('aria-pressed', mode === 'grid');
    this.root.classList.toggle('in-grid', mode === 'grid');
    this.show();
    if (focus) this.view.focus();
  }

  async undo(whole) {
    const entries = await this.verdicts.undo(whole);
    if (!entries.length) return;
    this.view.undone(entries);
    this.showEmpty();
  }

  async redo(whole) {
    const entries = await this.verdicts.redo(whole);
    if (!entries.length) return;
    this.view.redone(entries);
    this.showEmpty();
  }

  openHistory() {
    const item = this.view === this.grid ? this.grid.item : this.list.current;
    if (!item) return;
    const waiting = this.outbox.pending().some((event) => event.candidate_id === item.id);
    this.history.open(item, waiting);
  }

  openEditor() {
    const item = this.view === this.grid ? this.grid.item : this.list.current;
    if (!item) return;
    if (!item.masked) this.note(NO_MASK);
    else if (item.kind === 'background') this.editor.open(item);
    else this.note('Only backgrounds have a mask to correct.');
  }

  /** A candidate was made again: its new version takes its place, to be judged. */
  remade(old, item) {
    const index = this.list.items.findIndex((other) => other.id === old.id);
    if (index < 0) this.list.adopt(item);
    else this.list.items[index] = item;
    this.show();
    this.loadCounts();
    this.note(`Version ${item.version} was made with the corrected mask: judge it now.`);
  }

  legend(open) {
    this.find('.legend').hidden = !open;
    for (const button of this.root.querySelectorAll('[data-action=legend][aria-expanded]')) {
      button.setAttribute('aria-expanded', open);
    }
  }

  refused(event, sentence) {
    this.verdicts.refused(event);
    this.note(`A verdict was refused: ${sentence}`);
    this.loadCounts();
    this.view.refresh();
  }

  // ---- what is shown ----

  showEmpty() {
    const empty = this.find('.empty');
    empty.hidden = !this.list.atEnd();
    if (empty.hidden) return;
    const [title, text] = emptyText({
      failed: this.list.failed,
      loading: !this.list.exhausted || !this.progress.counts,
      counts: this.progress.counts,
      state: this.filter.state,
      filtered: this.filter.narrows(),
      passed: this.list.items.filter((item) => !item.verdict).length,
      shownAny: this.list.items.length > 0,
    });
    empty.querySelector('h3').textContent = title;
    empty.querySelector('p').textContent = text;
    empty.querySelector('[data-action=clear]').hidden = !this.filter.narrows() && this.filter.state === 'unreviewed';
    empty.querySelector('[data-action=reload]').hidden = !this.list.exhausted && !this.list.failed;
  }

  showOutbox(pending, problem) {
    const trouble = Boolean(pending && problem);
    const status = this.find('.status');
    status.classList.toggle('trouble', trouble);
    status.querySelector('button').hidden = !trouble;
    const verdicts = pending === 1 ? '1 verdict' : `${pending} verdicts`;
    if (trouble) {
      this.find('.status-text').textContent = `${verdicts} waiting: ${problem}. Kept here.`;
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
