// LiteRT.js: .tflite files on WebAssembly or WebGPU. The library itself (litert_library.ts) is loaded when first used.

import type { Bundle, Variant } from "../bundle";
import { wasmMissing, webgpu } from "./capabilities";
import { defineEngine } from "./define";

// LiteRT.js as changed in vite.page.config.ts
const TYPES = ["float32", "int32", "uint8", "int8", "int16"];

function refuses(bundle: Bundle, variant: Variant): string | undefined {
  if (variant.format !== "tflite") return `LiteRT.js runs .tflite files, not ${variant.format}`;
  const stored = typesOf(bundle, variant).find(([, dtype]) => !TYPES.includes(dtype));
  return stored && `LiteRT.js does not take tensors of the type ${stored[1]}, as ${stored[0]} is`;
}

/** The tensors of all signatures of the variant, with the types that the file stores. */
function typesOf({ manifest }: Bundle, { signatures, io }: Variant): [string, string][] {
  return signatures
    .flatMap((name) => [...(manifest.signatures[name]?.inputs ?? []), ...(manifest.signatures[name]?.outputs ?? [])])
    .map(({ name, dtype }) => [name, io?.[name]?.dtype ?? dtype]);
}

export const LITERT_WASM = defineEngine({
  id: "litertjs-wasm",
  name: "LiteRT.js, WebAssembly",
  runtime: "litertjs",
  missing: async () => wasmMissing(),
  refuses,
  async library() {
    return (await import("./litert_library")).litertLibrary("wasm");
  },
});

export const LITERT_WEBGPU = defineEngine({
  id: "litertjs-webgpu",
  name: "LiteRT.js, WebGPU",
  runtime: "litertjs",
  missing: async () => wasmMissing() ?? (await webgpu()).missing,
  refuses(bundle, variant) {
    const integers = typesOf(bundle, variant).find(([, dtype]) => dtype !== "float32");
    return (
      refuses(bundle, variant) ??
      (integers && `LiteRT.js on WebGPU takes and gives float32 alone, and ${integers[0]} is ${integers[1]}`)
    );
  },
  async library() {
    return (await import("./litert_library")).litertLibrary("webgpu");
  },
});
