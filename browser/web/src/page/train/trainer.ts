// A trainable .tflite (docs/trainable.md) that trains in this tab: the loop, the partial batches and the checks are those
// of src/edgeloop/runtime/agent/trainer.py. Only the order of the samples comes from another generator.

import { size, type Tensor } from "../../npy";
import type { LitertFile } from "../engines/litert_library";
import type { Program } from "../engines/tensors";
import { generator, permutation } from "./random";
import { rowOf, tensorsOf, type WeightSpec } from "./weights_row";

/** Images or other inputs, one after the other, and a class for each. */
export interface Labelled {
  /** Each of `size` numbers. */
  inputs: readonly Float32Array[];
  labels: readonly number[];
}

export interface TrainOptions {
  epochs: number;
  lr: number;
  /** The order of the samples follows from it, unless `orders` gives one for each epoch. */
  seed?: readonly number[];
  orders?: readonly (readonly number[])[];
  /** Called after each step; the next one waits for it. Throwing ends the training. */
  step?(done: Progress): Promise<void> | void;
}

export interface Progress {
  step: number;
  steps: number;
  loss: number;
}

export interface Trained {
  /** Mean loss of each epoch's steps. */
  losses: number[];
  steps: number;
  examples: number;
  seconds: number;
}

export interface Measured {
  loss: number;
  accuracy: number;
  examples: number;
}

const SIGNATURES = ["train", "evaluate", "infer", "get_weights", "set_weights"];
const BREATH_MS = 30; // of work between two moments in which the page can draw and hear its user

/** One model and its weights, which it keeps between calls. One call at a time. */
export class Trainer {
  /** Samples of one step, fixed in the file. */
  readonly batch: number;
  readonly input: string;
  /** Sizes of one sample. */
  readonly shape: number[];
  private readonly labelShape: number[];
  private breathed = performance.now();

  /** Throws where the file does not train one float32 input on whole classes. */
  constructor(
    private readonly file: LitertFile,
    /** Name and shape of every weight, in `get_weights` order. */
    readonly weights: readonly WeightSpec[],
    /** Labels are 0 <= y < classes. */
    readonly classes: number,
  ) {
    const missing = SIGNATURES.filter((name) => !file.signatures.includes(name));
    if (missing.length)
      throw new Error(`the file lacks the signatures ${missing.join(", ")}. Convert it with --trainable`);
    const wanted = file.program("train").inputs;
    const inputs = [...wanted].filter(([name]) => name !== "y" && name !== "lr");
    const y = wanted.get("y");
    const [first] = inputs;
    if (inputs.length !== 1 || first![1].dtype !== "float32" || y?.dtype !== "int32")
      throw new Error("the page trains models of one float32 input and one class for each sample");
    this.labelShape = y.shape.map(Number);
    this.batch = this.labelShape[0]!;
    if (size(this.labelShape) !== this.batch) throw new Error("the model has several labels for each sample");
    this.input = first![0];
    this.shape = first![1].shape.slice(1).map(Number);
  }

  /** All weights as one row of float32, in `get_weights` order. */
  async getWeights(): Promise<Float32Array<ArrayBuffer>> {
    return rowOf(await this.file.program("get_weights").run({ dummy: scalar(0) }), this.weights);
  }

  /** Replace them; the state of momentum and Adam begins anew. Throws for a row of another length. */
  async setWeights(row: Float32Array): Promise<void> {
    await this.file.program("set_weights").run(tensorsOf(row, this.weights));
  }

  /** Take the steps of all epochs. Throws for samples that do not fit, and when the loss is no longer finite. */
  async train(samples: Labelled, { epochs, lr, seed = [0], orders, step }: TrainOptions): Promise<Trained> {
    if (!(epochs >= 1 && lr > 0 && Number.isFinite(lr)))
      throw new Error(`cannot train ${epochs} epochs at the learning rate ${lr}. Both must be above 0`);
    this.check(samples);
    const started = performance.now();
    const random = generator(seed);
    const count = samples.labels.length;
    const perEpoch = Math.ceil(count / this.batch);
    const steps = perEpoch * epochs;
    const losses: number[] = [];
    const program = this.file.program("train");
    for (let epoch = 0; epoch < epochs; epoch++) {
      const order = orders?.[epoch] ?? permutation(count, random);
      let sum = 0;
      for (let at = 0; at < perEpoch; at++) {
        const rows = Array.from({ length: this.batch }, (_, i) => order[(at * this.batch + i) % count]!);
        const loss = numberOf(await program.run({ ...this.feed(samples, rows), lr: scalar(lr) }), "loss");
        const done = epoch * perEpoch + at + 1;
        if (!Number.isFinite(loss))
          throw new Error(`the loss is ${loss} at step ${done} with the learning rate ${lr}. Lower the rate`);
        sum += loss;
        await step?.({ step: done, steps, loss });
        await this.breathe();
      }
      losses.push(sum / perEpoch);
    }
    return { losses, steps, examples: count, seconds: (performance.now() - started) / 1e3 };
  }

  /** Loss and accuracy of the weights as they are; changes nothing. `each` is called before each batch; throwing ends it. */
  async evaluate(samples: Labelled, each: () => void = () => {}): Promise<Measured> {
    this.check(samples);
    const count = samples.labels.length;
    let [loss, correct] = [0, 0];
    const add = async (rows: number[], share: number): Promise<void> => {
      each();
      const found = await this.file.program("evaluate").run(this.feed(samples, rows));
      loss += share * numberOf(found, "loss") * this.batch;
      correct += share * numberOf(found, "correct");
    };
    for (let start = 0; start < count; start += this.batch) {
      const held = Math.min(this.batch, count - start);
      await add(
        Array.from({ length: this.batch }, (_, i) => start + (i < held ? i : 0)),
        1,
      );
      // the rest of the batch was copies of its first sample
      if (held < this.batch) await add(new Array<number>(this.batch).fill(start), (held - this.batch) / this.batch);
      await this.breathe();
    }
    return { loss: loss / count, accuracy: correct / count, examples: count };
  }

  /** The model's output by the weights as they are at the time. */
  get inference(): Program {
    return this.file.program("infer");
  }

  /** Free the memory of WebAssembly. */
  close(): void {
    this.file.close();
  }

  private check({ inputs, labels }: Labelled): void {
    if (!labels.length || labels.length !== inputs.length)
      throw new Error(`there are ${inputs.length} samples and ${labels.length} labels. Expected at least one of each`);
    const wrong = labels.find((label) => !(Number.isInteger(label) && label >= 0 && label < this.classes));
    if (wrong !== undefined) throw new Error(`a label is ${wrong}. The model has the classes 0 to ${this.classes - 1}`);
    const other = inputs.find((one) => one.length !== size(this.shape));
    if (other) throw new Error(`a sample has ${other.length} values. The model takes ${size(this.shape)}`);
  }

  private feed({ inputs, labels }: Labelled, rows: readonly number[]): Record<string, Tensor> {
    const length = size(this.shape);
    const data = new Float32Array(this.batch * length);
    for (const [i, row] of rows.entries()) data.set(inputs[row]!, i * length);
    return {
      [this.input]: { shape: [this.batch, ...this.shape], dtype: "float32", data },
      y: { shape: this.labelShape, dtype: "int32", data: Int32Array.from(rows, (row) => labels[row]!) },
    };
  }

  /** Let the page draw now and then. Not by a timer: those of a hidden tab wait a second or more. */
  private async breathe(): Promise<void> {
    if (performance.now() - this.breathed < BREATH_MS) return;
    await new Promise<void>((resolve) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        resolve();
      };
      port2.postMessage(0);
    });
    this.breathed = performance.now();
  }
}

export const scalar = (value: number): Tensor => ({ shape: [], dtype: "float32", data: Float32Array.of(value) });

const numberOf = (outputs: Record<string, Tensor>, name: string): number => Number(outputs[name]!.data[0]);
