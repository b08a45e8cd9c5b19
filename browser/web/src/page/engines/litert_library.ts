// The library LiteRT.js: the bytes of a .tflite in, named arrays in and out. It runs on the main thread, the only place
// tested.

import {
  type CompiledModel,
  Tensor as LiteRtTensor,
  loadAndCompile,
  loadLiteRt,
  type SignatureRunner,
} from "@litertjs/core";
import type { Dtype } from "../../npy";
import type { Library, OpenedProgram } from "./define";
import { fixFreeDimensions } from "./static_batch";
import type { Program, Tensors } from "./tensors";

/** An opened .tflite with all its signatures. */
export interface LitertFile {
  readonly signatures: readonly string[];
  /** null: the file has only one. */
  program(signature: string | null): Program;
  /** Frees its memory, which is WebAssembly's and not garbage collected. */
  close(): void;
}

let runtime: Promise<unknown> | undefined;

export async function openLitert(bytes: Uint8Array): Promise<LitertFile> {
  runtime ??= loadLiteRt(new URL("litert/", document.baseURI).href);
  await runtime;
  const own = bytes.slice(); // changed in place
  fixFreeDimensions(own);
  const model = await loadAndCompile(own, { accelerator: "wasm" });
  return {
    signatures: Object.keys(model.signatures),
    program: (signature) => programOf(choose(model, signature)),
    close: () => model.delete(),
  };
}

export async function litertLibrary(): Promise<Library> {
  runtime ??= loadLiteRt(new URL("litert/", document.baseURI).href);
  await runtime;
  return {
    async open(files, variant, signature): Promise<OpenedProgram> {
      const file = await openLitert(files.get(variant.entry)!);
      return { ...file.program(variant.signatures.length > 1 ? signature : null), close: file.close };
    },
  };
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
  try {
    for (const [name, { data, shape }] of Object.entries(inputs))
      given[name] = new LiteRtTensor(data as Float32Array, shape);
    const results = await runner.run(given);
    return Object.fromEntries(Object.entries(results).map(([name, value]) => [name, take(value)]));
  } finally {
    for (const tensor of Object.values(given)) tensor.delete(); // WebAssembly's memory is not garbage collected
  }
}

function take(tensor: LiteRtTensor): Tensors[string] {
  try {
    const data = tensor.toTypedArray() as Float32Array<ArrayBuffer>; // a copy
    return { shape: [...tensor.type.layout.dimensions], dtype: tensor.type.dtype as Dtype, data };
  } finally {
    tensor.delete();
  }
}
