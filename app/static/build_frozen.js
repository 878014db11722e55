// The frozen builds: the list, and what entered and left between two of them.

import { ask } from './review_api.js';
import { button, emptyState, field, heading, make, moment, plural, select, table, voice, whole } from './judging.js';
import { thumbnails } from './build_thumbnails.js';

const SHOWN_CLASSES = 20;
const FROZEN = '/api/builds';

export class FrozenBuilds {
  constructor() {
    this.builds = [];
    this.list = make('div', { id: 'build-list' });
    this.before = make('select');
    this.after = make('select');
    this.words = voice();
    this.result = make('div', { id: 'build-compared', className: 'stack' });
    this.compare = make('form', { className: 'panel', hidden: true },
      make('h3', { textContent: 'Compare two builds' }),
      make('div', { className: 'fields' }, field('From', this.before), field('To', this.after),
        make('p', { className: 'actions' }, make('button', { textContent: 'Compare' }))),
      this.words.element, this.result);
    this.compare.addEventListener('submit', (event) => {
      event.preventDefault();
      this.showDifference();
    });
    this.root = make('div', { className: 'stack' }, heading('Frozen builds'), this.list, this.compare);
  }

  /** use(build) is asked for when a rule is to be taken over into the form. */
  show(builds, use) {
    const isNew = builds.length !== this.builds.length;
    this.builds = builds;
    this.list.replaceChildren(builds.length ? this.table(use) : emptyState('No build yet', 'Choose a rule above and freeze it; it gets a number and a hash.'));
    this.compare.hidden = builds.length < 2;
    // A build more: the two newest are what one would compare.
    const [before, after] = isNew ? [builds[1]?.label, builds[0]?.label] : [this.before.value, this.after.value];
    const options = builds.map(({ label, images }) => [label, `${label}: ${plural(images, 'image')}`]);
    for (const choice of [this.before, this.after]) choice.replaceChildren(...select(options).children);
    this.before.value = before ?? '';
    this.after.value = after ?? '';
  }

  table(use) {
    const rows = this.builds.map((build) => [
      make('strong', { textContent: build.label }),
      whole(build.images),
      make('a', { className: 'long', href: '#audit', textContent: build.statement }),
      make('span', {}, build.rule_in_words, build.note ? make('span', { className: 'aside note', textContent: build.note }) : ''),
      make('code', { textContent: build.content_hash.slice(0, 16), title: build.content_hash }),
      `${moment(build.created_at)}${build.created_by ? `, ${build.created_by}` : ''}`,
      button('Use this rule', () => use(build), { ariaLabel: `Use the rule of ${build.label}` }),
    ]);
    return table('Frozen builds, newest first', ['Build', 'Images', 'Audit', 'Rule and note', 'Content hash', 'Frozen', ''], rows, [1]);
  }

  async showDifference() {
    try {
      const query = new URLSearchParams({ before: this.before.value, after: this.after.value });
      const found = await ask(`${FROZEN}/compare?${query}`);
      this.words.say('');
      this.result.replaceChildren(...difference(found));
    } catch (error) {
      this.words.say(error.message, 'bad');
    }
  }
}

function difference(found) {
  const counts = table(`From ${found.before} to ${found.after}`, ['Photos', 'Count'], [
    ['Entered', whole(found.entered)],
    ['Left', whole(found.left)],
    ['Stayed with another image', whole(found.changed)],
    ['The same', whole(found.unchanged)],
  ], [1]);
  const moved = (one) => one.entered + one.left + one.changed;
  const classes = [...found.classes].sort((one, other) => moved(other) - moved(one) || one.class_index - other.class_index);
  const rest = classes.length - SHOWN_CLASSES;
  const parts = [counts];
  if (classes.length) {
    parts.push(table(`By class${rest > 0 ? `: the ${SHOWN_CLASSES} that changed most, of ${whole(classes.length)}` : ''}`,
      ['Class', 'Entered', 'Left', 'Another image'],
      classes.slice(0, SHOWN_CLASSES).map((one) => [one.class_name, whole(one.entered), whole(one.left), whole(one.changed)]), [1, 2, 3]));
  }
  const samples = [['Entered', found.entered_sample, found.entered], ['Left', found.left_sample, found.left], ['With another image', found.changed_sample, found.changed]];
  return [...parts, ...samples.filter(([, sample]) => sample.length).map(([title, sample, count]) => thumbnails(`${title}: ${sample.length} of ${whole(count)}`, sample))];
}
