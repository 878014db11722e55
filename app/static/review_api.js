// Requests of the review page, and one sentence for everything that can go wrong with them.

export const API = '/api/review';
const TIMEOUT_MS = 15_000;

/** A request without the answer it was made for. status is 0 when the server did not answer at all; answer is what it said. */
export class RequestFailed extends Error {
  constructor(sentence, status = 0, answer = null) {
    super(sentence);
    this.status = status;
    this.answer = answer;
  }
}

/** The parsed answer of a route below API, null for an empty one. Raises RequestFailed. */
export function request(path, options) {
  return ask(API + path, options);
}

/** The same of any route; patience is how long an answer may take. */
export async function ask(url, { method = 'GET', body, patience = TIMEOUT_MS } = {}) {
  const options = { method, signal: AbortSignal.timeout(patience) };
  if (body !== undefined) {
    options.headers = { 'Content-Type': 'application/json' };
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new RequestFailed('The server does not answer.');
  }
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  if (response.status === 401) throw new RequestFailed('You are signed out; sign in again.', 401);
  throw new RequestFailed(answer?.error ?? `The server answers with error ${response.status}.`, response.status, answer);
}
