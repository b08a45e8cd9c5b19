// The service worker, which keeps the page for use without its server. Browsers allow it in secure contexts alone.

/** Register it, and let it keep what this page has loaded before it was there. */
export async function keepForOffline(): Promise<void> {
  if (!isSecureContext || !navigator.serviceWorker) return;
  try {
    await navigator.serviceWorker.register("./sw.js", { scope: "./", updateViaCache: "none" });
  } catch (error) {
    console.warn("This page is not kept for offline use:", error); // e.g. a private window, or no space left
    return;
  }
  const { active } = await navigator.serviceWorker.ready;
  const loaded = performance.getEntriesByType("resource").map(({ name }) => name);
  active?.postMessage({ keep: [document.baseURI, ...loaded] });
}
