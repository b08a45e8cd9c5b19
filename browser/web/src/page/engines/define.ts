// An Engine made of what differs between engines: its names, its library, what it refuses.

import { type Bundle, inferenceSignature, type Variant } from "../bundle";
import { bundleFile } from "../offline/download";
import { openingOf } from "../race/heap";
import { timeDownloads } from "./downloads";
import type { ColdStart, Engine, Model } from "./engine";
import { explained } from "./failures";
import { type Quantization, toReal, toStored } from "./quantization";
import { batchOf, type Program, type Tensors, timed } from "./tensors";

/** The contents of a variant's files by their names in the bundle. */
export type Files = ReadonlyMap<string, Uint8Array>;

export interface OpenedProgram extends Program {
  close(): void;
}

/** The loaded library of an engine. */
export interface Library {
  /** Compile one signature of the variant; `signature` is its name in the manifest. */
  open(files: Files, variant: Variant, signature: string): Promise<OpenedProgram>;
}

export interface Definition extends Pick<Engine, "id" | "name" | "runtime" | "missing" | "refuses"> {
  /** Load and initialize the library; later calls give the same one. */
  library(): Promise<Library>;
}

export function defineEngine({ library, ...names }: Definition): Engine {
  const explaining = <T>(work: Promise<T>): Promise<T> =>
    work.catch((error) => {
      throw explained(names.name, error);
    });
  const engine: Engine = {
    ...names,
    async open(bundle, variant) {
      const refused = names.refuses(bundle, variant);
      if (refused) throw new Error(refused);
      const signature = inferenceSignature(bundle, variant);
      if (signature === undefined)
        throw new Error(`no signature of the variant (${variant.signatures.join(", ")}) takes the reference inputs`);
      return openingOf(engine.id, async () => {
        const opened = timeDownloads(() => Promise.all([fetchFiles(bundle, variant), explaining(library())]));
        const { result, download_ms, wall_ms } = await opened;
        const [files, loaded] = result;
        const start = performance.now();
        const program = await explaining(loaded.open(files, variant, signature));
        const cold = { download_ms, init_ms: wall_ms - download_ms, compile_ms: performance.now() - start };
        const run = (inputs: Tensors) => explaining(program.run(inputs));
        return modelOf(engine, bundle, variant, signature, { ...program, run }, cold);
      });
    },
  };
  return engine;
}

async function fetchFiles({ manifest }: Bundle, variant: Variant): Promise<Files> {
  return new Map(
    await Promise.all(variant.files.map(async (file) => [file, await bundleFile(manifest, file)] as const)),
  );
}

function modelOf(
  engine: Engine,
  bundle: Bundle,
  variant: Variant,
  signature: string,
  program: OpenedProgram,
  cold: ColdStart,
): Model {
  const { inputs, outputs } = bundle.manifest.signatures[signature]!;
  // where the source itself takes or gives integers, those are the numbers to compare
  const real = [...inputs, ...outputs].filter(({ dtype }) => dtype.startsWith("float")).map((spec) => spec.name);
  const io = new Map(Object.entries(variant.io ?? {}).filter(([tensor]) => real.includes(tensor)));
  return {
    engine,
    variant,
    signature,
    batch: batchOf(program),
    cold,
    program,
    async run(given, warmup, runs) {
      const { outputs, wall_ms, first_ms } = await timed(program, converted(given, io, toStored), warmup, runs);
      cold.first_run_ms ??= first_ms;
      return { outputs: converted(outputs, io, toReal), wall_ms };
    },
    close: () => program.close(),
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
