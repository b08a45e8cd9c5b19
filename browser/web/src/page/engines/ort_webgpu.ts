// The build of ONNX Runtime Web for WebGPU. Operators that WebGPU lacks run on the CPU, in the same build.

import script from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url";
import wasm from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url";
import * as ort from "onnxruntime-web/webgpu";
import { ortLibrary } from "./ort_library";

export const library = () => ortLibrary(ort, { mjs: script, wasm }, "webgpu");
