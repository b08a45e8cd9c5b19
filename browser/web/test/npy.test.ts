import { expect, test } from "vitest";
import { bytesOf, type Dtype, numbers, readNpy, readNpz, size, type Tensor, writeNpz } from "../src/npy";
import { golden } from "./golden";

/** A .npy file of format version 1.0 or 2.0, written by hand as NumPy's documentation describes it. */
function npy(header: string, data: ArrayBufferView, version = 1): Uint8Array {
  const text = new TextEncoder().encode(`${header}\n`);
  const length = version === 1 ? [text.length, 0] : [text.length, 0, 0, 0];
  const values = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return Uint8Array.from([0x93, ...new TextEncoder().encode("NUMPY"), version, 0, ...length, ...text, ...values]);
}

const header = (descr: string, shape: string, fortran = "False") =>
  `{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }`;

test("the reference inputs that Python wrote are read", () => {
  const arrays = readNpz(golden("reference.npz"));
  expect([...arrays.keys()]).toEqual(["in/x", "out/p"]);
  expect(arrays.get("in/x")).toMatchObject({ shape: [16, 4], dtype: "float32" });
  const first = Array.from(arrays.get("out/p")!.data.slice(0, 3), Number);
  expect(first).toEqual([0.26118037, 0.32768807, 0.41113153].map(Math.fround)); // as NumPy prints them
});

test.each<[Dtype, number[]]>([
  ["float32", [1.5, -2]],
  ["float64", [1e300, -0.1]],
  ["int8", [-128, 127]],
  ["uint8", [0, 255]],
  ["int16", [-32768, 32767]],
  ["uint16", [0, 65535]],
  ["int32", [-(2 ** 31), 2 ** 31 - 1]],
  ["int64", [-1, 2 ** 40]],
  ["bool", [1, 0]],
])("%s survives writing and reading", (dtype, values) => {
  const data = numbers(dtype, new Uint8Array(2 * numbers(dtype, new Uint8Array(8)).BYTES_PER_ELEMENT));
  for (const [i, value] of values.entries()) data[i] = data instanceof BigInt64Array ? BigInt(value) : value;
  const tensor: Tensor = { shape: [2, 1], dtype, data };
  const read = readNpz(writeNpz(new Map([["in/x", tensor]])));
  expect(read).toEqual(new Map([["in/x", tensor]]));
  expect(Array.from(read.get("in/x")!.data, Number)).toEqual(values);
});

test("an array of Fortran order is read in C order", () => {
  const columns = Int16Array.of(1, 4, 2, 5, 3, 6); // of [[1, 2, 3], [4, 5, 6]]
  expect(readNpy(npy(header("<i2", "(2, 3)", "True"), columns))).toEqual({
    shape: [2, 3],
    dtype: "int16",
    data: Int16Array.of(1, 2, 3, 4, 5, 6),
  });
});

test("format version 2.0, a scalar and an empty array are read", () => {
  expect(readNpy(npy(header("<f4", "(2,)"), Float32Array.of(1, 2), 2)).data).toEqual(Float32Array.of(1, 2));
  expect(readNpy(npy(header("<f4", "()"), Float32Array.of(7)))).toMatchObject({ shape: [], data: Float32Array.of(7) });
  expect(readNpy(npy(header("<f4", "(0, 3)"), new Float32Array()))).toMatchObject({ shape: [0, 3] });
});

test.each([
  [new TextEncoder().encode("PK no numbers"), "the file is not a .npy file"],
  [npy(header("<c8", "(1,)"), new Float32Array(2)), "the array has the type <c8. Expected one of <f4,<f8"],
  [npy(header(">f4", "(1,)"), new Float32Array(1)), "the array has the type >f4."],
  [npy(header("<f4", "(3,)"), new Float32Array(2)), "the array of shape (3) has 2 values. Expected 3"],
])("a file that is not a supported array is refused (%#)", (file, message) => {
  expect(() => readNpy(file)).toThrow(message);
});

test("a dtype that JavaScript has no array for is refused", () => {
  expect(() => numbers("complex64", new Uint8Array(8))).toThrow(
    "the dtype complex64 is not supported. Expected one of",
  );
  expect(() => numbers("constructor", new Uint8Array(8))).toThrow("not supported");
});

test("values are copied out of bytes at any offset", () => {
  const bytes = Uint8Array.of(9, ...bytesOf(Float32Array.of(0.5)));
  expect(numbers("float32", bytes.subarray(1))).toEqual(Float32Array.of(0.5));
});

test("the size of a shape is the product of its dimensions", () => {
  expect([size([]), size([2, 3, 4]), size([5, 0])]).toEqual([1, 24, 0]);
});
