import { expect, test } from "vitest";
import type { Tensor } from "../src/npy";
import { toReal, toStored } from "../src/page/engines/quantization";

const INT8 = { dtype: "int8", scale: 0.5, zero_point: -3 };
const floats = (...values: number[]): Tensor => ({
  shape: [values.length],
  dtype: "float32",
  data: Float32Array.from(values),
});

test("floats are rounded half to even, shifted by the zero point and clamped", () => {
  // divided by 0.5: -1, 0.5, 1.5, 2.5, 200, -200, 0.8; to even: -1, 0, 2, 2, 200, -200, 1
  expect(toStored(floats(-0.5, 0.25, 0.75, 1.25, 100, -100, 0.4), INT8)).toEqual({
    shape: [7],
    dtype: "int8",
    data: Int8Array.of(-4, -3, -1, -1, 127, -128, -2),
  });
});

test.each([
  ["uint8", Uint8Array.of(0, 255)],
  ["int16", Int16Array.of(-32768, 32767)],
])("%s is clamped to its own limits", (dtype, data) => {
  expect(toStored(floats(-1e6, 1e6), { dtype, scale: 1, zero_point: 0 }).data).toEqual(data);
});

test("the quotient is rounded to float32 before it is rounded to an integer", () => {
  // float32(0.35) / float32(0.1) is 3.4999999 in float64, which rounds to 3; in float32 it is 3.5, which rounds to 4
  const scale = Math.fround(0.1);
  expect(Math.fround(0.35) / scale).toBeLessThan(3.5);
  expect(toStored(floats(0.35), { dtype: "int8", scale: 0.1, zero_point: 0 }).data).toEqual(Int8Array.of(4));
});

test("stored integers become (stored - zero_point) * scale", () => {
  const stored: Tensor = { shape: [3], dtype: "int8", data: Int8Array.of(-128, -3, 127) };
  expect(toReal(stored, INT8)).toEqual(floats(-62.5, 0, 65));
});

test("a tensor without a scale stays as it is", () => {
  const stored: Tensor = { shape: [1], dtype: "int32", data: Int32Array.of(7) };
  expect(toReal(stored, { dtype: "int32", scale: 0, zero_point: 0 })).toBe(stored);
  expect(toStored(stored, INT8)).toBe(stored);
});

test("a stored type that the page cannot write is refused", () => {
  expect(() => toStored(floats(1), { dtype: "int4", scale: 1, zero_point: 0 })).toThrow(
    "the variant stores an input as int4. Expected one of int8, uint8, int16",
  );
});
