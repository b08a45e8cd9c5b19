// The outputs of the source model and of a variant in, whether they agree out. It does for a variant in this tab what
// src/edgeloop/runtime/parity/compare.py does in Python, where the reasons for the floors are.
// tests/browser/unit/test_page_parity.py compares the two.

import type { Tensor } from "../npy";

export interface Floor {
  snr_db: number;
  /** Relative to max(1, the largest reference); null: SNR alone decides. */
  max_abs: number | null;
  /** Share of samples whose class agrees; one sample may always differ. */
  top1: number;
}

// where an output ends in a sigmoid or softmax, an error of at most ROUNDING passes whatever the SNR, and one of UNDECIDED
// is not too large where the reference lies between DECIDED and 1 - DECIDED
const ROUNDING = 5e-7;
const UNDECIDED = 5e-5;
const DECIDED = 0.01;
const LIMIT_DB = 200; // the SNR is clipped to +-200 dB: JSON has no infinity

export const FLOORS: Readonly<Record<string, Floor>> = {
  float32: { snr_db: 100, max_abs: 1e-5, top1: 0.99 },
  float16: { snr_db: 40, max_abs: null, top1: 0.97 },
  dynamic: { snr_db: 12, max_abs: null, top1: 0.85 },
  int16x8: { snr_db: 12, max_abs: null, top1: 0.85 },
  int8: { snr_db: 10, max_abs: null, top1: 0.85 },
  int4: { snr_db: 10, max_abs: null, top1: 0.85 },
  mixed: { snr_db: 10, max_abs: null, top1: 0.85 },
};

/** The scheme whose floor a variant is held to. A source that rounds values to 8 bits itself gives float32 float16's;
 * in the ranges of every call, both floats that of dynamic. */
export const judgedAs = (scheme: string, source: Origin): string =>
  source.rounds === "dynamic" && (scheme === "float32" || scheme === "float16")
    ? "dynamic"
    : scheme === "float32" && source.rounds !== undefined
      ? "float16"
      : scheme;

/** One output. `error`: why there was nothing to compare. */
export interface Parity {
  output: string;
  passed: boolean;
  error: string | null;
  max_abs: number;
  /** Null: exact. */
  snr_db: number | null;
  /** Null: no classifier. */
  top1_agreement: number | null;
}

/** What the manifest says of the source, as far as a proof is judged by it. */
export interface Origin {
  rounds?: string;
  /** Names of outputs that end in a sigmoid or softmax, with commas between. */
  bounded?: string;
}

type Tensors = Record<string, Tensor>;

/** One record for each output of the reference. Nothing passes without a floor for the scheme. */
export function compare(
  variant: string,
  expected: Tensors,
  got: Tensors,
  classifier: boolean,
  source: Origin = {},
): Parity[] {
  const scheme = judgedAs(variant, source);
  const floor = Object.hasOwn(FLOORS, scheme) ? FLOORS[scheme] : undefined;
  const bounded = source.bounded?.split(",") ?? [];
  return Object.entries(expected).map(([output, reference]) => {
    const value = got[output];
    const error = floor
      ? nothingToCompare(reference, value)
      : `this page has no parity thresholds for the scheme ${scheme}`;
    if (error || !floor || !value)
      return { output, passed: false, error, max_abs: Infinity, snr_db: -LIMIT_DB, top1_agreement: null };
    return judge(floor, output, reference, value, classifier, bounded.includes(output));
  });
}

/** One output [n, classes], and either labels for it or rows that are probabilities. */
export function isClassifier(expected: Tensors, labelled: boolean): boolean {
  const [output, another] = Object.values(expected);
  if (!output || another || output.shape.length !== 2 || output.shape[1]! < 2 || !output.dtype.startsWith("float"))
    return false;
  return (
    labelled ||
    rowsOf(output).every((row) => row.every((p) => p >= 0) && Math.abs(row.reduce((a, b) => a + b, 0) - 1) <= 1.01e-3)
  );
}

/** One record as text: why it was not compared, or how far it agrees. */
export function reason({ output, error, max_abs, snr_db, top1_agreement }: Parity): string {
  if (error) return error;
  const snr = snr_db === null ? "exact values" : `SNR ${snr_db.toFixed(1)} dB`;
  const agree = top1_agreement === null ? "" : `, top-1 agreement ${(100 * top1_agreement).toFixed(1)}%`;
  return `output '${output}' has ${snr}, max absolute error ${Number(max_abs.toPrecision(3))}${agree}`;
}

/** The floor of a scheme as text. */
export function needs(scheme: string): string {
  const { snr_db, max_abs, top1 } = FLOORS[scheme]!;
  const error =
    max_abs === null ? "" : `, a max absolute error of at most ${max_abs.toExponential()} * max(1, largest output)`;
  return `an SNR of at least ${snr_db} dB${error} and a top-1 agreement of at least ${100 * top1}%`;
}

function nothingToCompare(reference: Tensor, value: Tensor | undefined): string | null {
  if (!value) return "the variant does not give this output";
  if (String(value.shape) !== String(reference.shape))
    return `the output has shape [${value.shape}]. Expected [${reference.shape}]`;
  return plain(value).every(Number.isFinite) ? null : "the output contains NaN or infinity";
}

function judge(
  floor: Floor,
  output: string,
  reference: Tensor,
  value: Tensor,
  classifier: boolean,
  bounded: boolean,
): Parity {
  const [r, v] = [plain(reference), plain(value)];
  let [largest, max_abs, power, noise] = [0, 0, 0, 0];
  r.forEach((expected, i) => {
    const error = Math.abs(expected - v[i]!);
    largest = Math.max(largest, Math.abs(expected));
    max_abs = Math.max(max_abs, error);
    power += expected ** 2;
    noise += error ** 2;
  });
  // a reference of zeros has no power of its own: its noise is then measured against one unit an element
  const ratio = 10 * Math.log10((power || r.length) / noise);
  const snr_db = noise === 0 ? null : Math.min(LIMIT_DB, Math.max(-LIMIT_DB, ratio));
  const n = reference.shape[0] ?? 1;
  const same = classifier ? agreeing(rowsOf(reference).map(argmax), rowsOf(value).map(argmax)) : n;
  const limit = floor.max_abs === null ? Infinity : floor.max_abs * Math.max(1, largest);
  const allowed = (p: number) => (bounded && p > DECIDED && p < 1 - DECIDED ? Math.max(UNDECIDED, limit) : limit);
  const passed =
    (snr_db === null || snr_db >= floor.snr_db || (bounded && max_abs <= ROUNDING)) &&
    r.every((expected, i) => Math.abs(expected - v[i]!) <= allowed(expected)) &&
    n - same <= Math.max(1, (1 - floor.top1) * n);
  return { output, passed, error: null, max_abs, snr_db, top1_agreement: classifier ? same / n : null };
}

const plain = ({ data }: Tensor): number[] => Array.from(data as ArrayLike<number | bigint>, Number);

const agreeing = (a: number[], b: number[]): number => a.filter((value, i) => value === b[i]).length;

/** The place of the first largest value. A loop: as arguments of one call, some 125,000 values overflow the stack. */
export function argmax(row: readonly number[]): number {
  let best = 0;
  for (let i = 1; i < row.length; i++) if (row[i]! > row[best]!) best = i;
  return best;
}

function rowsOf(tensor: Tensor): number[][] {
  const [values, n] = [plain(tensor), tensor.shape[0] ?? 1];
  const length = values.length / n;
  return Array.from({ length: n }, (_, i) => values.slice(i * length, (i + 1) * length));
}
