// The way from page to page: links such as <a href="#build"> open one, and the address keeps it over a reload.

const TRIES = 50;
const TRY_MS = 100;

// The header names the pages that the signed-in person may open.
const pages = () => [...document.querySelectorAll('.site-head nav a')].map((link) => link.hash.slice(1));
const wanted = () => (pages().includes(location.hash.slice(1)) ? location.hash.slice(1) : pages()[0]);
const buttonOf = (page) => document.getElementById(`page-${page}-button`);
const isOpen = (page) => buttonOf(page)?.getAttribute('aria-selected') === 'true' && shows(page);
const shows = (page) => (document.getElementById(`page-${page}`)?.offsetParent ?? null) !== null;

function mark() {
  for (const link of document.querySelectorAll('.site-head nav a')) {
    const current = link.hash === `#${wanted()}`;
    if (current) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
    // On a narrow screen the links are a row that scrolls.
    if (current) link.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }
}

// Gradio builds its tabs after this script has run, and a click on one that is not ready yet is lost.
function open(tries = TRIES) {
  const page = wanted();
  mark();
  if (isOpen(page) || !tries) return;
  buttonOf(page)?.click();
  setTimeout(open, TRY_MS, tries - 1);
}

document.addEventListener('click', (event) => {
  const link = event.target.closest?.('a[href^="#"]');
  const page = link?.hash.slice(1);
  if (!pages().includes(page) || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  if (page !== wanted()) history.pushState(null, '', `#${page}`);
  window.scrollTo({ top: 0 });
  // The link that was followed may be gone with its page: go on from the one that stays.
  document.querySelector(`.site-head nav a[href="#${page}"]`)?.focus({ preventScroll: true });
  open();
});
window.addEventListener('popstate', () => open());

// Gradio gives every radio button its own name, so the arrow keys would not move in a group as they do elsewhere.
const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
document.addEventListener('keydown', (event) => {
  const step = STEPS[event.key];
  if (!step || !event.target.matches?.('fieldset input[type="radio"]')) return;
  const group = [...event.target.closest('fieldset').querySelectorAll('input[type="radio"]')];
  const next = group[(group.indexOf(event.target) + step + group.length) % group.length];
  event.preventDefault();
  next.focus();
  next.click();
});

// Gradio has drawn its tabs before this script runs when the script comes late, and draws them after it otherwise.
const drawn = () => pages().length > 0 && pages().every(buttonOf);
if (drawn()) {
  open();
} else {
  const waiting = new MutationObserver(() => {
    if (!drawn()) return;
    waiting.disconnect();
    open();
  });
  waiting.observe(document.documentElement, { childList: true, subtree: true });
}
