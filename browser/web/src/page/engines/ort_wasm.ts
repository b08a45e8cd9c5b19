// The build of ONNX Runtime Web for the CPU.

import script from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasm from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import * as ort from "onnxruntime-web/wasm";
import { ortLibrary } from "./ort_library";

export const library = () => ortLibrary(ort, { mjs: script, wasm }, "wasm");
