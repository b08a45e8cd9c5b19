// TF.js's core and its graph models. The backend of a run is global to TF.js, so runs of all its models wait for each other.

import { env, findBackendFactory, registerBackend, removeBackend, setBackend } from "@tensorflow/tfjs-core";
import { type Graph, type GraphJson, openGraph, runGraph } from "../../tfjs_graph";
import { forgetHeaps } from "../race/heap";
import type { Files, Library, OpenedProgram } from "./define";
import type { Program } from "./tensors";

export type Backend = "wasm" | "webgl" | "webgpu";

const BACKENDS: Record<Backend, () => Promise<unknown>> = {
  wasm: () => import("./tfjs_wasm"),
  webgl: () => import("@tensorflow/tfjs-backend-webgl"),
  webgpu: () => import("@tensorflow/tfjs-backend-webgpu"),
};

const open = new Map<Backend, number>();
let turn: Promise<unknown> = Promise.resolve();

export async function tfjsLibrary(backend: Backend): Promise<Library> {
  await BACKENDS[backend]();
  env().set("PROD", true); // no checks of every value between operators
  await exclusively(backend, async () => {}); // initializes it
  return {
    async open(files, { entry }): Promise<OpenedProgram> {
      const graph = await exclusively(backend, () => load(files, entry));
      open.set(backend, (open.get(backend) ?? 0) + 1);
      return {
        inputs: inputsOf(graph),
        run: (inputs) =>
          exclusively(backend, async () => Object.fromEntries(await runGraph(graph, new Map(Object.entries(inputs))))),
        close() {
          turn = turn.then(() => close(backend, graph));
        },
      };
    },
  };
}

/** One after the other, each with its own backend. */
function exclusively<T>(backend: Backend, work: () => Promise<T>): Promise<T> {
  const result = turn.then(async () => {
    if (!(await setBackend(backend))) throw new Error(`TF.js cannot start its backend ${backend}`);
    return work();
  });
  turn = result.catch(() => undefined); // whoever asked hears of it
  return result;
}

function load(files: Files, entry: string): Promise<Graph> {
  const folder = entry.slice(0, entry.lastIndexOf("/") + 1);
  const json = JSON.parse(new TextDecoder().decode(files.get(entry)!)) as GraphJson;
  return openGraph(entry, json, (shard) => {
    const bytes = files.get(folder + shard);
    if (!bytes) throw new Error(`${entry} names the file ${shard}, which is not one of the variant's`);
    return bytes;
  });
}

/** After the last model of a backend the backend goes too: only that gives back textures and WebAssembly's memory. */
function close(backend: Backend, { model }: Graph): void {
  model.dispose();
  const left = open.get(backend)! - 1;
  open.set(backend, left);
  if (left) return;
  const factory = findBackendFactory(backend);
  removeBackend(backend);
  forgetHeaps(`tfjs-${backend}`);
  registerBackend(backend, factory, 1);
}

function inputsOf({ signature }: Graph): Program["inputs"] {
  return new Map(
    Object.entries(signature.inputs).map(([name, { tensorShape }]) => [
      name,
      { shape: (tensorShape?.dim ?? []).map(({ size }) => (Number(size) < 0 ? null : Number(size))) },
    ]),
  );
}
