// Who is signed in: the name and the way out in the header, and a word when the session has ended meanwhile.

const CHECK_MS = 60_000;
const RETRY_MS = 5_000;
const ENDED = 'You are signed out. Verdicts that were not sent yet are kept in this browser.';

let me = null;
let checking = false;
let askedAgain = false;
let retry = 0;

async function check() {
  if (document.hidden) return;
  if (checking) {
    askedAgain = true; // the answer on its way may be of before what has happened now
    return;
  }
  checking = true;
  clearTimeout(retry);
  try {
    const response = await fetch('/api/me', { signal: AbortSignal.timeout(10_000) });
    if (response.status === 401) showEnded();
    else if (response.ok) {
      me = await response.json();
      showName();
    }
  } catch {
    // No answer says nothing about the session; the pages themselves say that the server is away.
    retry = setTimeout(check, RETRY_MS);
  } finally {
    checking = false;
  }
  if (askedAgain) {
    askedAgain = false;
    check();
  }
}

function showName() {
  const account = document.querySelector('.site-head .account');
  if (!account || !me || me.local) return;
  account.querySelector('a').textContent = me.name;
  account.hidden = false;
}

function showEnded() {
  if (document.querySelector('.signed-out')) return;
  const notice = document.createElement('div');
  notice.className = 'signed-out';
  notice.setAttribute('role', 'alert');
  const link = document.createElement('a');
  link.href = '/sign-in';
  link.textContent = 'Sign in again';
  notice.append(ENDED, ' ', link);
  document.body.prepend(notice);
}

// Gradio draws the header after this script has run.
const waiting = new MutationObserver(() => {
  if (!document.querySelector('.site-head .account')) return;
  waiting.disconnect();
  showName();
});
waiting.observe(document.documentElement, { childList: true, subtree: true });

document.addEventListener('visibilitychange', check);
window.addEventListener('pageshow', (event) => event.persisted && check());
window.addEventListener('session:check', check);
setInterval(check, CHECK_MS);
check();
