// The Duplicates page: groups of candidates that look alike, decided at once or one by one by the review's own events.

import { ask, request } from './review_api.js';
import { verdictText } from './review_markup.js';
import { makeUuid } from './review_outbox.js';
import { listen } from './judging_board.js';
import { button, emptyState, field, insist, isSeen, make, moment, number, plural, reasonChoice, select, voice, whenShown, whole } from './judging.js';

const DUPLICATES = '/api/duplicates';
const POLL_MS = 1000;
const BATCH = 100; // as many events as the server takes at once
const FEW = 12; // of a group's candidates are shown at first
const LIKENESS = [
  ['all', 'all groups'],
  ['candidates', 'candidates like one another'],
  ['other_source', 'like another source'],
  ['own_source', 'like their own source: nothing was removed?'],
];

/** Fill the element with the page, afresh each time it comes into view. */
export function mount(element) {
  if (!element || element.page) return;
  element.page = new Duplicates(element);
}

class Duplicates {
  constructor(root) {
    this.root = root;
    root.classList.add('judging');
    this.words = voice();
    this.groups = make('div', { className: 'stack' });
    this.more = button('Show more', () => this.fetchGroups(), { hidden: true });
    this.likeness = select(LIKENESS, { ariaLabel: 'Which groups' });
    this.onlyOpen = make('input', { type: 'checkbox' });
    for (const input of [this.likeness, this.onlyOpen]) input.addEventListener('change', () => this.loadGroups());
    this.found = make('p', { className: 'count', ariaLive: 'polite' });
    root.replaceChildren(make('div', { className: 'stack' }, this.words.element, this.findForm(),
      make('div', { className: 'judge-line' }, this.likeness, make('label', { className: 'check' }, this.onlyOpen, 'only with some you have not judged'), this.found),
      this.groups, make('p', { className: 'actions' }, this.more)));
    listen(root, (event, key) => this.key(key));
    whenShown(root, () => this.load());
  }

  findForm() {
    this.distance = number(6, 0, 16);
    this.ownDistance = number(2, 0, 16);
    this.find = make('button', { textContent: 'Find now', className: 'primary' });
    this.progress = make('span', { className: 'aside', ariaLive: 'polite' });
    const form = make('form', { className: 'panel', hidden: true },
      make('h3', { textContent: 'Search' }),
      make('div', { className: 'fields' }, field('Alike up to, bits of 64', this.distance), field('Like its own source up to, bits', this.ownDistance)),
      make('p', { className: 'actions' }, this.find, this.progress));
    form.addEventListener('input', () => (this.typed = true));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.search();
    });
    this.form = form;
    return form;
  }

  async load() {
    try {
      const me = await ask('/api/me');
      this.form.hidden = me.role === 'annotator';
      await this.loadStatus();
      await this.loadGroups();
    } catch (error) {
      if (error.status === 409) this.groups.replaceChildren(emptyState('Nothing to compare yet', error.message, 'generate', 'Go to Generate'));
      else this.words.say(error.message, 'bad');
    }
  }

  async loadStatus() {
    this.status = await ask(DUPLICATES);
    const { found_with: made, counts, job_id: job } = this.status;
    this.find.disabled = job !== null;
    this.progress.textContent = job !== null ? 'Searching …' : made ? `Last: ${moment(made.at)}` : '';
    this.found.textContent = made ? `${plural(counts.all, 'group')} among ${whole(made.candidates)} candidates` : '';
    if (made && !this.typed) [this.distance.value, this.ownDistance.value] = [made.distance, made.own_distance];
    if (job !== null) this.poll();
  }

  poll() {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      if (!isSeen(this.root)) return this.poll();
      const { job_id: job } = await ask(DUPLICATES).catch(() => ({ job_id: this.status.job_id }));
      return job === null ? this.load() : this.poll();
    }, POLL_MS);
  }

  async search() {
    const body = { distance: Number(this.distance.value), own_distance: Number(this.ownDistance.value) };
    try {
      await ask(`${DUPLICATES}/find`, { method: 'POST', body });
      this.words.say('');
      await this.loadStatus();
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
  }

  // ---- groups ----

  async loadGroups() {
    this.cursor = 0;
    this.groups.replaceChildren();
    await this.fetchGroups();
    if (this.groups.children.length) return;
    const { found_with: made } = this.status;
    const filtered = this.likeness.value !== 'all' || this.onlyOpen.checked;
    if (!made) {
      const next = this.form.hidden ? 'An adjudicator or admin can start a search here.' : '“Find now” compares all candidates with one another and with the sources.';
      this.groups.append(emptyState('Nobody has searched yet', next));
    } else if (filtered) this.groups.append(emptyState('No such group', 'Choose all groups, or take the tick off.'));
    else this.groups.append(emptyState('Nothing looks alike', 'No two candidates are that near. A larger number of bits finds more.'));
  }

  async fetchGroups() {
    const query = new URLSearchParams({ likeness: this.likeness.value, only_open: this.onlyOpen.checked, cursor: this.cursor });
    try {
      const page = await ask(`${DUPLICATES}/groups?${query}`);
      this.groups.append(...page.groups.map((group) => new Group(group, this.words).root));
      this.cursor = page.cursor;
      this.more.hidden = page.cursor === null;
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
  }

  /** A accepts and U takes back in the group that has the focus; arrows go from group to group. */
  key({ action }) {
    const all = [...this.groups.querySelectorAll('.group')];
    const here = all.findIndex((one) => one.contains(document.activeElement));
    if (action === 'down' || action === 'up') {
      const next = all[Math.max(0, here + (action === 'down' ? 1 : -1))];
      next?.focus();
      return Boolean(next);
    }
    return here >= 0 && all[here].group.act(action);
  }
}

class Group {
  constructor({ id, size, members }, words) {
    this.words = words;
    this.members = members.map((member) => ({ ...member, standing: member.item.verdict ? member.item : null, uuid: null }));
    this.reason = reasonChoice({ ariaLabel: 'Reason for the reject' });
    this.tiles = this.members.map((member) => this.tile(member));
    this.undo = button('[U] Undo', () => this.takeBack(), { disabled: true });
    const several = members.length > 1;
    const hidden = size > members.length ? `, ${whole(size - members.length)} more not shown` : '';
    const title = several ? `${whole(size)} alike${hidden}` : `Like ${members[0].source?.is_own ? 'its own source' : 'another source'}`;
    this.root = make('section', { className: 'group', tabIndex: 0, ariaLabel: `Group ${id}: ${title}`, dataset: { group: id } },
      make('div', { className: 'judge-line' }, make('h4', { textContent: title }),
        make('div', { className: 'verdicts' },
          button(several ? `[A] Accept all ${whole(members.length)}` : '[A] Accept', () => this.give(this.members, 'accept'), { className: 'accept' }),
          button(several ? `[R] Reject all ${whole(members.length)} as` : '[R] Reject as', () => this.give(this.members, 'reject'), { className: 'reject' }),
          this.reason, this.undo)),
      make('ul', { className: 'tiles' }, ...this.tiles), this.fold());
    this.reason.value = 'unsuitable';
    this.root.group = this;
    this.last = [];
  }

  /** A large group shows a few of its candidates until one asks for the rest. */
  fold() {
    if (this.tiles.length <= FEW) return null;
    this.tiles.slice(FEW).forEach((tile) => (tile.hidden = true));
    const rest = button(`Show all ${whole(this.tiles.length)}`, () => {
      this.tiles.forEach((tile) => (tile.hidden = false));
      rest.remove();
      this.root.focus();
    });
    return make('p', { className: 'actions' }, rest);
  }

  tile(member) {
    const { item, distance, source } = member;
    member.words = make('span', { className: 'standing' });
    const pictures = make('div', { className: 'pair' },
      make('img', { src: item.urls.result, alt: `Result, ${item.class_name}, ${item.source_name}`, loading: 'lazy' }),
      source ? make('img', { src: source.url, alt: `Source ${source.name}`, loading: 'lazy' }) : null);
    const near = distance === null ? '' : ` · ${plural(distance, 'bit')} apart`;
    const like = source ? `like ${source.is_own ? 'its own source' : source.name}, ${plural(source.distance, 'bit')} apart` : '';
    const name = `${item.class_name}, ${item.source_name}`;
    const tile = make('li', { className: source ? 'tile wide' : 'tile', dataset: { candidate: item.id } }, pictures,
      make('strong', { textContent: item.class_name }), make('span', { className: 'aside', textContent: `${item.source_name}${near}` }),
      like ? make('span', { className: 'aside', textContent: like }) : null,
      make('div', { className: 'one' }, member.words,
        button('Accept', () => this.give([member], 'accept'), { ariaLabel: `Accept ${name}` }),
        button('Reject', () => this.give([member], 'reject'), { ariaLabel: `Reject ${name}` })));
    member.tile = tile;
    this.showStanding(member);
    return tile;
  }

  showStanding(member) {
    member.tile.dataset.verdict = member.standing?.verdict ?? '';
    member.words.textContent = member.standing ? verdictText(member.standing) : 'Not judged by you';
  }

  act(action) {
    if (action === 'accept' || action === 'reject') this.give(this.members, action);
    else if (action === 'undo') this.takeBack();
    else return false;
    return true;
  }

  /** One verdict on each. */
  async give(members, verdict) {
    const reasons = verdict === 'reject' ? [this.reason.value] : [];
    const events = members.map(({ item }) => ({ uuid: makeUuid(), candidate_id: item.id, result_sha256: item.sha256, verdict, reasons, via: 'duplicates' }));
    const answers = await this.send(events);
    if (!answers) return;
    const taken = members.map((member, index) => ({ member, uuid: events[index].uuid, before: member.standing }))
      .filter((_, index) => answers[index].status !== 'refused');
    for (const { member } of taken) member.standing = { verdict, reasons };
    if (taken.length) this.last.push(taken);
    this.after(members, answers);
  }

  /** Undo the last choice made in this group. */
  async takeBack() {
    const taken = this.last.at(-1);
    if (!taken) return;
    const answers = await this.send(taken.map(({ uuid, member: { item } }) => (
      { uuid: makeUuid(), candidate_id: item.id, result_sha256: item.sha256, verdict: 'undo', undoes: uuid, via: 'duplicates' })));
    if (!answers) return;
    this.last.pop();
    taken.forEach(({ member, before }, index) => {
      if (answers[index].status !== 'refused') member.standing = before;
    });
    this.after(taken.map(({ member }) => member), answers);
  }

  after(members, answers) {
    members.forEach((member) => this.showStanding(member));
    this.undo.disabled = !this.last.length;
    const refused = answers.find((answer) => answer.status === 'refused');
    if (refused) this.words.say(refused.error, 'bad');
  }

  /** The answers; null when the server refuses them all, or while others are on their way. */
  async send(events) {
    if (this.busy) return null;
    this.busy = true;
    this.root.ariaBusy = 'true';
    try {
      const answers = [];
      for (let start = 0; start < events.length; start += BATCH) {
        const body = { events: events.slice(start, start + BATCH) };
        answers.push(...(await insist(() => request('/decisions', { method: 'POST', body }), (text) => this.words.say(text, 'bad'))));
      }
      return answers;
    } catch (error) {
      this.words.say(error.message, 'bad');
      return null;
    } finally {
      this.busy = false;
      this.root.ariaBusy = 'false';
    }
  }
}
