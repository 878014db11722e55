// The page's sentences that depend on where one is.

const RATE_WINDOW_MS = 5 * 60_000;
const LONGEST_PAUSE_MS = 60_000;
const ENOUGH = 5;

export const NO_MASK = 'This candidate came in an archive without its mask.';

/** Title and advice for when there is no picture to show. passed: candidates of the list left without a verdict. */
export function emptyText({ failed, loading, counts, state, filtered, passed, shownAny }) {
  if (failed) return [failed, 'The page tries again by itself. Verdicts you have given are kept in this browser.'];
  if (loading) return ['Loading …', ''];
  const { total, accepted, rejected, skipped, unreviewed, not_asked: left, auto } = counts;
  if (total === 0 && filtered) return ['No candidate matches this filter.', 'Widen a range, or clear the filter.'];
  if (total === 0) {
    return ['Nothing to review yet.', 'Go to Generate and start a batch: candidates appear here as soon as they are made.'];
  }
  if (state === 'unreviewed' && passed > 0) {
    return ['That was the last one.', `${passed} passed over without a verdict: “Look again” brings them back.`];
  }
  if (state === 'unreviewed' && unreviewed > 0) {
    return ['Nothing is free just now.', `${unreviewed} are open in another tab or in front of somebody else; they come here if they are given back.`];
  }
  if (state === 'unreviewed') {
    const others = left ? ` ${left} were left to others.` : '';
    const model = auto ? ` ${auto} were decided by the model, in the band confirmed on Triage.` : '';
    const result = `${accepted} accepted, ${rejected} rejected, ${skipped} skipped.${others}${model}`;
    return ['Everything here is reviewed.', `${result} Freeze the set on Build, or go through the skipped with the filter.`];
  }
  if (shownAny) return ['That was the last one.', 'Look back, or start over with “Look again”.'];
  const nothing = { all: 'Nothing here.', not_asked: 'Nothing was left to others.', auto: 'The model has decided nothing.' };
  const what = nothing[state] ?? `Nothing ${state} yet.`;
  return [what, 'Choose “Not reviewed yet” to go on reviewing.'];
}

/**
 * How far oneself and all together are, how fast, how much longer. pace is that of the last verdicts: when, and how
 * long each was looked at, ms. today is how many there were.
 */
export function progressText(counts, pace, today) {
  const { accepted, rejected, skipped, unreviewed, together } = counts;
  const own = accepted + rejected + skipped;
  const parts = [`${whole(own)} of ${whole(own + unreviewed)} reviewed`];
  if (together.decided !== accepted + rejected) {
    parts.push(`everybody ${whole(together.decided)} of ${whole(together.wanted)}`);
  }
  if (today) parts.push(`${whole(today)} today`);
  const rate = verdictsPerMinute(pace);
  if (rate) parts.push(`${rate.toFixed(0)} a minute`);
  const minutes = minutesLeft(counts, rate);
  if (minutes) parts.push(`about ${duration(minutes)} left`);
  return parts.join(' · ');
}

/** The server's estimate where several work at it, else by one's own pace. */
function minutesLeft({ unreviewed, together }, rate) {
  const theirs = together.seconds_left ? together.seconds_left / 60 : null;
  if (!unreviewed) return null;
  return together.active > 1 || !rate ? theirs : unreviewed / rate;
}

function whole(number) {
  return number.toLocaleString('en');
}

/** Over the last few minutes, long pauses cut short; null until there are enough. */
function verdictsPerMinute(pace) {
  const recent = pace.filter(({ at }) => at > Date.now() - RATE_WINDOW_MS);
  const spent = recent.reduce((sum, { took }) => sum + Math.min(took, LONGEST_PAUSE_MS), 0);
  return recent.length >= ENOUGH && spent ? (recent.length * 60_000) / spent : null;
}

function duration(minutes) {
  if (minutes < 1) return '1 min';
  if (minutes < 90) return `${Math.round(minutes)} min`;
  return `${(minutes / 60).toFixed(1)} h`;
}
