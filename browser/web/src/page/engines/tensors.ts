// Named arrays, and a program run on batches of any size: what all engines share.

import { numbers, size, type Tensor } from "../../npy";

export type Tensors = Record<string, Tensor>;

export interface Timed {
  outputs: Tensors;
  /** Milliseconds of wall time, one per run, in order. */
  wall_ms: number[];
}

export interface InputSpec {
  /** null: any size. */
  readonly shape: readonly (number | null)[];
  /** undefined: the engine converts what it is given. */
  readonly dtype?: string;
}

/** One signature of an opened file. It takes and gives what the tensors of the file store. */
export interface Program {
  readonly inputs: ReadonlyMap<string, InputSpec>;
  /** Inputs of exactly the shapes in `inputs`. */
  run(inputs: Tensors): Promise<Tensors>;
}

/** The batch the file was made with, 1 where it is free: `timed` takes multiples of it. */
export const batchOf = ({ inputs }: Program): number =>
  Math.max(1, ...[...inputs.values()].map(({ shape }) => shape[0] ?? 1));

/** Run `warmup` + `runs` times on the same inputs. A batch of the file's own size runs at once, a larger one in pieces. */
export async function timed(
  program: Program,
  inputs: Tensors,
  warmup = 0,
  runs = 1,
): Promise<Timed & { first_ms: number }> {
  const pieces = split(program.inputs, inputs);
  const wall_ms: number[] = [];
  let results: Tensors[] = [];
  let first_ms: number | undefined; // a warm-up run, where there is one
  for (let i = 0; i < warmup + runs; i++) {
    const start = performance.now();
    results = [];
    for (const piece of pieces) results.push(await program.run(piece));
    const took = performance.now() - start;
    first_ms ??= took;
    if (i >= warmup) wall_ms.push(took);
  }
  return { outputs: results.length === 1 ? results[0]! : join(results), wall_ms, first_ms: first_ms ?? 0 };
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

/** Inputs in pieces of the file's own batch. An input that fits as it is goes whole into every piece. */
function split(wanted: Program["inputs"], inputs: Tensors): Tensors[] {
  const missing = [...wanted.keys()].filter((name) => !Object.hasOwn(inputs, name));
  const unknown = Object.keys(inputs).filter((name) => !wanted.has(name));
  if (missing.length || unknown.length)
    throw new Error(`the inputs are named ${Object.keys(inputs)}. Expected ${[...wanted.keys()]}`);
  const counts = new Set<number>();
  for (const [name, { shape, dtype }] of Object.entries(inputs)) {
    const own = wanted.get(name)!;
    const count = pieceCount(shape, own.shape);
    if (count === undefined || dtype !== (own.dtype ?? dtype))
      throw new Error(
        `input ${name} is ${dtype} [${shape}]. Expected ${own.dtype ?? dtype} [${own.shape.map((n) => n ?? "any")}]`,
      );
    counts.add(count);
  }
  counts.delete(1);
  if (counts.size > 1)
    throw new Error(`the inputs have different batch sizes: ${[...counts].join(" and ")} times the batch of the file`);
  const [count = 1] = counts;
  if (count === 1) return [inputs];
  const free = Object.keys(inputs).find((name) => wanted.get(name)!.shape[0] === null);
  if (free !== undefined)
    throw new Error(`input ${free} takes any batch, and another input ${count} times its own. Run one batch at a time`);
  return Array.from({ length: count }, (_, i) =>
    Object.fromEntries(
      Object.entries(inputs).map(([name, tensor]) => {
        const own = [wanted.get(name)!.shape[0]!, ...tensor.shape.slice(1)];
        const whole = tensor.data.length === size(own);
        return [
          name,
          whole ? tensor : { ...tensor, shape: own, data: tensor.data.slice(i * size(own), (i + 1) * size(own)) },
        ];
      }),
    ),
  );
}

/** How many times the file's own batch `shape` is; undefined: it is no multiple, or the other dimensions differ. */
function pieceCount(shape: readonly number[], own: InputSpec["shape"]): number | undefined {
  const sameRow = shape.length === own.length && shape.every((n, axis) => axis === 0 || n === (own[axis] ?? n));
  const count = shape.length && own[0] !== null ? shape[0]! / own[0]! : 1;
  return sameRow && Number.isInteger(count) && count > 0 ? count : undefined;
}

function join(results: Tensors[]): Tensors {
  return Object.fromEntries(
    Object.entries(results[0]!).map(([name, first]) => {
      if (!first.shape.length)
        throw new Error(`output ${name} has no batch dimension. Pass inputs with the batch of the file`);
      const bytes = new Uint8Array(first.data.byteLength * results.length);
      for (const [i, one] of results.entries()) {
        const { buffer, byteOffset, byteLength } = one[name]!.data;
        bytes.set(new Uint8Array(buffer, byteOffset, byteLength), i * first.data.byteLength);
      }
      const shape = [first.shape[0]! * results.length, ...first.shape.slice(1)];
      return [name, { shape, dtype: first.dtype, data: numbers(first.dtype, bytes) }];
    }),
  );
}
