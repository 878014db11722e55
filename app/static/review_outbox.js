// Verdicts on their way to the server. Each event is its own localStorage entry, so that several tabs add
// and remove without overwriting one another; the server stores a uuid once, however often it is sent.

const PREFIX = 'imagenet-bg.outbox.';
const BATCH = 50;
const TIMEOUT_MS = 10_000;
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
const NOT_ABOUT_THE_EVENTS = new Set([401, 403, 404, 408, 421, 425, 429]);

// crypto.randomUUID exists in secure contexts only, and a server on the local network is not one.
export function makeUuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

export class Outbox {
  /**
   * @param {string} url where the batches go
   * @param {{changed: Function, refused: Function}} listeners changed(pending, problem) after every step;
   *   refused(event, sentence) when the server will never take an event
   */
  constructor(url, listeners) {
    this.url = url;
    this.listeners = listeners;
    this.owner = null;
    this.counter = 0;
    this.failures = 0;
    this.batch = BATCH;
    this.problem = '';
    this.sending = false;
    this.timer = 0;
    this.stopped = false;
    this.wake = () => this.retryNow();
    window.addEventListener('online', this.wake);
  }

  /** Whose verdicts these are: the workspace and the annotator. Others' entries are left alone. */
  own(owner) {
    this.owner = owner;
    this.report();
    this.schedule(0);
  }

  /** Store events for sending, all or none. Throws when the browser cannot store them: then nothing was voted. */
  add(...events) {
    const stored = [];
    try {
      for (const event of events) {
        this.counter += 1;
        // Sorts by time, then by order within this page: fixed widths make the text order the event order.
        const order = `${String(Date.now()).padStart(15, '0')}-${String(this.counter).padStart(8, '0')}`;
        const key = `${PREFIX}${this.owner}.${order}.${event.uuid}`;
        localStorage.setItem(key, JSON.stringify(event));
        stored.push(key);
      }
    } catch (error) {
      stored.forEach((key) => localStorage.removeItem(key));
      throw error;
    }
    this.report();
    if (!this.failures) this.schedule(0);
  }

  /** The stored keys of this owner, oldest first. */
  keys() {
    const mine = `${PREFIX}${this.owner}.`;
    return Object.keys(localStorage).filter((key) => key.startsWith(mine)).sort();
  }

  /** The events still waiting, oldest first. */
  pending() {
    return this.keys().map((key) => JSON.parse(localStorage.getItem(key) ?? 'null')).filter(Boolean);
  }

  retryNow() {
    this.schedule(0);
  }

  destroy() {
    this.stopped = true;
    clearTimeout(this.timer);
    window.removeEventListener('online', this.wake);
  }

  report() {
    this.listeners.changed(this.owner === null ? 0 : this.keys().length, this.problem);
  }

  schedule(delay) {
    if (this.stopped || this.owner === null) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.pump(), delay);
  }

  async pump() {
    if (this.sending || this.stopped) return;
    this.sending = true;
    try {
      // One request in flight over all tabs, where the browser can tell; elsewhere the uuid suffices.
      if (navigator.locks) await navigator.locks.request(`${PREFIX}${this.owner}`, () => this.drain());
      else await this.drain();
    } finally {
      this.sending = false;
      // An event added between the last look and here would otherwise wait for the next one.
      if (!this.failures && this.keys().length) this.schedule(0);
    }
  }

  async drain() {
    while (!this.stopped) {
      const keys = this.keys().slice(0, this.batch);
      const entries = keys.map((key) => [key, localStorage.getItem(key)]).filter(([, text]) => text !== null);
      if (!entries.length) return;
      let problem;
      try {
        problem = await this.post(entries.map(([key, text]) => ({ key, event: JSON.parse(text) })));
      } catch {
        problem = 'the server does not answer';
      }
      this.problem = problem;
      if (problem) {
        this.failures += 1;
        const delay = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (this.failures - 1));
        this.report();
        this.schedule(delay * (0.5 + Math.random()));
        return;
      }
      this.failures = 0;
      this.report();
    }
  }

  /** Send one batch. Returns '' when it was answered, else what is wrong. */
  async post(entries) {
    const response = await fetch(this.url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ events: entries.map((entry) => entry.event) }),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (response.ok) {
      const answers = await response.json();
      entries.forEach(({ key, event }, index) => {
        localStorage.removeItem(key);
        if (answers[index].status === 'refused') this.listeners.refused(event, answers[index].error);
      });
      this.batch = BATCH;
      return '';
    }
    if (response.status === 401 || response.status === 403) return 'sign in again';
    if (response.status >= 500 || NOT_ABOUT_THE_EVENTS.has(response.status)) {
      return `the server answers with error ${response.status}`;
    }
    // The batch itself is refused: find the event that spoils it by sending one at a time, and let go of it.
    if (entries.length === 1) {
      localStorage.removeItem(entries[0].key);
      this.listeners.refused(entries[0].event, `error ${response.status}`);
      this.batch = BATCH;
    } else {
      this.batch = 1;
    }
    return '';
  }
}
