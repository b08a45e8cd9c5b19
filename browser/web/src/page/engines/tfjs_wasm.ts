// TF.js's backend on WebAssembly with SIMD, on one thread: its threads start from a blob, which the page's
// Content-Security-Policy forbids, and gained nothing on two cores.

import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import simd from "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm?url";
import { env } from "@tensorflow/tfjs-core";

const BINARIES = ["tfjs-backend-wasm.wasm", "tfjs-backend-wasm-simd.wasm", "tfjs-backend-wasm-threaded-simd.wasm"];

env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
const address = new URL(simd, document.baseURI).href;
setWasmPaths(Object.fromEntries(BINARIES.map((name) => [name, address]))); // all must be named; SIMD's is the one used
