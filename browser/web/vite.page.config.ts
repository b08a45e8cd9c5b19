// The page: index.html, its script and style, and the engines' WebAssembly. Nothing is fetched from elsewhere. What lies
// below assets/ has a hash of its contents in its name, so that browsers keep it for good.
import { defaultClientConditions, defineConfig, type Plugin } from "vite";
import { delivery } from "./delivery.ts";

// LiteRT.js 2.5.3 with two changes.
const CHANGES = [
  {
    // It reads and runs int8 and int16 tensors, but its table of types, which it looks at first, leaves them out: "Element
    // type INT8 is not supported". With the two lines its int8 files answer as LiteRT in Python does.
    found: "    elementType: ElementType.UINT8\n  }\n]",
    changed: `    elementType: ElementType.UINT8\n  }${["Int8", "Int16"]
      .map(
        (name) =>
          `, { dtype: "${name.toLowerCase()}", typedArrayConstructor: ${name}Array, elementType: ElementType.${name.toUpperCase()} }`,
      )
      .join("")}]`,
  },
  {
    // It asks for a graphics processor at loading, and warns where there is none. The page asks for one when WebGPU is
    // chosen.
    found: "await Environment.create()",
    changed: "await Environment.create({ webGpuDevice: null })",
  },
];
// the licence asks for it
const NOTICE =
  "/*! Holds @litertjs/core (Apache-2.0), changed by edgeloop: int8 and int16 are added to its types, and it asks for no GPU at loading. */";
const litertChanges: Plugin = {
  name: "litert-changes",
  enforce: "pre",
  transform(code, id) {
    if (!/@litertjs.core.dist.index\.js$/.test(id)) return null;
    for (const { found, changed } of CHANGES) {
      if (code.split(found).length !== 2)
        throw new Error(`${id} has not ${found} once: see CHANGES in vite.page.config.ts`);
      code = code.replace(found, changed);
    }
    return { code, map: null };
  },
};

export default defineConfig({
  root: "src/page",
  base: "./",
  plugins: [litertChanges, delivery],
  // ONNX Runtime Web's default entry would bring copies of its WebAssembly: the page names the files itself
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  build: {
    outDir: "../../../edgeloop/browser/static/page",
    emptyOutDir: true,
    target: "es2023",
    license: { fileName: "licenses.md" },
    rolldownOptions: {
      input: { index: "src/page/index.html", sw: "src/page/offline/service_worker.ts" },
      output: {
        postBanner: NOTICE,
        entryFileNames: ({ name }) => (name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
        chunkFileNames: "assets/[name]-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
      },
    },
  },
});
