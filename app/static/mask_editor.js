// The mask of one candidate, corrected by hand: a brush, scribbles that GrabCut grows, clicks that SAM answers where its
// weights are. "Make again" inpaints and scores the image anew; the page goes on with the new version.

import { RequestFailed, request } from './review_api.js';

const POLL_MS = 500;
const HISTORY = 40;
const SIZES = [3, 6, 12, 24, 48];
const MARK = { mask: [255, 80, 40], on: [40, 200, 90], off: [50, 110, 255] };
const TOOLS = [
  ['brush', 'B', 'Brush', 'Paint what has to go; Shift or X erases'],
  ['erase', 'X', 'Eraser', 'Take away from the mask'],
  ['on', 'O', 'On the object', 'Scribble on the object, then Grow'],
  ['off', 'K', 'Keep', 'Scribble on what must stay, then Grow'],
  ['click', 'C', 'Click', 'Segment Anything: click the object, Shift-click what is not it'],
];

export class MaskEditor {
  /** @param {HTMLDialogElement} dialog  @param {{made: Function}} told made(old, item) gets the new version */
  constructor(dialog, { made }) {
    this.dialog = dialog;
    this.made = made;
    dialog.addEventListener('keydown', (event) => this.key(event));
    dialog.addEventListener('close', () => this.stop());
  }

  async open(item) {
    this.item = item;
    this.life = new AbortController();
    this.tool = 'brush';
    this.size = 12;
    this.undoStack = [];
    this.clicks = [];
    this.build();
    this.dialog.showModal();
    this.canvas.focus({ preventScroll: true });
    const [photo, mask, tools] = await Promise.all([
      picture(item.urls.source),
      picture(item.urls.mask),
      request('/masks/tools').catch(() => ({ sam: false })),
    ]);
    if (this.item !== item || !this.dialog.open) return;
    if (!photo || !mask) {
      this.say('The images could not be loaded; close and try again.');
      return;
    }
    this.photo = photo;
    this.layers = { mask: layer(item), on: layer(item), off: layer(item) };
    this.layers.mask.drawImage(mask, 0, 0, item.width, item.height);
    whiten(this.layers.mask, item, 50);
    this.button('click').hidden = !tools.sam;
    this.draw();
    this.say('Paint over what is left of the object; Shift erases.');
  }

  stop() {
    this.life?.abort();
    clearTimeout(this.poll);
    this.item = this.photo = this.layers = this.loaded = null;
    this.dialog.replaceChildren();
  }

  // ---- the dialog ----

  build() {
    const { item } = this;
    const tools = make('div', 'mask-tools');
    tools.setAttribute('role', 'toolbar');
    tools.setAttribute('aria-label', 'Mask tools');
    for (const [name, key, text, hint] of TOOLS) tools.append(this.toolButton(name, key, text, hint));
    const size = Object.assign(document.createElement('input'), { type: 'range', min: 0, max: SIZES.length - 1, value: SIZES.indexOf(this.size) });
    size.setAttribute('aria-label', 'Size of the brush');
    size.addEventListener('input', () => this.setSize(SIZES[size.value]));
    this.sizeInput = size;
    tools.append(size, this.action('grow', 'W', 'Grow', () => this.grow()), this.action('undo', 'U', 'Undo', () => this.undo()));
    this.canvas = Object.assign(document.createElement('canvas'), { width: item.width, height: item.height, tabIndex: 0 });
    this.canvas.setAttribute('aria-label', `Photo of ${item.class_name} with its mask`);
    this.listen();
    const foot = make('div', 'mask-foot');
    this.status = make('p', 'mask-status');
    this.status.setAttribute('role', 'status');
    this.send = this.action('send', 'Enter', 'Make again', () => this.remake());
    this.send.classList.add('accept');
    const cancel = make('button', '', 'Close');
    cancel.type = 'button';
    cancel.addEventListener('click', () => this.dialog.close());
    foot.append(this.status, cancel, this.send);
    const frame = make('div', 'mask-frame');
    frame.append(this.canvas);
    this.dialog.replaceChildren(make('h3', '', `Correct the mask: ${item.class_name}`), tools, frame, foot);
    this.choose(this.tool);
  }

  toolButton(name, key, text, hint) {
    const button = this.action(name, key, text, () => this.choose(name));
    button.title = hint;
    button.dataset.tool = name;
    return button;
  }

  action(name, key, text, run) {
    const button = make('button', '', '');
    button.type = 'button';
    button.dataset.maskAction = name;
    button.append(make('kbd', '', key), text);
    button.addEventListener('click', run);
    return button;
  }

  button(name) {
    return this.dialog.querySelector(`[data-mask-action=${name}]`);
  }

  choose(tool) {
    this.tool = tool;
    for (const button of this.dialog.querySelectorAll('[data-tool]')) button.setAttribute('aria-pressed', button.dataset.tool === tool);
  }

  setSize(size) {
    this.size = size;
    this.sizeInput.value = SIZES.indexOf(size);
  }

  say(text) {
    if (this.status) this.status.textContent = text;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.key === 'Escape') return;
    event.stopPropagation(); // the page behind judges with these keys
    const key = event.key.toLowerCase();
    const tool = TOOLS.find(([, letter]) => letter.toLowerCase() === key);
    if (tool && !this.button(tool[0]).hidden) this.choose(tool[0]);
    else if (key === 'u') this.undo();
    else if (key === 'w') this.grow();
    else if (key === '+' || key === '-') this.setSize(SIZES[Math.max(0, Math.min(SIZES.length - 1, SIZES.indexOf(this.size) + (key === '+' ? 1 : -1)))]);
    else if (key === 'enter' && !event.target.closest('button')) this.remake();
    else return;
    event.preventDefault();
  }

  // ---- painting ----

  listen() {
    const { signal } = this.life;
    this.canvas.addEventListener('pointerdown', (event) => this.down(event), { signal });
    this.canvas.addEventListener('pointermove', (event) => this.move(event), { signal });
    for (const end of ['pointerup', 'pointercancel']) this.canvas.addEventListener(end, () => (this.last = null), { signal });
    this.canvas.addEventListener('contextmenu', (event) => event.preventDefault(), { signal });
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const { width, height } = this.item;
    const scale = Math.min(box.width / width, box.height / height); // the photo lies in the middle of its box
    return {
      x: (event.clientX - box.left - (box.width - width * scale) / 2) / scale,
      y: (event.clientY - box.top - (box.height - height * scale) / 2) / scale,
    };
  }

  down(event) {
    if (!this.layers || this.busy || event.button !== 0) return;
    const place = this.place(event);
    if (this.tool === 'click') {
      this.click(place, !event.shiftKey);
      return;
    }
    this.keep();
    this.canvas.setPointerCapture(event.pointerId);
    this.erasing = this.tool === 'erase' || (this.tool === 'brush' && event.shiftKey);
    this.last = place;
    this.stroke(place, place);
  }

  move(event) {
    if (!this.last) return;
    const place = this.place(event);
    this.stroke(this.last, place);
    this.last = place;
  }

  stroke(from, to) {
    const layer = this.layers[this.tool === 'on' || this.tool === 'off' ? this.tool : 'mask'];
    layer.globalCompositeOperation = this.erasing ? 'destination-out' : 'source-over';
    Object.assign(layer, { strokeStyle: '#fff', lineWidth: this.size, lineCap: 'round', lineJoin: 'round' });
    layer.beginPath();
    layer.moveTo(from.x, from.y);
    layer.lineTo(to.x, to.y + 0.01); // a line without length paints nothing
    layer.stroke();
    layer.globalCompositeOperation = 'source-over';
    this.draw();
  }

  keep() {
    const { width, height } = this.item;
    this.undoStack.push(Object.values(this.layers).map((one) => one.getImageData(0, 0, width, height)));
    if (this.undoStack.length > HISTORY) this.undoStack.shift();
  }

  undo() {
    const before = this.undoStack.pop();
    if (!before) {
      this.say('There is nothing to undo.');
      return;
    }
    Object.values(this.layers).forEach((one, number) => one.putImageData(before[number], 0, 0));
    this.draw();
  }

  draw() {
    const { width, height } = this.item;
    const view = this.canvas.getContext('2d');
    view.drawImage(this.photo, 0, 0, width, height);
    for (const [name, colour] of Object.entries(MARK)) {
      const tint = layer(this.item);
      tint.drawImage(this.layers[name].canvas, 0, 0);
      tint.globalCompositeOperation = 'source-in';
      tint.fillStyle = `rgb(${colour.join(' ')} / ${name === 'mask' ? 0.5 : 0.85})`;
      tint.fillRect(0, 0, width, height);
      view.drawImage(tint.canvas, 0, 0);
    }
  }

  // ---- what the server does ----

  png(name) {
    const { width, height } = this.item;
    const flat = layer(this.item);
    flat.fillStyle = '#000';
    flat.fillRect(0, 0, width, height);
    flat.drawImage(this.layers[name].canvas, 0, 0);
    return flat.canvas.toDataURL('image/png').split(',')[1];
  }

  async use(base64) {
    const { item } = this;
    const mask = await picture(`data:image/png;base64,${base64}`);
    if (this.item !== item) return;
    this.keep();
    for (const one of Object.values(this.layers)) one.clearRect(0, 0, item.width, item.height);
    this.layers.mask.drawImage(mask, 0, 0);
    whiten(this.layers.mask, item, 127);
    this.draw();
  }

  async working(sentence, run) {
    if (this.busy || !this.layers) return;
    const { item } = this;
    this.busy = true;
    this.send.disabled = true;
    this.say(sentence);
    try {
      await run(item);
    } catch (error) {
      if (!(error instanceof RequestFailed)) throw error;
      if (this.item === item) this.say(error.message);
    } finally {
      this.busy = false;
      if (this.item === item) this.send.disabled = false;
    }
  }

  grow() {
    return this.working('Growing the mask from the scribbles …', async (item) => {
      const body = { mask: this.png('mask'), on: this.png('on'), off: this.png('off') };
      const { mask } = await request(`/masks/${item.id}/grow`, { method: 'POST', body });
      await this.use(mask);
      this.say('Grown. Scribble more and grow again, or paint over it.');
    });
  }

  click({ x, y }, on) {
    this.clicks.push({ x, y, on });
    return this.working('Segment Anything looks at the click …', async (item) => {
      const { id } = await request(`/masks/${item.id}/clicks`, { method: 'POST', body: { clicks: this.clicks } });
      const done = await this.wait(id, item);
      if (!done) return;
      await this.use(done.mask);
      this.say('Click more of the object, or Shift-click what is not it.');
    });
  }

  remake() {
    return this.working('Making the image again …', async (item) => {
      const body = { mask: this.png('mask'), result_sha256: item.sha256 };
      const { id } = await request(`/masks/${item.id}`, { method: 'POST', body });
      const done = await this.wait(id, item);
      if (!done) return;
      // Seen at once: a key pressed on a picture that has not come yet would judge nothing.
      this.loaded = await Promise.all(['result', 'mask'].map((name) => picture(done.candidate.urls[name])));
      if (this.item !== item) return;
      this.dialog.close();
      this.made(item, done.candidate);
    });
  }

  /** The finished job, or null when the dialog was closed meanwhile. Raises RequestFailed when it failed. */
  async wait(id, item) {
    for (;;) {
      await new Promise((go) => (this.poll = setTimeout(go, POLL_MS)));
      if (this.item !== item) return null;
      const job = await request(`/masks/jobs/${id}`);
      if (this.item !== item) return null;
      if (job.state === 'done') return job;
      if (job.state === 'failed' || job.state === 'cancelled') throw new RequestFailed(job.error || 'The job was cancelled.', 500);
      if (job.message) this.say(`${job.message} …`);
    }
  }
}

function layer({ width, height }) {
  return Object.assign(document.createElement('canvas'), { width, height }).getContext('2d', { willReadFrequently: true });
}

/** Grey above the threshold becomes opaque white, the rest clear. */
function whiten(context, { width, height }, threshold) {
  const pixels = context.getImageData(0, 0, width, height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const on = pixels.data[at] > threshold && pixels.data[at + 3] > 0;
    pixels.data.fill(on ? 255 : 0, at, at + 4);
  }
  context.putImageData(pixels, 0, 0);
}

async function picture(src) {
  const image = Object.assign(new Image(), { src });
  try {
    await image.decode();
  } catch {
    return null;
  }
  return image;
}

function make(tag, className, text = '') {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}
