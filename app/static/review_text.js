// The page's sentences that depend on where one is.

const RATE_WINDOW_MS = 5 * 60_000;
const LONGEST_PAUSE_MS = 60_000;

/** Title and advice for when there is no picture to show. */
export function emptyText({ failed, loading, counts, state, filtered, shownAny }) {
  if (failed) return [failed, 'The page tries again by itself. Verdicts you have given are kept in this browser.'];
  if (loading) return ['Loading …', ''];
  const { total, accepted, rejected, skipped, unreviewed } = counts;
  if (total === 0 && filtered) return ['No candidate matches this filter.', 'Widen the drop range, or clear the filter.'];
  if (total === 0) {
    return ['Nothing to review yet.', 'Go to Generate and start a batch: candidates appear here as soon as they are made.'];
  }
  if (state === 'unreviewed' && unreviewed > 0) {
    return ['That was the last one.', `${unreviewed} passed over without a verdict: “Look again” brings them back.`];
  }
  if (state === 'unreviewed') {
    const result = `${accepted} accepted, ${rejected} rejected, ${skipped} skipped.`;
    return ['Everything here is reviewed.', `${result} Freeze the set on Export, or go through the skipped with the filter.`];
  }
  if (shownAny) return ['That was the last one.', '← looks back; “Look again” starts over.'];
  return [state === 'all' ? 'Nothing here.' : `Nothing ${state} yet.`, 'Choose “Not reviewed yet” to go on reviewing.'];
}

/** How far, how fast, how much longer. times are those of the last verdicts, in ms. */
export function progressText({ total, unreviewed }, times) {
  const parts = [`${(total - unreviewed).toLocaleString('en')} of ${total.toLocaleString('en')} reviewed`];
  const rate = verdictsPerMinute(times);
  if (rate) {
    parts.push(`${rate.toFixed(0)} a minute`);
    if (unreviewed > 0) parts.push(`about ${duration(unreviewed / rate)} left`);
  }
  return parts.join(' · ');
}

/** Over the last few minutes, long pauses cut short; null until there are enough. */
function verdictsPerMinute(times) {
  const recent = times.filter((time) => time > Date.now() - RATE_WINDOW_MS);
  if (recent.length < 5) return null;
  let spent = 0;
  for (let i = 1; i < recent.length; i += 1) spent += Math.min(recent[i] - recent[i - 1], LONGEST_PAUSE_MS);
  return spent ? ((recent.length - 1) * 60_000) / spent : null;
}

function duration(minutes) {
  if (minutes < 1) return '1 min';
  if (minutes < 90) return `${Math.round(minutes)} min`;
  return `${(minutes / 60).toFixed(1)} h`;
}
