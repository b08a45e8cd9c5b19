// The page: index.html, its script and style, and LiteRT's WebAssembly beside them. Nothing is fetched from elsewhere.
import { defaultClientConditions, defineConfig, type Plugin } from "vite";

// LiteRT.js 2.5.3 reads and runs int8 and int16 tensors, but its table of types, which it looks at first, leaves them out:
// "Element type INT8 is not supported". With the two lines its int8 files answer as LiteRT in Python does.
const TABLE_END = "    elementType: ElementType.UINT8\n  }\n]";
const NOTICE = "/*! Holds @litertjs/core (Apache-2.0), changed by edgeloop: int8 and int16 are added to its types. */"; // the licence asks for it
const litertTypes: Plugin = {
  name: "litert-types",
  enforce: "pre",
  transform(code, id) {
    if (!/@litertjs.core.dist.index\.js$/.test(id)) return null;
    if (code.split(TABLE_END).length !== 2)
      throw new Error(`${id} has another table of types: see litertTypes in vite.page.config.ts`);
    const added = ["Int8", "Int16"].map(
      (name) =>
        `, { dtype: "${name.toLowerCase()}", typedArrayConstructor: ${name}Array, elementType: ElementType.${name.toUpperCase()} }`,
    );
    return { code: code.replace(TABLE_END, `${TABLE_END.slice(0, -2)}${added.join("")}]`), map: null };
  },
};

export default defineConfig({
  root: "src/page",
  base: "./",
  plugins: [litertTypes],
  // ONNX Runtime Web's default entry would bring copies of its WebAssembly: the page names the files itself
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  build: {
    outDir: "../../../edgeloop/browser/static/page",
    emptyOutDir: true,
    target: "es2023",
    license: { fileName: "licenses.md" },
    rolldownOptions: {
      output: {
        postBanner: NOTICE,
        entryFileNames: "[name].js",
        chunkFileNames: "[name].js",
        assetFileNames: "[name][extname]",
      },
    },
  },
});
