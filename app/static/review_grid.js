// A page of candidates at once: mark the few that will not do, accept the rest. Every tile becomes an event of its own,
// as if it had been judged alone.

import { REASONS } from './review_markup.js';
import { Tile } from './review_tile.js';

export const SHEET = 24;
const AHEAD = 3 * SHEET;
const LEAST_LOOK_MS = 700; // a key pressed twice must not judge a page that nobody has looked at

export class Grid {
  /**
   * @param {HTMLElement} root the review page
   * @param {CandidateList} list
   * @param {Verdicts} verdicts
   * @param {{note: Function, say: Function, large: Function}} voice note(sentence) shows and speaks, say(sentence) only
   *   speaks, large() leaves for the view of one candidate
   * @param {AbortSignal} signal ends what listens outside of root
   */
  constructor(root, list, verdicts, voice, signal) {
    this.list = list;
    this.verdicts = verdicts;
    this.voice = voice;
    this.sheet = root.querySelector('.sheet');
    this.controls = root.querySelector('.grid-controls');
    this.reasons = ['unsuitable']; // of the next mark: the least that a mark says, until another was used
    this.empty();
    this.sheet.addEventListener('click', (event) => this.click(event));
    this.sheet.addEventListener('focusin', (event) => this.focused(event));
    document.addEventListener('keyup', (event) => event.key.toLowerCase() === 'f' && this.peek(false), { signal });
    window.addEventListener('blur', () => this.peek(false), { signal });
  }

  empty() {
    this.tiles?.forEach((tile) => tile.destroy());
    this.tiles = new Map(); // by candidate
    this.marks = new Map(); // by candidate: {verdict, reasons} to be given, over the verdict that stood then
    this.shown = [];
    this.start = 0;
    this.at = 0; // the tile that keys are about
  }

  enter() {
    const { list } = this;
    list.ahead = AHEAD;
    list.onScreen = SHEET;
    this.reasons = this.verdicts.lastReasons ?? this.reasons;
    const onSheet = this.shown.length && list.position >= this.start && list.position < this.start + SHEET;
    if (!onSheet) this.start = list.position;
    this.forgetMarksOfJudged();
    this.at = list.position - this.start;
    list.position = this.start;
    this.sheet.hidden = this.controls.hidden = false;
    list.refillIfShort();
  }

  /** A verdict given to one alone goes before the mark it had here. */
  forgetMarksOfJudged() {
    for (const item of this.list.items) {
      const mark = this.marks.get(item.id);
      if (mark && mark.over !== item.verdict) this.marks.delete(item.id);
    }
  }

  leave() {
    this.list.position = Math.min(this.start + this.at, this.list.items.length);
    this.peek(false);
    this.sheet.hidden = this.controls.hidden = true;
  }

  clear() {
    this.empty();
    this.sheet.replaceChildren();
  }

  focus() {
    (this.tileAt(this.at)?.root ?? this.sheet).focus({ preventScroll: true });
  }

  tileAt(index) {
    const item = this.shown[index];
    return item && this.tiles.get(item.id);
  }

  get item() {
    return this.shown[this.at];
  }

  // ---- keys and buttons ----

  act(action) {
    switch (action) {
      case 'left': this.move(-1); return true;
      case 'right': this.move(1); return true;
      case 'up': this.move(-this.columns()); return true;
      case 'down': this.move(this.columns()); return true;
      case 'first': this.move(-SHEET); return true;
      case 'last': this.move(SHEET); return true;
      case 'page-back': this.turn(-1); return true;
      case 'page-forward': this.turn(1); return true;
      case 'mark': case 'reject': this.toggle(); return true;
      case 'again': this.mark({ verdict: 'reject', reasons: this.reasons }); return true;
      case 'accept': case 'skip': this.markAs(action); return true;
      case 'flicker': this.peek(true); return true;
      case 'sources': this.peek(!this.sheet.classList.contains('sources')); return true;
      case 'zoom': this.voice.large(); return true;
      case 'send': this.send(); return true;
      case 'escape': this.focus(); return true;
    }
    return false;
  }

  /** A digit marks the tile with that reason; a button also says what the next marks will be. */
  reason(value, more) {
    const marked = this.planned(this.item);
    const have = more && marked?.verdict === 'reject' ? marked.reasons : [];
    const reasons = more && have.includes(value) ? have.filter((other) => other !== value) : [...have, value];
    if (!reasons.length) this.mark(null);
    else if (this.mark({ verdict: 'reject', reasons })) this.reasons = reasons;
    this.showPalette();
    return true;
  }

  /** A reason's button: what the next marks will say, and what the tile says if it is marked. */
  pick(value, more) {
    if (this.planned(this.item)?.verdict === 'reject') this.reason(value, more);
    else this.reasons = [value];
    this.showPalette();
  }

  move(by) {
    const last = this.shown.length - 1;
    if (last < 0) return;
    this.at = Math.max(0, Math.min(last, this.at + by));
    this.rove();
    this.focus();
  }

  columns() {
    return getComputedStyle(this.sheet).gridTemplateColumns.split(' ').length;
  }

  click(event) {
    const root = event.target.closest('.tile');
    if (!root) return;
    this.at = this.shown.findIndex((item) => String(item.id) === root.dataset.candidate);
    this.rove();
    this.focus();
    this.toggle();
  }

  focused(event) {
    const root = event.target.closest('.tile');
    const index = this.shown.findIndex((item) => String(item.id) === root?.dataset.candidate);
    if (index < 0 || index === this.at) return;
    this.at = index;
    this.rove();
  }

  /** The sources in the place of the results, for as long as the key is down. */
  peek(on) {
    this.sheet.classList.toggle('sources', on);
    this.controls.querySelector('[data-action=sources]').setAttribute('aria-pressed', on);
  }

  // ---- marks ----

  /** What would be given to a candidate: its mark, else an accept for one that is open, else nothing. */
  planned(item) {
    if (!item) return null;
    return this.marks.get(item.id) ?? (item.verdict ? null : { verdict: 'accept', reasons: [] });
  }

  toggle() {
    const { item } = this;
    if (!item) return;
    if (this.marks.has(item.id)) this.mark(null);
    else if (item.verdict === 'reject') this.mark({ verdict: 'accept', reasons: [] });
    else this.mark({ verdict: 'reject', reasons: this.reasons });
  }

  /** An accept is what an open candidate gets without a mark; a verdict that stands needs no mark to say it again. */
  markAs(verdict) {
    const needless = verdict === (this.item?.verdict ?? 'accept') || this.marks.get(this.item?.id)?.verdict === verdict;
    this.mark(needless ? null : { verdict, reasons: [] });
  }

  mark(mark) {
    const { item } = this;
    if (!item) return false;
    const tile = this.tiles.get(item.id);
    if (mark && !tile.seen()) {
      this.voice.note('This image has not been shown yet; wait for it.');
      return false;
    }
    if (mark) this.marks.set(item.id, { ...mark, over: item.verdict });
    else this.marks.delete(item.id);
    this.refresh();
    this.voice.say(`${item.class_name}: ${tile.words}. ${this.summary()}.`);
    return true;
  }

  /** How many of each sort Enter would give. */
  plan() {
    const counts = { accept: 0, reject: 0, skip: 0 };
    for (const item of this.shown) {
      const planned = this.planned(item);
      if (planned) counts[planned.verdict] += 1;
    }
    return counts;
  }

  summary() {
    const { accept, reject, skip } = this.plan();
    if (!accept && !reject && !skip) return 'Next page';
    if (accept === this.shown.length) return `Accept all ${accept}`;
    return [`Accept ${accept}`, `reject ${reject}`, ...(skip ? [`skip ${skip}`] : [])].join(', ');
  }

  // ---- verdicts ----

  /** Accept what is not marked, and reject or skip what is. */
  send() {
    if (!this.shown.length) return;
    const tiles = this.shown.map((item) => this.tiles.get(item.id));
    const wanted = tiles.filter((tile) => this.planned(tile.item));
    const coming = wanted.filter((tile) => !tile.seen() && !tile.broken);
    if (coming.length) {
      this.voice.note(`${count(coming.length, 'image has', 'images have')} not arrived yet; wait a moment and press Enter again.`);
      return;
    }
    const now = performance.now();
    if (wanted.length && now - Math.max(this.shownAt, ...wanted.map((tile) => tile.arrivedAt)) < LEAST_LOOK_MS) {
      this.voice.note('This page has only just come up; look at it, then press Enter.');
      return;
    }
    const judged = wanted.filter((tile) => tile.seen());
    const elapsed = (now - this.shownAt) / Math.max(1, judged.length);
    const choices = judged.map(({ item }) => ({ item, ...this.planned(item), elapsed }));
    if (choices.length && !this.verdicts.give(choices, 'grid')) return;
    const said = choices.length ? `${past(choices)}. ⇧U takes the page back.` : 'Nothing was open on this page.';
    const left = wanted.length - judged.length;
    judged.forEach((tile) => this.marks.delete(tile.item.id));
    this.turn(1, left ? `${said} ${count(left, 'was', 'were')} left open: the image is missing.` : said);
  }

  /** Verdicts were taken back: show their page again, marked as it was. */
  undone(entries) {
    for (const { item, verdict, reasons } of entries) {
      if (verdict !== 'accept') this.marks.set(item.id, { verdict, reasons, over: item.verdict });
    }
    this.reveal(entries[0].item);
    const what = entries.length > 1 ? `${entries.length} verdicts` : entries[0].item.class_name;
    this.voice.note(`Undone: ${what}. Y redoes${entries.length > 1 ? ' one, ⇧Y the page' : ''}.`);
  }

  redone(entries) {
    entries.forEach(({ item }) => this.marks.delete(item.id));
    this.reveal(entries[0].item);
    if (this.shown.every((item) => item.verdict)) this.turn(1);
    this.voice.note(`Redone: ${past(entries)}.`);
  }

  reveal(item) {
    const index = this.list.items.indexOf(item);
    const pages = Math.floor((index - this.start) / SHEET);
    const start = Math.max(0, this.start + pages * SHEET);
    this.at = index - start;
    this.open(start);
  }

  /** Another page; the open candidates of this one stay open. */
  turn(by, said = '') {
    const start = by > 0 ? Math.min(this.start + SHEET, this.list.items.length) : Math.max(0, this.start - SHEET);
    this.at = 0;
    this.open(start);
    if (said) this.voice.note(said);
  }

  open(start) {
    const hadFocus = this.sheet.contains(document.activeElement);
    this.start = this.list.position = start;
    this.show();
    if (hadFocus) this.focus();
    this.list.refillIfShort();
    if (this.list.atEnd()) this.list.lookForMore();
  }

  // ---- what is shown ----

  show() {
    const items = this.list.items.slice(this.start, this.start + SHEET);
    const same = items.length === this.shown.length && items.every((item, index) => item === this.shown[index]);
    if (!same) {
      this.shown = items;
      this.shownAt = performance.now();
      const focused = document.activeElement;
      this.sheet.replaceChildren(...items.map((item) => this.tile(item).root));
      if (this.sheet.contains(focused)) focused.focus({ preventScroll: true });
      this.at = Math.max(0, Math.min(this.at, items.length - 1));
      setTimeout(() => this.prefetch(), 0); // after this page has been painted
    }
    this.rove();
    this.refresh();
  }

  more() {
    this.show();
    this.prefetch();
  }

  tile(item) {
    const tile = this.tiles.get(item.id) ?? new Tile(item);
    tile.item = item;
    this.tiles.set(item.id, tile);
    return tile;
  }

  /** The next page's results, and this one's sources; pages further away are let go of. */
  prefetch() {
    if (this.sheet.hidden) return;
    const { items } = this.list;
    const kept = new Set(items.slice(Math.max(0, this.start - SHEET), this.start + 2 * SHEET).map((item) => item.id));
    for (const [id, tile] of this.tiles) {
      if (kept.has(id)) continue;
      tile.destroy();
      this.tiles.delete(id);
    }
    this.shown.forEach((item) => this.tiles.get(item.id)?.loadSource());
    items.slice(this.start + SHEET, this.start + 2 * SHEET).forEach((item) => this.tile(item));
  }

  /** One tile takes part in the order of the Tab key. */
  rove() {
    this.shown.forEach((item, index) => (this.tiles.get(item.id).root.tabIndex = index === this.at ? 0 : -1));
    this.showPalette();
  }

  refresh() {
    for (const item of this.shown) this.tiles.get(item.id).show(this.marks.get(item.id));
    const send = this.controls.querySelector('[data-action=send]');
    send.disabled = !this.shown.length;
    send.querySelector('.plan').textContent = this.summary();
    for (const action of ['history', 'zoom', 'skip']) {
      this.controls.querySelector(`[data-action=${action}]`).disabled = !this.shown.length;
    }
    this.controls.querySelector('[data-action=page-back]').disabled = this.start === 0;
    this.showPalette();
  }

  showPalette() {
    const marked = this.item && this.marks.get(this.item.id);
    const reasons = marked?.verdict === 'reject' ? marked.reasons : this.reasons;
    for (const [value] of REASONS) {
      const button = this.controls.querySelector(`[data-reason=${value}]`);
      button.setAttribute('aria-pressed', reasons.includes(value));
      // On a phone they stand in one line that scrolls.
      if (reasons[0] === value) button.parentElement.scrollLeft = button.offsetLeft - button.parentElement.offsetLeft - 40;
    }
  }
}

function count(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

function past(choices) {
  const counts = { accept: 0, reject: 0, skip: 0 };
  for (const { verdict } of choices) counts[verdict] += 1;
  const parts = [['accept', 'accepted'], ['reject', 'rejected'], ['skip', 'skipped']];
  return parts.filter(([verdict]) => counts[verdict]).map(([verdict, word]) => `${counts[verdict]} ${word}`).join(', ');
}
