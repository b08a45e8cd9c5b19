// A page of one's own that runs one variant, as text to paste: input names, shapes, ranges and quantization are filled in.
//
// Names and labels come from a bundle that someone else made: they go into the text as JSON, in which `<` is escaped, so
// that no name ends the script.

import { type Bundle, inferenceSignature, type TensorSpec, type Variant } from "../bundle";

export interface Snippet {
  /** What to put beside the page before it is opened. */
  needs: string;
  code: string;
}

export const LITERT = "2.5.3"; // of package.json: a test compares them
export const TFJS = "4.22.0";
const ARRAYS: Record<string, string> = { float32: "Float32Array", int32: "Int32Array", uint8: "Uint8Array" };

/** Throws in words where a package as published cannot run the variant. */
export function snippetOf(bundle: Bundle, variant: Variant): Snippet {
  const signature = inferenceSignature(bundle, variant);
  if (signature === undefined) throw new Error("The variant has no signature that can be run.");
  if (variant.format === "tflite") return litertSnippet(bundle, variant, signature);
  if (variant.format === "tfjs") return tfjsSnippet(bundle, variant, signature);
  throw new Error(`There is no snippet for the format ${variant.format}. Choose a .tflite or a TF.js variant.`);
}

function litertSnippet({ manifest }: Bundle, variant: Variant, signature: string): Snippet {
  const { inputs, outputs } = manifest.signatures[signature]!;
  const stored = [...inputs, ...outputs].map((spec) => variant.io?.[spec.name]?.dtype ?? spec.dtype);
  const refused = stored.find((dtype) => !(dtype in ARRAYS));
  if (refused)
    throw new Error(
      `LiteRT.js ${LITERT} as published takes no ${refused} tensors. Choose a variant with float32 inputs and outputs.`,
    );
  const body = `import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

${quantizer(inputs, variant)}
await loadLiteRt("./node_modules/@litertjs/core/wasm/");
const file = new Uint8Array(await (await fetch(${literal(addressOf(variant.entry))})).arrayBuffer());
fixFreeDimensions(file);
const model = await loadAndCompile(file, { accelerator: "wasm" });
const signature = model.signatures[${literal(signature)}] ?? Object.values(model.signatures)[0];

const inputs = {
${inputs.map((spec) => `  ${literal(spec.name)}: ${litertInput(spec, variant)},`).join("\n")}
};
const outputs = await signature.run(inputs);
${outputs.map((spec) => shown(spec, `${fromStored(spec, variant, `outputs[${literal(spec.name)}].toTypedArray()`)}`)).join("\n")}

// LiteRT.js ${LITERT} takes a free dimension (shape -1) for a size and refuses every tensor: use the size in the file.
function fixFreeDimensions(bytes) {
  const view = new DataView(bytes.buffer);
  const u32 = (at) => view.getUint32(at, true);
  const field = (table, index) => {
    const layout = table - view.getInt32(table, true);
    const entry = 4 + 2 * index;
    const offset = entry < view.getUint16(layout, true) ? view.getUint16(layout + entry, true) : 0;
    return offset ? table + offset + u32(table + offset) : 0;
  };
  const each = (list, visit) => {
    for (let i = 0; list && i < u32(list); i++) visit(list + 4 + 4 * i);
  };
  each(field(u32(0), 2), (graph) =>
    each(field(graph + u32(graph), 0), (at) => {
      const [shape, free] = [field(at + u32(at), 0), field(at + u32(at), 7)];
      each(free, (size) => {
        if (view.getInt32(size, true) < 0) view.setInt32(size, u32(shape + size - free), true);
      });
    }),
  );
}`;
  const map = {
    imports: {
      "@litertjs/core": "./node_modules/@litertjs/core/dist/index.js",
      "@litertjs/wasm-utils": "./node_modules/@litertjs/wasm-utils/dist/index.js",
    },
  };
  return {
    needs: `Run npm install @litertjs/core@${LITERT} in the folder of your page, and copy ${variant.entry} there.`,
    code: page(`<script type="importmap">${JSON.stringify(map)}</script>\n<script type="module">`, body),
  };
}

function tfjsSnippet({ manifest }: Bundle, variant: Variant, signature: string): Snippet {
  const { inputs, outputs } = manifest.signatures[signature]!;
  const body = `const model = await tf.loadGraphModel(${literal(addressOf(variant.entry))});
const { inputs: ins, outputs: outs } = model.modelSignature;

const inputs = {
${inputs.map((spec) => `  [ins[${literal(spec.name)}].name]: ${tfjsInput(spec)},`).join("\n")}
};
${outputs.map((spec) => shown(spec, `[...await (await model.executeAsync(inputs, outs[${literal(spec.name)}].name)).data()]`)).join("\n")}`;
  const script = "./node_modules/@tensorflow/tfjs/dist/tf.min.js";
  return {
    needs: `Run npm install @tensorflow/tfjs@${TFJS} in the folder of your page, and copy ${variant.files.join(", ")} there.`,
    code: page(`<script src="${script}"></script>\n<script type="module">`, body),
  };
}

const page = (head: string, body: string): string =>
  `<!doctype html>\n<meta charset="utf-8" />\n<pre id="result"></pre>\n${head}\n${body}\n</script>\n`;

/** A value as JavaScript inside a script element. */
const literal = (value: unknown): string => JSON.stringify(value).replaceAll("<", "\\u003c");

const sizes = ({ shape }: TensorSpec): number[] => shape.map((size) => size ?? 1);

/** A file beside the page, as an address. */
const addressOf = (file: string): string => `./${file.split("/").map(encodeURIComponent).join("/")}`;

/** TF.js has float32, int32 and bool: integers of another width become int32, as its converter does in the graph. */
function tfjsInput(spec: TensorSpec): string {
  const dtype = /^u?int\d+$/.test(spec.dtype) ? "int32" : spec.dtype;
  if (!["float32", "int32", "bool"].includes(dtype))
    throw new Error(`TF.js ${TFJS} takes no ${dtype} tensors. Choose a variant with float32 inputs.`);
  return `tf.tensor(${values({ ...spec, dtype })}, ${JSON.stringify(sizes(spec))}, "${dtype}")`;
}

/** Zeros of the input's size, with what belongs there. */
function values(spec: TensorSpec): string {
  const count = sizes(spec).reduce((product, size) => product * size, 1);
  const range = spec.range ? `, from ${spec.range[0]} to ${spec.range[1]}` : "";
  const layout = spec.layout ? `, ${spec.layout}` : "";
  const rate = spec.sample_rate_hz ? `, ${spec.sample_rate_hz} Hz` : "";
  return `/* your own values${plain(`${range}${layout}${rate}`)} */ new ${ARRAYS[spec.dtype] ?? "Float32Array"}(${count})`;
}

/** In a comment of the snippet. */
const plain = (text: string): string => text.replace(/[^\w .,-]/g, "");

function litertInput(spec: TensorSpec, variant: Variant): string {
  const end = variant.io?.[spec.name];
  const quantized = end?.scale && end.dtype !== spec.dtype;
  const data = quantized ? `quantize(${values(spec)}, ${end.scale}, ${end.zero_point})` : values(spec);
  return `new Tensor(${data}, ${JSON.stringify(sizes(spec))})`;
}

function fromStored(spec: TensorSpec, variant: Variant, data: string): string {
  const end = variant.io?.[spec.name];
  return end?.scale && end.dtype !== spec.dtype
    ? `Array.from(${data}, (stored) => (stored - ${end.zero_point}) * ${end.scale})`
    : `[...${data}]`;
}

/** The function that a quantized input needs; only uint8 comes here, see ARRAYS. */
function quantizer(inputs: TensorSpec[], variant: Variant): string {
  const quantized = inputs.some(({ name, dtype }) => variant.io?.[name]?.scale && variant.io[name].dtype !== dtype);
  return quantized
    ? `const quantize = (values, scale, zero) =>
  Uint8Array.from(values, (value) => Math.min(255, Math.max(0, Math.round(value / scale) + zero)));
`
    : "";
}

/** Write an output into the page; a classifier's with its labels. */
function shown(spec: TensorSpec, data: string): string {
  const labels = spec.labels.length ? `, labels: ${literal(spec.labels)}` : "";
  return `document.getElementById("result").textContent +=\n  JSON.stringify({ name: ${literal(spec.name)}, values: ${data}${labels} }) + "\\n";`;
}
