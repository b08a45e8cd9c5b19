import { expect, test } from "vitest";
import { readNpz, type Tensor } from "../src/npy";
import { compare, FLOORS, isClassifier, needs, reason } from "../src/page/parity";
import { golden } from "./golden";

const y = (values: number[], shape = [1, values.length]) => ({
  y: { shape, dtype: "float32", data: Float32Array.from(values) } satisfies Tensor,
});
const judge = (scheme: string, expected: number[], got: number[]) => compare(scheme, y(expected), y(got), false)[0]!;

test("SNR is 10 log10 of the reference's power over the error's", () => {
  const row = judge("int8", [3, 4], [3, 4.5]); // power 25, error 0.25: 20 dB
  expect(row).toEqual({ output: "y", passed: true, error: null, max_abs: 0.5, snr_db: 20, top1_agreement: null });
});

test("a scheme's SNR floor decides", () => {
  expect(FLOORS.int8!.snr_db).toBe(10);
  expect(judge("int8", [10, 0], [10, 3.1]).passed).toBe(true); // 100 / 9.61: 10.2 dB
  expect(judge("int8", [10, 0], [10, 3.2]).passed).toBe(false); // 100 / 10.24: 9.9 dB
});

test("float32 may be off by 1e-5 of the largest value", () => {
  const reference = Array.from({ length: 100 }, () => 1000); // 1e8: an error of 0.011 alone is 119 dB
  const off = (by: number) => reference.map((value, i) => (i ? value : value + by));
  expect(judge("float32", reference, off(0.0094)).passed).toBe(true);
  expect(judge("float32", reference, off(0.0111)).passed).toBe(false);
});

test("equal outputs have no SNR and pass", () => {
  expect(judge("float32", [1, 2], [1, 2])).toMatchObject({ passed: true, snr_db: null, max_abs: 0 });
});

test("one sample may change its class whatever the floor, two of three may not", () => {
  const reference = y([5, 4.9, 5, 4.9, 5, 4.9], [3, 2]); // 0.1 apart: a changed class leaves the SNR above 30 dB
  const one = compare("mixed", reference, y([5, 4.9, 5, 4.9, 4.9, 5], [3, 2]), true)[0]!;
  const two = compare("mixed", reference, y([5, 4.9, 4.9, 5, 4.9, 5], [3, 2]), true)[0]!;
  expect(one).toMatchObject({ passed: true, top1_agreement: 2 / 3 });
  expect(two).toMatchObject({ passed: false, top1_agreement: 1 / 3 });
  expect(two.snr_db).toBeGreaterThan(30);
});

test.each([
  [[1, Number.NaN], "the output contains NaN or infinity"],
  [[1, Number.POSITIVE_INFINITY], "the output contains NaN or infinity"],
  [[1], "the output has shape [1,1]. Expected [1,2]"],
])("an output that cannot be compared fails (%j)", (values, error) => {
  expect(judge("int8", [1, 2], values)).toMatchObject({ passed: false, error, snr_db: -200 });
});

test("an output that is missing fails, as does a scheme without a floor", () => {
  expect(compare("int8", y([1]), {}, false)[0]).toMatchObject({
    passed: false,
    error: "the variant does not give this output",
  });
  expect(judge("int2", [1], [1])).toMatchObject({
    passed: false,
    error: "this page has no parity thresholds for the scheme int2",
  });
});

test("a model is a classifier when its one output has rows of probabilities, or labels", () => {
  const probabilities = readNpz(golden("reference.npz")).get("out/p")!;
  expect(isClassifier({ p: probabilities }, false)).toBe(true);
  expect(isClassifier(y([0.5, 0.3]), false)).toBe(false);
  expect(isClassifier(y([0.5, 0.3]), true)).toBe(true);
  expect(isClassifier({ ...y([0.5, 0.5]), p: probabilities }, true)).toBe(false);
});

test("the text of a record and of a floor is what the page shows", () => {
  expect(reason(judge("int8", [3, 4], [3, 4.5]))).toBe("output 'y' has SNR 20.0 dB, max absolute error 0.5");
  expect(needs("int8")).toBe("an SNR of at least 10 dB and a top-1 agreement of at least 85%");
  expect(needs("float32")).toBe(
    "an SNR of at least 100 dB, a max absolute error of at most 1e-5 * max(1, largest output) " +
      "and a top-1 agreement of at least 99%",
  );
});

test("an output of more values than a call takes arguments is compared, with and without classes", () => {
  const shape = [1, 200_000]; // 125,000 overflow the stack
  const [source, got] = [1, 1.25].map((value) => ({
    y: { shape, dtype: "float32" as const, data: new Float32Array(200_000).fill(value) },
  }));
  expect(compare("int8", source!, got!, false)[0]).toMatchObject({ passed: true, max_abs: 0.25 });
  expect(compare("int8", source!, got!, true)[0]).toMatchObject({ passed: true, top1_agreement: 1 });
});
