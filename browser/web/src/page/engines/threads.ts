// How many threads the engines on WebAssembly use.

const MOST = 4;

/**
 * `?threads=N` in the page's address, else half of the processors, at most 4: on two shared cores a second thread made
 * the median no better (measured with MobileNetV2). 1 without cross-origin isolation, which threads need.
 */
export function threadCount(asked = new URLSearchParams(location.search).get("threads")): number {
  if (!crossOriginIsolated) return 1;
  const count = Number(asked);
  if (asked !== null && Number.isInteger(count) && count >= 1)
    return Math.min(count, 2 * navigator.hardwareConcurrency);
  return Math.max(1, Math.min(MOST, navigator.hardwareConcurrency >> 1));
}
