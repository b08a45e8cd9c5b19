// NumPy's .npy and .npz, read and written.
// Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

import { unzipSync, zipSync } from "fflate";

const ARRAYS = {
  float32: { descr: "<f4", make: (b: ArrayBuffer) => new Float32Array(b) },
  float64: { descr: "<f8", make: (b: ArrayBuffer) => new Float64Array(b) },
  int8: { descr: "|i1", make: (b: ArrayBuffer) => new Int8Array(b) },
  uint8: { descr: "|u1", make: (b: ArrayBuffer) => new Uint8Array(b) },
  int16: { descr: "<i2", make: (b: ArrayBuffer) => new Int16Array(b) },
  uint16: { descr: "<u2", make: (b: ArrayBuffer) => new Uint16Array(b) },
  int32: { descr: "<i4", make: (b: ArrayBuffer) => new Int32Array(b) },
  int64: { descr: "<i8", make: (b: ArrayBuffer) => new BigInt64Array(b) },
  bool: { descr: "|b1", make: (b: ArrayBuffer) => new Uint8Array(b) },
};

export type Dtype = keyof typeof ARRAYS;
export type Numbers = ReturnType<(typeof ARRAYS)[Dtype]["make"]>;

/** A named array's value: C order, `data.length` is the product of `shape`. */
export interface Tensor {
  shape: number[];
  dtype: Dtype;
  data: Numbers;
}

export const size = (shape: readonly number[]): number => shape.reduce((product, n) => product * n, 1);

/** The typed array of `dtype` over a copy of `bytes`. Throws for a dtype NumPy and JavaScript do not share. */
export function numbers(dtype: string, bytes: Uint8Array): Numbers {
  if (!isDtype(dtype))
    throw new Error(`the dtype ${dtype} is not supported. Expected one of ${Object.keys(ARRAYS).join(", ")}`);
  return ARRAYS[dtype].make(bytes.slice().buffer); // the copy starts at 0, so it is aligned
}

/** `values` as an array of `dtype`. Fractions are cut from integers, as typed arrays do. */
export function arrayOf(dtype: string, values: ArrayLike<number>): Numbers {
  const width = numbers(dtype, new Uint8Array(8)).BYTES_PER_ELEMENT;
  const array = numbers(dtype, new Uint8Array(values.length * width));
  for (let i = 0; i < values.length; i++) array[i] = array instanceof BigInt64Array ? BigInt(values[i]!) : values[i]!;
  return array;
}

/** Smallest and largest number of each type of whole numbers, as far as JavaScript counts in steps of one. */
export const LIMITS: Readonly<Record<string, readonly [number, number]>> = {
  bool: [0, 1],
  int8: [-128, 127],
  uint8: [0, 255],
  int16: [-32768, 32767],
  uint16: [0, 65535],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  int64: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
};

export const bytesOf = (data: Numbers): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

export const fromBase64 = (text: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

export const isDtype = (name: string): name is Dtype => Object.hasOwn(ARRAYS, name);

/** All arrays of an .npz by name. */
export function readNpz(bytes: Uint8Array): Map<string, Tensor> {
  return new Map(Object.entries(unzipSync(bytes)).map(([file, npy]) => [file.replace(/\.npy$/, ""), readNpy(npy)]));
}

/** An .npz that np.load opens, stored without compression. */
export function writeNpz(arrays: ReadonlyMap<string, Tensor>): Uint8Array {
  return zipSync(Object.fromEntries([...arrays].map(([name, value]) => [`${name}.npy`, writeNpy(value)])), {
    level: 0,
  });
}

export function readNpy(npy: Uint8Array): Tensor {
  const view = new DataView(npy.buffer, npy.byteOffset, npy.byteLength);
  if (npy[0] !== 0x93 || new TextDecoder().decode(npy.subarray(1, 6)) !== "NUMPY")
    throw new Error("the file is not a .npy file: its magic string is missing");
  const wide = npy[6] !== 1; // version 1.0 has a 2-byte length, later ones 4
  const start = wide ? 12 : 10;
  const end = start + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder("latin1").decode(npy.subarray(start, end));
  const descr = /'descr':\s*'([^']+)'/.exec(header)?.[1];
  const shape = /'shape':\s*\(([^)]*)\)/
    .exec(header)?.[1]
    ?.split(",")
    .filter((n) => n.trim())
    .map(Number);
  const dtype = (Object.keys(ARRAYS) as Dtype[]).find((name) => ARRAYS[name].descr === descr);
  if (!dtype || !shape)
    throw new Error(
      `the array has the type ${descr ?? "unknown"}. Expected one of ${Object.values(ARRAYS).map(({ descr }) => descr)}`,
    );
  const data = numbers(dtype, npy.subarray(end));
  if (data.length !== size(shape))
    throw new Error(`the array of shape (${shape}) has ${data.length} values. Expected ${size(shape)}`);
  const columnsFirst = /'fortran_order':\s*True/.test(header);
  return { shape, dtype, data: columnsFirst ? rowsFirst(data, shape) : data };
}

function writeNpy({ shape, dtype, data }: Tensor): Uint8Array {
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const header = `{'descr': '${ARRAYS[dtype].descr}', 'fortran_order': False, 'shape': (${tuple}), }`;
  const padded = `${header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11)}\n`; // data starts at a multiple of 64
  const npy = new Uint8Array(10 + padded.length + data.byteLength);
  npy.set([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, padded.length & 255, padded.length >> 8]);
  npy.set(new TextEncoder().encode(padded), 10);
  npy.set(bytesOf(data), 10 + padded.length);
  return npy;
}

/** Fortran order to C order: NumPy keeps the order of an array that was transposed before it was saved. */
function rowsFirst(data: Numbers, shape: readonly number[]): Numbers {
  const ordered = data.slice();
  const steps = shape.map((_, axis) => size(shape.slice(0, axis)));
  for (let i = 0; i < data.length; i++) {
    let rest = i;
    let from = 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += (rest % shape[axis]!) * steps[axis]!;
      rest = Math.floor(rest / shape[axis]!);
    }
    ordered[i] = data[from]!;
  }
  return ordered;
}
