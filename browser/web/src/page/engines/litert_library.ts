// The library LiteRT.js: the bytes of a .tflite in, named arrays in and out. It runs on the main thread: in a worker it
// fails, or hangs with threads.

import {
  type CompiledModel,
  Environment,
  getGlobalLiteRt,
  Tensor as LiteRtTensor,
  loadAndCompile,
  loadLiteRt,
  type SignatureRunner,
} from "@litertjs/core";
import compatScript from "@litertjs/core/wasm/litert_wasm_compat_internal.js?url";
import compatWasm from "@litertjs/core/wasm/litert_wasm_compat_internal.wasm?url";
import plainScript from "@litertjs/core/wasm/litert_wasm_internal.js?url";
import plainWasm from "@litertjs/core/wasm/litert_wasm_internal.wasm?url";
import threadedScript from "@litertjs/core/wasm/litert_wasm_threaded_internal.js?url";
import threadedWasm from "@litertjs/core/wasm/litert_wasm_threaded_internal.wasm?url";
import type { Dtype } from "../../npy";
import { hasRelaxedSimd, webgpu } from "./capabilities";
import type { Library, OpenedProgram } from "./define";
import { isNote, withoutSource } from "./litert_log";
import { fixFreeDimensions } from "./static_batch";
import type { Program, Tensors } from "./tensors";
import { threadCount } from "./threads";

export type Accelerator = "wasm" | "webgpu";

/** An opened .tflite with all its signatures. */
export interface LitertFile {
  readonly signatures: readonly string[];
  /** null: the file has only one. */
  program(signature: string | null): Program;
  /** Frees its memory, which is WebAssembly's and not garbage collected. */
  close(): void;
}

const BUILDS = {
  plain: { script: plainScript, wasm: plainWasm },
  threaded: { script: threadedScript, wasm: threadedWasm },
  compat: { script: compatScript, wasm: compatWasm }, // for browsers without relaxed SIMD
};

let loading: Promise<unknown> | undefined;
let graphics: Promise<Environment> | undefined;
/** Errors that LiteRT writes while a model is compiled for the GPU: why it cannot be. */
let heard: string[] | undefined;

export async function litertLibrary(accelerator: Accelerator): Promise<Library> {
  await load();
  if (accelerator === "webgpu") await environment();
  return {
    async open(files, variant, signature): Promise<OpenedProgram> {
      const file = await openLitert(files.get(variant.entry)!, accelerator);
      return { ...file.program(variant.signatures.length > 1 ? signature : null), close: file.close };
    },
  };
}

/** Throws the error of LiteRT. */
export async function openLitert(bytes: Uint8Array, accelerator: Accelerator = "wasm"): Promise<LitertFile> {
  await load();
  const own = bytes.slice(); // changed in place
  fixFreeDimensions(own);
  needMemory(own.length);
  const model =
    accelerator === "webgpu"
      ? await compileForGpu(own)
      : await loadAndCompile(own, { accelerator, cpuOptions: { numThreads: threads() } });
  return {
    signatures: Object.keys(model.signatures),
    program: (signature) => programOf(choose(model, signature)),
    close: () => model.delete(),
  };
}

/** LiteRT.js does not look whether it was given memory, and would write the file to address 0. */
function needMemory(bytes: number): void {
  const { liteRtWasm } = getGlobalLiteRt();
  const address = liteRtWasm._malloc(bytes);
  if (!address) throw new Error(`not enough memory for ${bytes} bytes`);
  liteRtWasm._free(address);
}

/** Half precision is LiteRT's default on a GPU: this page compares with float32. */
async function compileForGpu(bytes: Uint8Array): Promise<CompiledModel> {
  const gpu = await environment();
  const lines: string[] = [];
  heard = lines;
  try {
    const options = { accelerator: "webgpu", environment: gpu, gpuOptions: { precision: "fp32" } } as const;
    const model = await loadAndCompile(bytes, options);
    if (model.isFullyAccelerated && model.options.accelerator === "webgpu") return model;
    model.delete();
  } catch (error) {
    if (!lines.length) throw error;
  } finally {
    heard = undefined;
  }
  throw new Error(
    `LiteRT.js cannot run every operator of the file on WebGPU. ${lines.map(withoutSource).join(" ")}`.trim(),
  );
}

const threads = (): number => (hasRelaxedSimd() ? threadCount() : 1); // LiteRT.js has no threads without relaxed SIMD

function load(): Promise<unknown> {
  loading ??= loadBuild().catch((error) => {
    loading = undefined; // a later try starts anew
    throw error;
  });
  return loading;
}

async function loadBuild(): Promise<void> {
  const { script, wasm } = BUILDS[!hasRelaxedSimd() ? "compat" : threads() > 1 ? "threaded" : "plain"];
  const own = {
    locateFile: (name: string) => new URL(name.endsWith(".wasm") ? wasm : script, document.baseURI).href,
    print: (line: string) => isNote(line) || console.log(line),
    printErr: (line: string) => isNote(line) || (heard ? heard.push(line) : console.error(line)),
  };
  (globalThis as { Module?: unknown }).Module = own; // Emscripten's script reads it, and LiteRT.js removes it
  await loadLiteRt(new URL(script, document.baseURI).href);
}

function environment(): Promise<Environment> {
  graphics ??= (async () => {
    const made = await Environment.create(); // with a device of LiteRT's own choice
    if (made.webGpuDevice) return made;
    throw new Error((await webgpu()).missing ?? "WebGPU gives no graphics processor now");
  })();
  graphics.catch(() => {
    graphics = undefined; // a later try starts anew
  });
  return graphics;
}

function choose(model: CompiledModel, signature: string | null): SignatureRunner {
  const names = Object.keys(model.signatures);
  if (signature === null && names.length !== 1)
    throw new Error(`the file has the signatures ${names.join(", ")}. Pass the name of one`);
  const runner = model.signatures[signature ?? names[0]!];
  if (!runner) throw new Error(`the file has no signature ${signature}. Expected one of ${names.join(", ")}`);
  return runner;
}

function programOf(runner: SignatureRunner): Program {
  const details = runner.getInputDetails();
  return {
    inputs: new Map(details.map(({ name, shape, dtype }) => [name, { shape: [...shape], dtype }])),
    run: (inputs) => once(runner, inputs),
  };
}

async function once(runner: SignatureRunner, inputs: Tensors): Promise<Tensors> {
  const given: Record<string, LiteRtTensor> = {};
  const { environment } = runner.options;
  try {
    for (const [name, { data, shape }] of Object.entries(inputs))
      given[name] = new LiteRtTensor(data as Float32Array, shape, environment);
    const results = await runner.run(given);
    const taken: Tensors = {};
    for (const [name, value] of Object.entries(results)) taken[name] = await take(value);
    return taken;
  } finally {
    for (const tensor of Object.values(given)) tensor.delete(); // WebAssembly's memory is not garbage collected
  }
}

/** A copy; the tensor is deleted. */
async function take(tensor: LiteRtTensor): Promise<Tensors[string]> {
  const here = tensor.accelerator === "wasm" ? tensor : await tensor.moveTo("wasm");
  try {
    const data = here.toTypedArray() as Float32Array<ArrayBuffer>;
    return { shape: [...here.type.layout.dimensions], dtype: here.type.dtype as Dtype, data };
  } finally {
    here.delete();
  }
}
