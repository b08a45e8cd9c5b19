import { expect, test } from "vitest";
import type { Tensor } from "../src/npy";
import type { Reference } from "../src/page/bundle";
import { answers, oneRun } from "../src/page/calls";
import type { Tensors } from "../src/page/engines/tensors";

const floats = (shape: number[], values: number[]): Tensor => ({
  shape,
  dtype: "float32",
  data: Float32Array.from(values),
});

const values = ({ data }: Tensor): number[] => Array.from(data as ArrayLike<number>);

/** y = x + the sum of the state: a state [2, 1] beside x [1, 2], so the first axes are no batch. */
const runs: Tensors[] = [];
const model = {
  batch: 2,
  async run(inputs: Tensors) {
    runs.push(inputs);
    const sum = values(inputs.state!).reduce((a, b) => a + b, 0);
    const y = floats(
      inputs.x!.shape,
      values(inputs.x!).map((value) => value + sum),
    );
    return { outputs: { y }, wall_ms: [] };
  },
};
const reference: Reference = {
  inputs: { x: floats([3, 1, 2], [1, 2, 3, 4, 5, 6]), state: floats([3, 2, 1], [10, 0, 20, 1, 30, 2]) },
  outputs: {},
  count: 3,
  whole: true,
};

test("a model without a batch axis is asked call by call, each tensor in its own shape", async () => {
  const { y } = await answers(model, reference);
  expect(runs.map(({ x, state }) => [x!.shape, state!.shape])).toEqual(
    Array(3).fill([
      [1, 2],
      [2, 1],
    ]),
  );
  expect([y!.shape, values(y!)]).toEqual([
    [3, 1, 2],
    [11, 12, 24, 25, 37, 38],
  ]);
  expect(oneRun(reference, 2).x).toEqual(floats([1, 2], [1, 2]));
});

test("a model with a batch axis is asked in batches of its own size, and what fills the last one goes", async () => {
  const twice = {
    batch: 2,
    async run({ x }: Tensors) {
      return {
        outputs: {
          y: floats(
            x!.shape,
            values(x!).map((value) => 2 * value),
          ),
        },
        wall_ms: [],
      };
    },
  };
  const rows = { ...reference, inputs: { x: floats([3, 1], [1, 2, 3]) }, whole: false };
  const { y } = await answers(twice, rows);
  expect([y!.shape, values(y!)]).toEqual([
    [3, 1],
    [2, 4, 6],
  ]);
  expect(oneRun(rows, 2).x!.shape).toEqual([2, 1]);
});

test("outputs of another size in every call are not compared", async () => {
  let size = 0;
  const growing = {
    batch: 1,
    async run() {
      size += 1;
      return { outputs: { y: floats([size], Array(size).fill(0)) }, wall_ms: [] };
    },
  };
  await expect(answers(growing, reference)).rejects.toThrow("output y is [1] in one call and [2] in another");
});
