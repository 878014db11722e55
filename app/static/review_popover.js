// A small panel below its button: opens and closes on the button, closes on Esc and on a press elsewhere.

export class Popover {
  /**
   * @param {HTMLElement} root the review page
   * @param {string} name of [data-opens] and [data-popover]
   * @param {{opened?: Function, signal: AbortSignal}} options
   */
  constructor(root, name, { opened = () => {}, signal }) {
    this.button = root.querySelector(`[data-opens=${name}]`);
    this.panel = root.querySelector(`[data-popover=${name}]`);
    this.opened = opened;
    this.button.setAttribute('aria-expanded', 'false');
    this.button.addEventListener('click', () => this.toggle(this.panel.hidden));
    this.panel.addEventListener('keydown', (event) => event.key === 'Escape' && this.escape(event));
    this.button.addEventListener('keydown', (event) => event.key === 'Escape' && !this.panel.hidden && this.escape(event));
    document.addEventListener('pointerdown', (event) => this.pressed(event), { signal });
  }

  toggle(open) {
    this.panel.hidden = !open;
    this.button.setAttribute('aria-expanded', open);
    if (!open) return;
    this.opened();
    this.panel.querySelector('input, select, button:not([hidden])')?.focus({ preventScroll: true });
  }

  escape(event) {
    event.preventDefault();
    event.stopPropagation();
    this.toggle(false);
    this.button.focus({ preventScroll: true });
  }

  pressed(event) {
    if (this.panel.hidden || this.panel.contains(event.target) || this.button.contains(event.target)) return;
    this.toggle(false);
  }
}
