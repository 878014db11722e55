// The Accounts page. Names enter the document as text only; passwords go straight to the server's own routes.

const ACCOUNTS = '/api/accounts';
const ROLES = ['annotator', 'adjudicator', 'admin'];
const ROLE_TEXT = {
  annotator: 'annotator: reviews',
  adjudicator: 'adjudicator: also adjudication, agreement, audits',
  admin: 'admin: everything',
};
const whole = new Intl.NumberFormat('en');

/** Fill the element with the page, afresh each time it comes into view. */
export function mount(element) {
  if (!element || element.page) return;
  element.page = new Page(element);
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

class Page {
  constructor(root) {
    this.root = root;
    this.message = make('p', { className: 'notice' });
    this.table = make('div', { className: 'table-frame', tabIndex: 0, role: 'region', ariaLabel: 'Accounts' });
    this.choice = make('select', { required: true, name: 'id' });
    root.replaceChildren(
      make(
        'div',
        { className: 'accounts' },
        this.message,
        this.table,
        make('div', { className: 'forms' }, this.addForm(), this.passwordForm()),
      ),
    );
    new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.load()).observe(root);
  }

  async load() {
    await this.send('GET', ACCOUNTS);
  }

  /** Ask the server, show the accounts it answers with, and say what was done. True when it was done. */
  async send(method, url, body, done = '') {
    let answer;
    try {
      const response = await fetch(url, {
        method,
        headers: body ? { 'Content-Type': 'application/json' } : {},
        body: body && JSON.stringify(body),
      });
      answer = await response.json();
      if (response.status === 401) window.dispatchEvent(new Event('session:check'));
      if (!response.ok) throw new Error(answer.error);
    } catch (error) {
      this.say(error.message, 'bad');
      return false;
    }
    this.show(answer);
    if (done) this.say(done, 'good');
    return true;
  }

  say(text, tone) {
    this.message.className = `notice ${tone}`;
    this.message.setAttribute('role', tone === 'bad' ? 'alert' : 'status');
    this.message.textContent = text;
  }

  show({ needed, accounts }) {
    if (!needed) {
      this.say('There are no accounts: the server answers this machine only, and whoever uses it may do everything. ' +
        'The first account must be an admin; from then on everybody has to sign in.', 'info');
    }
    const head = ['Name', 'Role', 'State', 'Last decision', 'Decisions', ''];
    const headers = head.map((text) => make('th', { scope: 'col', textContent: text }));
    headers[4].className = 'number';
    headers[5].ariaLabel = 'Actions';
    this.table.replaceChildren(
      make(
        'table',
        {},
        make('caption', { className: 'unseen', textContent: 'Accounts' }),
        make('thead', {}, make('tr', {}, ...headers)),
        make('tbody', {}, ...accounts.map((account) => this.row(account))),
      ),
    );
    const chosen = this.choice.value;
    const withPassword = accounts.filter((account) => account.has_password);
    this.choice.replaceChildren(
      ...withPassword.map((account) => make('option', { value: account.id, textContent: account.name })),
    );
    if (withPassword.some((account) => String(account.id) === chosen)) this.choice.value = chosen;
    this.choice.form.hidden = withPassword.length === 0;
  }

  row(account) {
    const states = ['deactivated', 'active', 'no password'];
    const state = account.has_password ? Number(account.active) : 2;
    const browsers = account.sessions > 1 ? ` in ${account.sessions} browsers` : '';
    const signedIn = account.sessions ? `, signed in${browsers}` : '';
    const last = account.last_decision_at;
    const when = last ? make('time', { dateTime: last, textContent: new Date(last).toLocaleString() }) : 'none';
    return make(
      'tr',
      {},
      make('th', { scope: 'row' }, account.name, make('span', { className: 'aside', textContent: account.is_you ? ' you' : '' })),
      make('td', {}, account.has_password ? this.roleChoice(account) : ''),
      make('td', { textContent: states[state] + signedIn }),
      make('td', {}, when),
      make('td', { className: 'number', textContent: whole.format(account.decisions) }),
      make('td', {}, make('div', { className: 'actions' }, ...this.actions(account))),
    );
  }

  roleChoice(account) {
    const select = make('select', { ariaLabel: `Role of ${account.name}` });
    select.append(...ROLES.map((role) => make('option', { value: role, textContent: role })));
    select.value = account.role;
    select.addEventListener('change', async () => {
      const body = { role: select.value };
      const done = `${account.name} is ${select.value} now and has to sign in again.`;
      if (!(await this.send('PATCH', `${ACCOUNTS}/${account.id}`, body, done))) select.value = account.role;
    });
    return select;
  }

  actions(account) {
    if (!account.has_password) return [];
    const { id, name, active } = account;
    const button = (text, click) => {
      const made = make('button', { type: 'button', textContent: text, ariaLabel: `${text}: ${name}` });
      made.addEventListener('click', click);
      return made;
    };
    const turn = button(active ? 'Deactivate' : 'Activate', () =>
      this.send('PATCH', `${ACCOUNTS}/${id}`, { active: !active }, `${name} is ${active ? 'deactivated' : 'active'}.`),
    );
    if (!account.sessions) return [turn];
    return [turn, button('Sign out', () => this.send('POST', `${ACCOUNTS}/${id}/sign-out`, null, `${name} is signed out.`))];
  }

  addForm() {
    const name = make('input', { name: 'name', required: true, autocomplete: 'off', maxLength: 80 });
    const role = make('select', { name: 'role' });
    role.append(...ROLES.map((value) => make('option', { value, textContent: ROLE_TEXT[value] })));
    const password = secret('password');
    return this.form('Add an account', 'Add', [['Name', name], ['Role', role], ...password.fields], async () => {
      if (!password.same()) return false;
      const body = { name: name.value, role: role.value, password: password.value() };
      const done = await this.send('POST', ACCOUNTS, body, `${name.value.trim()} can sign in now.`);
      // The first account ends what its maker could do without one.
      if (done) window.dispatchEvent(new Event('session:check'));
      return done;
    });
  }

  passwordForm() {
    const password = secret('new-password');
    return this.form('Set a new password', 'Set', [['Account', this.choice], ...password.fields], async () => {
      if (!password.same()) return false;
      const name = this.choice.selectedOptions[0].textContent;
      const done = `${name} has a new password and has to sign in again.`;
      return this.send('PATCH', `${ACCOUNTS}/${this.choice.value}`, { password: password.value() }, done);
    });
  }

  form(title, verb, fields, submit) {
    const labels = fields.map(([text, field]) => make('label', {}, text, field));
    const form = make('form', {}, make('h3', { textContent: title }), ...labels, make('button', { textContent: verb }));
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      if (await submit()) form.reset();
    });
    return form;
  }
}

/** A password and its repetition; same() tells the person when they differ. */
function secret(name) {
  const options = { type: 'password', autocomplete: 'new-password', minLength: 10, maxLength: 256, required: true };
  const first = make('input', { ...options, name });
  const again = make('input', { ...options, name: `${name}-again` });
  again.addEventListener('input', () => again.setCustomValidity(''));
  return {
    fields: [['Password (at least 10 characters)', first], ['Password again', again]],
    value: () => first.value,
    same() {
      again.setCustomValidity(first.value === again.value ? '' : 'The two passwords differ.');
      return again.reportValidity();
    },
  };
}
