// The Export page: choose a build, a format and its options, watch the job, and find, check and fetch what was written.

import { ask } from './review_api.js';
import { mount as mountJobs } from './jobs.js';
import { button, emptyState, field, heading, make, moment, number, plural, select, table, voice, whenShown, whole } from './judging.js';

const EXPORTS = '/api/exports';
const PARTS = [
  ['', 'The whole build'],
  ['val', 'Bg-val: to choose thresholds on'],
  ['test', 'Bg-test: to report on'],
];
const IN_PARTS = new Set(['kaggle', 'croissant', 'webdataset']); // whose images are cut into several files
const CHECK_STATES = { queued: 'waiting', running: 'under way', failed: 'could not be done', cancelled: 'cancelled' };
const UNITS = ['bytes', 'kB', 'MB'];

/** Fill the element with the page; what is chosen stays when it comes into view again. */
export function mount(element) {
  if (!element || element.page) return;
  element.page = new ExportPage(element);
}

class ExportPage {
  constructor(root) {
    root.classList.add('judging');
    this.nothing = make('div', { id: 'export-nothing', hidden: true },
      emptyState('Nothing to export yet', 'An archive is made from a frozen build.', 'build', 'Go to Build'));
    this.message = voice();
    const jobs = make('div', { className: 'jobs' });
    Object.assign(jobs.dataset, { kinds: 'export check', limit: '2' });
    this.stopped = make('div', { id: 'export-stopped' });
    this.archives = make('div', { id: 'export-archives' });
    root.replaceChildren(make('div', { className: 'stack' }, this.nothing, this.exportForm(),
      make('div', { id: 'export-message' }, this.message.element), make('div', { id: 'export-jobs' }, jobs),
      this.stopped, heading('Archives'), this.archives));
    mountJobs(jobs, () => this.list());
    whenShown(root, () => this.load());
  }

  exportForm() {
    this.build = make('select');
    this.build.addEventListener('input', () => this.tell());
    this.facts = make('p', { className: 'rule', id: 'export-facts' });
    this.formats = make('fieldset', { id: 'export-formats', className: 'formats' }, make('legend', { textContent: 'Format' }));
    this.images = select([['png', 'PNG'], ['jpeg', 'JPEG']]);
    this.quality = number(95, 1, 100);
    this.part = select(PARTS);
    this.side = select([['', 'The backgrounds'], ['id', 'Their source photos: the ID side']]);
    this.partGb = make('input', { type: 'number', value: 2, min: 0.001, max: 1024, step: 'any', required: true });
    this.owner = make('input', { type: 'text', autocomplete: 'off' });
    this.title = make('input', { type: 'text', maxLength: 50, autocomplete: 'off' });
    this.folder = make('input', { type: 'text', required: true, autocomplete: 'off' });
    for (const input of [this.images, this.part, this.side]) input.addEventListener('input', () => this.tell());
    this.fields = {
      quality: field('JPEG quality', this.quality, '1 to 100; 95 loses next to nothing'),
      side: field('Side', this.side, 'the ID side is coded alike: the control for the format cue'),
      partGb: field('Size of a part, GiB', this.partGb, 'where image zips and shards are cut'),
      owner: field('Kaggle: owner', this.owner, 'whose dataset it is to be'),
      title: field('Kaggle: title', this.title, '6 to 50 characters; empty for the usual one'),
    };
    const build = field('Build', this.build);
    build.id = 'export-build';
    this.start = make('button', { id: 'export-start', className: 'primary', textContent: 'Export' });
    this.form = make('form', { className: 'panel' }, build, this.facts, this.formats,
      make('div', { className: 'fields options' }, field('Images', this.images, 'PNG copies them; ImageNet val itself is JPEG'), this.fields.quality, field('Part', this.part),
        this.fields.side, this.fields.partGb, this.fields.owner, this.fields.title),
      field('Output folder', this.folder, 'On the server’s machine; made if missing. Archives inside the workspace can be downloaded here.'),
      make('p', { className: 'actions' }, this.start,
        make('span', { className: 'aside', textContent: 'Stopped half-way, the same export goes on where it was.' })));
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.export();
    });
    return this.form;
  }

  async load() {
    try {
      const choices = await ask(`${EXPORTS}/choices`);
      this.offer(choices);
      await this.list();
    } catch (error) {
      this.message.say(error.message, 'bad');
    }
  }

  offer({ builds, formats, folder }) {
    this.builds = builds;
    this.choices = formats;
    this.nothing.hidden = builds.length > 0;
    this.form.hidden = !builds.length;
    const chosen = this.build.value;
    this.build.replaceChildren(...select(builds.map(({ label, images }) => [label, `${label}: ${plural(images, 'image')}`])).children);
    this.build.value = chosen;
    if (!this.build.value) this.build.selectedIndex = 0;
    if (!this.folder.value) this.folder.value = folder;
    if (this.formats.children.length === 1) {
      this.formats.append(...formats.map(({ name, label, about }, at) => {
        const input = make('input', { type: 'radio', name: 'export-format', value: name, checked: at === 0 });
        input.addEventListener('input', () => this.tell());
        return make('label', { className: 'check' }, input,
          make('span', {}, make('strong', { textContent: label }), make('small', { textContent: about })));
      }));
    }
    this.tell();
  }

  get format() {
    return this.choices?.find(({ name }) => name === this.formats.querySelector('input:checked')?.value);
  }

  /** Show what the choices mean, and only the options that they have. */
  tell() {
    const build = this.builds?.find(({ label }) => label === this.build.value);
    if (!build || !this.format) return;
    const { name, id_side: hasIdSide } = this.format;
    this.fields.quality.hidden = this.images.value !== 'jpeg';
    this.fields.side.hidden = !hasIdSide;
    this.fields.partGb.hidden = !IN_PARTS.has(name);
    this.fields.owner.hidden = this.fields.title.hidden = name !== 'kaggle';
    const count = this.part.value ? build.parts[this.part.value] ?? 0 : build.images;
    const what = hasIdSide && this.side.value ? 'source photo' : 'image';
    this.facts.replaceChildren(make('strong', { textContent: `${plural(count, what)} of ${build.label}. ` }), `${build.rule_in_words} `,
      make('span', { className: 'aside' }, 'Content hash ', make('code', { textContent: build.content_hash.slice(0, 16) })));
  }

  options() {
    const { name, id_side: hasIdSide } = this.format;
    return {
      images: this.images.value,
      part: this.part.value,
      ...(this.images.value === 'jpeg' ? { quality: Number(this.quality.value) } : {}),
      ...(IN_PARTS.has(name) ? { part_gb: Number(this.partGb.value) } : {}),
      ...(name === 'kaggle' ? { owner: this.owner.value.trim(), title: this.title.value.trim() } : {}),
      ...(hasIdSide ? { id_side: this.side.value === 'id' } : {}),
    };
  }

  export() {
    return this.ask(EXPORTS, { build: this.build.value, format: this.format.name, out: this.folder.value, options: this.options() });
  }

  /** Start a job and say so. */
  async ask(url, body) {
    this.start.disabled = true;
    try {
      const { sentence } = await ask(url, { method: 'POST', body });
      this.message.say(sentence, 'good');
      window.dispatchEvent(new Event('jobs:changed'));
      await this.list();
    } catch (error) {
      this.message.say(error.message, 'bad');
    } finally {
      this.start.disabled = false;
    }
  }

  async list() {
    const { archives, stopped } = await ask(EXPORTS);
    this.stopped.replaceChildren(...(stopped.length ? [this.stoppedTable(stopped)] : []));
    this.archives.replaceChildren(archives.length ? this.archiveTable(archives)
      : emptyState('No archives yet', 'A finished export shows its path, size, sha256, a link to download it and a check.'));
  }

  stoppedTable(stopped) {
    return table('Exports that were stopped', ['Build', 'Format', 'Got to', 'Why', ''], stopped.map((one) => [
      make('strong', { textContent: one.build }),
      words(one),
      one.total === null ? '–' : `${whole(one.done)} of ${whole(one.total)}`,
      one.state === 'cancelled' ? `cancelled ${moment(one.finished_at)}` : one.error,
      button('Go on', () => this.ask(`${EXPORTS}/${one.job_id}/again`), { ariaLabel: `Go on with export ${one.job_id} of ${one.build}` }),
    ]), [2]);
  }

  archiveTable(archives) {
    const rows = archives.map((one) => [
      make('strong', { textContent: one.build }),
      make('span', {}, words(one), make('span', { className: 'aside when', textContent: moment(one.finished_at) })),
      make('span', {}, whole(one.images), make('span', { className: 'aside when', textContent: fileSize(one.bytes) })),
      make('span', {}, make('code', { className: 'path', textContent: one.path }), make('code', { className: 'sum', title: 'sha256', textContent: one.sha256 })),
      this.verdict(one),
      downloads(one),
    ]);
    return table('Archives written, newest first', ['Build', 'Format', 'Images', 'File and its sha256', 'Check', 'Download'], rows, [2]);
  }

  verdict(one) {
    const parts = [];
    if (one.check) {
      const { state, ok, looked_at: looked, faults, error } = one.check;
      const said = ok === null ? CHECK_STATES[state] : ok ? 'in order' : 'not in order';
      parts.push(make('span', { className: `chip ${ok ? 'done' : ok === false || state === 'failed' ? 'failed' : ''}`, textContent: said, title: looked.join('\n') }));
      parts.push(make('span', { className: 'aside when', textContent: moment(one.check.finished_at) }));
      parts.push(...[error, ...faults].filter(Boolean).map((text) => make('p', { className: 'found', textContent: text })));
    }
    const under = one.check && one.check.ok === null && ['queued', 'running'].includes(one.check.state);
    const check = button(one.check ? 'Check again' : 'Check', () => this.ask(`${EXPORTS}/${one.job_id}/check`),
      { ariaLabel: `Check the archive of job ${one.job_id}`, disabled: Boolean(under) });
    return make('div', { className: 'verdict' }, ...parts, one.place === 'gone' ? '' : check);
  }
}

function words({ format, said }) {
  return said ? `${format}, ${said}` : format;
}

function downloads({ place, files }) {
  if (place === 'gone') return make('span', { className: 'aside', textContent: 'moved or deleted' });
  if (place === 'elsewhere') return make('span', { className: 'aside', textContent: 'outside the workspace' });
  const link = ({ name, bytes, url }, text) => make('a', { href: encodeURI(url), download: '', title: fileSize(bytes) }, text,
    make('span', { className: 'unseen', textContent: text === name ? '' : ` ${name}` }));
  if (files.length === 1) return link(files[0], 'Download');
  return make('details', {}, make('summary', { textContent: plural(files.length, 'file') }),
    make('ul', { className: 'files' }, ...files.map((file) => make('li', {}, link(file, file.name), make('span', { className: 'aside', textContent: ` ${fileSize(file.bytes)}` })))));
}

function fileSize(bytes) {
  let size = bytes;
  for (const unit of UNITS) {
    if (size < 1000) return unit === 'bytes' ? `${size} bytes` : `${size.toFixed(1)} ${unit}`;
    size /= 1000;
  }
  return `${size.toFixed(1)} GB`;
}
