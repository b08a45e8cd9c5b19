// The source's reference inputs through a model: in batches or, where the model has no batch axis, call by call.

import { numbers } from "../npy";
import type { Reference } from "./bundle";
import { cut } from "./compare";
import type { Model } from "./engines/engine";
import { rows, type Tensors } from "./engines/tensors";

/** What one run takes: a batch of the file's own size, or the first call. */
export const oneRun = ({ inputs, whole }: Reference, batch: number): Tensors =>
  whole ? callOf(inputs, 0) : rows(inputs, batch);

/** The model's outputs for all reference inputs, samples or calls first as the source's are. */
export async function answers({ batch, run }: Pick<Model, "batch" | "run">, reference: Reference): Promise<Tensors> {
  const { inputs, count, whole } = reference;
  if (!whole) return cut((await run(rows(inputs, Math.ceil(count / batch) * batch))).outputs, count);
  const results: Tensors[] = [];
  for (let i = 0; i < count; i++) results.push((await run(callOf(inputs, i))).outputs);
  return stack(results);
}

/** Call `i`, each tensor in the model's own shape: the first axis counts calls. */
export function callOf(inputs: Tensors, i: number): Tensors {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, { shape, dtype, data }]) => {
      const length = data.length / shape[0]!;
      return [name, { shape: shape.slice(1), dtype, data: data.slice(i * length, (i + 1) * length) }];
    }),
  );
}

/** Outputs of calls with a first axis that counts them. Throws where the size of one depends on the values. */
export function stack(results: Tensors[]): Tensors {
  return Object.fromEntries(
    Object.entries(results[0]!).map(([name, first]) => {
      const bytes = new Uint8Array(first.data.byteLength * results.length);
      for (const [i, one] of results.entries()) {
        const { shape, data } = one[name]!;
        if (data.byteLength !== first.data.byteLength)
          throw new Error(
            `output ${name} is [${first.shape}] in one call and [${shape}] in another: not compared here`,
          );
        bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), i * data.byteLength);
      }
      return [name, { shape: [results.length, ...first.shape], dtype: first.dtype, data: numbers(first.dtype, bytes) }];
    }),
  );
}
