// LiteRT.js: .tflite files on WebAssembly. The library itself (litert_library.ts) is loaded when it is first used.

import { defineEngine } from "./define";

export const LITERT_WASM = defineEngine({
  id: "litertjs-wasm",
  name: "LiteRT.js, WebAssembly",
  runtime: "litertjs",
  async missing() {
    return undefined;
  },
  refuses: (_bundle, { format }) => (format === "tflite" ? undefined : `LiteRT.js runs .tflite files, not ${format}`),
  async library() {
    return (await import("./litert_library")).litertLibrary();
  },
});
