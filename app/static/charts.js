// Charts as inline SVG that take new numbers while they are looked at. A pointer, or the arrow keys once a chart has the
// focus, picks a place on the x axis; the legend then says the values there. Data enters as text only.

import { button, draw, make } from './judging.js';

const WIDTH = 460;
const HEIGHT = 260;
const LEFT = 66;
const RIGHT = 14;
const TOP = 12;
const BOTTOM = 42;
const LEGEND_LINE = 18;
const TICKS = 5;
const PNG_SCALE = 2;
const DRAWN = ['fill', 'fill-opacity', 'stroke', 'stroke-width', 'stroke-dasharray', 'opacity', 'font-size', 'font-family', 'visibility'];
let charts = 0;

/** A number with as many digits as a person reads off a chart. */
export function short(value) {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(1).replace('e+', 'e').replace('.0e', 'e');
  return String(Number(value.toPrecision(4)));
}

/** Round numbers from at most low to at least high, about `count` of them. */
export function niceTicks(low, high, count = TICKS) {
  if (high === low) return [low];
  const rough = (high - low) / (count - 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/**
 * One chart. options: title, xLabel, yLabel, caption, xDomain and yDomain [low, high] where they are fixed, whole (the x
 * are whole numbers), newest (the legend says the last values of lines, while no place is looked at), xWord (what an x is called in the legend), format (of a y), formatTick (of one on the axis), formatX, formatXTick.
 */
export class Chart {
  constructor(options) {
    this.options = { caption: '', newest: true, format: short, formatTick: short, formatX: short, formatXTick: options.formatX ?? short, xWord: options.xLabel, ...options };
    this.series = [];
    this.guides = [];
    this.index = null;
    const name = `chart-${(charts += 1)}`;
    this.description = draw('desc', { id: `${name}-text` });
    this.plot = draw('g');
    this.mark = draw('g', { class: 'mark', visibility: 'hidden' });
    this.picture = draw('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', tabindex: '0', 'aria-labelledby': `${name}-title ${name}-text` },
      draw('title', { id: `${name}-title` }, options.title), this.description, this.plot, this.mark);
    this.legend = make('ul', { className: 'legend' });
    this.caption = make('figcaption', { textContent: this.options.caption });
    this.element = make('figure', { className: 'plot chart' },
      make('div', { className: 'plot-head' }, make('h4', { textContent: options.title }), downloads(this.picture, options.title, () => this.series.map((one) => one.name))),
      this.picture, this.legend, this.caption);
    this.picture.addEventListener('pointermove', (event) => this.point(event));
    this.picture.addEventListener('pointerleave', () => this.pick(null));
    this.picture.addEventListener('keydown', (event) => this.step(event));
    this.picture.addEventListener('focus', () => this.legend.setAttribute('aria-live', 'polite'));
    this.picture.addEventListener('blur', () => {
      this.legend.removeAttribute('aria-live');
      this.pick(null);
    });
  }

  /**
   * Draw series: [{ name, points: [[x, y], ...], shape }], shape line (default), area (a step from each x to the next, the
   * last point closing it) or dots. guides: [[x1, y1, x2, y2], ...] are dashed lines.
   */
  show(series, guides = []) {
    this.series = series.filter((one) => one.points.length);
    this.guides = guides;
    this.element.hidden = !this.series.length;
    if (this.series.length) this.redraw();
  }

  redraw() {
    const { xDomain, yDomain, whole } = this.options;
    const all = this.series.flatMap((one) => one.points);
    this.places = [...new Set(this.series.flatMap((one) => (one.shape === 'area' ? one.points.slice(0, -1) : one.points).map(([x]) => x)))].sort((a, b) => a - b);
    const [xLow, xHigh] = xDomain ?? range(all.map(([x]) => x));
    const ySpan = yDomain ?? range(all.map(([, y]) => y));
    const yTicks = niceTicks(...(ySpan[0] === ySpan[1] ? [ySpan[0] - 0.5, ySpan[1] + 0.5] : ySpan));
    const [yLow, yHigh] = [yTicks[0], yTicks.at(-1)];
    const xTicks = niceTicks(xLow, xHigh === xLow ? xLow + 1 : xHigh, 6).filter((x) => x >= xLow - 1e-9 && x <= Math.max(xHigh, xLow) + 1e-9 && (!whole || Number.isInteger(x)));
    this.x = (value) => LEFT + (WIDTH - LEFT - RIGHT) * (xHigh === xLow ? 0.5 : (value - xLow) / (xHigh - xLow));
    this.y = (value) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ((value - yLow) / (yHigh - yLow));
    const { x, y } = this;
    const [floor, ceiling, start, end] = [HEIGHT - BOTTOM, TOP, LEFT, WIDTH - RIGHT];
    this.plot.replaceChildren(
      ...yTicks.map((value) => draw('line', { class: 'grid', x1: start, x2: end, y1: y(value), y2: y(value) })),
      draw('line', { class: 'axis', x1: start, y1: floor, x2: end, y2: floor }),
      ...yTicks.map((value) => draw('text', { x: start - 7, y: y(value) + 4, 'text-anchor': 'end' }, this.options.formatTick(value))),
      ...xTicks.map((value) => draw('text', { x: x(value), y: floor + 17, 'text-anchor': x(value) === end ? 'end' : 'middle' }, this.options.formatXTick(value))),
      draw('text', { class: 'axis-name', x: (start + end) / 2, y: HEIGHT - 5, 'text-anchor': 'middle' }, this.options.xLabel),
      draw('text', { class: 'axis-name', x: 12, y: (floor + ceiling) / 2, 'text-anchor': 'middle', transform: `rotate(-90 12 ${(floor + ceiling) / 2})` }, this.options.yLabel),
      ...this.guides.map(([x1, y1, x2, y2]) => draw('line', { class: 'guide', x1: x(x1), y1: y(y1), x2: x(x2), y2: y(y2) })),
      ...this.series.flatMap((one, index) => this.draw(one, index)),
    );
    this.description.textContent = this.series.map((one) => `${one.name}: ${this.summary(one)}`).join('; ');
    this.say();
  }

  draw(one, index) {
    const kind = `series-${index + 1}`;
    const places = one.points.map(([x, y]) => [this.x(x), this.y(y)]);
    if (one.shape === 'dots') {
      const most = Math.max(...one.points.map(([, , weight = 1]) => weight));
      return one.points.map(([, , weight = 1], at) => draw('circle', { class: `dot ${kind}`, cx: places[at][0], cy: places[at][1], r: 3 + 5 * Math.sqrt(weight / most) }));
    }
    if (one.shape === 'area') {
      const floor = this.y(0);
      const steps = places.slice(0, -1).map(([left, top], at) => `V${top}H${places[at + 1][0]}`).join('');
      const way = `M${places[0][0]},${floor}${steps}V${floor}`;
      return [draw('path', { class: `area ${kind}`, d: `${way}Z` }), draw('path', { class: `line ${kind}`, d: way })];
    }
    if (places.length === 1) return [draw('circle', { class: `dot ${kind}`, cx: places[0][0], cy: places[0][1], r: 4 })];
    return [draw('polyline', { class: `line ${kind}`, points: places.map((place) => place.join(',')).join(' ') })];
  }

  summary(one) {
    const [first, last] = [one.points[0], one.points.at(-1)];
    if (one.shape) return one.points.slice(0, 30).map(([x, y]) => `${this.options.formatX(x)}: ${this.options.format(y)}`).join(', ');
    return `${this.options.format(first[1])} at ${this.options.formatX(first[0])}, ${this.options.format(last[1])} at ${this.options.formatX(last[0])}`;
  }

  // ---- one place looked at ----

  point(event) {
    if (!this.series.length) return;
    const box = this.picture.getBoundingClientRect();
    const across = ((event.clientX - box.left) / box.width) * WIDTH;
    this.pick(this.nearest(across));
  }

  nearest(across) {
    const behind = this.places.filter((value) => this.x(value) <= across).length - 1;
    if (this.series[0].shape === 'area') return Math.max(0, behind);
    const [before, after] = [Math.max(0, behind), Math.min(this.places.length - 1, behind + 1)];
    return across - this.x(this.places[before]) <= this.x(this.places[after]) - across ? before : after;
  }

  step(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || !this.series.length) return;
    event.preventDefault();
    const from = this.index ?? (event.key === 'ArrowLeft' ? this.places.length : -1);
    this.pick(Math.min(this.places.length - 1, Math.max(0, from + steps[event.key])));
  }

  pick(index) {
    this.index = index;
    this.say();
  }

  /** The legend: the values at the place that is looked at, else the newest ones of lines. */
  say() {
    const place = this.index === null ? null : this.places[Math.min(this.index, this.places.length - 1)];
    const isArea = this.series[0]?.shape === 'area';
    this.mark.setAttribute('visibility', place === null ? 'hidden' : 'visible');
    const found = this.series.map((one) => (place === null ? (one.shape || !this.options.newest ? null : one.points.at(-1)) : one.points.find(([x]) => x === place)));
    if (place !== null) {
      const width = isArea ? this.x(this.places[this.index + 1] ?? this.series[0].points.at(-1)[0]) - this.x(place) : 0;
      this.mark.replaceChildren(
        isArea
          ? draw('rect', { class: 'looked-at', x: this.x(place), y: TOP, width: Math.max(1, width), height: HEIGHT - BOTTOM - TOP })
          : draw('line', { class: 'looked-at', x1: this.x(place), x2: this.x(place), y1: TOP, y2: HEIGHT - BOTTOM }),
        ...found.flatMap((point, index) => (point && !isArea ? [draw('circle', { class: `dot series-${index + 1}`, cx: this.x(point[0]), cy: this.y(point[1]), r: 4 })] : [])));
    }
    const where = place ?? (!this.options.newest || this.series.some((one) => one.shape) ? null : this.places.at(-1));
    this.legend.replaceChildren(
      ...this.series.map((one, index) => make('li', {}, make('span', { className: `plot-key series-${index + 1}`, ariaHidden: 'true' }), one.name,
        make('strong', { textContent: found[index] ? this.options.format(found[index][1]) : '' }))),
      make('li', { className: 'where-looked', textContent: where === null ? '' : `${this.options.xWord} ${this.options.formatX(where)}` }));
  }
}

function range(values) {
  return [Math.min(...values), Math.max(...values)];
}

/** Two buttons that save a picture as it looks now, with a legend of the names that namesOf() gives. */
export function downloads(picture, title, namesOf = () => []) {
  const name = title.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '');
  return make('span', { className: 'downloads' },
    button('SVG', () => save(svgOf(picture, namesOf()), `${name}.svg`), { className: 'quiet', ariaLabel: `Save “${title}” as SVG` }),
    button('PNG', async () => save(await pngOf(picture, namesOf()), `${name}.png`), { className: 'quiet', ariaLabel: `Save “${title}” as PNG` }));
}

/** Offer a blob as a file. */
export function save(blob, name) {
  const link = make('a', { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** The picture by itself: what the page's styles say of its parts is written into them. */
function svgOf(picture, names) {
  const copy = picture.cloneNode(true);
  const [shown, copied] = [picture, copy].map((root) => [root, ...root.querySelectorAll('*')]);
  shown.forEach((part, index) => {
    const style = getComputedStyle(part);
    for (const property of DRAWN) copied[index].style.setProperty(property, style.getPropertyValue(property));
  });
  const [width, height] = sizeOf(picture, names);
  const text = getComputedStyle(picture.closest('.plot'));
  names.forEach((name, index) => {
    const y = height - LEGEND_LINE * (names.length - index) + 8;
    const line = picture.querySelector(`.series-${index + 1}`);
    const colour = getComputedStyle(line)[line.tagName === 'circle' || line.classList.contains('area') ? 'fill' : 'stroke'];
    copy.append(draw('rect', { x: LEFT, y: y - 9, width: 10, height: 10, fill: colour }),
      draw('text', { x: LEFT + 16, y, fill: text.color, style: `font: 12px ${text.fontFamily}` }, name));
  });
  const ground = getComputedStyle(picture.closest('.plot')).backgroundColor;
  copy.prepend(draw('rect', { width, height, fill: ground }));
  copy.setAttribute('viewBox', `0 0 ${width} ${height}`);
  copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  copy.setAttribute('width', width);
  copy.setAttribute('height', height);
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: 'image/svg+xml' });
}

function sizeOf(picture, names) {
  const [, , width, height] = picture.getAttribute('viewBox').split(' ').map(Number);
  return [width, height + LEGEND_LINE * names.length];
}

async function pngOf(picture, names) {
  const [width, height] = sizeOf(picture, names);
  const image = new Image();
  image.src = URL.createObjectURL(svgOf(picture, names));
  await image.decode();
  const canvas = make('canvas', { width: width * PNG_SCALE, height: height * PNG_SCALE });
  canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(image.src);
  return new Promise((done) => canvas.toBlob(done, 'image/png'));
}
