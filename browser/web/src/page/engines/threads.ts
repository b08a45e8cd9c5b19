// How many threads the engines on WebAssembly use.

const MOST = 4;

/**
 * `?threads=N` in the page's address. Without it 1 for programs ("#engine"), as every other runtime of a measurement, and
 * half of the processors for people, at most 4: on two shared cores a second thread made the median no better (measured
 * with MobileNetV2). Always 1 without cross-origin isolation, which threads need.
 */
export function threadCount({ search, hash }: Pick<Location, "search" | "hash"> = location): number {
  if (!crossOriginIsolated) return 1;
  const count = Number(new URLSearchParams(search).get("threads"));
  if (Number.isInteger(count) && count >= 1) return Math.min(count, 2 * navigator.hardwareConcurrency);
  return hash === "#engine" ? 1 : Math.max(1, Math.min(MOST, navigator.hardwareConcurrency >> 1));
}
