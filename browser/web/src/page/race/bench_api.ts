// What `edgeloop bench --on browser` calls: one file opened by one engine, which is then measured as the file's own
// tensors store their numbers. Answers follow runtime/agent/protocol.py.

import packages from "../../../package.json";
import { type Bundle, type Manifest, openBundle, urlOf, type Variant } from "../bundle";
import { type Engine, engineOf, type Model } from "../engines/engine";
import { type Tensors, timed } from "../engines/tensors";
import { threadCount } from "../engines/threads";

/** The version of the library that the engine is of, as the page was built with it. */
export function version(id: string): string {
  const { runtime } = engineOf(id);
  const found = Object.entries(packages.dependencies).find(([name]) => PACKAGES[runtime] === name);
  if (!found) throw new Error(`the page was built without a library for ${id}`);
  return found[1];
}

const PACKAGES: Record<string, string> = {
  litertjs: "@litertjs/core",
  tfjs: "@tensorflow/tfjs",
  "onnxruntime-web": "onnxruntime-web",
};

let opened: Model | undefined;
let began: number | undefined;

/** Open `file` of the bundle that this server serves, or where it serves one file alone, that file. */
export async function openFile(id: string, file: string, threads: number) {
  const engine = engineOf(id);
  const missing = await engine.missing();
  if (missing) throw new Error(missing);
  if (threads !== threadCount())
    throw new Error(
      `this page runs models with ${threadCount()} threads, not ${threads}. Pass --threads ${threadCount()}`,
    );
  const { bundle, variant } = await find(engine, file);
  const model = await engine.open(bundle, variant);
  opened = model;
  const specs = bundle.manifest.signatures[model.signature]!.inputs;
  const inputs = [...model.program.inputs].map(([name, { shape, dtype }]) => {
    const real = specs.find((spec) => spec.name === name)?.dtype ?? "float32";
    return [name, { shape, dtype: dtype ?? variant.io?.[name]?.dtype ?? real }];
  });
  return {
    load_ms: model.cold.download_ms + model.cold.compile_ms,
    import_ms: model.cold.init_ms,
    signatures: { [model.signature]: { inputs: Object.fromEntries(inputs), outputs: {} } },
  };
}

/** Run what was opened `warmup` + `runs` times. `started_s`: when each run began, since the first of all. */
export async function measure(inputs: Tensors, warmup: number, runs: number) {
  if (!opened) throw new Error("no file is open: openFile comes first");
  const { program } = opened;
  for (let i = 0; i < warmup; i++) await timed(program, inputs);
  const wall_ms: number[] = [];
  const started_s: number[] = [];
  let outputs: Tensors = {};
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    began ??= start;
    const done = await timed(program, inputs);
    wall_ms.push(done.wall_ms[0]!);
    started_s.push((start - began) / 1e3);
    outputs = done.outputs;
  }
  return { outputs, wall_ms, started_s };
}

async function find(engine: Engine, file: string): Promise<{ bundle: Bundle; variant: Variant }> {
  const listed = (await fetch(urlOf("manifest.json"))).ok;
  const bundle = listed ? await openBundle() : bare(file);
  const variant = bundle.manifest.variants.find(({ entry }) => entry === file);
  if (!variant) throw new Error(`the bundle has no variant with the file ${file}`);
  const refused = engine.refuses(bundle, variant);
  if (refused) throw new Error(refused);
  return { bundle, variant };
}

/** A bundle of one file, of which nothing is known but what the file itself says. */
function bare(file: string): Bundle {
  const variant: Variant = {
    id: file,
    entry: file,
    files: [file],
    format: file.split(".").at(-1)!, // .tflite or .onnx
    scheme: "float32",
    signatures: ["infer"],
    requires: {},
  };
  const manifest: Manifest = {
    format: "edgeloop-bundle/1",
    name: file,
    version: 1,
    source: { file, format: variant.format },
    files: {},
    signatures: { infer: { inputs: [], outputs: [] } },
    variants: [variant],
  };
  return { manifest, reference: undefined, parity: [] };
}
