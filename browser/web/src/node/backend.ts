// TF.js's WebAssembly backend, its one file inside this program: a tenth of plain JavaScript's time on ResNet8.

import * as tf from "@tensorflow/tfjs";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import simd from "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm?url&inline";

const BINARIES = ["tfjs-backend-wasm.wasm", "tfjs-backend-wasm-simd.wasm", "tfjs-backend-wasm-threaded-simd.wasm"];

/** WebAssembly on one thread, as every other runtime here runs; plain JavaScript where that does not start. */
export async function useWasm(): Promise<void> {
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
  setWasmPaths(Object.fromEntries(BINARIES.map((name) => [name, simd])), true); // all must be named; Node takes SIMD's
  if (!(await tf.setBackend("wasm"))) await tf.setBackend("cpu");
}

/** Whether the error is that this backend has no kernel for an op; plain JavaScript has one for each. */
export function lacksKernel(error: unknown): boolean {
  const message = error instanceof Error ? error.message : "";
  return tf.getBackend() !== "cpu" && /not registered for backend|Cannot find registered kernel/.test(message);
}
