// Which candidates this browser tab holds, so that nobody else is shown them meanwhile.

import { API, request } from './review_api.js';
import { makeUuid } from './review_outbox.js';

const KEY = 'imagenet-bg.review.tab';
const RENEW_MS = 40_000;
const IDLE_MS = 10 * 60_000; // somebody who has left the desk holds nothing for longer
const SETTLED_MS = 5_000; // after a reload, when the page before has surely given back what it held
const MOST = 200;
const SIGNS_OF_LIFE = ['keydown', 'pointerdown', 'pointermove'];

export class Leases {
  /**
   * @param {{open: Function, lost: Function, visible: Function}} list open() gives the candidates still needed;
   *   lost(ids) is told of those that somebody else holds now; visible() says whether anybody can see them
   */
  constructor(list, signal) {
    this.list = list;
    this.aliveAt = Date.now();
    // Taken out while the page lives: a duplicated tab copies the storage, and must not get this tab's name.
    this.tab = sessionStorage.getItem(KEY) ?? makeUuid();
    sessionStorage.removeItem(KEY);
    this.timer = setInterval(() => this.renew(), RENEW_MS);
    this.settled = setTimeout(() => this.renew(), SETTLED_MS);
    for (const sign of SIGNS_OF_LIFE) document.addEventListener(sign, () => this.alive(), { signal, passive: true });
    document.addEventListener('visibilitychange', () => this.renew(), { signal });
    window.addEventListener('pagehide', () => this.leave(), { signal });
    window.addEventListener('pageshow', (event) => event.persisted && this.comeBack(), { signal });
    signal.addEventListener('abort', () => {
      clearInterval(this.timer);
      clearTimeout(this.settled);
    });
  }

  idle() {
    return Date.now() - this.aliveAt > IDLE_MS;
  }

  alive() {
    const wasIdle = this.idle();
    this.aliveAt = Date.now();
    if (wasIdle) this.renew();
  }

  async renew() {
    if (this.idle() || !this.list.visible()) return; // what is not renewed runs out and comes to others
    const ids = this.list.open().slice(0, MOST).map((item) => item.id);
    if (!ids.length) return;
    let answer;
    try {
      answer = await request('/leases/renew', { method: 'POST', body: { tab: this.tab, ids } });
    } catch {
      return; // a lease that runs out costs nothing but a candidate judged twice
    }
    if (answer.lost.length) this.list.lost(answer.lost);
  }

  /** Give everything back, also when the tab is closed: then only a beacon still goes out. */
  leave() {
    sessionStorage.setItem(KEY, this.tab);
    const body = new Blob([JSON.stringify({ tab: this.tab })], { type: 'application/json' });
    navigator.sendBeacon(`${API}/leases/release`, body);
  }

  comeBack() {
    sessionStorage.removeItem(KEY);
    this.renew();
  }
}
