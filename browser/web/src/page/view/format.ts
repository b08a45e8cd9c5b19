// Numbers as the page writes them.

import type { TensorSpec } from "../bundle";

export const label = (output: TensorSpec | undefined, index: number): string => output?.labels[index] ?? String(index);

export const kilobytes = (bytes: number): string =>
  bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;

/** Two digits: of a difference or a time. */
export const short = (value: number): string =>
  value === 0 ? "0" : Math.abs(value) < 1e-3 ? value.toExponential(1) : plain(value, 2);

/** Four digits: of a value that the model gives or takes. */
export const value = (number: number): string =>
  number !== 0 && (Math.abs(number) < 1e-3 || Math.abs(number) >= 1e6)
    ? number.toExponential(3)
    : String(Number(number.toPrecision(4)));

const plain = (number: number, digits: number): string =>
  Math.abs(number) >= 10 ** digits ? String(Math.round(number)) : number.toPrecision(digits);
