// The live display of jobs. One poll for all displays on the page; data enters the document as text only.

const ACTIVE_MS = 1000;
const IDLE_MS = 5000;
const LIMIT = 50;
const STATES = { queued: 'Waiting', running: 'Running', done: 'Done', failed: 'Failed', cancelled: 'Cancelled' };
// These say themselves, in their message, how fast they are now, what is left and what memory they take.
const TELLS_ITS_RATE = new Set(['generate']);
const UNITS = { import: 'photos', generate: 'photos', preview: 'photos', export: 'images' };

const displays = new Set();
let jobs = [];
let timer = null;
let polling = false;
let again = false;

/** Show jobs inside element; ended() is called with 'submit' when one of them has ended. */
export function mount(element, ended) {
  if (!element || element.display) return;
  element.display = new Display(element, ended);
  displays.add(element.display);
  poll();
}

async function poll() {
  clearTimeout(timer);
  for (const display of displays) if (!display.root.isConnected) displays.delete(display);
  if (polling) {
    again = true;
    return;
  }
  const watched = [...displays].filter((display) => display.visible());
  if (watched.length && !document.hidden) {
    polling = true;
    try {
      const response = await fetch(`/api/jobs?limit=${LIMIT}`, { signal: AbortSignal.timeout(10_000) });
      if (!response.ok) throw new Error(`error ${response.status}`);
      jobs = await response.json();
      displays.forEach((display) => display.show(jobs));
    } catch {
      watched.forEach((display) => display.lost());
    }
    polling = false;
  }
  if (again) {
    again = false;
    poll();
    return;
  }
  // A hidden display costs a look at the document, not a request.
  const active = jobs.some((job) => job.active) || !watched.length;
  timer = setTimeout(poll, active ? ACTIVE_MS : IDLE_MS);
}

window.addEventListener('jobs:changed', poll);
document.addEventListener('visibilitychange', () => document.hidden || poll());

function make(tag, className = '', text = '') {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const whole = new Intl.NumberFormat('en');

function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function facts(job) {
  const parts = [];
  if (job.total !== null) parts.push(`${whole.format(job.done)} of ${whole.format(job.total)}`);
  else if (job.done) parts.push(whole.format(job.done));
  const told = TELLS_ITS_RATE.has(job.kind);
  if (job.state === 'running' && job.rate && !told) {
    const unit = UNITS[job.kind] ?? 'items';
    parts.push(job.rate >= 0.1 ? `${job.rate.toFixed(1)} ${unit}/s` : `${(job.rate * 60).toFixed(1)} ${unit}/min`);
  }
  if (job.seconds_left !== null && !told) parts.push(`about ${duration(job.seconds_left)} left`);
  else if (!job.active && job.seconds !== null) parts.push(`took ${duration(job.seconds)}`);
  return parts.join(' · ');
}

class Display {
  constructor(root, ended) {
    this.root = root;
    this.ended = ended;
    this.kinds = root.dataset.kinds.split(' ').filter(Boolean);
    this.limit = Number(root.dataset.limit);
    this.rows = new Map();
    this.active = new Set();
    this.newest = null;
    this.list = make('ul', 'job-list');
    this.list.setAttribute('aria-label', 'Jobs');
    this.none = make('p', 'aside', 'No job yet.');
    this.none.hidden = true;
    this.offline = make('p', 'notice bad', 'The server does not answer; trying again.');
    this.offline.hidden = true;
    this.spoken = make('p', 'unseen');
    this.spoken.setAttribute('aria-live', 'polite');
    root.append(this.offline, this.list, this.none, this.spoken);
  }

  visible() {
    return this.root.offsetParent !== null;
  }

  lost() {
    this.offline.hidden = false;
  }

  show(all) {
    this.offline.hidden = true;
    const chosen = all.filter((job) => !this.kinds.length || this.kinds.includes(job.kind)).slice(0, this.limit);
    this.none.hidden = chosen.length > 0 || this.kinds.length > 0;
    const ids = new Set(chosen.map((job) => job.id));
    for (const [id, row] of this.rows) {
      if (ids.has(id)) continue;
      row.element.remove();
      this.rows.delete(id);
    }
    let after = null;
    for (const job of chosen) {
      let row = this.rows.get(job.id);
      if (!row) {
        row = new Row(job);
        this.rows.set(job.id, row);
        if (after) after.after(row.element);
        else this.list.prepend(row.element);
      }
      row.show(job);
      after = row.element;
    }
    for (const job of chosen) {
      // One that was quick may have begun and ended between two looks.
      const quick = this.newest !== null && job.id > this.newest && !job.active;
      if (job.active) this.active.add(job.id);
      else if (this.active.delete(job.id) || quick) {
        setText(this.spoken, `${job.label}, job ${job.id}: ${STATES[job.state]}. ${job.error}`);
        this.ended('submit');
      }
    }
    this.newest = Math.max(this.newest ?? 0, ...all.map((job) => job.id));
  }
}

class Row {
  constructor(job) {
    this.id = job.id;
    this.element = make('li', 'job');
    this.name = make('strong', '', `${job.label}`);
    this.number = make('span', 'aside', `job ${job.id}`);
    this.state = make('span', 'chip');
    this.cancel = make('button', 'cancel', 'Cancel');
    this.cancel.type = 'button';
    this.cancel.setAttribute('aria-label', `Cancel ${job.label}, job ${job.id}`);
    this.cancel.addEventListener('click', () => this.askCancel());
    this.bar = make('progress');
    this.bar.setAttribute('aria-label', `Progress of ${job.label}, job ${job.id}`);
    this.facts = make('p', 'job-facts');
    this.message = make('p', 'aside job-message');
    this.error = make('p', 'job-error');
    this.log = make('pre');
    this.log.tabIndex = 0;
    this.log.setAttribute('aria-label', `Log of job ${job.id}`);
    this.details = make('details');
    this.details.append(make('summary', '', 'Log'), this.log);
    this.details.addEventListener('toggle', () => this.details.open && this.fetchLog());
    const head = make('div', 'job-head');
    head.append(this.name, this.number, this.state, this.cancel);
    this.element.append(head, this.bar, this.facts, this.message, this.error, this.details);
  }

  show(job) {
    this.element.dataset.state = job.state;
    const cancelling = job.active && job.cancel_requested;
    setText(this.state, cancelling ? 'Stopping' : STATES[job.state]);
    this.state.className = `chip ${job.state}`;
    this.cancel.hidden = !job.active;
    this.cancel.disabled = job.cancel_requested;
    this.bar.hidden = !job.active;
    if (job.total) {
      this.bar.max = job.total;
      this.bar.value = job.done;
    } else if (job.state === 'queued') {
      this.bar.max = 1;
      this.bar.value = 0;
    } else {
      this.bar.removeAttribute('value');
    }
    setText(this.facts, facts(job));
    setText(this.message, job.note || (job.active ? job.message : ''));
    setText(this.error, job.error);
    if (this.details.open && job.active) this.fetchLog();
  }

  async askCancel() {
    this.cancel.disabled = true;
    try {
      const response = await fetch(`/api/jobs/${this.id}/cancel`, { method: 'POST' });
      if (!response.ok) throw new Error((await response.json()).error);
    } catch (error) {
      this.cancel.disabled = false;
      setText(this.error, `It could not be cancelled: ${error.message}`);
      return;
    }
    poll();
  }

  async fetchLog() {
    const response = await fetch(`/api/jobs/${this.id}`).catch(() => null);
    if (!response?.ok) return;
    const { log } = await response.json();
    setText(this.log, log.join('\n') || 'Nothing was logged.');
  }
}
