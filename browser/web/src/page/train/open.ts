// What of a bundle the page trains, and a trainer of it.

import { type Bundle, inferenceSignature, type Variant } from "../bundle";
import { bundleFile } from "../offline/download";
import type { Session } from "../session";
import type { Trainer } from "./trainer";

/** The variant that trains, or why the page trains none. */
export function trainable({ manifest }: Bundle): Variant | string {
  const variant = manifest.variants.find(({ id, format }) => id === "trainable" && format === "tflite");
  if (!variant) return "The bundle has no trainable variant. Convert the model with --trainable.";
  if (!manifest.weights?.length) return "The manifest lists no weights. Convert the model again.";
  return variant;
}

/** The classes of the bundle's one output; undefined: it is no classifier of whole samples. */
export function classesOf(bundle: Bundle, variant: Variant): string[] | undefined {
  const signature = inferenceSignature(bundle, variant) ?? "infer";
  const outputs = bundle.manifest.signatures[signature]?.outputs ?? [];
  const count = outputs.length === 1 && outputs[0]!.shape.length === 2 ? outputs[0]!.shape[1] : undefined;
  if (!count) return undefined;
  const { labels } = outputs[0]!;
  return Array.from({ length: Math.max(2, count) }, (_, i) => labels[i] ?? String(i));
}

export async function openTrainer({ bundle }: Session, variant: Variant, classes: number): Promise<Trainer> {
  const [bytes, { openLitert }, { Trainer }] = await Promise.all([
    bundleFile(bundle.manifest, variant.entry),
    import("../engines/litert_library"),
    import("./trainer"),
  ]);
  return new Trainer(await openLitert(bytes), bundle.manifest.weights!, classes);
}
