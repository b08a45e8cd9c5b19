// TF.js: graph models on WebAssembly, WebGL or WebGPU. The library and the backends are loaded when first used.

import type { Bundle, Variant } from "../bundle";
import { wasmMissing, webgl, webgpu } from "./capabilities";
import { defineEngine } from "./define";

/** TF.js computes in float32 and int32: what needs more bits or is no number is refused. */
const REFUSED = ["float64", "string", "complex64", "complex128"];

function refuses({ manifest }: Bundle, variant: Variant): string | undefined {
  if (variant.format !== "tfjs") return `TF.js runs graph models (tfjs), not ${variant.format}`;
  const specs = variant.signatures.flatMap((name) => manifest.signatures[name]?.inputs ?? []);
  const found = specs.find(({ dtype }) => REFUSED.includes(dtype));
  return found && `TF.js has no tensors of the type ${found.dtype}, which the input ${found.name} is`;
}

const webgl2Missing = async () => (webgl() ? undefined : "This browser has no WebGL 2, or it is switched off.");

const engine = (backend: "wasm" | "webgl" | "webgpu", name: string, missing: () => Promise<string | undefined>) =>
  defineEngine({
    id: `tfjs-${backend}`,
    name: `TF.js, ${name}`,
    runtime: "tfjs",
    missing,
    refuses,
    async library() {
      return (await import("./tfjs_library")).tfjsLibrary(backend);
    },
  });

export const TFJS_WASM = engine("wasm", "WebAssembly", async () => wasmMissing());
export const TFJS_WEBGL = engine("webgl", "WebGL", webgl2Missing);
export const TFJS_WEBGPU = engine("webgpu", "WebGPU", async () => (await webgpu()).missing);
