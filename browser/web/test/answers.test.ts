import { expect, test } from "vitest";
import type { TensorSpec } from "../src/page/bundle";
import { classifyingOutput, scoresOf, shares } from "../src/page/compare";
import { explained } from "../src/page/engines/failures";

const spec = (name: string, changes: Partial<TensorSpec> = {}): TensorSpec => ({
  name,
  shape: [null, 3],
  dtype: "float32",
  kind: "other",
  range: null,
  labels: [],
  ...changes,
});
const rows = (...values: number[]) => ({
  shape: [values.length / 3, 3],
  dtype: "float32" as const,
  data: Float32Array.from(values),
});

test("the source decides whether values are shown as they are, not the rounded answer of a variant", () => {
  const source = { y: rows(0.2, 0.3, 0.5, 1, 0, 0) };
  expect(scoresOf(spec("y"), {}, source)).toBe("bounded");
  // an int8 softmax of 1000 classes in steps of 1/256: most are rounded to 0, and the sum to 0.75
  const coarse = [0.5, 0.25, ...Array(998).fill(0)];
  expect(shares(coarse, "bounded")).toEqual(coarse);
});

test("sigmoids of many labels are no shares of one", () => {
  const source = { y: rows(0.9, 0.8, 0.1) };
  const scores = scoresOf(spec("y", { labels: ["a", "b", "c"] }), {}, source);
  expect(shares([0.9, 0.8, 0.1], scores)).toEqual([0.9, 0.8, 0.1]);
});

test("the manifest's bound decides before the answers do; without any the output has logits", () => {
  expect(scoresOf(spec("y"), { bounded: "x,y" }, { y: rows(2, 0, 0) })).toBe("bounded");
  expect(scoresOf(spec("y"), { bounded: "x" }, { y: rows(2, 0, 0) })).toBe("logits");
  expect(scoresOf(spec("y", { range: [0, 1] }), {}, undefined)).toBe("bounded");
  expect(scoresOf(spec("y"), {}, undefined)).toBe("logits");
});

test("logits become their softmax", () => {
  // e^ln 2 = 2 beside e^0 = 1 twice: 2 / 4 and 1 / 4
  expect(shares([Math.log(2), 0, 0], "logits").map((share) => Number(share.toFixed(6)))).toEqual([0.5, 0.25, 0.25]);
});

test("the classes are the output that has labels, wherever it stands, else the one with shares", () => {
  const [boxes, classes] = [spec("boxes"), spec("classes")];
  const answers = { boxes: rows(5, 6, 7), classes: rows(0.2, 0.3, 0.5) };
  expect(classifyingOutput([boxes, classes], answers)?.name).toBe("classes");
  expect(classifyingOutput([boxes, { ...classes, labels: ["a", "b", "c"] }], undefined)?.name).toBe("classes");
  expect(classifyingOutput([boxes], answers)).toBeUndefined();
});

test("of a model without a batch axis the answers' shape counts: a call is the first axis", () => {
  const whole = spec("y", { shape: [3], labels: ["a", "b", "c"] });
  expect(classifyingOutput([whole], { y: rows(0.2, 0.3, 0.5) })?.name).toBe("y");
  const sequence = spec("y", { shape: [2, 3], labels: ["a", "b", "c"] });
  const answer = { shape: [1, 2, 3], dtype: "float32" as const, data: new Float32Array(6) };
  expect(classifyingOutput([sequence], { y: answer })).toBeUndefined();
});

test("LiteRT's general word for a file that it cannot prepare is not about memory", () => {
  expect(explained("E", new Error("Failed to allocate tensors")).message).toBe("Failed to allocate tensors");
});
