// Image tensors: a picture to a tensor in the model's own size, range, channels and type, and back to a picture.

import { arrayOf, type Tensor } from "../../npy";
import type { TensorSpec } from "../bundle";

export interface Layout {
  height: number;
  width: number;
  channels: 1 | 3;
  /** The tensor is [batch, channels, height, width]. */
  channelsFirst: boolean;
  low: number;
  high: number;
}

/** The input that is one image with 1 or 3 channels; undefined when it is not, or a dimension is free. */
export function imageLayout({ kind, shape, range, layout }: TensorSpec, examples?: Tensor): Layout | undefined {
  const channelsFirst = layout === "NCHW";
  const [height, width, channels] = channelsFirst ? [shape[2], shape[3], shape[1]] : shape.slice(1);
  if (kind !== "image" || shape.length !== 4 || !height || !width || (channels !== 1 && channels !== 3))
    return undefined;
  // A range is what real inputs spanned: one gray image spans nothing, and a drawing needs two ends.
  const [low, high] = range && range[0] < range[1] ? range : usualRange(examples);
  return { height, width, channels, channelsFirst, low, high };
}

/** Of the ranges that image models are trained with, the one the examples fit: 0..255, -1..1 or 0..1. */
function usualRange(examples: Tensor | undefined): [number, number] {
  const values = Array.from((examples?.data ?? []) as ArrayLike<number | bigint>, Number);
  if (values.some((value) => value > 2)) return [0, 255];
  return [values.some((value) => value < 0) ? -1 : 0, 1];
}

/** Whether the image is small enough to draw by hand: a model of photographs cannot classify a sketch. */
export const isSketchable = ({ height, width }: Layout): boolean => Math.max(height, width) <= 64;

/** Shares from 0 to 1, [height * width * channels], as one sample in the model's range; integers are rounded. */
export function tensorOf(shares: ArrayLike<number>, layout: Layout, dtype: string): Tensor {
  const { height, width, channels, channelsFirst, low, high } = layout;
  const values = new Float64Array(shares.length);
  for (let i = 0; i < shares.length; i++) {
    const real = low + (high - low) * shares[i]!;
    values[place(i, layout)] = dtype.startsWith("float") ? real : Math.round(real);
  }
  const shape = channelsFirst ? [1, channels, height, width] : [1, height, width, channels];
  return { shape, dtype: dtype as Tensor["dtype"], data: arrayOf(dtype, values) };
}

/** Sample `i` as shares from 0 (low end of the range) to 1, [height * width * channels]. */
export function unit(images: Tensor, i: number, layout: Layout): number[] {
  const length = images.data.length / images.shape[0]!;
  const values = images.data.slice(i * length, (i + 1) * length);
  const { low, high } = layout;
  return Array.from({ length }, (_, at) =>
    Math.min(1, Math.max(0, (Number(values[place(at, layout)]) - low) / (high - low))),
  );
}

/** Where the tensor has the value that is `i`th with the channels last. */
const place = (i: number, { height, width, channels, channelsFirst }: Layout): number =>
  channelsFirst ? (i % channels) * height * width + Math.floor(i / channels) : i;

/** Paint shares from 0 to 1, one canvas pixel per image pixel; the style sheet enlarges it. */
export function paint(canvas: HTMLCanvasElement, values: ArrayLike<number>, { height, width, channels }: Layout): void {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d")!;
  const pixels = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = 255 * values[i * channels + Math.min(c, channels - 1)]!;
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}
