// After the build: compress what is worth it, once, and list every file for the page's server (files.json).
//
// Of a compressed file only the compressed forms stay, gzip always and Brotli for files below 1 MiB: the server unpacks
// for the rare client that takes neither. Brotli would shrink LiteRT's WebAssembly from 2.85 to 2.27 MB, which a
// browser on the same machine does not notice, and would make the wheel that much larger.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import type { Plugin } from "vite";

const LIST = "files.json";
const WHOLE = ["index.html"]; // the server writes into it
const WORKER = "sw.js";
const BROTLI_LIMIT_BYTES = 1 << 20;

let folder = "";

export const delivery: Plugin = {
  name: "delivery",
  apply: "build",
  configResolved(config) {
    folder = join(config.root, config.build.outDir);
  },
  closeBundle: {
    order: "post",
    handler() {
      const names = readdirSync(folder, { recursive: true, encoding: "utf8" })
        .map((name) => relative(folder, join(folder, name)))
        .filter((name) => name !== LIST && statSync(join(folder, name)).isFile())
        .sort();
      release(names);
      const files = Object.fromEntries(names.map((name) => [name, pack(name)]));
      writeFileSync(join(folder, LIST), JSON.stringify({ files }));
    },
  },
};

/** The service worker of other files is another one: browsers compare its bytes. */
function release(names: string[]): void {
  const path = join(folder, WORKER);
  const source = readFileSync(path, "utf8");
  const hash = createHash("sha256");
  for (const name of names) hash.update(name).update(readFileSync(join(folder, name)));
  const named = source.replace("__RELEASE__", hash.digest("hex").slice(0, 16));
  if (named === source) throw new Error(`${WORKER} has no place for its release`);
  writeFileSync(path, named);
}

/** Its row in files.json; the compressed forms lie beside it, or in its place. */
function pack(name: string): { bytes: number; sha256: string; forms: string[] } {
  const path = join(folder, name);
  const data = readFileSync(path);
  const forms: string[] = [];
  const zipped = gzipSync(data, { level: 9 });
  if (!WHOLE.includes(name) && zipped.length < 0.9 * data.length) {
    writeFileSync(`${path}.gz`, zipped);
    forms.push("gz");
    if (data.length < BROTLI_LIMIT_BYTES) {
      const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: data.length };
      writeFileSync(`${path}.br`, brotliCompressSync(data, { params }));
      forms.push("br");
    }
    rmSync(path);
  }
  return { bytes: data.length, sha256: createHash("sha256").update(data).digest("hex"), forms };
}
