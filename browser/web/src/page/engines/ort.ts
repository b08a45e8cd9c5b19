// ONNX Runtime Web: .onnx files on WebAssembly or WebGPU, each from a build of its own that is loaded when first used.

import type { Variant } from "../bundle";
import { wasmMissing, webgpu } from "./capabilities";
import { defineEngine } from "./define";

const refuses = (_bundle: unknown, { format }: Variant): string | undefined =>
  format === "onnx" ? undefined : `ONNX Runtime Web runs .onnx files, not ${format}`;

export const ORT_WASM = defineEngine({
  id: "ort-wasm",
  name: "ONNX Runtime Web, WebAssembly",
  runtime: "onnxruntime-web",
  missing: async () => wasmMissing(),
  refuses,
  async library() {
    return (await import("./ort_wasm")).library();
  },
});

export const ORT_WEBGPU = defineEngine({
  id: "ort-webgpu",
  name: "ONNX Runtime Web, WebGPU",
  runtime: "onnxruntime-web",
  missing: async () => wasmMissing() ?? (await webgpu()).missing,
  refuses,
  async library() {
    return (await import("./ort_webgpu")).library();
  },
});
