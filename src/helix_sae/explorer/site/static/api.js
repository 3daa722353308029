// @ts-check
/** Questions to the server that served this page. */

/**
 * Ask a question. A later question of the same kind takes the place of an earlier one that is under way.
 * @param {string} path
 * @param {object} [question]
 * @returns {Promise<any>}
 */
export async function ask(path, question) {
  const [kind] = path.split("?");
  underWay.get(kind)?.abort();
  const control = new AbortController();
  underWay.set(kind, control);
  const sent = question === undefined
    ? { signal: control.signal }
    : {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(question),
      signal: control.signal,
    };
  let reply;
  try {
    reply = await fetch(path, sent);
  } catch (error) {
    if (control.signal.aborted) throw new Superseded();
    throw new Error("The server does not answer; is helix-sae serve still running?");
  }
  const nothing = { error: `The server answers with status ${reply.status}.` };
  const answer = await reply.json().catch(() => nothing);
  if (!reply.ok) throw new Error(String(answer.error));
  return answer;
}

/** A newer question was asked in the meantime. */
export class Superseded extends Error {}

/** @type {Map<string, AbortController>} */
const underWay = new Map();
