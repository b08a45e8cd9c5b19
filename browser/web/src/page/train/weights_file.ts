// Weights as an .npz that Python reads, named w000, w001, ... in the order of Keras's get_weights.

import { readNpz, type Tensor, writeNpz } from "../../npy";
import { rowOf, tensorsOf, type WeightSpec } from "./weights_row";

/** `model.set_weights([z[name] for name in sorted(z.files)])` loads the file in Python. */
export const writeWeights = (row: Float32Array, weights: readonly WeightSpec[]): Uint8Array =>
  writeNpz(new Map(Object.entries(tensorsOf(row, weights))));

/** Throws when the file holds other arrays than the model's weights, NaN or Infinity. */
export function readWeights(file: Uint8Array, weights: readonly WeightSpec[]): Float32Array<ArrayBuffer> {
  let arrays: Map<string, Tensor>;
  try {
    arrays = readNpz(file);
  } catch (error) {
    throw new Error(`The file is no .npz file: ${error instanceof Error ? error.message : error}.`);
  }
  if (arrays.size !== weights.length)
    throw new Error(`The file has ${arrays.size} arrays. This model has ${weights.length} weights.`);
  const row = rowOf(Object.fromEntries(arrays), weights);
  if (!row.every(Number.isFinite)) throw new Error("The file holds NaN or Infinity.");
  return row;
}
