import { expect, test } from "vitest";
import type { TensorSpec } from "../src/page/bundle";
import { imageLayout, tensorOf, unit } from "../src/page/try/image";
import { parseInputs } from "../src/page/try/json";
import { shortest } from "../src/page/try/numbers";
import { channelsOf, givenOf, isInverted } from "../src/page/try/picture";
import { CENTERED, placementOf } from "../src/page/try/placement";
import { fit, mixed, soundTensor } from "../src/page/try/sound";
import { taskOf } from "../src/page/try/task";

const spec = (changes: Partial<TensorSpec>): TensorSpec => ({
  name: "x",
  shape: [null, 2, 1, 3],
  dtype: "float32",
  kind: "image",
  range: [0, 255],
  labels: [],
  ...changes,
});
const numbersOf = (data: ArrayLike<number | bigint>): number[] => Array.from(data, Number);

test("a picture becomes the range, the type and the order of axes that the manifest names", () => {
  const shares = [0, 0.5, 1, 0.2, 0.4, 0.6]; // two pixels: red, green, blue of each
  const last = imageLayout(spec({}))!;
  expect(numbersOf(tensorOf(shares, last, "uint8").data)).toEqual([0, 128, 255, 51, 102, 153]);
  const first = imageLayout(spec({ shape: [null, 3, 2, 1], layout: "NCHW", range: [-1, 1] }))!;
  expect(first).toEqual({ height: 2, width: 1, channels: 3, channelsFirst: true, low: -1, high: 1 });
  const tensor = tensorOf(shares, first, "float32");
  expect(tensor.shape).toEqual([1, 3, 2, 1]);
  expect(numbersOf(tensor.data)).toEqual([-1, 0.4 - 1, 0, 0.8 - 1, 1, 1.2 - 1].map(Math.fround));
  expect(unit(tensor, 0, first).map((share) => Number(share.toFixed(6)))).toEqual(shares); // and back
});

test.each([
  [{ kind: "tabular" }],
  [{ shape: [null, 2, 2, 4] }],
  [{ shape: [null, null, 2, 3] }],
  [{ shape: [null, 2, 3] }],
])("what is no image of one size has no layout (%j)", (changes) => {
  expect(imageLayout(spec(changes))).toBeUndefined();
});

test("a range of one value is replaced by the usual range that the examples fit", () => {
  const example = (value: number) => ({ shape: [1, 1], dtype: "float32" as const, data: Float32Array.of(value) });
  const ends = (value: number) => {
    const { low, high } = imageLayout(spec({ range: [value, value] }), example(value))!;
    return [low, high];
  };
  expect([ends(200), ends(-0.5), ends(0.5)]).toEqual([
    [0, 255],
    [-1, 1],
    [0, 1],
  ]);
});

test("gray is the luma of red, green and blue", () => {
  // 0.299 * 255 = 76.2, 0.587 * 255 = 149.7, 0.114 * 255 = 29.1, as BT.601 says
  const rgba = [255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255];
  expect(Array.from(channelsOf(rgba, 1), (share) => Math.round(share * 1000))).toEqual([299, 587, 114]);
  expect(Array.from(channelsOf(rgba, 3))).toEqual([1, 0, 0, 0, 1, 0, 0, 0, 1]);
});

test("ink on paper is inverted for a model of light ink, and only for small gray images", () => {
  const gray = spec({ shape: [null, 2, 2, 1], range: [0, 1] });
  const image = { spec: gray, layout: imageLayout(gray)!, placement: { ...CENTERED, bright: true } };
  const paper = Float32Array.of(1, 1, 1, 0.9);
  expect(isInverted(paper, image)).toBe(true);
  expect(isInverted(Float32Array.of(0, 0, 0, 1), image)).toBe(false);
  expect(isInverted(paper, { ...image, placement: { ...CENTERED, bright: false } })).toBe(false);
  expect(numbersOf(givenOf(paper, true, image).inputs.x!.data)).toEqual([0, 0, 0, Math.fround(1 - Math.fround(0.9))]);
  const color = imageLayout(spec({ range: [0, 1] }))!;
  expect(isInverted(Float32Array.of(1, 1, 1, 1, 1, 1), { ...image, layout: color })).toBe(false);
});

test("strokes are where the reference images have them", () => {
  const layout = imageLayout(spec({ shape: [null, 4, 4, 1], range: [0, 1] }))!;
  const image = Array(16).fill(0);
  for (const i of [5, 6, 9, 10]) image[i] = 1; // the middle 2 x 2
  expect(placementOf([image], layout)).toEqual({ bright: true, extent: 0.5, x: 0.5, y: 0.5 });
  expect(placementOf([image.map((share) => 1 - share)], layout).bright).toBe(false);
  expect(placementOf([], layout)).toEqual(CENTERED);
});

test("a longer sound is cut to its loudest stretch, a shorter one ends in silence", () => {
  expect([...fit(Float32Array.of(0, 0, 3, 4, 0), 2)]).toEqual([3, 4]);
  expect([...fit(Float32Array.of(5, 0, 0, 1), 2)]).toEqual([5, 0]);
  expect([...fit(Float32Array.of(1, 2), 4)]).toEqual([1, 2, 0, 0]);
  expect([...mixed([Float32Array.of(1, 0), Float32Array.of(0, -1)])]).toEqual([0.5, -0.5]);
});

test("a sound has the numbers of the input: 16-bit steps where its range says so", () => {
  const samples = Float32Array.of(-1, 0.5);
  const audio = spec({ kind: "audio", shape: [null, 2], range: [-1, 1] });
  expect(numbersOf(soundTensor(samples, audio, [2]).data)).toEqual([-1, 0.5]);
  const whole = { ...audio, dtype: "int16", range: [-32768, 32767] as [number, number] };
  expect(soundTensor(samples, whole, [2, 1])).toEqual({
    shape: [1, 2, 1],
    dtype: "int16",
    data: Int16Array.of(-32767, 16384),
  });
});

test.each([
  ["int16", [-32767, 0, 16384]],
  ["int8", [-127, 0, 64]],
  ["uint8", [1, 128, 192]],
])("without a range a sound has the steps of its type (%s)", (dtype, expected) => {
  const audio = spec({ kind: "audio", shape: [null, 3], range: null, dtype });
  expect(numbersOf(soundTensor(Float32Array.of(-1, 0, 0.5), audio, [3]).data)).toEqual(expected);
});

test("a number is written with as few digits as give it again", () => {
  expect(shortest(Math.fround(0.1))).toBe(0.1);
  expect([shortest(1234567), shortest(16777217), shortest(0.1 + 0.2)]).toEqual([1234567, 16777217, 0.1 + 0.2]);
});

test("the inputs of a model without a batch axis get one that counts samples", () => {
  const state = spec({ name: "s", kind: "other", shape: [null, 4] });
  const bundle = (shape: number[]) => ({
    manifest: { variants: [{ signatures: ["infer"] }], signatures: { infer: { inputs: [state], outputs: [] } } },
    reference: new Map([["in/s", { shape, dtype: "float32", data: new Float32Array(24) }]]),
  });
  const shapeOf = (shape: number[]) => taskOf(bundle(shape) as never)!.inputs[0]!.shape;
  expect(shapeOf([3, 2, 4])).toEqual([1, null, 4]);
  expect(shapeOf([6, 4])).toEqual([null, 4]);
});

const A = spec({ name: "a", kind: "other", shape: [null, 2, 2], dtype: "int64" });
const B = spec({ name: "b", kind: "other", shape: [null, null] });

test("JSON gives each input by its name, or the one input alone", () => {
  const both = parseInputs('{"b": [1.5], "a": [[1, 2], [3, 4]]}', [A, B]);
  expect(both.a).toEqual({ shape: [1, 2, 2], dtype: "int64", data: BigInt64Array.of(1n, 2n, 3n, 4n) });
  expect(both.b).toEqual({ shape: [1, 1], dtype: "float32", data: Float32Array.of(1.5) });
  expect(parseInputs("[1, 2, 3]", [B]).b!.shape).toEqual([1, 3]);
});

test("a whole number must fit its type: 300 would become 44", () => {
  const byte = spec({ shape: [null, 1], dtype: "uint8" });
  expect(() => parseInputs("[300]", [byte])).toThrow("x has the value 300. Expected 0 to 255 (uint8)");
  expect(numbersOf(parseInputs("[255]", [byte]).x!.data)).toEqual([255]);
});

test.each([
  ['{"a": [[1, 2], [3, 4]]}', "the JSON has no b. Expected an object with a,b"],
  ["[1]", "the JSON has no a."],
  ['{"a": [1, 2], "b": [1]}', "a has the shape [2]. Expected [2,2]"],
  ['{"a": [[1, 2], [3]], "b": [1]}', "a is no array of numbers with rows of one length"],
  ['{"a": [[1, 2], [3, "4"]], "b": [1]}', "a is no array of numbers"],
  ['{"a": [[1, 2], [3, 0.5]], "b": [1]}', "a takes whole numbers (int64)"],
  ['{"a": [[1, 2], [3, 1e300]], "b": [1]}', "a has the value 1e+300. Expected -9007199254740991 to"],
])("JSON that is no sample is refused with what was expected (%s)", (text, message) => {
  expect(() => parseInputs(text, [A, B])).toThrow(message);
});
