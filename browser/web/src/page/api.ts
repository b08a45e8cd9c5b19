// What programs call in the page, with arrays as JSON: a .tflite at an address by `edgeloop.infer` and `edgeloop.run`,
// which take what its tensors store; a variant of the served bundle in any engine by `edgeloop.open` and `edgeloop.runModel`,
// which take real numbers.

import { arrayOf, bytesOf, fromBase64, numbers, size } from "../npy";
import { type Bundle, openBundle } from "./bundle";
import { capabilities } from "./engines/capabilities";
import { ENGINES, engineOf, type Model } from "./engines/engine";
import type { LitertFile } from "./engines/litert_library";
import { type Tensors, timed } from "./engines/tensors";

/** `data`: base64 of little-endian bytes in C order, or plain numbers. Answers always carry base64. */
export interface PlainTensor {
  shape: number[];
  dtype: string;
  data: string | number[];
}

type Plain = Record<string, PlainTensor>;

export const api = {
  /** Load the model at `url`, so that the first run does not wait for it. Throws when LiteRT refuses it. */
  async load(url: string): Promise<void> {
    await opened(url);
  },

  /** Run a signature once; null: the file has only one. The model at `url` is loaded at its first use and kept. */
  async infer(url: string, signature: string | null, inputs: Plain): Promise<Plain> {
    return (await api.run(url, signature, inputs, 0, 1)).outputs;
  },

  /** Run it `warmup` + `runs` times and time each of `runs`. */
  async run(url: string, signature: string | null, inputs: Plain, warmup: number, runs: number) {
    const program = (await opened(url)).program(signature);
    const { outputs, wall_ms } = await timed(program, unpack(inputs), warmup, runs);
    return { outputs: pack(outputs), wall_ms };
  },

  /** Train the trainable file at `url` as the page does, from `weights` on (null: those of the file). `inputs`: one
   * array [N, ...] by its name; `orders`: the order of the samples in each epoch. */
  async train(url: string, weights: Plain | null, inputs: Plain, labels: number[], lr: number, orders: number[][]) {
    const { trainPlain } = await import("./train/plain");
    const { weights: trained, losses } = await trainPlain(
      await open(url),
      weights && unpack(weights),
      unpack(inputs),
      labels,
      { lr, orders, epochs: orders.length },
    );
    return { weights: pack(trained), losses };
  },

  capabilities,

  /** Every engine, why this browser cannot run it, and why it refuses variants {variant: reason}; null: nothing is in the way. */
  async engines() {
    const bundle = await servedBundle();
    return Promise.all(
      ENGINES.map(async (engine) => ({
        id: engine.id,
        name: engine.name,
        missing: (await engine.missing()) ?? null,
        refuses: Object.fromEntries(
          bundle.manifest.variants.map((variant) => [variant.id, engine.refuses(bundle, variant) ?? null]),
        ),
      })),
    );
  },

  /** Open a variant of the bundle in an engine, until `close`. Throws when the engine is missing or cannot run it. */
  async open(engine: string, variant: string) {
    const chosen = engineOf(engine);
    const missing = await chosen.missing();
    if (missing) throw new Error(missing);
    const bundle = await servedBundle();
    const found = bundle.manifest.variants.find(({ id }) => id === variant);
    if (!found) throw new Error(`the bundle has no variant ${variant}`);
    api.close(engine, variant);
    const model = await chosen.open(bundle, found);
    models.set(`${engine} ${variant}`, model);
    const { signature, batch, cold } = model;
    return { signature, batch, cold };
  },

  /** Run an opened variant on real numbers, `warmup` + `runs` times. */
  async runModel(engine: string, variant: string, inputs: Plain, warmup: number, runs: number) {
    const model = models.get(`${engine} ${variant}`);
    if (!model) throw new Error(`variant ${variant} is not open in ${engine}`);
    const { outputs, wall_ms } = await model.run(unpack(inputs), warmup, runs);
    return { outputs: pack(outputs), wall_ms, cold: model.cold };
  },

  close(engine: string, variant: string): void {
    models.get(`${engine} ${variant}`)?.close();
    models.delete(`${engine} ${variant}`);
  },

  /** The version of an engine's library. This and the next two are what `edgeloop bench --on browser` calls. */
  async version(engine: string): Promise<string> {
    return (await bench()).version(engine);
  },

  /** Open a file of the bundle with an engine; how it starts, and which inputs it takes. */
  async openFile(engine: string, file: string, threads: number) {
    return (await bench()).openFile(engine, file, threads);
  },

  /** Run the file that was opened, on what its tensors store; the times of each run. */
  async measure(inputs: Plain, warmup: number, runs: number) {
    const { outputs, ...times } = await (await bench()).measure(unpack(inputs), warmup, runs);
    return { outputs: pack(outputs), ...times };
  },
};

const bench = () => import("./race/bench_api");

const models = new Map<string, Model>();
let bundle: Promise<Bundle> | undefined;

function servedBundle(): Promise<Bundle> {
  bundle ??= openBundle();
  bundle.catch(() => {
    bundle = undefined;
  });
  return bundle;
}

declare global {
  interface Window {
    edgeloop: typeof api;
  }
}

const files = new Map<string, Promise<LitertFile>>();

/** The file at `url`, opened once: later calls get the same one. Throws the error of the server or of LiteRT. */
function opened(url: string): Promise<LitertFile> {
  let file = files.get(url);
  if (!file) {
    file = open(url);
    files.set(url, file);
    file.catch(() => files.delete(url)); // a later try starts anew
  }
  return file;
}

async function open(url: string): Promise<LitertFile> {
  const library = import("./engines/litert_library");
  const response = await fetch(url);
  if (!response.ok) throw new Error(`the server answered ${response.status} for ${url}`);
  return (await library).openLitert(new Uint8Array(await response.arrayBuffer()));
}

function unpack(plain: Plain): Tensors {
  return Object.fromEntries(
    Object.entries(plain).map(([name, { shape, dtype, data }]) => {
      const array = typeof data === "string" ? numbers(dtype, fromBase64(data)) : arrayOf(dtype, data);
      if (array.length !== size(shape))
        throw new Error(`input ${name} has ${array.length} values. Expected ${size(shape)} for the shape [${shape}]`);
      return [name, { shape, dtype, data: array }];
    }),
  ) as Tensors;
}

function pack(tensors: Tensors): Plain {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, { shape, dtype, data }]) => [
      name,
      { shape, dtype, data: toBase64(bytesOf(data)) },
    ]),
  );
}

function toBase64(bytes: Uint8Array): string {
  const parts: string[] = [];
  for (let i = 0; i < bytes.length; i += 32768) parts.push(String.fromCharCode(...bytes.subarray(i, i + 32768)));
  return btoa(parts.join(""));
}
