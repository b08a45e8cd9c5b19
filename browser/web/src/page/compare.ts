// A variant's answers beside the source model's.

import type { Tensor } from "../npy";
import type { Reference, TensorSpec } from "./bundle";
import type { Tensors } from "./engines/tensors";

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

/** The first output of shape [batch, classes]. */
export const classOutput = (outputs: TensorSpec[]): TensorSpec | undefined =>
  outputs.find(({ shape }) => shape.length === 2 && (shape[1] ?? 0) > 1);

/** The output with the classes: one of shape [batch, classes] that has labels, or shares in the examples of answers. */
export function classifyingOutput(outputs: TensorSpec[], examples: Tensors | undefined): TensorSpec | undefined {
  const output = classOutput(outputs);
  const example = output && examples?.[output.name];
  const scores = example && row(example, 0);
  return output?.labels.length || (scores && shares(scores) === scores) ? output : undefined;
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

export const argmax = (values: number[]): number => values.indexOf(Math.max(...values));

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** Shares that sum to 1: the values themselves where they do already, else their softmax. */
export function shares(scores: number[]): number[] {
  const sum = scores.reduce((a, b) => a + b, 0);
  // 0.05: a quantized softmax of ten classes is off by up to half a step of 1/256 in each
  if (scores.every((score) => score >= 0 && score <= 1) && Math.abs(sum - 1) < 0.05) return scores;
  const top = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - top));
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
