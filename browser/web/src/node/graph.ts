// A TF.js graph model in a folder: named arrays in, named arrays out.

import { readFileSync, realpathSync } from "node:fs";
import { dirname, isAbsolute, relative, resolve } from "node:path";
import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "../npy";

interface Io {
  name: string;
  dtype?: string;
}

/** What the converter writes for a SavedModel: the signature's names, each with the graph's own tensor. */
interface Signature {
  inputs: Record<string, Io>;
  outputs: Record<string, Io>;
}

export interface Graph {
  signature: Signature;
  model: tf.GraphModel;
}

/** Load `path` and the weights it names. Throws when a path leads out of `root`, or TF.js refuses the model. */
export async function loadGraph(root: string, path: string): Promise<Graph> {
  const file = inside(root, resolve(root, path));
  const json = JSON.parse(readFileSync(file, "utf8"));
  if (json.format !== "graph-model") throw new Error(`${path} has the format ${json.format}. Expected graph-model`);
  const manifest = json.weightsManifest as { paths: string[]; weights: tf.io.WeightsManifestEntry[] }[];
  const shards = manifest.flatMap((group) =>
    group.paths.map((name) => readFileSync(inside(root, resolve(dirname(file), name)))),
  );
  const weights = Buffer.concat(shards);
  const model = await tf.loadGraphModel({
    load: async () => ({
      modelTopology: json.modelTopology,
      format: json.format,
      signature: json.signature,
      userDefinedMetadata: json.userDefinedMetadata,
      weightSpecs: manifest.flatMap((group) => group.weights),
      weightData: weights.buffer.slice(weights.byteOffset, weights.byteOffset + weights.length) as ArrayBuffer,
    }),
  });
  const signature = (json.signature ?? json.userDefinedMetadata?.signature) as Signature | undefined;
  if (!signature?.inputs || !signature.outputs)
    throw new Error(`${path} has no signature, so its tensors have no names`);
  return { model, signature };
}

export async function runGraph(
  { model, signature }: Graph,
  inputs: ReadonlyMap<string, Tensor>,
): Promise<Map<string, Tensor>> {
  const wanted = Object.entries(signature.inputs);
  const missing = wanted.filter(([name]) => !inputs.has(name));
  if (missing.length || inputs.size !== wanted.length)
    throw new Error(`the inputs are named ${[...inputs.keys()]}. Expected ${wanted.map(([name]) => name)}`);
  const given = Object.fromEntries(wanted.map(([name, io]) => [io.name, toTfjs(inputs.get(name)!)]));
  const names = Object.keys(signature.outputs);
  let results: tf.Tensor[] = [];
  try {
    const found = await model.executeAsync(
      given,
      names.map((name) => signature.outputs[name]!.name),
    );
    results = Array.isArray(found) ? found : [found];
    return new Map(await Promise.all(names.map(async (name, i) => [name, await fromTfjs(results[i]!)] as const)));
  } finally {
    tf.dispose([Object.values(given), results]);
  }
}

/** TF.js has float32, int32 and bool. Integers of another width become int32, as its converter does in the graph. */
function toTfjs({ shape, dtype, data }: Tensor): tf.Tensor {
  if (dtype === "float32" || dtype === "bool") return tf.tensor(data as Float32Array, shape, dtype);
  if (dtype === "float64")
    throw new Error("an input is float64, but TF.js computes in float32. Cast the input to float32");
  return tf.tensor(Int32Array.from(data as ArrayLike<number | bigint>, Number), shape, "int32");
}

async function fromTfjs(tensor: tf.Tensor): Promise<Tensor> {
  const data = (await tensor.data()) as Tensor["data"];
  if (tensor.dtype !== "float32" && tensor.dtype !== "int32" && tensor.dtype !== "bool")
    throw new Error(`an output is ${tensor.dtype}. Expected float32, int32 or bool`);
  return { shape: tensor.shape, dtype: tensor.dtype, data };
}

function inside(root: string, path: string): string {
  const real = realpathSync(path);
  const way = relative(realpathSync(root), real);
  if (way.startsWith("..") || isAbsolute(way)) throw new Error(`${path} is outside the model's folder`);
  return real;
}
