// LiteRT.js: a .tflite at a URL, named arrays in, named arrays out. It runs on the main thread, the only place tested.

import {
  type CompiledModel,
  Tensor as LiteRtTensor,
  loadAndCompile,
  loadLiteRt,
  type SignatureRunner,
} from "@litertjs/core";
import { type Dtype, numbers, size, type Tensor } from "../npy";
import { fixFreeDimensions } from "./static_batch";

export type Tensors = Record<string, Tensor>;

export interface Timed {
  outputs: Tensors;
  /** Milliseconds of wall time, one per run, in order. */
  wall_ms: number[];
}

let runtime: Promise<unknown> | undefined;
const models = new Map<string, Promise<CompiledModel>>();

/** Load the model at `url`, once: later calls get the same one. Throws the error of the server or of LiteRT. */
export function load(url: string): Promise<CompiledModel> {
  let model = models.get(url);
  if (!model) {
    model = compile(url);
    models.set(url, model);
    model.catch(() => models.delete(url)); // a later try starts anew
  }
  return model;
}

async function compile(url: string): Promise<CompiledModel> {
  runtime ??= loadLiteRt(new URL("litert/", document.baseURI).href);
  await runtime;
  const response = await fetch(url);
  if (!response.ok) throw new Error(`the server answered ${response.status} for ${url}`);
  const model = new Uint8Array(await response.arrayBuffer());
  fixFreeDimensions(model);
  return loadAndCompile(model, { accelerator: "wasm" });
}

/** Run a signature `warmup` + `runs` times on the same inputs, of any batch. `signature` null: the file has only one. */
export async function run(
  url: string,
  signature: string | null,
  inputs: Tensors,
  warmup = 0,
  runs = 1,
): Promise<Timed> {
  const runner = choose(await load(url), signature);
  const pieces = split(runner, inputs);
  const wall_ms: number[] = [];
  let results: Tensors[] = [];
  for (let i = 0; i < warmup + runs; i++) {
    const start = performance.now();
    results = [];
    for (const piece of pieces) results.push(await once(runner, piece));
    if (i >= warmup) wall_ms.push(performance.now() - start);
  }
  return { outputs: results.length === 1 ? results[0]! : join(results), wall_ms };
}

/** The batch the file was made with: `run` takes multiples of it. */
export async function ownBatch(url: string, signature: string | null): Promise<number> {
  return Math.max(
    1,
    ...choose(await load(url), signature)
      .getInputDetails()
      .map(({ shape }) => shape[0] ?? 1),
  );
}

/** `count` samples of each input, beginning again when they run out: what fills a batch. */
export function rows(inputs: Tensors, count: number): Tensors {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, { shape, dtype, data }]) => {
      const length = data.length / shape[0]!;
      const filled = numbers(dtype, new Uint8Array(count * length * data.BYTES_PER_ELEMENT));
      for (let i = 0; i < filled.length; i++) filled[i] = data[i % data.length]!;
      return [name, { shape: [count, ...shape.slice(1)], dtype, data: filled }];
    }),
  );
}

function choose(model: CompiledModel, signature: string | null): SignatureRunner {
  const names = Object.keys(model.signatures);
  if (signature === null && names.length !== 1)
    throw new Error(`the file has the signatures ${names.join(", ")}. Pass the name of one`);
  const runner = model.signatures[signature ?? names[0]!];
  if (!runner) throw new Error(`the file has no signature ${signature}. Expected one of ${names.join(", ")}`);
  return runner;
}

/** Inputs in pieces of the file's own batch. An input that fits as it is goes whole into every piece. */
function split(runner: SignatureRunner, inputs: Tensors): Tensors[] {
  const wanted = new Map(runner.getInputDetails().map((detail) => [detail.name, detail]));
  const missing = [...wanted.keys()].filter((name) => !(name in inputs));
  const unknown = Object.keys(inputs).filter((name) => !wanted.has(name));
  if (missing.length || unknown.length)
    throw new Error(`the inputs are named ${Object.keys(inputs)}. Expected ${[...wanted.keys()]}`);
  const counts = new Set<number>();
  for (const [name, { shape, dtype }] of Object.entries(inputs)) {
    const own = [...wanted.get(name)!.shape];
    const count = pieceCount(shape, own);
    if (count === undefined || dtype !== wanted.get(name)!.dtype)
      throw new Error(`input ${name} is ${dtype} [${shape}]. Expected ${wanted.get(name)!.dtype} [${own}]`);
    counts.add(count);
  }
  counts.delete(1);
  if (counts.size > 1)
    throw new Error(`the inputs have different batch sizes: ${[...counts].join(" and ")} times the batch of the file`);
  const [count = 1] = counts;
  return Array.from({ length: count }, (_, i) =>
    Object.fromEntries(
      Object.entries(inputs).map(([name, tensor]) => {
        const own = [...wanted.get(name)!.shape];
        const whole = tensor.data.length === size(own);
        return [
          name,
          whole ? tensor : { ...tensor, shape: own, data: tensor.data.slice(i * size(own), (i + 1) * size(own)) },
        ];
      }),
    ),
  );
}

function pieceCount(shape: readonly number[], own: readonly number[]): number | undefined {
  const sameRow = shape.length === own.length && shape.every((n, axis) => axis === 0 || n === own[axis]);
  const count = shape.length ? shape[0]! / own[0]! : 1;
  return sameRow && Number.isInteger(count) && count > 0 ? count : undefined;
}

function join(results: Tensors[]): Tensors {
  return Object.fromEntries(
    Object.entries(results[0]!).map(([name, first]) => {
      if (!first.shape.length)
        throw new Error(`output ${name} has no batch dimension. Pass inputs with the batch of the file`);
      const bytes = new Uint8Array(first.data.byteLength * results.length);
      for (const [i, one] of results.entries())
        bytes.set(new Uint8Array(one[name]!.data.buffer), i * first.data.byteLength);
      const shape = [first.shape[0]! * results.length, ...first.shape.slice(1)];
      return [name, { shape, dtype: first.dtype, data: numbers(first.dtype, bytes) }];
    }),
  );
}

async function once(runner: SignatureRunner, inputs: Tensors): Promise<Tensors> {
  const given: Record<string, LiteRtTensor> = {};
  try {
    for (const [name, { data, shape }] of Object.entries(inputs))
      given[name] = new LiteRtTensor(data as Float32Array, shape);
    const results = await runner.run(given);
    return Object.fromEntries(Object.entries(results).map(([name, value]) => [name, take(value)]));
  } finally {
    for (const tensor of Object.values(given)) tensor.delete(); // WebAssembly's memory is not garbage collected
  }
}

function take(tensor: LiteRtTensor): Tensor {
  try {
    const data = tensor.toTypedArray() as Float32Array<ArrayBuffer>; // a copy
    return { shape: [...tensor.type.layout.dimensions], dtype: tensor.type.dtype as Dtype, data };
  } finally {
    tensor.delete();
  }
}
