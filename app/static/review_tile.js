// One candidate on the grid's sheet: its result, the source behind it, and what it is marked as.

import { REASON_TEXT, VERDICTS, verdictText } from './review_markup.js';

const RETRY_MS = 1500;

export class Tile {
  constructor(item) {
    this.item = item;
    this.broken = false;
    this.arrivedAt = 0; // performance.now() of the result's arrival
    this.words = '';
    this.root = document.createElement('div');
    this.root.className = 'tile';
    this.root.setAttribute('role', 'option');
    this.root.dataset.candidate = item.id;
    this.result = this.image('tile-result', 'high');
    this.source = this.image('tile-source', 'low');
    this.label = document.createElement('span');
    this.label.className = 'tile-label';
    const picture = document.createElement('div');
    picture.className = 'tile-picture';
    picture.append(this.result, this.source, this.label);
    const name = document.createElement('div');
    name.className = 'tile-name';
    name.textContent = item.class_name;
    this.root.append(picture, name);
    // After a click the mark is what one wants to see, not the source.
    this.root.addEventListener('click', () => this.root.classList.add('settled'));
    this.root.addEventListener('pointerleave', () => this.root.classList.remove('settled'));
    this.result.addEventListener('load', () => this.arrived());
    this.result.addEventListener('error', () => this.failed());
    this.result.src = item.urls.result;
  }

  image(className, priority) {
    const image = new Image();
    image.className = className;
    image.alt = ''; // the tile's name says what it is
    image.draggable = false;
    image.decoding = 'sync';
    image.fetchPriority = priority;
    return image;
  }

  loadSource() {
    if (!this.source.src) this.source.src = this.item.urls.source;
  }

  /** Whether the person can have seen the result. */
  seen() {
    return this.result.complete && this.result.naturalWidth > 0;
  }

  arrived() {
    this.broken = false;
    this.arrivedAt = performance.now();
    this.root.classList.remove('broken');
  }

  failed() {
    this.broken = true;
    this.root.classList.add('broken');
    this.timer = setTimeout(() => (this.result.src = this.item.urls.result), RETRY_MS);
  }

  /** Show the mark, else the verdict that stands, else that it would be accepted. */
  show(mark) {
    const { item, root } = this;
    const shown = mark ?? (item.verdict ? item : null);
    root.dataset.mark = mark?.verdict ?? '';
    root.dataset.verdict = mark ? '' : (item.verdict ?? '');
    root.setAttribute('aria-selected', mark?.verdict === 'reject');
    this.label.textContent = shown ? labelOf(shown, mark) : '';
    this.words = shown ? `${mark ? 'to be ' : ''}${verdictText(shown).toLowerCase()}` : 'to be accepted';
    root.setAttribute('aria-label', `${item.class_name}, ${this.words}`);
  }

  destroy() {
    clearTimeout(this.timer);
    this.root.remove();
    this.result.removeAttribute('src');
    this.source.removeAttribute('src');
  }
}

/** What there is room for: the reasons alone say that it is a reject. */
function labelOf({ verdict, reasons }, mark) {
  const words = verdict === 'reject' ? reasons.map((reason) => REASON_TEXT[reason]).join(', ') : VERDICTS[verdict];
  return mark ? words : `${verdict === 'reject' ? '✕' : '✓'} ${words}`;
}
