// A TF.js graph model, in Node as in the page: named arrays in, named arrays out.

import type { GraphModel } from "@tensorflow/tfjs-converter";
import { loadGraphModel } from "@tensorflow/tfjs-converter";
import { dispose, type io, type Tensor as TfTensor, tensor as tfTensor } from "@tensorflow/tfjs-core";
import type { Tensor } from "./npy";

interface Io {
  name: string;
  dtype?: string;
  /** `size` -1: free. */
  tensorShape?: { dim?: { size: string | number }[]; unknownRank?: boolean };
}

/** What the converter writes for a SavedModel: the signature's names, each with the graph's own tensor. */
interface Signature {
  inputs: Record<string, Io>;
  outputs: Record<string, Io>;
}

export interface Graph {
  signature: Signature;
  model: GraphModel;
  /** Found at the first run: control flow, or shapes that depend on values, which TF.js runs in another way. */
  dynamic?: boolean;
}

/** Of model.json. */
export interface GraphJson {
  format?: string;
  modelTopology: object;
  signature?: Signature;
  userDefinedMetadata?: { signature?: Signature };
  weightsManifest: { paths: string[]; weights: io.WeightsManifestEntry[] }[];
}

/** `read` gives the bytes of a shard by its name in the file. Throws when TF.js refuses the model. */
export async function openGraph(path: string, json: GraphJson, read: (shard: string) => Uint8Array): Promise<Graph> {
  if (json.format !== "graph-model") throw new Error(`${path} has the format ${json.format}. Expected graph-model`);
  const signature = json.signature ?? json.userDefinedMetadata?.signature;
  if (!signature?.inputs || !signature.outputs)
    throw new Error(`${path} has no signature, so its tensors have no names`);
  const shards = json.weightsManifest.flatMap((group) => group.paths.map(read));
  const weights = new Uint8Array(shards.reduce((sum, shard) => sum + shard.length, 0));
  let end = 0;
  for (const shard of shards) {
    weights.set(shard, end);
    end += shard.length;
  }
  const model = await loadGraphModel({
    load: async () => ({
      modelTopology: json.modelTopology,
      format: json.format,
      signature,
      userDefinedMetadata: json.userDefinedMetadata,
      weightSpecs: json.weightsManifest.flatMap((group) => group.weights),
      weightData: weights.buffer,
    }),
  });
  return { model, signature };
}

export async function runGraph(graph: Graph, inputs: ReadonlyMap<string, Tensor>): Promise<Map<string, Tensor>> {
  const { signature } = graph;
  const wanted = Object.entries(signature.inputs);
  const missing = wanted.filter(([name]) => !inputs.has(name));
  if (missing.length || inputs.size !== wanted.length)
    throw new Error(`the inputs are named ${[...inputs.keys()]}. Expected ${wanted.map(([name]) => name)}`);
  const given = Object.fromEntries(wanted.map(([name, io]) => [io.name, toTfjs(inputs.get(name)!)]));
  const names = Object.keys(signature.outputs);
  let results: TfTensor[] = [];
  try {
    const asked = names.map((name) => signature.outputs[name]!.name);
    results = [await execute(graph, given, asked)].flat();
    return new Map(await Promise.all(names.map(async (name, i) => [name, await fromTfjs(results[i]!)] as const)));
  } finally {
    dispose([Object.values(given), results]);
  }
}

/** executeAsync runs every graph, but warns in the console at each run of one that needs no waiting. */
async function execute(graph: Graph, given: Record<string, TfTensor>, asked: string[]): Promise<TfTensor | TfTensor[]> {
  if (!graph.dynamic)
    try {
      return graph.model.execute(given, asked);
    } catch (error) {
      if (!(error instanceof Error && error.message.includes("model.executeAsync()"))) throw error;
      graph.dynamic = true;
    }
  return graph.model.executeAsync(given, asked);
}

/** TF.js has float32, int32 and bool. Integers of another width become int32, as its converter does in the graph. */
function toTfjs({ shape, dtype, data }: Tensor): TfTensor {
  if (dtype === "float32" || dtype === "bool") return tfTensor(data as Float32Array, shape, dtype);
  if (dtype === "float64")
    throw new Error("an input is float64, but TF.js computes in float32. Cast the input to float32");
  return tfTensor(Int32Array.from(data as ArrayLike<number | bigint>, Number), shape, "int32");
}

async function fromTfjs(tensor: TfTensor): Promise<Tensor> {
  const data = (await tensor.data()) as Tensor["data"];
  if (tensor.dtype !== "float32" && tensor.dtype !== "int32" && tensor.dtype !== "bool")
    throw new Error(`an output is ${tensor.dtype}. Expected float32, int32 or bool`);
  return { shape: tensor.shape, dtype: tensor.dtype, data };
}
