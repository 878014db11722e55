// Giving verdicts and taking them back. Each becomes an event in the outbox; what an undo and a redo would do is
// remembered here, over a reload too, and asked of the server when this tab does not know.

import { request } from './review_api.js';
import { makeUuid } from './review_outbox.js';

const KEY = 'imagenet-bg.review.undo';
const DEPTH = 500;
const KEPT = 120; // over a reload: five pages of the grid

export class Verdicts {
  /**
   * @param {Outbox} outbox
   * @param {CandidateList} list whose items carry the verdicts that are shown
   * @param {{note: Function, moved: Function}} listeners note(sentence); moved(before, after) for each verdict that
   *   changes, null standing for none
   */
  constructor(outbox, list, listeners) {
    this.outbox = outbox;
    this.list = list;
    this.listeners = listeners;
    this.done = []; // {uuid, item, verdict, reasons, before, page}: what undo takes back, the last one last
    this.undone = []; // the same, with the uuid of the undo
    this.lastReasons = null;
    this.pace = []; // {at, took} of this tab's verdicts, ms
  }

  /**
   * Give verdicts, all or none of them.
   * @param {{item, verdict, reasons, elapsed}[]} choices
   * @param {string} via single or grid
   */
  give(choices, via) {
    const page = via === 'grid' ? makeUuid() : null;
    const events = choices.map(({ item, verdict, reasons, elapsed }) => ({
      ...about(item), verdict, reasons, via, elapsed_ms: Math.round(elapsed),
    }));
    if (!this.send(events)) return false;
    choices.forEach(({ item, verdict, reasons, elapsed }, index) => {
      const before = { verdict: item.verdict, reasons: item.reasons };
      this.remember(this.done, { uuid: events[index].uuid, item, verdict, reasons, before, page });
      this.change(item, { verdict, reasons });
      if (verdict === 'reject') this.lastReasons = reasons;
      this.pace.push({ at: Date.now(), took: elapsed });
    });
    this.pace = this.pace.slice(-DEPTH);
    this.undone = []; // a new verdict ends what could be redone
    return true;
  }

  /** Take back the last verdict, or with whole the last page of the grid. Returns their entries, first one first. */
  async undo(whole) {
    const entries = await this.take(this.done, whole, '/last', 'There is nothing to undo.');
    const events = entries.map(({ uuid, item }) => ({ ...about(item), verdict: 'undo', undoes: uuid }));
    if (!events.length || !this.sendOrPutBack(events, entries, this.done)) return [];
    entries.forEach((entry, index) => {
      entry.item = this.list.adopt(entry.item);
      this.remember(this.undone, { ...entry, uuid: events[index].uuid });
      this.change(entry.item, entry.before);
    });
    return entries.reverse();
  }

  /** Give again what the last undo took back, or with whole the page of the grid. Returns their entries. */
  async redo(whole) {
    const entries = await this.take(this.undone, whole, '/last-undone', 'There is nothing to redo.');
    const events = entries.map(({ uuid, item }) => ({ ...about(item), verdict: 'redo', redoes: uuid }));
    if (!events.length || !this.sendOrPutBack(events, entries, this.undone)) return [];
    entries.forEach((entry, index) => {
      entry.item = this.list.adopt(entry.item);
      this.remember(this.done, { ...entry, uuid: events[index].uuid });
      this.change(entry.item, { verdict: entry.verdict, reasons: entry.reasons });
    });
    return entries;
  }

  /** The last entries of a stack, the very last one first. */
  async take(stack, whole, path, nothing) {
    if (!stack.length) {
      const entry = await this.ask(path, nothing);
      return entry ? [entry] : [];
    }
    const { page } = stack.at(-1);
    const taken = [stack.pop()];
    while (whole && page && stack.at(-1)?.page === page) taken.push(stack.pop());
    return taken;
  }

  /** A tab that was just opened remembers nothing; the server knows what stands. */
  async ask(path, nothing) {
    if (this.asking) return null;
    if (this.outbox.pending().length) {
      this.listeners.note('Undo and redo wait until the verdicts given before have reached the server.');
      return null;
    }
    this.asking = true;
    try {
      const { uuid, item, verdict, reasons } = await request(path);
      if (!uuid) this.listeners.note(nothing);
      const before = { verdict: null, reasons: [] };
      return uuid && { uuid, item, verdict: verdict ?? item.verdict, reasons: reasons ?? item.reasons, before, page: null };
    } catch (error) {
      this.listeners.note(`${error.message} Undo and redo need it in a newly opened page.`);
      return null;
    } finally {
      this.asking = false;
    }
  }

  sendOrPutBack(events, entries, stack) {
    const sent = this.send(events);
    if (!sent) stack.push(...entries.reverse());
    return sent;
  }

  send(events) {
    try {
      this.outbox.add(...events);
    } catch (error) {
      this.listeners.note(`This browser cannot keep the verdict (${error.name}); free some of its storage and try again.`);
      return false;
    }
    return true;
  }

  remember(stack, entry) {
    stack.push(entry);
    if (stack.length > DEPTH) stack.shift();
  }

  change(item, { verdict, reasons }) {
    this.listeners.moved(item.verdict, verdict);
    Object.assign(item, { verdict, reasons });
  }

  /** The server will never take this event: forget it, and show the candidate as not judged. */
  refused(event) {
    this.done = this.done.filter((entry) => entry.uuid !== event.uuid);
    this.undone = this.undone.filter((entry) => entry.uuid !== event.uuid);
    const item = this.list.items.find((other) => other.id === event.candidate_id);
    if (item) Object.assign(item, { verdict: null, reasons: [] });
  }

  /** Keep what can be undone and redone for this tab's next page. */
  save(owner) {
    const kept = { owner, done: this.done.slice(-KEPT), undone: this.undone.slice(-KEPT), reasons: this.lastReasons };
    sessionStorage.setItem(KEY, JSON.stringify(kept));
  }

  /** Take over what the page before kept. It is removed, so that a duplicated tab does not undo for this one. */
  restore(owner) {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? 'null');
    sessionStorage.removeItem(KEY);
    if (kept?.owner !== owner || this.done.length) return;
    this.done = kept.done;
    this.undone = kept.undone;
    this.lastReasons = kept.reasons;
  }
}

function about(item) {
  return { uuid: makeUuid(), candidate_id: item.id, result_sha256: item.sha256 };
}
