// Contenders in, their times out, measured in turns: what slows the machine down for a while slows all of them.
//
// As `edgeloop bench` does (edge/measure/bench.py): they are opened one after the other, so that no start is measured
// while another one runs; then come rounds, in which each has one turn, in random order. A turn begins with a run that
// is not counted, for it finds the caches as the contender before left them.

import type { ParityState } from "../parity/watch";
import { pause } from "../pause";
import { seeded, shuffled } from "./order";
import { percentile } from "./statistics";

/** What takes part: one variant on one engine, or natively. */
export interface Contender {
  readonly engine: string;
  readonly variant: string;
  open(): Promise<Lane>;
}

/** Milliseconds of each step until the first answer; undefined: not told by the engine. */
export interface ColdStart {
  download_ms?: number;
  init_ms?: number;
  compile_ms?: number;
  first_run_ms?: number;
}

/** An open contender. */
export interface Lane {
  /** What exactly runs it, where the engine's name does not say so. */
  readonly about?: string;
  readonly cold: ColdStart;
  /** Runs on the same inputs, one after another; milliseconds of each. */
  run(runs: number): Promise<number[]>;
  /** Compare the answers with the source model's once more. Missing: there is nothing to compare with. */
  check?(): Promise<ParityState | undefined>;
  /** Of WebAssembly, as far as it is known. */
  heap_bytes?(): number | undefined;
  close(): void | Promise<void>;
}

/** Of one contender; `wall_ms` in order, without warm-up and first runs of turns. */
export interface RaceRow {
  engine: string;
  variant: string;
  about?: string;
  cold: ColdStart;
  wall_ms: number[];
  parity?: ParityState;
  heap_bytes?: number;
  /** Why it does not run, or stopped. */
  error?: string;
}

export interface RaceOptions {
  /** Measured runs of each contender. */
  runs: number;
  warmup: number;
  /** The race ends after this time, openings included, with the runs it has. */
  limit_s: number;
  /** Milliseconds of a turn: as many runs as fit in, one at least. The page answers between turns. */
  turn_ms: number;
  /** Runs of a contender between two checks of its answers. */
  check_every: number;
  seed: number;
}

export const DEFAULTS: RaceOptions = {
  runs: 100,
  warmup: 5,
  limit_s: 45,
  turn_ms: 40,
  check_every: 50,
  seed: 0,
};

const MOST_RUNS_OF_A_TURN = 20;

/** What is told while turns are taken: all contenders are open. */
export const MEASURING = "measuring";

export type RaceEnd = "complete" | "time limit" | "stopped";

export interface RaceResult {
  rows: RaceRow[];
  end: RaceEnd;
  options: RaceOptions;
  duration_s: number;
}

interface Running {
  row: RaceRow;
  lane: Lane;
  checkedAt: number;
}

/** Ends on `signal` after the turn that is running. An error of a contender ends that contender alone. `tell` gets the
 * rows after each step; they are the ones that are returned. */
export async function race(
  contenders: readonly Contender[],
  options: RaceOptions,
  signal: AbortSignal,
  tell: (rows: readonly RaceRow[], doing: string) => void,
): Promise<RaceResult> {
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1e3;
  const rows = contenders.map(({ engine, variant }): RaceRow => ({ engine, variant, cold: {}, wall_ms: [] }));
  const running: Running[] = [];
  const over = () => signal.aborted || seconds() > options.limit_s;
  try {
    for (const [k, contender] of contenders.entries()) {
      if (over()) break;
      tell(rows, `opening ${contender.variant} on ${contender.engine}`);
      await pause();
      await guarded(rows[k]!, async () => {
        const lane = await contender.open();
        running.push({ row: rows[k]!, lane, checkedAt: 0 });
        await start(rows[k]!, lane, options);
      });
    }
    await takeTurns(running, options, over, () => tell(rows, MEASURING));
  } finally {
    await Promise.allSettled(running.map(async ({ lane }) => lane.close()));
  }
  const complete = rows.every(({ error, wall_ms }) => error !== undefined || wall_ms.length >= options.runs);
  const end = signal.aborted ? "stopped" : complete ? "complete" : "time limit";
  for (const row of rows) if (!row.wall_ms.length) row.error ??= "the race ended before its first turn";
  return { rows, end, options, duration_s: seconds() };
}

async function start(row: RaceRow, lane: Lane, { warmup }: RaceOptions): Promise<void> {
  row.about = lane.about;
  row.cold = lane.cold;
  if (row.cold.first_run_ms === undefined) row.cold = { ...row.cold, first_run_ms: (await lane.run(1))[0]! };
  row.parity = await lane.check?.();
  if (warmup) await lane.run(warmup);
  row.heap_bytes = lane.heap_bytes?.();
}

async function takeTurns(
  running: Running[],
  options: RaceOptions,
  over: () => boolean,
  tell: () => void,
): Promise<void> {
  const random = seeded(options.seed);
  const left = () => running.filter(({ row }) => !row.error && row.wall_ms.length < options.runs);
  while (!over() && left().length) {
    for (const contender of shuffled(left(), random)) {
      if (over()) return;
      await guarded(contender.row, () => takeTurn(contender, options));
      tell();
      await pause();
    }
  }
}

async function takeTurn(contender: Running, { runs, turn_ms, check_every }: RaceOptions): Promise<void> {
  const { row, lane } = contender;
  const [entry] = await lane.run(1);
  const usual = row.wall_ms.length ? percentile(row.wall_ms, 50) : entry!;
  const fitting = Math.floor(turn_ms / Math.max(usual, 1e-3));
  row.wall_ms.push(...(await lane.run(Math.min(Math.max(1, fitting), MOST_RUNS_OF_A_TURN, runs - row.wall_ms.length))));
  if (lane.check && row.wall_ms.length - contender.checkedAt >= check_every) {
    contender.checkedAt = row.wall_ms.length;
    row.parity = await lane.check();
  }
  row.heap_bytes = lane.heap_bytes?.() ?? row.heap_bytes;
}

async function guarded(row: RaceRow, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    row.error = error instanceof Error ? error.message : String(error);
  }
}
