// May this page use a variant? The one place that says so: the drawing pad, timing, and whatever else uses one ask here.
//
// A proof is per runtime: the same file can be right on one and garbage on another. So a variant is used if it agrees
// with the source in this tab, or, where a bundle has no reference inputs to see that with, if it was proved on this
// runtime when it was converted. One that fails here is not used, whatever was proved elsewhere.

import type { Variant } from "./bundle";
import { needs, type Parity, reason } from "./parity";

/** LiteRT.js, by the name that edge's runners and manifests give it. */
export const RUNTIME = "litertjs";

export interface Standing {
  used: boolean;
  text: string;
}

/** LiteRT.js reads .tflite alone. */
export const runsHere = (variant: Variant): boolean => variant.format === "tflite";

export const wasProved = (variant: Variant): boolean => variant.requires.runtimes?.includes(RUNTIME) ?? false;

/** What is known of a variant that was not run yet. */
export function beforehand(variant: Variant): string {
  if (!runsHere(variant)) return "not run by this page";
  return wasProved(variant) ? "proved when converted" : "not proved yet: choose it";
}

/** After it ran on the reference inputs. `rows` undefined: the bundle has none of them. */
export function afterwards(variant: Variant, rows: Parity[] | undefined): Standing {
  const failed = rows?.find((row) => !row.passed);
  if (failed) return notUsed(failed.error ?? `${reason(failed)}; ${variant.scheme} needs ${needs(variant.scheme)}`);
  if (wasProved(variant)) return { used: true, text: "proved when converted" };
  if (rows?.length) return { used: true, text: "proved here" };
  return notUsed("never proved on LiteRT.js, and the bundle holds no reference inputs to prove it here");
}

/** LiteRT.js or the server threw `error`. */
export function refused(error: unknown): Standing {
  const said = error instanceof Error ? error.message : String(error);
  const words = said.replace(/(└ )?ERROR: \[[^\]]*\]\s*/g, ""); // LiteRT's own source lines, often with nothing after them
  return notUsed(`LiteRT.js cannot run it${words && `: ${words}`}`);
}

const notUsed = (why: string): Standing => ({ used: false, text: `NOT used: ${why}` });
