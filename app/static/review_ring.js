// The images of the current item, the next ones and the last few, all loaded and in the page, so that moving
// on is one class toggled. Hidden slides are not painted.

const AHEAD = 10;
const BEHIND = 3;
const RETRY_MS = 1500;
// As canvases keep them, alpha first and red last. The tint is magenta: rare in photos, and told apart by every kind of
// colour vision.
const FILL = 0x607f26dc;
const INNER_EDGE = 0xebffffff;
const OUTER_EDGE = 0xc8160a1e;

export class Ring {
  /** @param {HTMLElement} stage holds the slides */
  constructor(stage) {
    this.stage = stage;
    this.slides = new Map();
    this.current = null;
  }

  /** Show items[position]; load those around it, nearest first, and let go of the rest. */
  show(items, position) {
    this.current?.root.classList.remove('on');
    const item = items[position];
    this.current = item ? this.slide(item) : null;
    this.current?.root.classList.add('on');
    clearTimeout(this.loader);
    // After the swap has been painted: making elements must not hold up the image one waits for.
    this.loader = setTimeout(() => this.prefetch(items, position), 0);
  }

  prefetch(items, position) {
    const around = items.slice(Math.max(0, position - BEHIND), position + AHEAD + 1);
    const wanted = new Set(around.map((item) => item.id));
    for (const [id, slide] of this.slides) {
      if (!wanted.has(id)) {
        slide.destroy();
        this.slides.delete(id);
      }
    }
    for (const item of items.slice(position, position + AHEAD + 1)) this.slide(item);
  }

  slide(item) {
    let slide = this.slides.get(item.id);
    if (!slide) {
      slide = new Slide(item);
      this.slides.set(item.id, slide);
      this.stage.append(slide.root);
    }
    return slide;
  }

  /** Whether the person can have seen the result of the current item. */
  seen() {
    const image = this.current?.result;
    return Boolean(image && image.complete && image.naturalWidth > 0);
  }

  clear() {
    clearTimeout(this.loader);
    for (const slide of this.slides.values()) slide.destroy();
    this.slides.clear();
    this.current = null;
  }
}

class Slide {
  constructor(item) {
    this.timers = new Set();
    this.root = document.createElement('div');
    this.root.className = 'slide';
    this.root.dataset.candidate = item.id;
    const source = this.image(item.urls.source, `Source photo, ${item.class_name}`);
    const under = this.image(item.urls.source, `Source photo with the mask of the ${item.class_name} tinted`);
    this.result = this.image(item.urls.result, `Result: the photo without the ${item.class_name}`);
    const flicker = this.image(item.urls.source, '');
    flicker.className = 'flicker';
    const overlay = document.createElement('canvas');
    overlay.className = 'overlay';
    const masked = pane('mask', under, overlay);
    if (item.masked !== false) {
      const mask = this.image(item.urls.mask, '');
      mask.addEventListener('load', () => (this.centre = drawOverlay(overlay, mask)));
    } else {
      masked.classList.add('maskless'); // it came in an archive without one
    }
    this.root.append(pane('source', source), masked, pane('result', this.result, flicker));
  }

  image(url, description) {
    const image = new Image();
    image.decoding = 'sync'; // already loaded when it is shown: an asynchronous decode would flash
    image.draggable = false;
    image.alt = description;
    const holder = () => image.parentElement?.parentElement;
    image.addEventListener('load', () => holder()?.classList.remove('broken'));
    image.addEventListener('error', () => {
      holder()?.classList.add('broken');
      const timer = setTimeout(() => {
        this.timers.delete(timer);
        image.src = url;
      }, RETRY_MS);
      this.timers.add(timer);
    });
    image.src = url;
    return image;
  }

  destroy() {
    this.timers.forEach(clearTimeout);
    this.timers.clear();
    this.root.remove();
  }
}

function pane(name, ...content) {
  const element = document.createElement('div');
  element.className = `pane pane-${name}`;
  const picture = document.createElement('div');
  picture.className = 'picture';
  picture.append(...content);
  element.append(picture);
  return element;
}

/**
 * Tint the mask's inside, and outline it light on dark so that it shows on any photo. Returns the middle of the inside
 * as fractions of width and height.
 */
function drawOverlay(canvas, mask) {
  const width = (canvas.width = mask.naturalWidth);
  const height = (canvas.height = mask.naturalHeight);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(mask, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  // One number a pixel: arrays of four would be made and thrown away by the hundred thousand at every key.
  const colours = new Uint32Array(pixels.data.buffer);
  const inside = new Uint8Array(width * height);
  const sum = { count: 0, x: 0, y: 0 };
  for (let y = 0, i = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, i += 1) {
      if ((colours[i] & 255) <= 127) continue;
      inside[i] = 1;
      sum.count += 1;
      sum.x += x;
      sum.y += y;
    }
  }
  const reach = Math.max(1, Math.round(Math.max(width, height) / 300));
  const row = reach * width;
  for (let y = 0, i = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, i += 1) {
      const here = inside[i];
      const edge =
        (x >= reach && inside[i - reach] !== here) ||
        (x < width - reach && inside[i + reach] !== here) ||
        (y >= reach && inside[i - row] !== here) ||
        (y < height - reach && inside[i + row] !== here);
      colours[i] = edge ? (here ? INNER_EDGE : OUTER_EDGE) : here ? FILL : 0;
    }
  }
  context.putImageData(pixels, 0, 0);
  if (!sum.count) return { x: 0.5, y: 0.5 };
  return { x: sum.x / sum.count / width, y: sum.y / sum.count / height };
}
