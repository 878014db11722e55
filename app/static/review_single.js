// One candidate at a time: source, mask and result side by side, and the buttons and keys that judge it.

import { REASON_TEXT, verdictText } from './review_markup.js';
import { Ring } from './review_ring.js';
import { NO_MASK } from './review_text.js';
import { Zoom } from './review_zoom.js';

const AHEAD = 25;

export class Single {
  /**
   * @param {HTMLElement} root the review page
   * @param {CandidateList} list
   * @param {Verdicts} verdicts
   * @param {{note: Function, say: Function}} voice note(sentence) shows and speaks, say(sentence) only speaks
   */
  constructor(root, list, verdicts, voice) {
    this.root = root;
    this.list = list;
    this.verdicts = verdicts;
    this.voice = voice;
    this.picked = new Set();
    this.stage = this.find('.stage');
    this.ring = new Ring(this.stage);
    this.zoom = new Zoom(this.stage, (words) => this.showZoom(words));
    // A picture that arrives after it was shown is zoomed then.
    this.stage.addEventListener('load', (event) => this.arrived(event), true);
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  enter() {
    this.list.ahead = AHEAD;
    this.list.onScreen = 1;
    this.find('.board').hidden = this.find('.facts').hidden = this.find('.single-controls').hidden = false;
  }

  leave() {
    this.closeReasons();
    this.find('.board').hidden = this.find('.facts').hidden = this.find('.single-controls').hidden = true;
  }

  clear() {
    this.ring.clear();
    this.closeReasons();
  }

  focus() {
    this.stage.focus({ preventScroll: true });
  }

  // ---- keys and buttons ----

  /** Do it; false when this view knows no such action just now. */
  act(action) {
    switch (action) {
      case 'accept': case 'skip': this.vote(action, []); return true;
      case 'reject': this.find('.reasons').hidden ? this.openReasons() : this.closeReasons(); return true;
      case 'again': this.verdicts.lastReasons ? this.vote('reject', this.verdicts.lastReasons) : this.openReasons(); return true;
      case 'send': return this.finishReasons();
      case 'left': this.go(this.list.position - 1); return true;
      case 'right': this.go(this.list.position + 1); return true;
      case 'flicker': this.toggle('flicker', 'flicker'); return true;
      case 'mask':
        if (this.list.current?.masked === false) this.voice.note(NO_MASK);
        else this.toggle('mask', 'no-mask');
        return true;
      case 'zoom': this.zoom.cycle(); return true;
      case 'zoom-fit': this.zoom.reset(); return true;
      case 'pan-left': return this.pan(-1, 0);
      case 'pan-right': return this.pan(1, 0);
      case 'pan-up': return this.pan(0, -1);
      case 'pan-down': return this.pan(0, 1);
      case 'escape': case 'cancel': this.closeReasons(); return true;
    }
    return false;
  }

  pan(right, down) {
    if (this.zoom.on) this.zoom.pan(right, down);
    return this.zoom.on;
  }

  toggle(view, className) {
    const button = this.find(`.single-controls [data-action=${view}]`);
    const on = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', on);
    this.stage.classList.toggle(className, view === 'mask' ? !on : on);
    if (view === 'flicker') this.find('.result-head').textContent = on ? 'Source, in the place of the result' : 'Result';
  }

  openReasons() {
    if (this.list.atEnd()) return;
    this.picked.clear();
    this.showPicked();
    this.swapControls(true);
    this.voice.say('Why is it rejected? Press 1 to 7.');
  }

  closeReasons() {
    this.swapControls(false);
  }

  swapControls(reasons) {
    const focused = document.activeElement;
    this.find('.reasons').hidden = !reasons;
    this.find('.actions').classList.toggle('covered', reasons);
    this.find('.single-controls [data-action=reject]').setAttribute('aria-expanded', reasons);
    const hides = !focused.checkVisibility?.({ visibilityProperty: true });
    if (this.find('.single-controls').contains(focused) && hides) this.focus();
  }

  /** A digit, or a button with a reason; with more it is only picked. */
  reason(value, more) {
    if (this.find('.reasons').hidden) return false;
    if (more && this.picked.has(value)) this.picked.delete(value);
    else this.picked.add(value);
    this.showPicked();
    if (!more) this.vote('reject', [...this.picked]);
    return true;
  }

  finishReasons() {
    if (this.find('.reasons').hidden || !this.picked.size) return false;
    this.vote('reject', [...this.picked]);
    return true;
  }

  showPicked() {
    for (const button of this.find('.reasons').querySelectorAll('[data-reason]')) {
      button.setAttribute('aria-pressed', this.picked.has(button.dataset.reason));
    }
  }

  // ---- verdicts ----

  vote(verdict, reasons) {
    const { list } = this;
    const item = list.current;
    if (!item) return;
    if (!this.ring.seen()) {
      this.voice.note('The result has not been shown yet; wait for it, or press → to pass it over.');
      return;
    }
    const fresh = !item.verdict;
    if (!this.verdicts.give([{ item, verdict, reasons, elapsed: performance.now() - this.shownAt }], 'single')) return;
    if (fresh) list.frontier = list.position + 1;
    this.go(Math.max(list.position + 1, list.frontier), `${verdictText(item)} (${item.class_name}). U undoes.`);
  }

  /** Verdicts were taken back: show the first of their candidates again. */
  undone(entries) {
    const [{ item }] = entries;
    const index = this.list.items.indexOf(item);
    this.list.frontier = Math.min(this.list.frontier, index);
    const more = entries.length > 1 ? ` and ${entries.length - 1} more are` : ' is';
    this.go(index, `Undone: ${item.class_name}${more} to be judged again. Y redoes.`);
  }

  /** Verdicts were given again: go on behind the last of them. */
  redone(entries) {
    const { item } = entries.at(-1);
    const index = this.list.items.indexOf(item);
    this.list.frontier = Math.max(this.list.frontier, index + 1);
    const more = entries.length > 1 ? `, ${entries.length} of them` : '';
    this.go(this.list.frontier, `Redone: ${verdictText(item).toLowerCase()} (${item.class_name})${more}.`);
  }

  go(position, said = '') {
    this.list.position = Math.max(0, Math.min(position, this.list.items.length));
    this.closeReasons();
    this.show();
    if (said) this.voice.note(said);
    this.list.refillIfShort();
    if (this.list.atEnd()) this.list.lookForMore();
  }

  // ---- what is shown ----

  show() {
    if (this.stage.classList.contains('flicker')) this.toggle('flicker', 'flicker');
    this.ring.show(this.list.items, this.list.position);
    this.zoom.show(this.ring.current);
    this.shownAt = performance.now();
    const item = this.list.current;
    const facts = item ? factsOf(item) : {};
    for (const cell of this.root.querySelectorAll('[data-fact]')) cell.textContent = facts[cell.dataset.fact] ?? '–';
    this.refresh();
  }

  /** More candidates have come. */
  more(changesWhatIsShown) {
    if (changesWhatIsShown) this.show();
    else this.ring.prefetch(this.list.items, this.list.position);
  }

  /** The verdict on the candidate that is shown, and which buttons there are. */
  refresh() {
    const item = this.list.current;
    const badge = this.find('.board > .badge');
    badge.hidden = !item?.verdict;
    if (item?.verdict) {
      badge.dataset.verdict = item.verdict;
      badge.textContent = verdictText(item);
    }
    for (const action of ['accept', 'reject', 'skip', 'history']) {
      this.find(`.single-controls [data-action=${action}]`).disabled = !item;
    }
    const again = this.find('.single-controls [data-action=again]');
    again.disabled = !this.verdicts.lastReasons || !item;
    again.title = (this.verdicts.lastReasons ?? []).map((reason) => REASON_TEXT[reason]).join(', ');
  }

  arrived(event) {
    const slide = this.ring.current;
    if (slide?.root.contains(event.target) && this.zoom.on) this.zoom.show(slide);
  }

  showZoom(words) {
    const button = this.find('.single-controls [data-action=zoom]');
    button.setAttribute('aria-pressed', words !== 'fit');
    button.querySelector('.level').textContent = words;
  }
}

function factsOf(item) {
  return {
    class_name: item.class_name,
    source_name: item.source_name,
    drop: item.drop.toFixed(2),
    residual: item.residual.toFixed(2),
    rank: String(item.rank),
    area: item.area === null ? 'not known' : `${(item.area * 100).toFixed(1)} %`,
  };
}

