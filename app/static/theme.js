// Light, dark, or as the system says; the choice is kept for this browser.
(() => {
  const KEY = 'imagenet-bg.theme';
  const system = matchMedia('(prefers-color-scheme: dark)');

  function chosen() {
    const kept = localStorage.getItem(KEY);
    return kept === 'light' || kept === 'dark' ? kept : 'auto';
  }

  function apply() {
    const choice = chosen();
    const dark = choice === 'dark' || (choice === 'auto' && system.matches);
    for (const element of [document.documentElement, document.body]) {
      if (element && element.classList.contains('dark') !== dark) element.classList.toggle('dark', dark);
    }
    for (const button of document.querySelectorAll('.theme-switch button')) {
      button.setAttribute('aria-pressed', button.dataset.theme === choice);
    }
  }

  document.addEventListener('click', (event) => {
    const button = event.target.closest?.('.theme-switch button');
    if (!button) return;
    if (button.dataset.theme === 'auto') localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, button.dataset.theme);
    apply();
  });
  system.addEventListener('change', apply);
  window.addEventListener('storage', (event) => event.key === KEY && apply());

  /** Gradio follows the system alone, and draws the header late and perhaps again: put both right each time. */
  function watch() {
    new MutationObserver(apply).observe(document.body, { attributes: true, attributeFilter: ['class'] });
    const switches = document.getElementsByClassName('theme-switch');
    new MutationObserver(() => {
      if (switches[0] && !switches[0].firstElementChild.hasAttribute('aria-pressed')) apply();
    }).observe(document.body, { childList: true, subtree: true });
    apply();
  }

  apply();
  if (document.body) watch();
  else document.addEventListener('DOMContentLoaded', watch);
})();
