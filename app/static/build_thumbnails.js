// Candidates as a row of small pictures.

import { make } from './judging.js';

/** A title and a list of thumbnails; candidates as the build routes give them. */
export function thumbnails(title, candidates, empty = '') {
  const items = candidates.map(({ class_name: name, source_name: source, drop, url }) => make('li', { title: source },
    make('img', { loading: 'lazy', decoding: 'async', src: url, alt: `Background made from a photo of ${name}`, width: 160, height: 160 }),
    make('strong', { textContent: name }), make('span', { className: 'aside', textContent: `drop ${drop.toFixed(2)}` })));
  return make('section', { className: 'sample' }, make('h4', { className: 'sample-title', textContent: title }),
    candidates.length ? make('ul', { className: 'grid small', ariaLabel: title }, ...items) : make('p', { className: 'aside', textContent: empty }));
}
