import { expect, test } from "vitest";
import type { Tensor } from "../src/npy";
import { batchOf, type Program, rows, type Tensors, timed } from "../src/page/engines/tensors";

const floats = (shape: number[], ...values: number[]): Tensor => ({
  shape,
  dtype: "float32",
  data: Float32Array.from(values),
});

/** Doubles each input and notes what it was given. */
function doubling(inputs: Record<string, (number | null)[]>, seen: Tensors[] = []): Program {
  return {
    inputs: new Map(Object.entries(inputs).map(([name, shape]) => [name, { shape, dtype: "float32" }])),
    async run(given) {
      seen.push(given);
      return Object.fromEntries(
        Object.entries(given).map(([name, { shape, data }]) => [
          name,
          floats([...shape], ...Array.from(data as Float32Array, (value) => 2 * value)),
        ]),
      );
    },
  };
}

test("a batch of four runs in two pieces of the file's own batch of two", async () => {
  const seen: Tensors[] = [];
  const program = doubling({ x: [2, 1] }, seen);
  const { outputs } = await timed(program, { x: floats([4, 1], 1, 2, 3, 4) });
  expect(seen.map(({ x }) => [...x!.data])).toEqual([
    [1, 2],
    [3, 4],
  ]);
  expect(outputs.x).toEqual(floats([4, 1], 2, 4, 6, 8));
  expect(batchOf(program)).toBe(2);
});

test("a free batch runs at once, whatever its size", async () => {
  const seen: Tensors[] = [];
  const program = doubling({ x: [null, 1] }, seen);
  expect(batchOf(program)).toBe(1);
  await timed(program, { x: floats([3, 1], 1, 2, 3) });
  expect(seen.map(({ x }) => x!.shape)).toEqual([[3, 1]]);
});

test("an input that fits as it is goes whole into every piece", async () => {
  const seen: Tensors[] = [];
  await timed(doubling({ x: [1, 1], weight: [1] }, seen), { x: floats([2, 1], 5, 6), weight: floats([1], 9) });
  expect(seen.map(({ x, weight }) => [x!.data[0], weight!.data[0]])).toEqual([
    [5, 9],
    [6, 9],
  ]);
});

test("every run is timed but the warm-up, and the first of all is kept apart", async () => {
  const { wall_ms, first_ms } = await timed(doubling({ x: [1] }), { x: floats([1], 1) }, 2, 3);
  expect(wall_ms).toHaveLength(3);
  expect(first_ms).toBeGreaterThanOrEqual(0);
});

test.each([
  [{ y: floats([1], 1) }, "the inputs are named y. Expected x"],
  [{ x: floats([3, 1], 1, 2, 3) }, "input x is float32 [3,1]. Expected float32 [2,1]"],
  [{ x: floats([2, 2], 1, 2, 3, 4) }, "input x is float32 [2,2]. Expected float32 [2,1]"],
  [{ x: { ...floats([2, 1], 1, 2), dtype: "int32" as const } }, "input x is int32 [2,1]. Expected float32 [2,1]"],
])("inputs that do not fit are refused %#", async (inputs, words) => {
  await expect(timed(doubling({ x: [2, 1] }), inputs as Tensors)).rejects.toThrow(words);
});

test("a free input beside a batch in pieces is refused: nobody knows how to cut it", async () => {
  const program = doubling({ free: [null, 1], own: [1, 1] });
  const inputs = { free: floats([2, 1], 1, 2), own: floats([2, 1], 1, 2) };
  await expect(timed(program, inputs)).rejects.toThrow("input free takes any batch, and another input 2 times its own");
});

test("rows begin again when they run out", () => {
  expect(rows({ x: floats([2, 1], 1, 2) }, 5).x).toEqual(floats([5, 1], 1, 2, 1, 2, 1));
});
