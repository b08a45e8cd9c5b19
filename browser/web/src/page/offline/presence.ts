// Whether the server of this page still answers. The page works on with what it has, and says so.

import { isExported } from "../routes";

const GONE = "The server of this page does not answer. The page works on with what it has loaded.";
const FROM_CACHE = "X-Edgeloop-Offline"; // the service worker marks what it had to take from its cache

/** What to do about a server that is gone, to go on with. */
export const again = (): string =>
  isExported() ? "Wait until the site can be reached again" : "Start edgeloop browse again";

export function serverIsGone(): void {
  if (document.getElementById("gone")) return;
  const line = document.createElement("p");
  line.id = "gone";
  line.className = "notice";
  line.setAttribute("role", "status");
  line.textContent = `${GONE} ${again()} to load more.`;
  document.querySelector("main")?.prepend(line);
}

/** Tell a response of the server from one of the service worker's cache. */
export function serverAnswered(response: Response): void {
  if (response.headers.has(FROM_CACHE)) serverIsGone();
  else document.getElementById("gone")?.remove();
}

/** Ask whenever the tab is shown again. */
export function watchServer(): void {
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") void ask();
  });
}

async function ask(): Promise<void> {
  try {
    serverAnswered(await fetch(document.baseURI, { method: "HEAD", cache: "no-store" }));
  } catch {
    serverIsGone();
  }
}
