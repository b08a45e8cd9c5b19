import { beforeEach, expect, test, vi } from "vitest";

const SCOPE = "http://page/";

type Listener = (event: Record<string, unknown>) => void;

/** A cache of one name, the server's answers, and the worker's listeners. */
let cached: Map<string, Response>;
let answers: Map<string, () => Promise<Response>>;
let listeners: Record<string, Listener>;
let puts: (url: string) => Promise<void>;

const cache = {
  match: async (url: string) => cached.get(url)?.clone(),
  keys: async () => [...cached.keys()].map((url) => ({ url })),
  delete: async (url: string) => cached.delete(url),
  put: async (url: string, response: Response) => {
    await puts(url);
    cached.set(url, response);
  },
};

beforeEach(async () => {
  [cached, answers, listeners, puts] = [new Map(), new Map(), {}, async () => {}];
  vi.stubGlobal("caches", { open: async () => cache, keys: async () => [] });
  vi.stubGlobal("fetch", (asked: string | { url: string }) => {
    const answer = answers.get(typeof asked === "string" ? asked : asked.url);
    return answer ? answer() : Promise.reject(new TypeError("no server"));
  });
  vi.stubGlobal("self", {
    registration: { scope: SCOPE },
    clients: { claim: async () => {} },
    addEventListener: (name: string, listener: Listener) => {
      listeners[name] = listener;
    },
  });
  vi.resetModules();
  // @ts-expect-error: a script, no module
  await import("../src/page/offline/service_worker");
  return () => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  };
});

/** What the page gets for a path, and all that is done after it. */
function ask(path: string): { answer: Promise<Response>; done: () => Promise<unknown> } {
  const waits: Promise<unknown>[] = [];
  let answer: Promise<Response> | undefined;
  listeners.fetch!({
    request: { url: SCOPE + path, method: "GET", headers: new Headers() },
    waitUntil: (done: Promise<unknown>) => waits.push(done),
    respondWith: (response: Promise<Response>) => {
      answer = response;
    },
  });
  return { answer: answer!, done: () => Promise.all(waits) };
}

const serve = (path: string, body: string, status = 200) =>
  answers.set(SCOPE + path, async () => new Response(body, { status, headers: { ETag: `"${body}"` } }));

test("a new manifest removes the files before it and none that the page fetches after it", async () => {
  for (const path of ["bundle/manifest.json", "bundle/a", "bundle/gone"])
    cached.set(SCOPE + path, new Response("old", { headers: { ETag: '"old"' } }));
  serve("bundle/manifest.json", "new");
  serve("bundle/a", "new");
  const slow = cache.delete;
  cache.delete = async (url) => {
    await new Promise((resolve) => setTimeout(resolve, 5)); // the page goes on meanwhile
    return slow(url);
  };
  const manifest = ask("bundle/manifest.json");
  await manifest.answer;
  const file = ask("bundle/a");
  await file.answer;
  await Promise.all([manifest.done(), file.done()]);
  cache.delete = slow;
  expect([...cached.keys()].sort()).toEqual([`${SCOPE}bundle/a`, `${SCOPE}bundle/manifest.json`]);
  expect(await cached.get(`${SCOPE}bundle/a`)!.text()).toBe("new");
});

test("a server that does not answer in time is replaced by what was kept", async () => {
  vi.useFakeTimers();
  cached.set(`${SCOPE}bundle/a`, new Response("kept"));
  answers.set(`${SCOPE}bundle/a`, () => new Promise(() => {}));
  const { answer } = ask("bundle/a");
  await vi.advanceTimersByTimeAsync(5001);
  const response = await answer;
  expect([await response.text(), response.headers.get("X-Edgeloop-Offline")]).toEqual(["kept", "1"]);
});

test("without a server the kept answer comes, and without either the error", async () => {
  cached.set(`${SCOPE}bundle/a`, new Response("kept"));
  expect(await (await ask("bundle/a").answer).text()).toBe("kept");
  await expect(ask("bundle/b").answer).rejects.toThrow("no server");
});

test.each([
  [200, undefined],
  [503, "assets/a.js: 503"],
])("an installation whose file is answered with %d", async (status, failure) => {
  serve("files.json", JSON.stringify({ files: { "assets/a.js": { bytes: 1 } } }));
  serve("", "page");
  serve("assets/a.js", "code", status);
  let done: Promise<unknown> = Promise.resolve();
  listeners.install!({ waitUntil: (wait: Promise<unknown>) => (done = wait) });
  if (failure) await expect(done).rejects.toThrow(failure);
  else await done;
  expect(cached.has(`${SCOPE}assets/a.js`)).toBe(status === 200);
});
