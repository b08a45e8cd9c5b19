// How much memory WebAssembly has in this page, by engine. Engines do not tell: their memories are caught where
// WebAssembly is instantiated. Imported first of all, for an engine that is already there is not seen.

// weak: what an engine let go of may be collected
const memories = new Map<string, WeakRef<WebAssembly.Memory>[]>();
let opening = "";

/** Bytes of the engine's memories: they grow and never shrink. Undefined: it has none that was seen. */
export function heapBytes(engine: string): number | undefined {
  const own = memoriesOf(engine);
  return own.length ? own.reduce((sum, memory) => sum + memory.buffer.byteLength, 0) : undefined;
}

/** The engine gave all its memories back: they count no longer, collected or not. */
export const forgetHeaps = (engine: string): boolean => memories.delete(engine);

const memoriesOf = (engine: string): WebAssembly.Memory[] =>
  (memories.get(engine) ?? []).flatMap((memory) => memory.deref() ?? []);

/** What is instantiated while `work` runs belongs to `engine`. One engine is opened at a time. */
export async function openingOf<T>(engine: string, work: () => Promise<T>): Promise<T> {
  opening = engine;
  try {
    return await work();
  } finally {
    opening = "";
  }
}

/** Take part in every later instantiation. */
export function watchHeaps(wasm: typeof WebAssembly = WebAssembly): void {
  const { instantiate, instantiateStreaming } = wasm;
  wasm.instantiate = (async (source: BufferSource, imports?: WebAssembly.Imports) =>
    noted(await instantiate(source, imports), imports)) as typeof instantiate;
  if (instantiateStreaming)
    wasm.instantiateStreaming = async (source, imports) => noted(await instantiateStreaming(source, imports), imports);
}

function noted<T extends WebAssembly.WebAssemblyInstantiatedSource | WebAssembly.Instance>(
  made: T,
  imports?: WebAssembly.Imports,
): T {
  const { exports } = made instanceof WebAssembly.Instance ? made : made.instance;
  const given = Object.values(imports ?? {}).flatMap((module) => Object.values(module));
  for (const value of [...given, ...Object.values(exports)])
    if (value instanceof WebAssembly.Memory)
      memories.set(
        opening,
        [...new Set([...memoriesOf(opening), value])].map((memory) => new WeakRef(memory)),
      );
  return made;
}
