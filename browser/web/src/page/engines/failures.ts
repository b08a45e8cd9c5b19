// Errors of the engines in words of their user: out of memory and missing operators; anything else as it is, without
// Emscripten's advice to whoever built the library.

// "offset is out of bounds": TF.js writes past WebAssembly's memory where that could not grow. "Failed to allocate tensors"
// is what LiteRT says of any file it cannot prepare
const MEMORY =
  /out of memory|could not allocate|failed to allocate(?! tensors)|offset is out of bounds|allocation fail|cannot enlarge memory|bad_alloc|\bOOM\b|too much memory|not enough memory/i;
const KERNEL = /Kernel '(\w+)' not registered for backend '(\w+)'|Cannot find registered kernel '?(\w+)'? for/;
const UNKNOWN_OPERATOR = /Unknown op '(\w+)'/;

/** `name`: of the engine, `error`: what was thrown. */
export function explained(name: string, error: unknown): Error {
  const said = plainText(error);
  const engine = name.replace(", ", " on "); // within a sentence
  if (MEMORY.test(said))
    return new Error(
      `the memory of this browser is not enough for ${engine}. Close other tabs and reload the page, or choose a smaller variant`,
    );
  const kernel = KERNEL.exec(said);
  if (kernel)
    return new Error(`${engine} has no kernel for the operator ${kernel[1] ?? kernel[3]}. Choose another engine`);
  const operator = UNKNOWN_OPERATOR.exec(said);
  if (operator)
    return new Error(`${engine} does not know the operator ${operator[1]}. Choose another engine or variant`);
  return new Error(said || `${engine} gives no reason`, { cause: error });
}

function plainText(error: unknown): string {
  const said = error instanceof Error ? error.message : String(error);
  return said
    .replace(/^Aborted\((?:\w*Error: )?(.*?)\)\. Build with -s.*$/s, "$1")
    .replace(/ ?Build with -s\w+.*$/s, "")
    .replace(/(└ )?ERROR: \[[^\]]*\]\s*/g, "") // places in LiteRT's source, often without a text
    .trim();
}
