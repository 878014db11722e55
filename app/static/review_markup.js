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

export const VERDICTS = { accept: 'Accepted', reject: 'Rejected', skip: 'Skipped' };

const reasonButtons = REASONS.map(
  ([value, text], index) => `<button type="button" data-reason="${value}"><kbd>${index + 1}</kbd>${text}</button>`,
).join('');

const LEGEND = [
  ['A', 'accept: the object is gone and the picture will do'],
  ['R, then 1–7', 'reject with that reason; Shift picks several, Enter finishes'],
  ['Shift R', 'reject with the same reasons as last time'],
  ['S', 'skip: no opinion, come back later'],
  ['U', 'undo your last verdict, again and again'],
  ['← →', 'look back and forward without a verdict'],
  ['F', 'flicker: swap the result for the source in place'],
  ['M', 'mask tint on and off'],
  ['Z', 'zoom all three pictures where the pointer is'],
  ['Esc', 'close what is open; leave a field'],
  ['?', 'this list'],
]
  .map(([keys, text]) => `<dt>${keys.replace(/[^,\s]+/g, (key) => (key === 'then' ? key : `<kbd>${key}</kbd>`))}</dt><dd>${text}</dd>`)
  .join('');

export const MARKUP = `
<form class="filters" aria-label="Filter" autocomplete="off">
  <label>Show<select name="state">
    <option value="unreviewed">Not reviewed yet</option><option value="accepted">Accepted by me</option>
    <option value="rejected">Rejected by me</option><option value="skipped">Skipped by me</option>
    <option value="all">All</option></select></label>
  <label>Class<select name="class_index"><option value="">Every class</option></select></label>
  <label>Kind<select name="kind"><option value="">Every kind</option>
    <option value="background">Background</option><option value="texture">Texture</option>
    <option value="id_aug">ID augmentation</option></select></label>
  <fieldset><legend>Drop</legend>
    <input name="drop_min" type="number" step="any" placeholder="from" aria-label="Lowest drop">
    <span aria-hidden="true">–</span>
    <input name="drop_max" type="number" step="any" placeholder="to" aria-label="Highest drop"></fieldset>
  <label>Order<select name="order"><option value="id">As made</option>
    <option value="drop">Lowest drop first</option><option value="residual">Highest residual first</option>
    <option value="class">By class</option></select></label>
  <span class="paused">Keys wait here. <kbd>Esc</kbd> leaves the field.</span>
</form>
<div class="line">
  <div class="progress"><progress max="1" value="0" aria-label="Reviewed"></progress><span class="progress-text">&nbsp;</span></div>
  <p class="status"><span class="status-text"></span><button type="button" data-action="retry" hidden>Try now</button></p>
</div>
<div class="board">
  <div class="heads" aria-hidden="true"><span>Source</span><span>Mask</span><span class="result-head">Result</span></div>
  <div class="stage" tabindex="-1" aria-label="Source, mask and result"></div>
  <div class="badge" hidden></div>
  <div class="empty" hidden><div><h3></h3><p></p>
    <button type="button" data-action="clear">Clear the filter</button>
    <button type="button" data-action="reload">Look again</button></div></div>
  <div class="legend" role="region" aria-label="Keys" hidden><h3>Keys</h3><dl>${LEGEND}</dl>
    <button type="button" data-action="legend">Close</button></div>
</div>
<dl class="facts">
  <div class="wide"><dt>Class</dt><dd data-fact="class_name"></dd></div>
  <div class="wide"><dt>Source</dt><dd data-fact="source_name"></dd></div>
  <div title="Logit of the true class on the source minus on the result: high is good"><dt>Drop</dt><dd data-fact="drop"></dd></div>
  <div title="Evidence that the object is still there: low is good"><dt>Residual</dt><dd data-fact="residual"></dd></div>
  <div title="Place of the true class among all classes on the result: far back is good"><dt>Rank</dt><dd data-fact="rank"></dd></div>
  <div title="Share of the image that the mask covers"><dt>Area</dt><dd data-fact="area"></dd></div>
</dl>
<div class="controls">
  <div class="actions" role="toolbar" aria-label="Verdict and view">
    <div class="verdicts">
      <button type="button" class="accept" data-action="accept"><kbd>A</kbd>Accept</button>
      <button type="button" class="reject" data-action="reject" aria-expanded="false"><kbd>R</kbd>Reject …</button>
      <button type="button" data-action="again" disabled><kbd>⇧R</kbd>Same reason</button>
      <button type="button" data-action="skip"><kbd>S</kbd>Skip</button>
      <button type="button" data-action="undo"><kbd>U</kbd>Undo</button>
    </div>
    <div class="views">
      <button type="button" data-action="back" aria-label="Look back"><kbd>←</kbd></button>
      <button type="button" data-action="forward" aria-label="Look forward"><kbd>→</kbd></button>
      <button type="button" data-action="flicker" aria-pressed="false"><kbd>F</kbd>Flicker</button>
      <button type="button" data-action="mask" aria-pressed="true"><kbd>M</kbd>Mask</button>
      <button type="button" data-action="zoom" aria-pressed="false"><kbd>Z</kbd>Zoom</button>
      <button type="button" data-action="legend" aria-expanded="false"><kbd>?</kbd>Keys</button>
    </div>
  </div>
  <div class="reasons" role="group" aria-label="Why is it rejected?" hidden>
    ${reasonButtons}
    <button type="button" data-action="cancel"><kbd>Esc</kbd>Cancel</button>
  </div>
</div>
<p class="spoken" aria-live="polite"></p>`;
