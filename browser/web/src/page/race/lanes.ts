// What can race: the variants of the bundle on the engines of this page, and natively on the machine that serves it.

import { type Bundle, referenceOf, type Variant } from "../bundle";
import { oneRun } from "../calls";
import type { Engine } from "../engines/engine";
import { threadCount } from "../engines/threads";
import { ParityWatch } from "../parity/watch";
import { routeUrl } from "../routes";
import { heapBytes } from "./heap";
import type { Contender, Lane } from "./race";

/** The engine's name in rows of a native runtime. */
export const NATIVE = "native";

const MOST_RUNS_NATIVE = 100; // of one request: native_route.py

/** A variant on an engine of this page. Throws when the bundle has no reference inputs. */
export function onEngine(bundle: Bundle, engine: Engine, variant: Variant): Contender {
  return {
    engine: engine.id,
    variant: variant.id,
    async open(): Promise<Lane> {
      const model = await engine.open(bundle, variant);
      const reference = referenceOf(bundle, model.signature);
      if (!reference) throw new Error("the bundle has no reference inputs to run");
      const inputs = oneRun(reference, model.batch);
      const watch = new ParityWatch(bundle, model);
      return {
        cold: model.cold,
        run: async (runs) => (await model.run(inputs, 0, runs)).wall_ms,
        check: () => watch.check(),
        heap_bytes: () => heapBytes(engine.id),
        close: () => model.close(),
      };
    },
  };
}

/** A variant on its own runtime on the machine that serves this page: browser/edgeloop/browser/native_route.py. */
export function natively(variant: Variant): Contender {
  return {
    engine: NATIVE,
    variant: variant.id,
    async open(): Promise<Lane> {
      const { runtime, version, import_ms, load_ms, first_ms } = await ask(variant, 1);
      return {
        about: `${runtime} ${version}`,
        cold: { init_ms: import_ms, compile_ms: load_ms, first_run_ms: first_ms },
        run: async (runs) => (await ask(variant, Math.min(runs, MOST_RUNS_NATIVE))).wall_ms,
        close: () => {}, // the server ends it when it has not been asked for a while
      };
    },
  };
}

interface NativeAnswer {
  runtime: string;
  version: string;
  import_ms: number;
  load_ms: number;
  first_ms: number;
  wall_ms: number[];
}

async function ask({ id }: Variant, runs: number): Promise<NativeAnswer> {
  const query = `?runs=${runs}&threads=${threadCount()}`; // as many as the engines have
  const response = await fetch(routeUrl("native", encodeURIComponent(id)) + query, { method: "POST" });
  if (response.ok) return response.json();
  const said = (await response.json().catch(() => ({}))) as { error?: { found?: string } };
  throw new Error(said.error?.found ?? `the server answered ${response.status}`);
}
