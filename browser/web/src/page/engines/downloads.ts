// How much of a stretch of time something was being downloaded in, by the browser's own record of its requests.
// Source: https://www.w3.org/TR/resource-timing/

export interface Downloaded<T> {
  result: T;
  /** Milliseconds in which at least one request was on its way. */
  download_ms: number;
  wall_ms: number;
}

performance.setResourceTimingBufferSize?.(2000); // 250 by default: a page that stays open runs out of them

export async function timeDownloads<T>(work: () => Promise<T>): Promise<Downloaded<T>> {
  const start = performance.now();
  const result = await work();
  const end = performance.now();
  const spans = performance
    .getEntriesByType("resource")
    .filter(({ startTime }) => startTime >= start && startTime < end)
    .map(({ startTime, duration }): [number, number] => [startTime, Math.min(end, startTime + duration)]);
  return { result, download_ms: covered(spans), wall_ms: end - start };
}

/** The length of the union of the spans [from, to]. */
export function covered(spans: [number, number][]): number {
  let [total, reached] = [0, -Infinity];
  for (const [from, to] of spans.toSorted((a, b) => a[0] - b[0])) {
    total += Math.max(0, to - Math.max(from, reached));
    reached = Math.max(reached, to);
  }
  return total;
}
