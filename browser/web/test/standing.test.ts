import { expect, test } from "vitest";
import type { Variant } from "../src/page/bundle";
import { compare } from "../src/page/parity";
import { initialStatus, standingAfterError, standingAfterRun } from "../src/page/standing";

const variant = (format: string, ...runtimes: string[]): Variant => ({
  id: "v",
  entry: "v",
  files: ["v"],
  format,
  scheme: "int8",
  signatures: ["infer"],
  requires: { runtimes },
});
const rows = (...got: number[]) => {
  const tensor = (values: number[]) => ({ shape: [1, 2], dtype: "float32" as const, data: Float32Array.from(values) });
  return compare("int8", { y: tensor([3, 4]) }, { y: tensor(got) }, false);
};

test("before a run the status is what the manifest says", () => {
  const engine = { id: "litertjs-wasm", name: "LiteRT.js", runtime: "litertjs" };
  expect(initialStatus(variant("tflite", "litert"), engine)).toBe("not tested yet");
  expect(initialStatus(variant("tflite", "litertjs"), engine)).toBe("parity check passed at conversion");
  expect(initialStatus(variant("onnx", "onnxruntime"), undefined)).toBe("not supported");
});

test("a variant that agrees in this tab is used, wherever it was proved", () => {
  const used = { used: true, text: "parity check passed" };
  expect(standingAfterRun(variant("tflite"), rows(3, 4.1))).toEqual(used);
  expect(standingAfterRun(variant("tflite", "litertjs"), rows(3, 4.1))).toEqual(used);
});

test("a variant that fails in this tab is not used, wherever it was proved", () => {
  expect(standingAfterRun(variant("tflite", "litertjs"), rows(0, 0))).toEqual({
    used: false,
    text:
      "output 'y' has SNR 0.0 dB, max absolute error 4. " +
      "int8 requires an SNR of at least 10 dB and a top-1 agreement of at least 85%",
  });
});

test("a float32 variant of a source that rounds to 8 bits is held to the floor of float16, and told so", () => {
  const float32 = { ...variant("tflite"), scheme: "float32" };
  expect(standingAfterRun(float32, rows(0, 0), { rounds: "int8" }).text).toContain(
    "float32 requires an SNR of at least 40 dB",
  );
});

test("without reference inputs only a variant proved on LiteRT.js is used", () => {
  expect(standingAfterRun(variant("tflite", "litertjs"), undefined)).toEqual({
    used: true,
    text: "parity check passed at conversion",
  });
  expect(standingAfterRun(variant("tflite", "litert"), undefined)).toMatchObject({ used: false });
  expect(standingAfterRun(variant("tflite", "litert"), [])).toMatchObject({ used: false });
});

test("a proof on WebAssembly says nothing of the same runtime on a GPU", () => {
  const webgpu = { id: "litertjs-webgpu", name: "LiteRT.js, WebGPU", runtime: "litertjs" };
  const proved = variant("tflite", "litertjs");
  expect(initialStatus(proved, webgpu)).toBe("not tested yet");
  expect(standingAfterRun(proved, undefined, {}, webgpu)).toMatchObject({ used: false });
  const ort = { id: "ort-wasm", name: "ONNX Runtime Web", runtime: "onnxruntime-web" };
  expect(standingAfterRun(variant("onnx", "onnxruntime-web"), undefined, {}, ort)).toMatchObject({ used: true });
});

test("an error of LiteRT.js is shown without its source lines", () => {
  const error = new Error("ERROR: [litert/runtime.cc:12] Failed to read the model");
  expect(standingAfterError(error)).toEqual({
    used: false,
    text: "LiteRT.js cannot run the file: Failed to read the model",
  });
  expect(standingAfterError("ERROR: [a.cc:1]").text).toBe("LiteRT.js cannot run the file");
});
