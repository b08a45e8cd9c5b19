import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { Bundle, Variant } from "../src/page/bundle";
import { LITERT, snippetOf, TFJS } from "../src/page/snippet/snippet";

const HOSTILE = "</script><script>alert(1)</script>";

function bundleOf(variant: Partial<Variant>, dtype = "float32"): [Bundle, Variant] {
  const spec = { name: HOSTILE, shape: [null, 2], dtype, kind: "other", range: [0, 1], labels: [HOSTILE] };
  const made = { id: "v", entry: "v.tflite", files: ["v.tflite"], format: "tflite", scheme: "float32" };
  const full = { ...made, signatures: ["infer"], requires: {}, ...variant } as Variant;
  const manifest = { signatures: { infer: { inputs: [spec], outputs: [spec] } }, variants: [full] };
  return [{ manifest, reference: undefined, parity: [] } as unknown as Bundle, full];
}

test("the packages that a snippet asks for are those that the page is tested with", () => {
  const { dependencies } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  expect([LITERT, TFJS]).toEqual([dependencies["@litertjs/core"], dependencies["@tensorflow/tfjs"]]);
});

test.each(["tflite", "tfjs"])("no name ends the script of a %s snippet", (format) => {
  const { code } = snippetOf(...bundleOf({ format }));
  expect(code).not.toContain(HOSTILE);
  expect(code.match(/<\/script>/g)).toHaveLength(2); // of the map or the library, and of the code
});

test("a uint8 input is quantized by its scale and zero point", () => {
  const io = { [HOSTILE]: { dtype: "uint8", scale: 0.5, zero_point: 3 } };
  const { code } = snippetOf(...bundleOf({ io }));
  expect(code).toContain("new Float32Array(2), 0.5, 3)");
  expect(code).toContain("(stored - 3) * 0.5");
});

test("what the published LiteRT.js refuses is said", () => {
  const io = { [HOSTILE]: { dtype: "int8", scale: 0.5, zero_point: 3 } };
  expect(() => snippetOf(...bundleOf({ io }))).toThrow("takes no int8 tensors");
  expect(() => snippetOf(...bundleOf({ format: "onnx" }))).toThrow("no snippet for the format onnx");
});

test.each([
  ["uint8", 'new Int32Array(2), [1,2], "int32")'],
  ["bool", 'new Float32Array(2), [1,2], "bool")'],
  ["float32", 'new Float32Array(2), [1,2], "float32")'],
])("a TF.js snippet writes a %s input in a type that TF.js has", (dtype, written) => {
  expect(snippetOf(...bundleOf({ format: "tfjs" }, dtype)).code).toContain(written);
});

test("a type that TF.js cannot hold is said", () => {
  expect(() => snippetOf(...bundleOf({ format: "tfjs" }, "float64"))).toThrow("takes no float64 tensors");
});

test.each(["tflite", "tfjs"])("the file of a %s snippet is written as an address", (format) => {
  expect(snippetOf(...bundleOf({ format, entry: "a/50% #1?.x" })).code).toContain('("./a/50%25%20%231%3F.x")');
});
