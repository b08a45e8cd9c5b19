// Whether this page may use a variant. The drawing pad, the timing and every other use of a variant ask here.
//
// A proof is per runtime: the same file can be right on one and garbage on another. So a variant is used if it agrees
// with the source in this tab, or, where a bundle has no reference inputs to see that with, if it was proved on this
// engine when it was converted: that is on WebAssembly, for a GPU runs other code. One that fails here is not used,
// whatever was proved elsewhere.

import type { Variant } from "./bundle";
import { judgedAs, needs, type Origin, type Parity, reason } from "./parity";

/** What an engine is called: in the page, by people, and as a runtime in manifests. */
export type Names = { readonly id: string; readonly name: string; readonly runtime: string };

const LITERTJS: Names = { id: "litertjs-wasm", name: "LiteRT.js", runtime: "litertjs" };

export interface Standing {
  used: boolean;
  /** Why. Goes on after a colon, without a full stop. */
  text: string;
}

/** At conversion a runtime for browsers runs on WebAssembly. */
export const wasProved = (variant: Variant, { id, runtime } = LITERTJS): boolean =>
  id.endsWith("-wasm") && (variant.requires.runtimes?.includes(runtime) ?? false);

/** The text of a variant that this page has not run yet; `engine` undefined: none can run it here. */
export function initialStatus(variant: Variant, engine: Names | undefined): string {
  if (!engine) return "not supported";
  return wasProved(variant, engine) ? "parity check passed at conversion" : "not tested yet";
}

/** The standing after a run on the reference inputs. `rows` is undefined when the bundle has no reference inputs. */
export function standingAfterRun(
  variant: Variant,
  rows: Parity[] | undefined,
  source: Origin = {},
  engine = LITERTJS,
): Standing {
  const failed = rows?.find((row) => !row.passed);
  if (failed)
    return {
      used: false,
      text: failed.error ?? `${reason(failed)}. ${variant.scheme} requires ${needs(judgedAs(variant.scheme, source))}`,
    };
  if (rows?.length) return { used: true, text: "parity check passed" };
  if (wasProved(variant, engine)) return { used: true, text: "parity check passed at conversion" };
  return {
    used: false,
    text: `the bundle has no reference inputs for a test, and the variant was not proved on ${engine.name} at conversion`,
  };
}

/** The standing of a variant for which the engine or the server threw `error`. */
export function standingAfterError(error: unknown, engine = LITERTJS): Standing {
  const said = error instanceof Error ? error.message : String(error);
  const words = said.replace(/(└ )?ERROR: \[[^\]]*\]\s*/g, ""); // LiteRT's source lines, often without a text
  return { used: false, text: `${engine.name} cannot run the file${words && `: ${words}`}` };
}
