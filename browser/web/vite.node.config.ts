// The TF.js runner for Node: one file that needs no node_modules.
import { defineConfig } from "vite";

export default defineConfig({
  define: { __dirname: "'.'" }, // emscripten asks for it, though its one file is inside
  ssr: { noExternal: true },
  build: {
    ssr: "src/node/tfjs_runner.ts",
    outDir: "../edgeloop/browser/static/node",
    emptyOutDir: true,
    target: "node20",
    minify: true,
    license: { fileName: "licenses.md" },
    rolldownOptions: { output: { entryFileNames: "[name].mjs", codeSplitting: false } },
  },
});
