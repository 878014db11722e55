// Which key means what, and when a key is none of our business.

const TYPING = 'input, textarea, select, [contenteditable=""], [contenteditable="true"]';
// Widgets that move by keys of their own; the review page's own toolbar of plain buttons is not one.
const WIDGETS = '[role=tablist], [role=combobox], [role=listbox], [role=grid], [role=slider], [role=menu]';
const LETTERS = { a: 'accept', r: 'reject', s: 'skip', u: 'undo', f: 'flicker', m: 'mask', z: 'zoom' };
const NAMED = { ArrowLeft: 'back', ArrowRight: 'forward', Escape: 'escape', '?': 'legend' };

/** Whether a keydown is meant for the review page that lives in root. */
export function isOurs(event, root) {
  if (event.defaultPrevented || event.isComposing || event.repeat) return false;
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (root.offsetParent === null) return false; // another page of the application is shown
  const target = event.target instanceof Element ? event.target : document.body;
  if (target.closest(WIDGETS)) return false;
  if (target.closest(TYPING)) return false;
  return !document.querySelector('dialog[open], [role=dialog][aria-modal=true]');
}

/** The action of a keydown, or null. Digits give {reason: 0-6}. */
export function actionOf(event) {
  // By place for digits (French keyboards need Shift for them) and on keyboards without Latin letters.
  const digit = /^(?:Digit|Numpad)([1-7])$/.exec(event.code);
  if (digit) return { reason: Number(digit[1]) - 1, more: event.shiftKey };
  if (NAMED[event.key]) return { action: NAMED[event.key] };
  const latin = /^[a-z]$/i.test(event.key) ? event.key : /^\P{ASCII}$/u.test(event.key) ? event.code.replace('Key', '') : '';
  const action = LETTERS[latin.toLowerCase()];
  if (!action) return null;
  return { action: action === 'reject' && event.shiftKey ? 'again' : action };
}
