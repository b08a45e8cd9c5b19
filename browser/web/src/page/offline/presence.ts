// Whether the server of this page still answers. The page works on with what it has, and says so.

const GONE =
  "The server of this page does not answer. The page works on with what it has loaded. Start edgeloop browse again to load more.";
const FROM_CACHE = "X-Edgeloop-Offline"; // the service worker marks what it had to take from its cache

export function serverIsGone(): void {
  if (document.getElementById("gone")) return;
  const line = document.createElement("p");
  line.id = "gone";
  line.className = "notice";
  line.setAttribute("role", "status");
  line.textContent = GONE;
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
