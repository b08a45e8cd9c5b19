// Requests of a tab to its own server's gateway, and what an answer that is none means for the tab.

import { routeUrl } from "../routes";

export const ROUTE = "federate";

/** Whoever gets this does not ask again: the words say why. */
export class Final extends Error {}

/** The gateway knows the tab no more; it may join again. */
export class Gone extends Error {}

/** The same request will be refused again. */
export class Refused extends Error {}

const PASSING = [408, 409, 429]; // of 4xx: worth another try

/** Throws one of the errors above, and any other where the same request may be answered later. */
export async function ask(path: string, body: BodyInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(routeUrl(ROUTE, path), { method: "POST", body });
  } catch {
    throw new Error("The server of this page cannot be reached. Trying again.");
  }
  if (response.ok) return response;
  const { status } = response;
  const { error, final, code } = await refusal(response);
  if (status === 410) throw final ? new Final(error) : new Gone(`${error} Joining again.`);
  if (code === "model") throw new Final(error);
  if (status === 409) throw new Error(`${error} Trying again.`);
  if (status === 403)
    throw new Final(`The server of this page refuses this tab, as one that was started anew does: ${error}`);
  const words = `The server of this page answered ${status}: ${error}`;
  throw status >= 400 && status < 500 && !PASSING.includes(status) ? new Refused(words) : new Error(words);
}

async function refusal(response: Response): Promise<{ error: string; final?: boolean; code?: string }> {
  const text = await response.text();
  try {
    const { error, ...more } = JSON.parse(text) as {
      error: string | { found: string };
      final?: boolean;
      code?: string;
    };
    return { error: typeof error === "string" ? error : error.found, ...more };
  } catch {
    return { error: text.trim() };
  }
}
