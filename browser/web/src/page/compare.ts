// A variant's answers beside the source model's.

import type { Tensor } from "../npy";
import type { Reference, TensorSpec } from "./bundle";
import type { Tensors } from "./engines/tensors";
import { argmax, type Origin } from "./parity";

export interface Sample {
  /** Classes, undefined when the model is no classifier. */
  ours: number | undefined;
  source: number | undefined;
  maxAbs: number;
}

export interface Comparison {
  samples: Sample[];
  maxAbs: number;
  /** How many samples get the class the source gives; undefined when the model is no classifier. */
  agree: number | undefined;
}

/** The output with the classes: the first of [samples, classes] that has labels, else the first whose answers are shares
 * of 1. `examples`: answers, samples or calls first; without them the shapes of the signature count. */
export function classifyingOutput(outputs: TensorSpec[], examples: Tensors | undefined): TensorSpec | undefined {
  const able = outputs.filter(({ name, shape }) => {
    const found = examples?.[name]?.shape ?? shape;
    return found.length === 2 && (found[1] ?? 0) > 1;
  });
  return (
    able.find(({ labels }) => labels.length) ??
    able.find(({ name }) => {
      const example = examples?.[name];
      return example && areShares(row(example, 0));
    })
  );
}

/** What the numbers of a classifying output are: values from 0 to 1 (of a softmax or sigmoids), or logits of a softmax. */
export type Scores = "bounded" | "logits";

/** Of an output, from what the manifest says of the source, else from the source's own answers `examples`, which are no
 * rounded ones of a variant. */
export function scoresOf({ name, range }: TensorSpec, { bounded }: Origin, examples: Tensors | undefined): Scores {
  if (bounded?.split(",").includes(name)) return "bounded";
  const example = examples?.[name];
  if (example) return (example.data as Float32Array).every((value) => isShare(Number(value))) ? "bounded" : "logits";
  return range?.every(isShare) ? "bounded" : "logits";
}

export function compare(outputs: Tensors, reference: Reference, specs: TensorSpec[]): Comparison {
  const classes = classifyingOutput(specs, reference.outputs)?.name;
  const samples = Array.from({ length: reference.count }, (_, i): Sample => {
    const differences = Object.entries(reference.outputs).map(([name, source]) =>
      maxAbs(row(outputs[name], i), row(source, i)),
    );
    return {
      ours: classes === undefined ? undefined : argmax(row(outputs[classes], i)),
      source: classes === undefined ? undefined : argmax(row(reference.outputs[classes], i)),
      maxAbs: Math.max(...differences),
    };
  });
  return {
    samples,
    maxAbs: Math.max(...samples.map((sample) => sample.maxAbs)),
    agree: classes === undefined ? undefined : samples.filter(({ ours, source }) => ours === source).length,
  };
}

/** The first `count` samples: what was added to fill a batch goes. */
export function cut(outputs: Tensors, count: number): Tensors {
  return Object.fromEntries(
    Object.entries(outputs).map(([name, { shape, dtype, data }]) => {
      const length = data.length / (shape[0] || 1);
      return [
        name,
        { shape: [Math.min(count, shape[0] ?? 0), ...shape.slice(1)], dtype, data: data.slice(0, count * length) },
      ];
    }),
  );
}

/** Sample `i` of a batch, as plain numbers. */
export function row(tensor: Tensor | undefined, i: number): number[] {
  if (!tensor) throw new Error("the variant does not give every output of the reference");
  const length = tensor.data.length / tensor.shape[0]!;
  return Array.from(tensor.data.slice(i * length, (i + 1) * length), Number);
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** From 0 to 1, but for the rounding of float32. */
const isShare = (value: number): boolean => value >= -1e-6 && value <= 1 + 1e-6;

// a quantized softmax is off by up to half a step of 1/256 in each class, and by chance: of ten classes by less than 0.05
const areShares = (values: number[]): boolean =>
  values.every(isShare) && Math.abs(values.reduce((a, b) => a + b, 0) - 1) < 0.05;

/** What is shown of each class, from 0 to 1: bounded values as they are, of logits their softmax. */
export function shares(values: number[], scores: Scores): number[] {
  if (scores === "bounded") return values;
  const top = values[argmax(values)] ?? 0;
  const powers = values.map((value) => Math.exp(value - top));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

/** NaN is the largest difference of all: it must never look like agreement. */
function maxAbs(a: number[], b: number[]): number {
  if (a.length !== b.length) return Infinity;
  return a.reduce((most, value, i) => {
    const difference = Math.abs(value - b[i]!);
    return Number.isNaN(difference) ? Infinity : Math.max(most, difference);
  }, 0);
}
