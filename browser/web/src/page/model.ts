// A variant opened for one signature: real numbers in, real numbers out, whatever its own tensors store.

import { type Bundle, inferenceSignature, urlOf, type Variant } from "./bundle";
import { ownBatch, run, type Tensors, type Timed } from "./engine";
import { type Quantization, toReal, toStored } from "./quantization";

export interface Model {
  variant: Variant;
  signature: string;
  /** The batch size of the file: `run` takes multiples of it. */
  batch: number;
  /** Real inputs, `warmup` + `runs` times; the times leave the conversion out. */
  run(inputs: Tensors, warmup?: number, runs?: number): Promise<Timed>;
}

/** Throws the error of LiteRT.js, and when no signature takes the reference inputs. */
export async function openModel(bundle: Bundle, variant: Variant): Promise<Model> {
  const name = inferenceSignature(bundle, variant);
  if (name === undefined)
    throw new Error(`no signature of the variant (${variant.signatures.join(", ")}) takes the reference inputs`);
  const { inputs, outputs } = bundle.manifest.signatures[name]!;
  // where the source itself takes or gives integers, those are the numbers to compare
  const real = [...inputs, ...outputs].filter(({ dtype }) => dtype.startsWith("float")).map((spec) => spec.name);
  const io = new Map(Object.entries(variant.io ?? {}).filter(([tensor]) => real.includes(tensor)));
  const url = urlOf(variant.entry);
  const key = variant.signatures.length > 1 ? name : null;
  return {
    variant,
    signature: name,
    batch: await ownBatch(url, key),
    async run(given, warmup, runs) {
      const { outputs, wall_ms } = await run(url, key, converted(given, io, toStored), warmup, runs);
      return { outputs: converted(outputs, io, toReal), wall_ms };
    },
  };
}

function converted(tensors: Tensors, io: Map<string, Quantization>, convert: typeof toReal): Tensors {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, tensor]) => {
      const end = io.get(name);
      return [name, end ? convert(tensor, end) : tensor];
    }),
  );
}
