// What happened to one candidate, in a drawer at the side: verdicts, final words, and the versions of the image.

import { RequestFailed, request } from './review_api.js';
import { verdictText } from './review_markup.js';

const VIA = { grid: 'in the grid', duplicates: 'with its near-duplicates', redo: 'redone' };
const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

export class History {
  /** @param {HTMLDialogElement} dialog */
  constructor(dialog) {
    this.dialog = dialog;
    dialog.addEventListener('click', (event) => event.target === dialog && dialog.close()); // beside the drawer
    dialog.addEventListener('keydown', (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.key.toLowerCase() !== 'h') return;
    event.preventDefault();
    event.stopPropagation(); // the page would open it again
    this.dialog.close();
  }

  async open(item, waiting) {
    const content = make('div', 'drawer-content');
    const close = make('button', '', 'Close');
    close.type = 'button';
    close.addEventListener('click', () => this.dialog.close());
    const head = make('div', 'drawer-head');
    head.append(make('h3', '', item.class_name), close);
    const image = Object.assign(new Image(), { src: item.urls.thumbnail, alt: '', className: 'drawer-image' });
    const facts = make('p', 'soft', `${item.source_name}, candidate ${item.id}`);
    const body = make('div', 'drawer-body');
    body.append(make('p', 'soft', 'Loading …'));
    content.append(head, image, facts, body);
    this.dialog.replaceChildren(content);
    if (!this.dialog.open) this.dialog.showModal();
    close.focus({ preventScroll: true });
    try {
      body.replaceChildren(...sections(await request(`/history/${item.id}`), item, waiting));
    } catch (error) {
      if (!(error instanceof RequestFailed)) throw error;
      const again = make('button', '', 'Try again');
      again.type = 'button';
      again.addEventListener('click', () => this.open(item, waiting));
      body.replaceChildren(make('p', '', error.message), again);
    }
  }
}

function sections(history, item, waiting) {
  const { decisions, adjudications, versions } = history;
  const parts = [];
  if (waiting) parts.push(make('p', 'soft', 'A verdict on this candidate is still on its way to the server.'));
  parts.push(make('h4', '', 'Verdicts'));
  parts.push(decisions.length ? timeline(decisions.map(decisionRow)) : make('p', 'soft', 'Nobody has judged it yet.'));
  if (adjudications.length) parts.push(make('h4', '', 'Adjudication'), timeline(adjudications.map(adjudicationRow)));
  if (versions.length > 1) {
    parts.push(make('h4', '', 'Versions'), timeline(versions.map((version) => versionRow(version, item))));
  }
  return parts;
}

function timeline(rows) {
  const list = make('ol', 'timeline');
  list.append(...rows);
  return list;
}

function row(verdict, title, ...about) {
  const element = make('li');
  element.dataset.verdict = verdict;
  element.append(make('strong', '', title));
  for (const text of about) if (text) element.append(make('span', 'soft', text));
  return element;
}

function when(text) {
  return WHEN.format(new Date(text));
}

function decisionRow(decision) {
  const undo = decision.verdict === 'undo';
  const title = undo ? 'Taken back' : verdictText(decision);
  const via = VIA[decision.via];
  const about = [decision.user_name, when(decision.created_at), via].filter(Boolean).join(' · ');
  const element = row(decision.verdict, title, about, decision.redone ? 'given again later' : '');
  element.classList.toggle('undone', decision.undone);
  return element;
}

function adjudicationRow(word) {
  const title = word.verdict === 'undo' ? 'Opened again' : verdictText(word);
  return row(word.verdict, title, `${word.user_name} · ${when(word.created_at)}`, word.note, word.stands ? 'stands' : '');
}

function versionRow(version, item) {
  const element = row('', `Version ${version.version}`, when(version.created_at), version.id === item.id ? 'shown here' : '');
  element.prepend(Object.assign(new Image(), { src: version.thumbnail, alt: '', loading: 'lazy' }));
  return element;
}

function make(tag, className = '', text = '') {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}
