// The result of a race as one document: what "Copy as JSON" copies.

import type { Bundle } from "../bundle";
import { type Threads, threadsOfEngines } from "../engines/capabilities";
import { threadCount } from "../engines/threads";
import { NATIVE } from "./lanes";
import type { RaceResult, RaceRow } from "./race";
import { percentile, type Spread, spread } from "./statistics";

export interface RecordRow extends RaceRow, Partial<Spread> {
  /** Median over that of the same variant on its native runtime; undefined where that one was not measured. */
  over_native?: number;
}

/** Times in milliseconds, sizes in bytes. */
export interface RaceRecord extends Omit<RaceResult, "rows"> {
  race: RecordRow[];
  bundle: { name: string; version: number };
  page: {
    browser: string;
    cross_origin_isolated: boolean;
    cpus: number;
    /** Of the engines on WebAssembly, by runtime, and of the native runtimes. */
    threads: Threads & { native: number };
    /** Of all of the page together, without the GPU. The browser is asked when all contenders are open and measures when
     * it likes, up to 20 s later; undefined where it does not tell in time. */
    memory_bytes?: number;
  };
}

export function recordOf({ manifest }: Bundle, { rows, ...rest }: RaceResult, memory_bytes?: number): RaceRecord {
  return {
    race: rows.map((row) => ({ ...row, ...spread(row.wall_ms), over_native: overNative(row, rows) })),
    ...rest,
    bundle: { name: manifest.name, version: manifest.version },
    page: {
      browser: navigator.userAgent,
      cross_origin_isolated: crossOriginIsolated,
      cpus: navigator.hardwareConcurrency,
      threads: { ...threadsOfEngines(), native: threadCount() },
      memory_bytes,
    },
  };
}

/** Undefined for the native rows themselves. */
export function overNative(row: RaceRow, rows: readonly RaceRow[]): number | undefined {
  if (row.engine === NATIVE || !row.wall_ms.length) return undefined;
  const native = rows.find(({ engine, variant }) => engine === NATIVE && variant === row.variant);
  const median = native?.wall_ms.length ? percentile(native.wall_ms, 50) : 0;
  return median > 0 ? percentile(row.wall_ms, 50) / median : undefined;
}

/** JSON without Infinity, which it cannot hold: the error of what could not be compared is null. */
export const toJson = (record: RaceRecord): string => JSON.stringify(record, null, 1);

/** All memory of this page; undefined where the browser does not tell. Chromium answers at its next garbage collection,
 * or after 20 s. */
export async function pageBytes(): Promise<number | undefined> {
  const { measureUserAgentSpecificMemory } = performance as Performance & {
    measureUserAgentSpecificMemory?: () => Promise<{ bytes: number }>;
  };
  if (!crossOriginIsolated || !measureUserAgentSpecificMemory) return undefined;
  return (await measureUserAgentSpecificMemory.call(performance).catch(() => undefined))?.bytes;
}

const SOON_MS = 2000;

/** What `work` gives, or undefined where that takes longer than a person waits for a result. */
export function soon<T>(work: Promise<T> | undefined): Promise<T | undefined> {
  const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), SOON_MS));
  return Promise.race([work, late]);
}
