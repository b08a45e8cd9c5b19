// Times in, their percentiles and a histogram with shared bins out.

export interface Spread {
  min_ms: number;
  median_ms: number;
  p90_ms: number;
  runs: number;
}

/** A time that was measured and that q% of the runs did not exceed, the higher neighbour where it falls between two: the
 * rule of edge/on_device/percentiles.py, so that a page and a device report the same figure for the same times. */
export function percentile(times_ms: readonly number[], q: number): number {
  if (!times_ms.length) throw new Error("a percentile of no times");
  return [...times_ms].sort((a, b) => a - b)[Math.ceil((q * (times_ms.length - 1)) / 100)]!;
}

/** Undefined: nothing was measured. */
export function spread(times_ms: readonly number[]): Spread | undefined {
  if (!times_ms.length) return undefined;
  return {
    min_ms: percentile(times_ms, 0),
    median_ms: percentile(times_ms, 50),
    p90_ms: percentile(times_ms, 90),
    runs: times_ms.length,
  };
}

export interface Histogram {
  /** `counts.length + 1` bounds in milliseconds, each the same factor above the one before. */
  bounds_ms: number[];
  /** By name of the series: runs of each bin. A time on a bound belongs to the bin above it, the largest to the last. */
  counts: Map<string, number[]>;
}

/** One scale for all series, logarithmic: engines differ by factors, not by milliseconds. Undefined: no time above 0. */
export function histogram(series: ReadonlyMap<string, readonly number[]>, bins: number): Histogram | undefined {
  const all = [...series.values()].flat().filter((time) => time > 0);
  if (!all.length) return undefined;
  const low = all.reduce((a, b) => Math.min(a, b));
  const high = Math.max(
    all.reduce((a, b) => Math.max(a, b)),
    low * 1.01, // equal times need a bin with a width
  );
  const step = Math.log(high / low) / bins;
  const counts = new Map<string, number[]>();
  for (const [name, times] of series) {
    const row = Array<number>(bins).fill(0);
    for (const time of times) {
      const bin = Math.floor(Math.log(Math.max(time, low) / low) / step + 1e-9); // a bound itself must not fall below
      row[Math.min(bins - 1, bin)]!++;
    }
    counts.set(name, row);
  }
  return { bounds_ms: Array.from({ length: bins + 1 }, (_, k) => low * Math.exp(k * step)), counts };
}
