// What both builds of ONNX Runtime Web share: the bytes of a .onnx in, named arrays in and out.

import type * as Ort from "onnxruntime-web/wasm";
import { fromBase64, isDtype } from "../../npy";
import type { Library, OpenedProgram } from "./define";
import type { Program, Tensors } from "./tensors";
import { threadCount } from "./threads";

export type OrtBuild = Pick<typeof Ort, "env" | "InferenceSession" | "Tensor">;

// y = x in float32, ONNX's smallest model: opening it starts the runtime, which does not start without a model
const IDENTITY = "CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0=";

/** `files`: addresses of the build's own script and WebAssembly. */
export async function ortLibrary(
  { env, InferenceSession, Tensor }: OrtBuild,
  files: { mjs: string; wasm: string },
  provider: "wasm" | "webgpu",
): Promise<Library> {
  env.wasm.wasmPaths = {
    mjs: new URL(files.mjs, document.baseURI).href,
    wasm: new URL(files.wasm, document.baseURI).href,
  };
  env.wasm.numThreads = threadCount();
  env.logLevel = "error"; // warnings name nodes that stay on the CPU: shapes, on purpose
  const create = (model: Uint8Array) =>
    InferenceSession.create(model, { executionProviders: [provider], logSeverityLevel: 3 });
  await (await create(fromBase64(IDENTITY))).release();
  return {
    async open(contents, { entry }): Promise<OpenedProgram> {
      const session = await create(contents.get(entry)!);
      return {
        inputs: inputsOf(session),
        async run(inputs) {
          const given = Object.fromEntries(
            Object.entries(inputs).map(([name, { dtype, data, shape }]) => [
              name,
              new Tensor(dtype as "float32", data as Float32Array, shape),
            ]),
          );
          const outputs = await session.run(given);
          return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, take(name, tensor)]));
        },
        close() {
          void session.release();
        },
      };
    },
  };
}

function inputsOf(session: Ort.InferenceSession): Program["inputs"] {
  return new Map(
    session.inputMetadata.map((input) => {
      if (!input.isTensor) throw new Error(`the input ${input.name} is no tensor`);
      return [
        input.name,
        { dtype: input.type, shape: input.shape.map((n) => (typeof n === "number" && n >= 0 ? n : null)) },
      ];
    }),
  );
}

function take(name: string, tensor: Ort.Tensor): Tensors[string] {
  if (!isDtype(tensor.type))
    throw new Error(`the output ${name} has the type ${tensor.type}, which this page does not read`);
  const data = (tensor.data as Float32Array<ArrayBuffer>).slice();
  const taken = { shape: [...tensor.dims], dtype: tensor.type, data };
  tensor.dispose();
  return taken;
}
