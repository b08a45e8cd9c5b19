// The table of a race: a row for each contender.

import { element } from "../view/dom";
import { short } from "../view/format";
import { NATIVE } from "./lanes";
import type { RaceRow } from "./race";
import { overNative } from "./record";
import { spread } from "./statistics";

const COLUMNS = [
  ["Engine", ""],
  ["Variant", ""],
  ["Parity", "Whether the answers agree with the source model's, at load and every 50th run: the largest error so far"],
  ["Median", "Of the measured runs, in milliseconds"],
  ["p90", "90% of the measured runs took at most this long"],
  ["Min", "The fastest run"],
  ["Runs", "Measured runs, without warm-up and without the first of each turn"],
  ["× native", "Median over that of the same variant on its native runtime on the machine that serves this page"],
  ["Download", "Of the variant and the engine, until both were here; 0 from the cache"],
  ["Init", "Of the engine; natively the import of the runtime"],
  ["Compile", "Of the model, in memory"],
  ["First run", "The very first, with whatever the engine puts off until then"],
  [
    "Memory",
    "What the engine's WebAssembly has taken so far, for all variants together and without the GPU: it grows and does not shrink",
  ],
] as const;

/** The body is filled by `fill`. */
export function table(): HTMLTableElement {
  const heads = COLUMNS.map(([name, title], k) =>
    element("th", { scope: "col", className: k > 2 ? "number" : "" }, title ? abbreviation(name, title) : name),
  );
  const caption = element("caption", {}, "Times in milliseconds");
  return element("table", {}, caption, element("thead", {}, element("tr", {}, ...heads)), element("tbody"));
}

export function fill(body: HTMLTableSectionElement, rows: readonly RaceRow[]): void {
  body.replaceChildren(...rows.map((row) => line(row, rows)));
}

function line(row: RaceRow, rows: readonly RaceRow[]): HTMLTableRowElement {
  const { cold, error } = row;
  const found = spread(row.wall_ms);
  const times = [found?.median_ms, found?.p90_ms, found?.min_ms].map(time);
  const ratio = overNative(row, rows);
  const start = [cold.download_ms, cold.init_ms, cold.compile_ms, cold.first_run_ms].map(time);
  const memory = row.heap_bytes === undefined ? "–" : `${(row.heap_bytes / 1e6).toFixed(0)} MB`;
  const numbers = [
    ...times,
    String(row.wall_ms.length),
    ratio === undefined ? "–" : `${short(ratio)}×`,
    ...start,
    memory,
  ];
  const engine = element(
    "th",
    { scope: "row" },
    row.engine,
    ...(row.about ? [element("p", { className: "note" }, row.about)] : []),
  );
  if (error !== undefined) engine.append(element("p", { className: "note bad" }, error));
  return element(
    "tr",
    { className: row.parity?.passed === false || (error !== undefined && !row.wall_ms.length) ? "wrong" : "" },
    engine,
    element("td", {}, row.variant),
    parity(row),
    ...numbers.map((text) => element("td", { className: "number" }, text)),
  );
}

/** Green or red, with how far the answers are off. */
function parity({ engine, parity: state }: RaceRow): HTMLTableCellElement {
  if (!state) return element("td", {}, engine === NATIVE ? "proved at conversion" : "–");
  const off = Number.isFinite(state.max_abs) ? short(state.max_abs) : "";
  const text = state.passed ? `✓ agrees (${off})` : off ? `✗ wrong by ${off}` : "✗ wrong";
  const times = `${state.checks} ${state.checks === 1 ? "check" : "checks"}`;
  const badge = element(
    "span",
    { className: `badge ${state.passed ? "good" : "bad"}`, title: `${times}. ${state.text}.` },
    text,
  );
  const why = state.passed ? [] : [element("p", { className: "note bad" }, `${state.text}.`)];
  return element("td", {}, badge, ...why);
}

const time = (ms: number | undefined): string => (ms === undefined ? "–" : short(ms));

function abbreviation(text: string, title: string): HTMLElement {
  return element("abbr", { title }, text);
}
