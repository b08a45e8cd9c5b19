// The page: index.html, its script and style, and LiteRT's WebAssembly beside them. Nothing is fetched from elsewhere.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

// Without threads: the facts measured here show none gained on two cores, and threads hang in a worker. "compat" is for
// browsers that lack relaxed SIMD. LiteRT asks for them by these names.
const WASM = ["litert_wasm_internal", "litert_wasm_compat_internal"];

const litertWasm: Plugin = {
  name: "litert-wasm",
  generateBundle() {
    for (const name of WASM.flatMap((stem) => [`${stem}.js`, `${stem}.wasm`])) {
      const source = readFileSync(fileURLToPath(new URL(`node_modules/@litertjs/core/wasm/${name}`, import.meta.url)));
      this.emitFile({ type: "asset", fileName: `litert/${name}`, source });
    }
  },
};

export default defineConfig({
  root: "src/page",
  base: "./",
  plugins: [litertWasm],
  build: {
    outDir: "../../../edgeloop/browser/static/page",
    emptyOutDir: true,
    target: "es2023",
    license: { fileName: "licenses.md" },
    rolldownOptions: {
      output: { entryFileNames: "[name].js", chunkFileNames: "[name].js", assetFileNames: "[name][extname]" },
    },
  },
});
