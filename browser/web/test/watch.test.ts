import { expect, test } from "vitest";
import type { Tensor } from "../src/npy";
import type { Bundle, Variant } from "../src/page/bundle";
import type { Tensors } from "../src/page/engines/engine";
import { ParityWatch } from "../src/page/parity/watch";

const floats = (shape: number[], values: number[]): Tensor => ({
  shape,
  dtype: "float32",
  data: Float32Array.from(values),
});
const spec = (name: string, shape: (number | null)[]) => ({
  name,
  shape,
  dtype: "float32",
  kind: "other",
  range: null,
  labels: [],
});
const variant = {
  id: "v",
  scheme: "float32",
  format: "tflite",
  signatures: ["infer"],
  requires: {},
} as unknown as Variant;
const bundle = {
  manifest: {
    source: {},
    signatures: { infer: { inputs: [spec("x", [null, 1])], outputs: [spec("y", [null, 1])] } },
    variants: [variant],
  },
  reference: new Map([
    ["in/x", floats([2, 1], [1, 2])],
    ["out/y", floats([2, 1], [2, 4])], // y = 2 x
  ]),
  parity: [],
} as unknown as Bundle;

/** y = factor * x; the factor may change between runs. */
function engine(factor: () => number) {
  return {
    variant,
    signature: "infer",
    batch: 1,
    async run({ x }: Tensors) {
      const data = Float32Array.from(x!.data as Float32Array, (value) => value * factor());
      return { outputs: { y: { ...x!, data } }, wall_ms: [0] };
    },
  };
}

test("an engine that is right on its first inference alone is found out by the check of the Nth run, and by how much", async () => {
  let factor = 2;
  const watch = new ParityWatch(
    bundle,
    engine(() => factor),
    10,
  );
  expect(await watch.check()).toMatchObject({ passed: true, max_abs: 0, checks: 1 });
  factor = 2.5;
  expect([watch.ran(9), watch.ran(1)]).toEqual([false, true]);
  const state = (await watch.check())!;
  expect(state).toMatchObject({ passed: false, max_abs: 1, checks: 2, failed_at: 2 }); // 2.5 * 2 - 4
  expect(state.text).toMatch(
    /^output 'y' has SNR 12\.0 dB, max absolute error 1\. float32 requires an SNR of at least 100/,
  );
  expect(watch.ran(9)).toBe(false); // counted anew
});

test("an engine that was wrong once stays wrong, with its first reason and its largest error", async () => {
  const factors = [2.5, 2, 5];
  const watch = new ParityWatch(
    bundle,
    engine(() => factors[watch.state?.checks ?? 0]!),
  );
  const texts = [(await watch.check())!.text, (await watch.check())!.text, (await watch.check())!.text];
  expect(new Set(texts).size).toBe(1);
  expect(watch.state).toMatchObject({ passed: false, checks: 3, failed_at: 1, max_abs: 6 }); // 5 * 2 - 4
});

test("an engine that throws is wrong, and NaN is no agreement", async () => {
  const throwing = {
    ...engine(() => 2),
    run: () => Promise.reject(new Error("device lost")),
  };
  expect(await new ParityWatch(bundle, throwing).check()).toMatchObject({
    passed: false,
    text: "the engine failed: device lost",
  });
  expect(
    await new ParityWatch(
      bundle,
      engine(() => NaN),
    ).check(),
  ).toMatchObject({
    passed: false,
    max_abs: Infinity,
  });
});

test("without reference inputs there is nothing to check", async () => {
  const watch = new ParityWatch(
    { ...bundle, reference: undefined },
    engine(() => 3),
    1,
  );
  expect([watch.ran(5), await watch.check(), watch.state]).toEqual([false, undefined, undefined]);
});
