// All weights of a model as one row of numbers, and as named arrays. The row has them in `get_weights` order.

import { size, type Tensor } from "../../npy";

export interface WeightSpec {
  name: string;
  shape: number[];
}

export const countOf = (weights: readonly WeightSpec[]): number =>
  weights.reduce((sum, { shape }) => sum + size(shape), 0);

/** Throws when an array is missing or has another shape. */
export function rowOf(
  tensors: Readonly<Record<string, Tensor>>,
  weights: readonly WeightSpec[],
): Float32Array<ArrayBuffer> {
  const row = new Float32Array(countOf(weights));
  let at = 0;
  for (const { name, shape } of weights) {
    const found = tensors[name];
    if (found?.dtype !== "float32" || String(found.shape) !== String(shape))
      throw new Error(`the weight ${name} is ${found?.dtype} [${found?.shape}]. The model has float32 [${shape}]`);
    row.set(found.data as Float32Array, at);
    at += size(shape);
  }
  return row;
}

/** Throws for a row of another length. */
export function tensorsOf(row: Float32Array, weights: readonly WeightSpec[]): Record<string, Tensor> {
  if (row.length !== countOf(weights))
    throw new Error(`${row.length} weights are given. The model has ${countOf(weights)}`);
  let at = 0;
  return Object.fromEntries(
    weights.map(({ name, shape }): [string, Tensor] => {
      const data = new Float32Array(row.subarray(at, at + size(shape)));
      at += data.length;
      return [name, { shape, dtype: "float32", data }];
    }),
  );
}
