// float32 beside int8 on the bundle's reference inputs: how far each is from the source model, how often the two give the
// same class, and the accuracy of each that the proof has.

import { type Bundle, referenceOf, type Variant } from "../bundle";
import { answers } from "../calls";
import { row } from "../compare";
import type { Engine, Tensors } from "../engines/engine";
import { argmax, compare, isClassifier, type Parity } from "../parity";
import { pause } from "../pause";

/** One variant over all reference inputs. */
export interface Side {
  variant: Variant;
  engine: string;
  parity: Parity[];
  /** Of each reference input; undefined where the model is no classifier. */
  classes: number[] | undefined;
  /** On the labelled data of the conversion, the worst of its runtimes; undefined where there was none. */
  accuracy: number | undefined;
}

export interface SideBySide {
  sides: Side[];
  /** The classes of the source model; undefined where it is no classifier. */
  source: number[] | undefined;
  samples: number;
}

/** Open each variant on its engine, one after another, and run the reference inputs. Throws the engine's error. */
export async function compareSides(bundle: Bundle, pairs: readonly [Variant, Engine][]): Promise<SideBySide> {
  const sides: Side[] = [];
  let [source, samples]: [number[] | undefined, number] = [undefined, 0];
  for (const [variant, engine] of pairs) {
    const model = await engine.open(bundle, variant);
    try {
      const reference = referenceOf(bundle, model.signature)!;
      const outputs = await answers(model, reference);
      const specs = bundle.manifest.signatures[model.signature]!.outputs;
      const labelled = specs.some(({ labels }) => labels.length);
      const classifier = isClassifier(reference.outputs, labelled);
      const output = classifier ? Object.keys(reference.outputs)[0] : undefined; // a classifier's only one
      samples = reference.count;
      source = classesOf(reference.outputs, output, samples);
      sides.push({
        variant,
        engine: engine.name,
        parity: compare(variant.scheme, reference.outputs, outputs, classifier, bundle.manifest.source),
        classes: classesOf(outputs, output, samples),
        accuracy: accuracyOf(bundle, variant),
      });
    } finally {
      model.close();
    }
    await pause();
  }
  return { sides, source, samples };
}

/** How many are the same; undefined where one of them has no classes. */
export const agreeing = (a: number[] | undefined, b: number[] | undefined): number | undefined =>
  a && b ? a.filter((value, i) => value === b[i]).length : undefined;

function classesOf(outputs: Tensors, name: string | undefined, count: number): number[] | undefined {
  const output = name === undefined ? undefined : outputs[name];
  return output && Array.from({ length: count }, (_, i) => argmax(row(output, i)));
}

function accuracyOf({ parity }: Bundle, { id }: Variant): number | undefined {
  const found = parity.filter(({ variant, accuracy }) => variant === id && typeof accuracy === "number");
  return found.length ? Math.min(...found.map(({ accuracy }) => accuracy!)) : undefined;
}
