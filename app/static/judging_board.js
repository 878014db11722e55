// Source, mask and result side by side with the keys to judge them, for the pages that judge one candidate at a time.

import { actionOf, isOurs } from './review_keys.js';
import { REASONS } from './review_markup.js';
import { Ring } from './review_ring.js';
import { button, make } from './judging.js';

/** The pictures of one candidate; those around it are loaded already. */
export class Board {
  constructor() {
    this.stage = make('div', { className: 'stage', tabIndex: -1, role: 'group', ariaLabel: 'Source, mask and result' });
    this.resultHead = make('span', { textContent: 'Result' });
    const heads = make('div', { className: 'heads', ariaHidden: 'true' },
      make('span', { textContent: 'Source' }), make('span', { textContent: 'Mask' }), this.resultHead);
    this.root = make('div', { className: 'board' }, heads, this.stage);
    this.ring = new Ring(this.stage);
    this.views = [
      button('[F] Flicker', () => this.toggle('flicker'), { ariaPressed: 'false' }),
      button('[M] Mask', () => this.toggle('mask'), { ariaPressed: 'true' }),
    ];
  }

  /** items have id, class_name and urls. */
  show(items, position) {
    this.ring.show(items, position);
  }

  /** Whether the picture to be judged is there. */
  seen() {
    return this.ring.seen();
  }

  toggle(view) {
    const pressed = this.views[view === 'flicker' ? 0 : 1];
    const on = pressed.ariaPressed !== 'true';
    pressed.ariaPressed = String(on);
    this.stage.classList.toggle(view === 'mask' ? 'no-mask' : 'flicker', view === 'mask' ? !on : on);
    if (view === 'flicker') this.resultHead.textContent = on ? 'Source, in the place of the result' : 'Result';
  }
}

/** The seven reasons as buttons that can be picked. chosen(reasons) is called with one click, with Shift they add up. */
export class ReasonButtons {
  constructor(chosen) {
    this.chosen = chosen;
    this.picked = new Set();
    this.buttons = REASONS.map(([value, text], index) =>
      button(`[${index + 1}] ${text}`, (event) => this.pick(index, event.shiftKey), { ariaPressed: 'false', dataset: { reason: value } }),
    );
    this.root = make('div', { className: 'reasons', role: 'group', ariaLabel: 'Reasons' }, ...this.buttons);
  }

  pick(index, more) {
    const [value] = REASONS[index];
    if (more && this.picked.has(value)) this.picked.delete(value);
    else this.picked.add(value);
    this.buttons.forEach((one) => (one.ariaPressed = String(this.picked.has(one.dataset.reason))));
    if (!more) this.finish();
  }

  /** Choose what is picked. */
  finish() {
    if (this.picked.size) this.chosen([...this.picked]);
  }

  clear() {
    this.picked.clear();
    this.buttons.forEach((one) => (one.ariaPressed = 'false'));
  }
}

/** Hand keydowns that are meant for root to act(event, key): key as of review_keys.js, {} for another one. */
export function listen(root, act) {
  document.addEventListener('keydown', (event) => {
    if (!isOurs(event, root)) return;
    const key = actionOf(event) ?? {};
    if (act(event, key)) event.preventDefault();
  });
}
