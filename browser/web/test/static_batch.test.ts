import { expect, test } from "vitest";
import { fixFreeDimensions } from "../src/page/engines/static_batch";
import { golden } from "./golden";

const int32s = (bytes: Uint8Array): number[] => Array.from(new Int32Array(bytes.slice().buffer));

test("every free dimension of the shape signatures becomes 1, and nothing else changes", () => {
  const [before, after] = [golden("float32.tflite"), golden("float32.tflite")];
  fixFreeDimensions(after);
  const changed = int32s(before).flatMap((value, i) => (int32s(after)[i] === value ? [] : [[value, int32s(after)[i]]]));
  expect(changed).toEqual([
    [-1, 1], // x [-1, 4], the layer's output [-1, 3], p [-1, 3]
    [-1, 1],
    [-1, 1],
  ]);
});

test("a file without free dimensions is unchanged", () => {
  const once = golden("int8.tflite");
  fixFreeDimensions(once);
  const twice = once.slice();
  fixFreeDimensions(twice);
  expect(twice).toEqual(once);
});

test("a file that is not a .tflite file is refused", () => {
  expect(() => fixFreeDimensions(golden("model.onnx"))).toThrow("the identifier TFL3 is missing");
});

test.each([12, 100, 500])("a file cut off after %i bytes is refused", (length) => {
  expect(() => fixFreeDimensions(golden("float32.tflite").slice(0, length))).toThrow(
    "an offset points outside the file",
  );
});
