// The trainer for programs: arrays in, the weights after the training out.

import { size } from "../../npy";
import type { LitertFile } from "../engines/litert_library";
import type { Tensors } from "../engines/tensors";
import { scalar, Trainer, type TrainOptions } from "./trainer";
import { rowOf, tensorsOf } from "./weights_row";

/** Train `file`, which is closed then, from `weights` on (null: its own). Throws as the trainer. */
export async function trainPlain(
  file: LitertFile,
  weights: Tensors | null,
  inputs: Tensors,
  labels: readonly number[],
  options: TrainOptions,
): Promise<{ weights: Tensors; losses: number[] }> {
  try {
    const given = weights ?? (await file.program("get_weights").run({ dummy: scalar(0) }));
    const specs = Object.keys(given)
      .toSorted()
      .map((name) => ({ name, shape: given[name]!.shape }));
    const trainer = new Trainer(file, specs, Number.POSITIVE_INFINITY);
    if (weights) await trainer.setWeights(rowOf(weights, specs));
    const { data } = inputs[trainer.input] ?? { data: new Float32Array() };
    const length = size(trainer.shape);
    const samples = labels.map((_, i) => (data as Float32Array).slice(i * length, (i + 1) * length));
    const { losses } = await trainer.train({ inputs: samples, labels }, options);
    return { weights: tensorsOf(await trainer.getWeights(), specs), losses };
  } finally {
    file.close();
  }
}
