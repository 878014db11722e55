// Which key means what, and when a key is none of our business.

const TYPING = 'input, textarea, select, [contenteditable=""], [contenteditable="true"]';
// Widgets that move by keys of their own. The grid's sheet is ours; toolbars here are rows of plain buttons.
const WIDGETS = '[role=tablist], [role=combobox], [role=listbox]:not(.sheet), [role=grid], [role=slider], [role=menu], .popover';
const PRESSED = 'a[href], button, summary'; // Space and Enter press these
const LETTERS = {
  a: 'accept', r: 'reject', s: 'skip', u: 'undo', y: 'redo', x: 'mark',
  f: 'flicker', m: 'mask', z: 'zoom', g: 'grid', h: 'history', e: 'edit',
};
const SHIFTED = { r: 'again', u: 'undo-page', y: 'redo-page', z: 'zoom-fit' };
const NAMED = {
  ArrowLeft: 'left', ArrowRight: 'right', ArrowUp: 'up', ArrowDown: 'down', PageUp: 'page-back', PageDown: 'page-forward',
  Home: 'first', End: 'last', Enter: 'send', ' ': 'mark', Escape: 'escape', '?': 'legend',
};
const MAY_REPEAT = new Set(['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown']);

/** Whether a keydown is meant for the review page that lives in root. */
export function isOurs(event, root) {
  if (event.defaultPrevented || event.isComposing) return false;
  if (event.repeat && !MAY_REPEAT.has(event.key)) return false;
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (root.offsetParent === null) return false; // another page of the application is shown
  const target = event.target instanceof Element ? event.target : document.body;
  if (target.closest(WIDGETS) || target.closest(TYPING)) return false;
  if ((event.key === ' ' || event.key === 'Enter') && target.closest(PRESSED)) return false;
  return !document.querySelector('dialog[open], [role=dialog][aria-modal=true]');
}

/** The action of a keydown, or null. Digits give {reason: 0-6}; more with Shift. */
export function actionOf(event) {
  // By place for digits (French keyboards need Shift for them) and on keyboards without Latin letters.
  const digit = /^(?:Digit|Numpad)([1-7])$/.exec(event.code);
  if (digit) return { reason: Number(digit[1]) - 1, more: event.shiftKey };
  if (NAMED[event.key]) {
    const name = NAMED[event.key];
    return { action: event.shiftKey && event.key.startsWith('Arrow') ? `pan-${name}` : name, repeat: event.repeat };
  }
  const letter = letterOf(event);
  const action = (event.shiftKey && SHIFTED[letter]) || LETTERS[letter];
  return action ? { action } : null;
}

function letterOf(event) {
  if (/^[a-z]$/i.test(event.key)) return event.key.toLowerCase();
  return /^\P{ASCII}$/u.test(event.key) ? event.code.replace('Key', '').toLowerCase() : '';
}
