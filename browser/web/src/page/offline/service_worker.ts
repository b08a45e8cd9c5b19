// Keeps the page, the engines that were used and the bundle's files, so that the page opens without its server. Built
// to sw.js in the page's folder. What the server sent is kept with its headers, so the page stays isolated.
//
// - Files below assets/ have a hash in their names: from the cache, once they are there.
// - The page itself and the bundle's files: from the server if it answers, else from the cache, marked as such.
// - Requests to routes (api/): never kept.
//
// A new release of edgeloop has another RELEASE: its worker takes over when the last tab of the old one has closed, and
// removes the old cache. Until then the old worker serves the new page too, since it asks the server for it.

interface Worker {
  registration: { scope: string };
  clients: { claim(): Promise<void> };
  addEventListener(type: "install" | "activate", listener: (event: Extendable) => void): void;
  addEventListener(type: "message", listener: (event: Extendable & { data: { keep?: string[] } }) => void): void;
  addEventListener(
    type: "fetch",
    listener: (event: Extendable & { request: Request; respondWith(response: Promise<Response>): void }) => void,
  ): void;
}

interface Extendable {
  waitUntil(done: Promise<unknown>): void;
}

const worker = self as unknown as Worker;
const RELEASE = "__RELEASE__"; // delivery.ts writes the hash of all files here
const SCOPE = worker.registration.scope;
const PREFIX = `edgeloop ${SCOPE} `;
const CACHE = PREFIX + RELEASE;
const FIRST_BYTES = 200e3; // the page's own chunks; engines are kept when they are used
const SERVER_MS = 5e3; // for the server to begin its answer, where the cache has one too
const FROM_CACHE = "X-Edgeloop-Offline";

worker.addEventListener("install", (event) => event.waitUntil(install()));
worker.addEventListener("activate", (event) => event.waitUntil(activate()));
worker.addEventListener("message", (event) => event.waitUntil(keepAll(event.data.keep ?? [])));
worker.addEventListener("fetch", (event) => {
  const { request } = event;
  const path = pathOf(request.url);
  if (request.method !== "GET" || path === undefined || path.startsWith("api/") || request.headers.has("Range")) return;
  const later = (done: Promise<unknown>) => event.waitUntil(done.catch(() => undefined)); // e.g. no space left
  event.respondWith(
    path.startsWith("assets/") ? fromCacheFirst(request.url, later) : fromServerFirst(request, path, later),
  );
});

/** Below the page's folder, without a query; undefined elsewhere. */
function pathOf(url: string): string | undefined {
  const plain = url.split(/[?#]/, 1)[0]!;
  return plain.startsWith(SCOPE) ? plain.slice(SCOPE.length) : undefined;
}

const keyOf = (path: string): string => SCOPE + (path === "index.html" ? "" : path);

async function install(): Promise<void> {
  const response = await fetch(`${SCOPE}files.json`);
  if (!response.ok) throw new Error(`files.json: ${response.status}`);
  const { files } = (await response.json()) as { files: Record<string, { bytes: number }> };
  const own = Object.keys(files).filter((name) => files[name]!.bytes < FIRST_BYTES && !name.startsWith("licenses"));
  for (const name of ["", ...own]) {
    const response = await fetch(SCOPE + name);
    if (response.status !== 200) throw new Error(`${name}: ${response.status}`); // the browser tries again later
    await keep(name, response);
  }
}

async function activate(): Promise<void> {
  for (const name of await caches.keys()) if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
  await worker.clients.claim();
}

async function keepAll(urls: string[]): Promise<void> {
  const cache = await caches.open(CACHE);
  for (const url of new Set(urls)) {
    const path = pathOf(url);
    if (path === undefined || path.startsWith("api/")) continue;
    if (path.startsWith("assets/") && (await cache.match(url))) continue;
    await keep(path, await fetch(keyOf(path)));
  }
}

async function fromCacheFirst(url: string, later: (done: Promise<unknown>) => void): Promise<Response> {
  const kept = await (await caches.open(CACHE)).match(url);
  if (kept) return kept;
  const response = await fetch(url);
  later(keep(pathOf(url)!, response.clone()));
  return response;
}

async function fromServerFirst(
  request: Request,
  path: string,
  later: (done: Promise<unknown>) => void,
): Promise<Response> {
  const asked = fetch(request);
  asked.catch(() => undefined); // it may fail while the cache is asked; what follows learns of it
  const kept = await (await caches.open(CACHE)).match(keyOf(path));
  const response = await (kept ? inTime(asked) : asked);
  if (response) {
    later(keep(path, response.clone()));
    return response;
  }
  later(asked.then((late) => keep(path, late)));
  const headers = new Headers(kept!.headers);
  headers.set(FROM_CACHE, "1");
  return new Response(kept!.body, { status: kept!.status, headers });
}

/** What the server answers; undefined if it does not, or not in time. */
async function inTime(asked: Promise<Response>): Promise<Response | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const over = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), SERVER_MS);
  });
  try {
    return await Promise.race([asked, over]);
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

let last: Promise<unknown> = Promise.resolve();

/** One after another: a manifest's removals are over before the files that the page fetches after it are kept. */
function keep(path: string, response: Response): Promise<void> {
  const kept = last.then(() => keepNow(path, response));
  last = kept.catch(() => undefined); // whoever asked for it learns of it
  return kept;
}

/**
 * Keep it, unless it is the one that is there. A bundle with another manifest replaces all files of the one before.
 * A body that is not kept is given up: unread, it would hold its connection.
 */
async function keepNow(path: string, response: Response): Promise<void> {
  const cache = await caches.open(CACHE);
  const before = await cache.match(keyOf(path));
  const same = before && versionOf(before) !== undefined && versionOf(before) === versionOf(response);
  if (response.status !== 200 || same) {
    void response.body?.cancel(); // of one of two readers: done when the other one is
    return;
  }
  if (before && path === "bundle/manifest.json")
    for (const { url } of await cache.keys()) if (pathOf(url)?.startsWith("bundle/")) await cache.delete(url);
  await cache.put(keyOf(path), response);
}

/** What tells one version of a file from another, where the server says it. */
const versionOf = ({ headers }: Response): string | undefined =>
  headers.get("ETag") ?? headers.get("Last-Modified") ?? undefined;
