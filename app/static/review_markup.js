// What the review page is made of: fixed text and elements. Data comes in later through textContent only.

export const REASONS = [
  ['object_left', 'Object left'],
  ['part_left', 'Part left'],
  ['shadow_or_reflection', 'Shadow or reflection'],
  ['other_id_object', 'Another ID object'],
  ['artefact', 'Artefact'],
  ['wrong_mask', 'Wrong mask'],
  ['unsuitable', 'Unsuitable'],
];
export const REASON_TEXT = Object.fromEntries(REASONS);
export const VERDICTS = { accept: 'Accepted', reject: 'Rejected', skip: 'Skipped' };

/** A verdict in words: "Rejected · Part left · Artefact". */
export function verdictText({ verdict, reasons }) {
  return [VERDICTS[verdict] ?? verdict, ...reasons.map((reason) => REASON_TEXT[reason] ?? reason)].join(' · ');
}

const reasonButtons = REASONS.map(
  ([value, text], index) => `<button type="button" data-reason="${value}"><kbd>${index + 1}</kbd>${text}</button>`,
).join('');

const KEYS = {
  Verdicts: [
    ['A', 'accept: the object is gone and the picture will do'],
    ['R, then 1–7', 'reject with that reason; Shift picks several, Enter finishes'],
    ['Shift R', 'reject with the same reasons as last time'],
    ['S', 'skip: no opinion, come back later'],
    ['U', 'undo your last verdict, again and again'],
    ['Y', 'redo what was undone'],
  ],
  Views: [
    ['← →', 'look back and forward without a verdict'],
    ['F', 'flicker: swap the result for the source in place'],
    ['M', 'mask tint on and off'],
    ['Z', 'zoom: the whole picture, then its own pixels; drag or Shift with arrows moves'],
    ['H', 'history of this candidate'],
    ['E', 'correct the mask and make the image again'],
    ['G', 'grid, and back to one candidate'],
    ['?', 'this list; Esc closes what is open, or leaves a field'],
  ],
  'In the grid': [
    ['← → ↑ ↓', 'go from tile to tile; PageUp PageDown from page to page'],
    ['Space or X', 'mark for a reject, or take the mark off; a click does too'],
    ['1–7', 'mark with that reason; Shift adds one'],
    ['A or S', 'take the mark off; mark as skipped'],
    ['Enter', 'accept the rest, and reject what is marked'],
    ['Shift U', 'undo the whole last page; Shift Y redoes it'],
    ['F', 'sources in place of the results, while held'],
    ['Z', 'look at this one alone, large'],
  ],
};
const WORDS = new Set(['then', 'or', 'with']);
const legend = Object.entries(KEYS)
  .map(([title, rows]) => {
    const lines = rows.map(([keys, text]) => {
      const marked = keys.replace(/[^,\s]+/g, (key) => (WORDS.has(key) ? key : `<kbd>${key}</kbd>`));
      return `<dt>${marked}</dt><dd>${text}</dd>`;
    });
    return `<section><h4>${title}</h4><dl>${lines.join('')}</dl></section>`;
  })
  .join('');

const range = (name, text, unit, step, hint) => `<div class="range" role="group" aria-label="${text}" title="${hint}">
  <span>${text}${unit}</span>
  <input name="${name}_min" type="number" step="${step}" placeholder="from" aria-label="${text} from">
  <span aria-hidden="true">–</span>
  <input name="${name}_max" type="number" step="${step}" placeholder="to" aria-label="${text} to"></div>`;

const FILTERS = `<form class="filters" aria-label="Filter" autocomplete="off">
  <select name="state" aria-label="Show">
    <option value="unreviewed">Not reviewed yet</option><option value="accepted">Accepted by me</option>
    <option value="rejected">Rejected by me</option><option value="skipped">Skipped by me</option>
    <option value="not_asked">Left to others</option><option value="auto">Decided by the model</option>
    <option value="all">Reviewed or not</option></select>
  <select name="class_index" aria-label="Class"><option value="">Every class</option></select>
  <select name="order" aria-label="Order"><option value="id">As made</option>
    <option value="uncertain">Uncertain first</option><option value="p_accept">Lowest P(accept) first</option>
    <option value="drop">Lowest drop first</option><option value="residual">Highest residual first</option>
    <option value="class">By class</option><option value="random">Random order</option></select>
  <div class="opens">
    <button type="button" class="opener" data-opens="more">Filters<span class="count"></span></button>
    <div class="popover" data-popover="more" role="group" aria-label="More filters" hidden>
      ${range('drop', 'Drop', '', 'any', 'Logit of the true class on the source minus on the result')}
      ${range('residual', 'Residual', '', 'any', 'Evidence that the object is still there')}
      ${range('area', 'Area', ', %', 'any', 'Share of the image that the mask covers')}
      ${range('p_accept', 'P(accept)', '', 'any', 'What the triage model expects, 0 to 1')}
      <label>Kind<select name="kind"><option value="">Every kind</option>
        <option value="background">Background</option><option value="texture">Texture</option>
        <option value="id_aug">ID augmentation</option></select></label>
      <label>Recipe<select name="recipe"><option value="">The active one</option></select></label>
      <fieldset class="of-others" hidden>
        <label>Annotator<select name="annotator"><option value="">Anybody</option></select></label>
        <label>Verdict<select name="verdict"><option value="">Any verdict</option><option value="accept">Accepted</option>
          <option value="reject">Rejected</option><option value="skip">Skipped</option></select></label>
        <label class="check"><input name="disagreement" type="checkbox" value="true">Only where annotators disagree</label>
      </fieldset>
      <label class="check"><input name="duplicates" type="checkbox" value="true">Only near-duplicates</label>
      <p class="popover-foot"><button type="button" data-action="clear">Clear all</button>
        <button type="button" data-action="close-popover">Done</button></p>
    </div>
  </div>
</form>`;

const VIEWS = `<div class="opens views-menu" hidden>
  <button type="button" class="opener" data-opens="views">Views</button>
  <div class="popover" data-popover="views" role="group" aria-label="Saved views" hidden>
    <p class="views-none">No view saved yet. One keeps a filter and an order under a name.</p>
    <ul class="views-list"></ul>
    <form class="views-save" autocomplete="off">
      <label>Save what is shown as<input name="name" type="text" maxlength="80" required></label>
      <label class="check"><input name="shared" type="checkbox">for everybody</label>
      <button type="submit">Save</button>
    </form>
    <p class="views-problem" role="alert"></p>
  </div>
</div>`;

const PEOPLE = `<div class="opens people" hidden>
  <button type="button" class="opener" data-opens="people">Everybody</button>
  <div class="popover" data-popover="people" role="group" aria-label="Everybody's progress" hidden>
    <table><thead><tr><th scope="col">Annotator</th><th scope="col">Accepted</th><th scope="col">Rejected</th>
      <th scope="col">Skipped</th><th scope="col">Seconds each</th><th scope="col">Last verdict</th></tr></thead>
    <tbody></tbody></table>
  </div>
</div>`;

const FACTS = `<dl class="facts">
  <div class="wide"><dt>Class</dt><dd data-fact="class_name"></dd></div>
  <div class="wide"><dt>Source</dt><dd data-fact="source_name"></dd></div>
  <div title="Logit of the true class on the source minus on the result: high is good"><dt>Drop</dt><dd data-fact="drop"></dd></div>
  <div title="Evidence that the object is still there: low is good"><dt>Residual</dt><dd data-fact="residual"></dd></div>
  <div title="Place of the true class among all classes on the result: far back is good"><dt>Rank</dt><dd data-fact="rank"></dd></div>
  <div title="Share of the image that the mask covers"><dt>Area</dt><dd data-fact="area"></dd></div>
</dl>`;

const SINGLE_CONTROLS = `<div class="controls single-controls">
  <div class="actions" role="toolbar" aria-label="Verdict and view">
    <div class="verdicts">
      <button type="button" class="accept" data-action="accept"><kbd>A</kbd>Accept</button>
      <button type="button" class="reject" data-action="reject" aria-expanded="false"><kbd>R</kbd>Reject …</button>
      <button type="button" data-action="again" disabled><kbd>⇧R</kbd>Same reason</button>
      <button type="button" data-action="skip"><kbd>S</kbd>Skip</button>
      <button type="button" data-action="undo"><kbd>U</kbd>Undo</button>
      <button type="button" data-action="redo"><kbd>Y</kbd>Redo</button>
    </div>
    <div class="views">
      <button type="button" data-action="left" aria-label="Look back"><kbd>←</kbd></button>
      <button type="button" data-action="right" aria-label="Look forward"><kbd>→</kbd></button>
      <button type="button" data-action="flicker" aria-pressed="false"><kbd>F</kbd>Flicker</button>
      <button type="button" data-action="mask" aria-pressed="true"><kbd>M</kbd>Mask</button>
      <button type="button" data-action="zoom" aria-pressed="false"><kbd>Z</kbd>Zoom<span class="level">fit</span></button>
      <button type="button" data-action="edit"><kbd>E</kbd>Correct</button>
      <button type="button" data-action="history"><kbd>H</kbd>History</button>
      <button type="button" data-action="legend" aria-expanded="false"><kbd>?</kbd>Keys</button>
    </div>
  </div>
  <div class="reasons" role="group" aria-label="Why is it rejected?" hidden>
    ${reasonButtons}
    <button type="button" data-action="cancel"><kbd>Esc</kbd>Cancel</button>
  </div>
</div>`;

const GRID_CONTROLS = `<div class="grid-controls" hidden>
  <div class="palette" role="group" aria-label="Reason of the mark">${reasonButtons}</div>
  <div class="grid-actions" role="toolbar" aria-label="The page of the grid">
    <button type="button" class="accept" data-action="send"><kbd>Enter</kbd><span class="plan">Accept the rest</span></button>
    <button type="button" data-action="skip"><kbd>S</kbd>Skip</button>
    <button type="button" data-action="undo"><kbd>U</kbd>Undo</button>
    <button type="button" data-action="undo-page" aria-label="Undo the whole page"><kbd>⇧U</kbd>Page</button>
    <button type="button" data-action="redo"><kbd>Y</kbd>Redo</button>
    <button type="button" data-action="page-back" aria-label="Page before"><kbd>PgUp</kbd></button>
    <button type="button" data-action="page-forward" aria-label="Next page"><kbd>PgDn</kbd></button>
    <button type="button" data-action="sources" aria-pressed="false"><kbd>F</kbd>Sources</button>
    <button type="button" data-action="zoom"><kbd>Z</kbd>Large</button>
    <button type="button" data-action="history"><kbd>H</kbd>History</button>
    <button type="button" data-action="legend" aria-expanded="false" aria-label="Keys"><kbd>?</kbd></button>
  </div>
</div>`;

export const MARKUP = `
<div class="bar">
  ${FILTERS}
  ${VIEWS}
  <div class="chips" role="group" aria-label="Filters in force"></div>
  <div class="modes" role="group" aria-label="Candidates at a time">
    <button type="button" data-action="one" aria-pressed="true">One</button>
    <button type="button" data-action="grid" aria-pressed="false"><kbd>G</kbd>Grid</button></div>
</div>
<div class="line">
  <div class="progress"><span class="meter" role="img" aria-label="Progress"><span class="overall"></span><span class="own"></span></span>
    <span class="progress-text">&nbsp;</span>${PEOPLE}</div>
  <p class="status"><span class="status-text"></span><span class="paused">Keys wait while a field is open. <kbd>Esc</kbd> leaves it.</span><button type="button" data-action="retry" hidden>Try now</button></p>
</div>
<div class="scene">
  <div class="board">
    <div class="heads" aria-hidden="true"><span>Source</span><span>Mask</span><span class="result-head">Result</span></div>
    <div class="stage" tabindex="-1" role="group" aria-label="Source, mask and result"></div>
    <div class="badge" hidden></div>
  </div>
  <div class="sheet" role="listbox" aria-multiselectable="true" tabindex="-1" hidden
    aria-label="Candidates: the selected ones will be rejected, the rest accepted"></div>
  <div class="empty" hidden><div><h3></h3><p></p>
    <button type="button" data-action="clear">Clear the filter</button>
    <button type="button" data-action="reload">Look again</button></div></div>
  <div class="legend" role="region" aria-label="Keys" hidden>${legend}
    <button type="button" data-action="legend">Close</button></div>
</div>
${FACTS}
${SINGLE_CONTROLS}
${GRID_CONTROLS}
<dialog class="drawer" aria-label="History of this candidate"></dialog>
<dialog class="mask-editor" aria-label="Correct the mask of this candidate"></dialog>
<p class="spoken" aria-live="polite"></p>`;
