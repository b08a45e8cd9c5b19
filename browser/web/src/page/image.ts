// Image tensors: how to paint one, and where its strokes are.

import type { Tensor } from "../npy";
import type { TensorSpec } from "./bundle";

export interface Layout {
  height: number;
  width: number;
  channels: 1 | 3;
  low: number;
  high: number;
}

/** The input that is one image of [batch, height, width, 1 or 3]; undefined when it is not, or a dimension is free. */
export function imageLayout({ kind, shape, range }: TensorSpec, examples: Tensor | undefined): Layout | undefined {
  const [, height, width, channels] = shape;
  if (kind !== "image" || shape.length !== 4 || !height || !width || (channels !== 1 && channels !== 3))
    return undefined;
  // A range is what real inputs spanned: one gray image spans nothing, and a drawing needs two ends.
  const [low, high] = range && range[0] < range[1] ? range : usualRange(examples);
  return { height, width, channels, low, high };
}

/** Of the ranges that image models are trained with, the one the examples fit: 0..255, -1..1 or 0..1. */
function usualRange(examples: Tensor | undefined): [number, number] {
  const values = Array.from((examples?.data ?? []) as ArrayLike<number | bigint>, Number);
  if (values.some((value) => value > 2)) return [0, 255];
  return [values.some((value) => value < 0) ? -1 : 0, 1];
}

/** Whether the image is small enough to draw by hand: a model of photographs cannot classify a sketch. */
export const isSketchable = ({ height, width }: Layout): boolean => Math.max(height, width) <= 64;

/** Sample `i` as numbers from 0 (low end of the range) to 1. */
export function unit(images: Tensor, i: number, { low, high }: Layout): number[] {
  const length = images.data.length / images.shape[0]!;
  const values = Array.from(images.data.slice(i * length, (i + 1) * length), Number);
  return values.map((value) => Math.min(1, Math.max(0, (value - low) / (high - low))));
}

/** Paint numbers from 0 to 1, one canvas pixel per image pixel; the style sheet enlarges it. */
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

/** Where the reference images have their strokes: a drawing is scaled and moved there, to be like the training data. */
export interface Placement {
  /** Ink is the high end of the range, on a low ground. */
  bright: boolean;
  /** The longer side of the ink's box, mean over the images, as a share of the image's. */
  extent: number;
  /** The middle of that box, mean over the images, as a share of the image's width and height. */
  x: number;
  y: number;
}

export const CENTERED: Placement = { bright: true, extent: 0.75, x: 0.5, y: 0.5 };

export function placementOf(images: number[][], layout: Layout): Placement {
  const { height, width, channels } = layout;
  const corners = [0, width - 1, (height - 1) * width, height * width - 1];
  const ground =
    images.flatMap((image) => corners.map((i) => image[i * channels]!)).reduce((a, b) => a + b, 0) /
    (4 * images.length);
  const bright = ground < 0.5;
  const boxes = images.flatMap((image) => inkBox(image, layout, bright) ?? []);
  if (!boxes.length) return { ...CENTERED, bright };
  const mean = (pick: (box: Box) => number) => boxes.reduce((sum, box) => sum + pick(box), 0) / boxes.length;
  return {
    bright,
    extent: mean((box) => Math.max((box.right - box.left) / width, (box.bottom - box.top) / height)),
    x: mean((box) => (box.left + box.right) / 2 / width),
    y: mean((box) => (box.top + box.bottom) / 2 / height),
  };
}

interface Box {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

function inkBox(image: number[], { height, width, channels }: Layout, bright: boolean): Box | undefined {
  const box = { left: width, right: 0, top: height, bottom: 0 };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = image[(y * width + x) * channels]!;
      if ((bright ? value : 1 - value) < 0.3) continue;
      box.left = Math.min(box.left, x);
      box.right = Math.max(box.right, x + 1);
      box.top = Math.min(box.top, y);
      box.bottom = Math.max(box.bottom, y + 1);
    }
  }
  return box.right ? box : undefined;
}
