// What runs variants in this tab: one interface, one table. A new engine is one file and one line in ENGINES.

import type { Bundle, Variant } from "../bundle";
import { LITERT_WASM, LITERT_WEBGPU } from "./litert";
import { ORT_WASM, ORT_WEBGPU } from "./ort";
import type { Program, Tensors, Timed } from "./tensors";
import { TFJS_WASM, TFJS_WEBGL, TFJS_WEBGPU } from "./tfjs";

export type { Tensors, Timed } from "./tensors";

export interface Engine {
  readonly id: string;
  /** As people read it: "LiteRT.js, WebAssembly". */
  readonly name: string;
  /** The name of the runtime in manifests and in the table of runtimes in Python. */
  readonly runtime: string;
  /** Why this browser cannot run the engine at all; undefined: it can. Cheap: asked before anything is loaded. */
  missing(): Promise<string | undefined>;
  /** Why the engine cannot run this variant (format, tensor types ...); undefined: it can be tried. */
  refuses(bundle: Bundle, variant: Variant): string | undefined;
  /** Open the variant. The engine's library is loaded at the first call. Throws the error of the server or the engine. */
  open(bundle: Bundle, variant: Variant): Promise<Model>;
}

/**
 * What each phase of opening took. The variant's files and the library are fetched at the same time; `download_ms` is
 * the time in which anything was on its way, `init_ms` the rest until both were ready. They are near 0 for the library
 * when an earlier model of this page has loaded it.
 */
export interface ColdStart {
  readonly download_ms: number;
  readonly init_ms: number;
  readonly compile_ms: number;
  /** undefined until the first run. GPU engines build their programs then. */
  first_run_ms?: number;
}

/** A variant opened for one signature: real numbers in, real numbers out, whatever its own tensors store. */
export interface Model {
  readonly engine: Engine;
  readonly variant: Variant;
  readonly signature: string;
  /** The batch size of the file, 1 where it is free: `run` takes multiples of it. */
  readonly batch: number;
  readonly cold: ColdStart;
  /** The opened signature itself, which takes and gives what the tensors of the file store. */
  readonly program: Program;
  /** `warmup` + `runs` times on the same inputs; the times leave the conversion of quantized tensors out. */
  run(inputs: Tensors, warmup?: number, runs?: number): Promise<Timed>;
  /** Frees the memory of WebAssembly or the GPU. The model cannot run any more. */
  close(): void;
}

export const ENGINES: readonly Engine[] = [
  LITERT_WASM,
  LITERT_WEBGPU,
  TFJS_WASM,
  TFJS_WEBGL,
  TFJS_WEBGPU,
  ORT_WASM,
  ORT_WEBGPU,
];

/** Throws for an id that is not in ENGINES. */
export function engineOf(id: string): Engine {
  const found = ENGINES.find((engine) => engine.id === id);
  if (!found) throw new Error(`no engine is named ${id}. Expected one of ${ENGINES.map((engine) => engine.id)}`);
  return found;
}
