// A .tflite with a free first dimension in, the same file with that dimension fixed to the size it was stored with out.
//
// Measured with LiteRT.js 2.5.3: it reads a free dimension as -1 and refuses every tensor for it, even a batch of one
// ("Float32[1, 8, 8, 1] does not match expected Float32[-1, 8, 8, 1]"). Past that check a batch of one runs right, and any
// other batch is resized and then writes out of bounds, which spoils every model of the page. So the free dimension is
// taken out of the file before LiteRT reads it, and tensors.ts runs a larger batch piece by piece.
//
// Source: https://github.com/google-ai-edge/LiteRT/blob/main/tflite/schema/schema.fbs (Model.subgraphs is field 2,
// SubGraph.tensors 0, Tensor.shape 0, Tensor.shape_signature 7; shape holds 1 where shape_signature has -1)

/** Changes `model` in place. Throws when it is not a .tflite file, or an offset points outside it. */
export function fixFreeDimensions(model: Uint8Array): void {
  if (new TextDecoder().decode(model.subarray(4, 8)) !== "TFL3")
    throw new Error("the file is not a .tflite file: the identifier TFL3 is missing");
  try {
    fix(new DataView(model.buffer, model.byteOffset, model.byteLength));
  } catch (error) {
    if (error instanceof RangeError) throw new Error("the .tflite file is damaged: an offset points outside the file");
    throw error;
  }
}

function fix(view: DataView): void {
  for (const graph of tables(view, at(view, 0), 2)) {
    for (const tensor of tables(view, graph, 0)) {
      const shape = vector(view, tensor, 0);
      const signature = vector(view, tensor, 7);
      if (!shape || shape.length !== signature?.length) continue;
      for (let i = 0; i < shape.length; i++) {
        const free = view.getInt32(signature.start + 4 * i, true) < 0;
        if (free) view.setInt32(signature.start + 4 * i, view.getInt32(shape.start + 4 * i, true), true);
      }
    }
  }
}

/** Where the offset stored at `position` points. */
const at = (view: DataView, position: number): number => position + view.getUint32(position, true);

/** Where field `index` of a table is stored; undefined when the table leaves it out. */
function field(view: DataView, table: number, index: number): number | undefined {
  const layout = table - view.getInt32(table, true);
  const entry = 4 + 2 * index;
  const offset = entry < view.getUint16(layout, true) ? view.getUint16(layout + entry, true) : 0;
  return offset ? table + offset : undefined;
}

function vector(view: DataView, table: number, index: number): { start: number; length: number } | undefined {
  const position = field(view, table, index);
  if (position === undefined) return undefined;
  const start = at(view, position);
  return { start: start + 4, length: view.getUint32(start, true) };
}

function* tables(view: DataView, table: number, index: number): Generator<number> {
  const found = vector(view, table, index);
  for (let i = 0; i < (found?.length ?? 0); i++) yield at(view, found!.start + 4 * i);
}
