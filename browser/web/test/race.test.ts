import { expect, test } from "vitest";
import type { ParityState } from "../src/page/parity/watch";
import { seeded, shuffled } from "../src/page/race/order";
import { type Contender, DEFAULTS, race } from "../src/page/race/race";
import { histogram, percentile, spread } from "../src/page/race/statistics";

test("percentiles are times that were measured, the higher neighbour where one falls between two", () => {
  // the rule of edge/on_device/percentiles.py by hand: index ceil(q (n - 1) / 100) of the sorted times
  expect(percentile([4, 1, 3, 2], 50)).toBe(3); // ceil(1.5) = 2
  expect(percentile([5, 1, 4, 2, 3], 50)).toBe(3);
  expect(percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], 90)).toBe(10); // ceil(8.1) = 9
  expect(spread([3, 1, 2])).toEqual({ min_ms: 1, median_ms: 2, p90_ms: 3, runs: 3 });
  expect(spread([])).toBeUndefined();
});

test("a histogram counts every run once, on one logarithmic scale for all series", () => {
  const series = new Map([
    ["fast", [1, 1, 2, 3.9]],
    ["slow", [4, 16]],
  ]);
  const found = histogram(series, 4)!; // 1 to 16 in four bins: bounds 1, 2, 4, 8, 16
  expect(found.bounds_ms.map((bound) => Math.round(bound * 1e6) / 1e6)).toEqual([1, 2, 4, 8, 16]);
  expect(found.counts.get("fast")).toEqual([2, 2, 0, 0]);
  expect(found.counts.get("slow")).toEqual([0, 0, 1, 1]);
});

test("equal times, and times below the resolution of the clock, still have a bin", () => {
  expect(histogram(new Map([["a", [2, 2, 2]]]), 3)!.counts.get("a")).toEqual([3, 0, 0]);
  expect(histogram(new Map([["a", [0, 1, 2]]]), 2)!.counts.get("a")).toEqual([2, 1]);
  expect(histogram(new Map([["a", [0, 0]]]), 2)).toBeUndefined();
});

test("an order holds everybody once, and the seed repeats it", () => {
  const items = ["a", "b", "c", "d", "e"];
  const orders = Array.from({ length: 200 }, (_, seed) => shuffled(items, seeded(seed)).join(""));
  expect(orders.every((order) => [...order].sort().join("") === "abcde")).toBe(true);
  expect(shuffled(items, seeded(7))).toEqual(shuffled(items, seeded(7)));
  const first = (letter: string) => orders.filter((order) => order.startsWith(letter)).length;
  for (const item of items) expect(first(item)).toBeGreaterThan(200 / 5 / 2); // 40 of 200 each: 20 is 3.5 sigma below
});

/** A contender that notes its runs in `log` and takes `ms` for each, by its own clock. */
function fake(engine: string, ms: number, log: string[], more: Partial<Awaited<ReturnType<Contender["open"]>>> = {}) {
  const contender: Contender = {
    engine,
    variant: "int8",
    async open() {
      log.push(`open ${engine}`);
      return {
        cold: { download_ms: 1, init_ms: 2, compile_ms: 3 },
        async run(runs) {
          log.push(`${engine}${runs}`);
          return Array(runs).fill(ms);
        },
        close: () => void log.push(`close ${engine}`),
        ...more,
      };
    },
  };
  return contender;
}

const options = { ...DEFAULTS, runs: 9, warmup: 2, turn_ms: 30, check_every: 4 };
const never = new AbortController().signal;

test("contenders are opened one after the other, then take turns of a bounded time until all have their runs", async () => {
  const log: string[] = [];
  const found = await race([fake("a", 10, log), fake("b", 15, log)], options, never, () => {});
  expect(log.slice(0, 6)).toEqual(["open a", "a1", "a2", "open b", "b1", "b2"]); // first run, warm-up
  // a turn: one run that is not counted, then those that fit in 30 ms: 3 of a, 2 of b
  const turns = log.slice(6, -2).join(" ");
  expect(turns.replaceAll(/b1 b\d ?/g, "").trim()).toBe("a1 a3 a1 a3 a1 a3");
  expect(turns.replaceAll(/a1 a\d ?/g, "").trim()).toBe("b1 b2 b1 b2 b1 b2 b1 b2 b1 b1");
  expect(log.slice(-2)).toEqual(["close a", "close b"]);
  expect(found.end).toBe("complete");
  expect(found.rows.map(({ wall_ms }) => wall_ms)).toEqual([Array(9).fill(10), Array(9).fill(15)]);
  expect(found.rows[0]!.cold).toEqual({ download_ms: 1, init_ms: 2, compile_ms: 3, first_run_ms: 10 });
});

test("a contender that fails ends alone, with its reason, and is closed", async () => {
  const log: string[] = [];
  let calls = 0;
  const run = async (runs: number) => {
    if (++calls > 3) throw new Error("lost its GPU");
    return Array(runs).fill(1);
  };
  const broken: Contender = { engine: "c", variant: "int8", open: () => Promise.reject(new Error("no such operator")) };
  const found = await race([fake("a", 10, log), fake("b", 1, log, { run }), broken], options, never, () => {});
  expect(found.rows.map(({ error }) => error)).toEqual([undefined, "lost its GPU", "no such operator"]);
  expect(found.rows[0]!.wall_ms).toHaveLength(9);
  expect(log).toContain("close b");
});

test("stop ends the race after the turn that is running, and the time limit does so too", async () => {
  const stop = new AbortController();
  const log: string[] = [];
  const stopped = await race([fake("a", 10, log)], options, stop.signal, (rows) => {
    if (rows[0]!.wall_ms.length) stop.abort();
  });
  expect([stopped.end, stopped.rows[0]!.wall_ms.length]).toEqual(["stopped", 3]);
  expect(log.at(-1)).toBe("close a");
  const late = await race([fake("a", 10, log)], { ...options, limit_s: -1 }, never, () => {});
  expect([late.end, late.rows[0]!.error]).toEqual(["time limit", "the race ended before its first turn"]);
});

test("answers are checked when a contender is opened and again every so many runs", async () => {
  const states: ParityState[] = [];
  const check = async () => {
    states.push({ passed: states.length < 2, max_abs: 0.5, checks: states.length + 1, text: "" });
    return states.at(-1)!;
  };
  const found = await race([fake("a", 10, [], { check })], options, never, () => {});
  expect(states).toHaveLength(2); // at 0 and at 6 runs; 9 - 6 is below 4
  expect(found.rows[0]!.parity).toEqual(states.at(-1));
});
