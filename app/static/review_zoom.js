// Zoom of the three pictures together: the whole picture, then steps in the image's own pixels. Only what is inside
// the panes is scaled, so the page itself never moves.

const STEPS = [1, 2, 4, 8, 16]; // screen pixels an image pixel
const OFFERED = 2;
const PAN = 0.2; // of a pane, a key press

export class Zoom {
  /**
   * @param {HTMLElement} stage holds the slides
   * @param {Function} changed called with the zoom in words: 'fit', '100 %', ...
   */
  constructor(stage, changed) {
    this.stage = stage;
    this.changed = changed;
    this.level = 0;
    this.slide = null;
    this.pointer = null;
    this.at = { scale: 1, x: 0, y: 0 }; // x, y: shift of the picture's centre, in panes
    stage.addEventListener('pointermove', (event) => this.move(event));
    stage.addEventListener('pointerleave', () => (this.pointer = null));
    stage.addEventListener('pointerdown', (event) => this.grab(event));
    for (const end of ['pointerup', 'pointercancel']) stage.addEventListener(end, () => (this.held = null));
  }

  /** Whether arrows would move the picture. */
  get on() {
    return this.level > 0;
  }

  /** Another picture: the same level, around the middle of what was removed from it. */
  show(slide) {
    this.slide = slide;
    this.held = null;
    if (this.on) this.apply();
  }

  /** The next level; what is under the pointer stays there. */
  cycle() {
    const steps = this.steps();
    this.level = this.level < steps.length ? this.level + 1 : 0;
    this.apply(this.pointer);
  }

  reset() {
    this.level = 0;
    this.apply();
  }

  /** Move the view by a key press. */
  pan(right, down) {
    this.shift(this.at.x - right * PAN, this.at.y - down * PAN);
  }

  steps() {
    const size = this.size();
    if (!size) return [];
    return STEPS.filter((step) => step / devicePixelRatio > size.fit * 1.05).slice(0, OFFERED);
  }

  /** The result's pane and picture in CSS pixels, and how many of them an image pixel takes when all is shown. */
  size() {
    const image = this.slide?.result;
    if (!image?.naturalWidth) return null;
    const { clientWidth: width, clientHeight: height } = image.parentElement;
    const fit = Math.min(width / image.naturalWidth, height / image.naturalHeight);
    return { width, height, fit, pictureWidth: image.naturalWidth * fit, pictureHeight: image.naturalHeight * fit };
  }

  apply(pointer = null) {
    const size = this.size();
    if (this.on && !size) return; // the picture is not there yet: show() comes again with it
    const step = this.on ? this.steps()[this.level - 1] : undefined;
    const scale = step ? step / devicePixelRatio / size.fit : 1;
    if (pointer && step) {
      const ratio = scale / this.at.scale;
      this.at.scale = scale;
      this.shift(pointer.x - (pointer.x - this.at.x) * ratio, pointer.y - (pointer.y - this.at.y) * ratio);
    } else {
      this.at.scale = scale;
      const { x, y } = this.slide?.centre ?? { x: 0.5, y: 0.5 };
      if (step) this.shift(((0.5 - x) * size.pictureWidth * scale) / size.width, ((0.5 - y) * size.pictureHeight * scale) / size.height);
      else this.shift(0, 0);
    }
    this.stage.classList.toggle('zoom', Boolean(step));
    this.stage.classList.toggle('pixels', step >= 2);
    this.changed(step ? `${step * 100} %` : 'fit');
  }

  /** Put the picture's centre there, but never the picture's edge inside the pane. */
  shift(x, y) {
    const size = this.size();
    const limit = (picture, pane) => Math.max(0, (picture * this.at.scale - pane) / 2 / pane);
    const across = size ? limit(size.pictureWidth, size.width) : 0;
    const down = size ? limit(size.pictureHeight, size.height) : 0;
    this.at.x = Math.max(-across, Math.min(across, x));
    this.at.y = Math.max(-down, Math.min(down, y));
    this.stage.style.setProperty('--zoom', this.at.scale);
    this.stage.style.setProperty('--pan-x', `${this.at.x * 100}%`);
    this.stage.style.setProperty('--pan-y', `${this.at.y * 100}%`);
  }

  /** Where the pointer is in the pane under it, from its middle, in panes. */
  place(event) {
    const box = event.target.closest('.picture')?.getBoundingClientRect();
    if (!box) return null;
    return { x: (event.clientX - box.left) / box.width - 0.5, y: (event.clientY - box.top) / box.height - 0.5, box };
  }

  grab(event) {
    if (!this.on || event.button !== 0) return;
    const place = this.place(event);
    if (!place) return;
    this.held = { clientX: event.clientX, clientY: event.clientY, x: this.at.x, y: this.at.y, box: place.box };
    this.stage.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (!this.held) {
      this.pointer = event.pointerType === 'mouse' ? this.place(event) : null;
      return;
    }
    const { clientX, clientY, x, y, box } = this.held;
    this.shift(x + (event.clientX - clientX) / box.width, y + (event.clientY - clientY) / box.height);
  }
}
